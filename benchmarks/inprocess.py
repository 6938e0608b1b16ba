"""The limit of a model on this machine: ``python -m benchmarks.inprocess REGISTRY MODEL FILE MEDIA_TYPE``.

The plugin's own decoding and resizing and OpenVINO's inference in a thread pool; no HTTP, no sandbox, no answer.
For each line on stdin, a number of seconds, it tries several numbers of threads for so long, and prints the rate of
each as one line of JSON. Which of them is the limit is for who has several such lines to say: the best of a few single
measurements is the luckiest one.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import openvino as ov

from openvino_llama.backends.openvino import OpenVINOBackend, OpenVINOGraph
from openvino_llama.config import ModelConfig, typed_config
from openvino_llama.hookspecs import InferenceRequest, Preprocessed
from openvino_llama.pipeline import read_parameters
from openvino_llama.plugins import ModelHooks, Plugins, load_plugins
from openvino_llama.registry import locate, read_registry

__all__ = ["Limit", "infer_once", "open_model"]

THREADS = (2, 3, 4)


def open_model(registry: Path, name: str) -> tuple[ModelConfig, OpenVINOGraph, Plugins]:
    """The model as the server compiles it."""
    plugins = load_plugins()
    entry = read_registry(registry).entries[name]
    config = typed_config(name, entry, plugins.model_type(entry.type), partial(locate, registry=registry))
    hooks = plugins.hooks_for(entry.type)

    def prepare(model: ov.Model, inputs: Any, outputs: Any) -> ov.Model:
        read = msgspec.structs.replace(config, inputs=tuple(inputs), outputs=tuple(outputs))
        return hooks.prepare_model(config=read, model=model) or model

    graph = OpenVINOBackend().open(config, prepare)
    return msgspec.structs.replace(config, inputs=tuple(graph.inputs), outputs=tuple(graph.outputs)), graph, plugins


def infer_once(config: ModelConfig, hooks: ModelHooks, infer: ov.InferRequest, request: InferenceRequest) -> None:
    """Preprocess and infer."""
    prepared = hooks.preprocess(config=config, request=request)
    for part in [prepared] if isinstance(prepared, Preprocessed) else prepared:
        for index, spec in enumerate(config.inputs):
            tensor, array = infer.get_input_tensor(index), part.tensors[spec.name]
            tensor.shape = array.shape
            tensor.data[...] = array
        infer.infer(share_outputs=True)


class Limit:
    """A model and a request for it."""

    def __init__(self, registry: Path, name: str, request: InferenceRequest) -> None:
        self._config, self._graph, plugins = open_model(registry, name)
        self._hooks = plugins.hooks_for(self._config.type)
        parameters = read_parameters(plugins.model_type(self._config.type), {})
        self._request = msgspec.structs.replace(request, parameters=parameters)
        self._infer = [self._graph.compiled.create_infer_request() for _ in range(max(THREADS))]

    def throughput(self, threads: int, seconds: float) -> float:
        """Inferences per second with so many threads."""
        counts = [0] * threads
        until = time.perf_counter() + seconds

        def work(number: int) -> None:
            infer = self._infer[number]
            while time.perf_counter() < until:
                infer_once(self._config, self._hooks, infer, self._request)
                counts[number] += 1

        started = time.perf_counter()
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts) / (time.perf_counter() - started)


def main() -> None:
    """Read the arguments; measure and print as often as asked."""
    registry, name, file, media_type = sys.argv[1:]
    limit = Limit(Path(registry), name, InferenceRequest(Path(file).read_bytes(), media_type))
    for line in sys.stdin:
        shuffled = random.sample(THREADS, len(THREADS))
        rates = {threads: limit.throughput(threads, float(line)) for threads in shuffled}
        print(json.dumps(rates), flush=True)


if __name__ == "__main__":
    main()
