"""Streams about pictures over HTTP, over openvino-genai called directly with the same pictures and questions.

Engine and server take turns as in ``benchmarks.text``. The engine is given decoded pictures; the server gets them as
JPEG. ``--model`` takes any vision-language model's folder in optimum's layout.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.report import parser, write_json
from benchmarks.text import pulled, show_streams, streams
from benchmarks.turns import served

MODEL = "drawn_scenes"
WANTED = {1: 0.95, 8: 0.90}
"""Streams -> the share of the engine's tokens per second that the server has to reach."""


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=4)
    arguments.add_argument("--turns", type=int, default=3, help="in each round")
    arguments.add_argument("--tokens", type=int, default=256, help="of each stream")
    arguments.add_argument("--streams", type=int, nargs="+", default=list(WANTED))
    arguments.add_argument("--model", type=Path, help="folder of another model")
    options = arguments.parse_args()
    figures: dict[str, Any] = {"streams": {}}
    with TemporaryDirectory() as scratch:
        folder = _model(Path(scratch), options.model)
        for count in options.streams:
            figures["streams"][str(count)] = streams(
                ("benchmarks.multimodal_engine", folder, count, options.tokens),
                {"server": partial(served, Path(scratch) / "registry.json")},
                ("benchmarks.multimodal_load", MODEL, count, options.tokens),
                options,
            )
    show_streams(figures["streams"], WANTED)
    write_json(options.json, figures)


def _model(scratch: Path, given: Path | None) -> Path:
    """The model's folder, and a registry beside it that has it."""
    if given is None:
        pulled(scratch, (MODEL,))
        return scratch / MODEL
    folder = scratch / MODEL
    shutil.copytree(given, folder)
    files = {"model": f"{MODEL}/openvino_language_model.xml"}
    entry = {"type": "multimodal", "task": "vision_language", "files": files}
    (scratch / "registry.json").write_text(json.dumps({"models": {MODEL: entry}}))
    return folder


if __name__ == "__main__":
    main()
