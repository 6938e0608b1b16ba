"""A server process with text models, and what tests ask of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

__all__ = ["GENERATION", "STORY", "Served", "await_true", "entry", "events", "joined", "serving", "vision_entry"]

STORY = "Once upon a time"
GENERATION = {"context_window": 1024, "generation": {"temperature": 0}}


class Served:
    """A running ``ovllama serve``."""

    def __init__(self, address: str, process: subprocess.Popen[str], registry: Path) -> None:
        self.address = address
        self.process = process
        self.registry = registry
        self.http = httpx.Client(base_url=address, timeout=60, trust_env=False)
        host, _, port = address.removeprefix("http://").partition(":")
        self.place = host, int(port)

    def infer(self, body: Mapping[str, Any], **params: Any) -> Any:
        """``results`` of ``POST /infer/text``, which works."""
        answer = self.http.post("/infer/text", json=body, params=params)
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    def gauge(self, model: str, name: str) -> float:
        """What the engine of a model shows."""
        return self._metric("ovllama_graph", {"model": model, "gauge": name})

    def queue_length(self, model: str) -> float:
        """Requests that wait for a worker."""
        return self._metric("ovllama_queue_length", {"model": model})

    def running(self, model: str = "smol") -> float:
        """Sequences that the engine has, generating or waiting."""
        return self.gauge(model, "running_sequences") + self.gauge(model, "waiting_sequences")

    def await_idle(self, model: str = "smol") -> None:
        """No sequence is left within a few seconds."""
        await_true(lambda: self.running(model) == 0)

    def _metric(self, name: str, labels: Mapping[str, str]) -> float:
        for family in text_string_to_metric_families(self.http.get("/metrics").text):
            for sample in family.samples:
                if (sample.name, sample.labels) == (name, labels):
                    return sample.value
        raise AssertionError(f"no metric {name} {labels}")

    def memory(self) -> int:
        """Bytes that the server's own process has in memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def engines(self) -> list[int]:
        """Processes of engines."""
        return [pid for pid in children(self.process.pid) if "openvino_llama_text.engine" in command(pid).split("\0")]


def children(pid: int) -> list[int]:
    """Processes that a process has started, by any of its threads."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(each) for task in tasks for each in task.read_text().split()]


def command(pid: int) -> str:
    """A process' arguments; empty if it is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def await_true(found: Callable[[], Any], seconds: float = 10) -> Any:
    """What ``found`` gives once that is true."""
    for _ in range(int(seconds * 50)):
        if value := found():
            return value
        threading.Event().wait(0.02)
    raise AssertionError("it does not come true")


def entry(folder: Path, model: Path, task: str = "generation", **stated: Any) -> dict[str, Any]:
    """A registry entry of a model, whose files are put into a models folder."""
    if not (folder / model.name).exists():
        shutil.copytree(model, folder / model.name, copy_function=_linked)
    return {"type": "text", "task": task, "files": {"model": f"{model.name}/openvino_model.xml"}, **stated}


def vision_entry(folder: Path, model: Path) -> dict[str, Any]:
    """The same for MobileNetV2."""
    shutil.copytree(model, folder / model.name, copy_function=_linked)
    files = {"model": f"{model.name}/mobilenet_v2_1.0_224_quant.tflite", "labels": f"{model.name}/imagenet_labels.txt"}
    shape = {"input_shape": [1, 3, 224, 224], "output_classes": 1001, "preprocessing": {"resize": [224, 224]}}
    return {"type": "vision", "task": "classification", "files": files, "config": shape}


@contextmanager
def serving(folder: Path, models: Mapping[str, Any], **environment: str) -> Iterator[Served]:
    """``ovllama serve`` of these entries in a process of its own, all of them ready."""
    registry = folder / "registry.json"
    registry.write_text(json.dumps({"models": models}))
    arguments = [sys.executable, "-m", "openvino_llama", "serve", "--registry", str(registry), "--port", "0"]
    environment = dict(os.environ) | {"OVLLAMA_CACHE_DIR": ""} | environment
    with (
        (folder / "server.log").open("w") as log,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,
    ):
        assert process.stdout
        served = Served(process.stdout.readline().split()[-1], process, registry)
        try:
            await_true(lambda: served.http.get("/health/ready").status_code == 200, 120)
            yield served
        finally:
            served.http.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 0


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """(kind, data) of each event of a stream; the kind of ordinary ones is empty."""
    kind = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, value if value == "[DONE]" else json.loads(value)
            kind = ""


def joined(stream: Iterator[tuple[str, Any]]) -> tuple[str, Any]:
    """The text of the pieces of ``/infer/text/stream``, and the results at its end."""
    text = ""
    for kind, data in stream:
        if kind == "done":
            return text, data["results"]
        assert kind == "", data
        text += data["text"]
    raise AssertionError("the stream has no end")


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another disk
        shutil.copy(source, target)
