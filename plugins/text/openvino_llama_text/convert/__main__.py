"""The process of one conversion: a job on stdin, messages on stdout. See ``docs/models.md`` ("Conversions").

What libraries print goes to stderr. Nothing is fetched here, whatever a model's files ask for.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import IO, Any

import msgspec

from openvino_llama import OpenVINOLlamaError
from openvino_llama_text.convert.exported import convert_exported
from openvino_llama_text.convert.gguf_model import convert_gguf
from openvino_llama_text.convert.huggingface import convert_huggingface
from openvino_llama_text.convert.job import Job, Step, read_job

_CONVERSIONS: Mapping[str, Callable[[Job, Step], dict[str, str]]] = {
    "exported": convert_exported,
    "gguf": convert_gguf,
    "huggingface": convert_huggingface,
}
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


def main() -> int:
    """Convert; the exit code."""
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    answers = _own_stdout()

    def say(**message: Any) -> None:
        answers.write(msgspec.json.encode(message) + b"\n")
        answers.flush()

    job = read_job(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        files = _CONVERSIONS[job.by](job, lambda step: say(step=step))
    except OpenVINOLlamaError as error:
        traceback.print_exc()  # for the log
        say(error=str(error))
        return 1
    say(files=files)
    return 0


def _own_stdout() -> IO[bytes]:
    """Stdout for us alone; whoever else writes there writes to stderr."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _end_with_parent() -> None:
    """Stdin ends with whoever started us; then nobody wants the model any more."""
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
