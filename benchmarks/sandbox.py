"""What the sandbox costs: a guest's ``infer`` against the same InferRequest called directly, in turns.

The graph does next to nothing, so that what is measured is the way and not the inference: a picture of 224 x 224
pixels in (1x224x224x3 u8), 1001 numbers out, as a classifier has them. The direct call finds its input in place; the
sandboxed one copies the picture into the guest first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from openvino import opset13 as op

from benchmarks.report import medians_us, parser, print_table, write_json
from openvino_llama.backends.openvino import OpenVINOBackend, OpenVINOGraph
from openvino_llama.config import ModelConfig
from openvino_llama.sandbox.calls import BoxedCalls, CallingConvention, RawCalls
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import BUILT_IN, Guest
from openvino_llama.sandbox.wasi_nn import WasiNN

SHAPE = (1, 224, 224, 3)
CLASSES = 1001
LIMIT_US = 60.0


def make_graph(folder: Path) -> tuple[OpenVINOGraph, ModelConfig]:
    """A compiled graph of the right shapes that only copies."""
    picture = op.parameter(SHAPE, ov.Type.u8, name="picture")
    flat = op.reshape(picture, np.array([1, -1]), special_zero=False)
    part = op.slice(flat, np.array([0]), np.array([CLASSES]), np.array([1]), np.array([1]))
    part.output(0).set_names({"scores"})
    ov.save_model(ov.Model([op.result(part)], [picture], "copy"), folder / "copy.xml")
    files = {"model": folder / "copy.xml"}
    # No stream's thread between caller and kernel: its waking up would be most of what is measured.
    properties: dict[str, str | int | float | bool] = {"PERFORMANCE_HINT": "LATENCY"}
    config = ModelConfig(name="copy", type="copy", task="copy", files=files, config=None, properties=properties)
    graph = OpenVINOBackend().open(config, lambda model, _inputs, _outputs: model)
    return graph, msgspec.structs.replace(config, inputs=tuple(graph.inputs), outputs=tuple(graph.outputs))


def direct_call(graph: OpenVINOGraph, picture: Any) -> Callable[[], Any]:
    """The InferRequest, its input set once."""
    request = graph.compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(picture, shared_memory=True))
    return lambda: request.infer(share_outputs=True)


def sandboxed_call(
    calls: CallingConvention, graph: OpenVINOGraph, config: ModelConfig, picture: Any
) -> Callable[[], Any]:
    """The same inference through a guest, a deadline on it as in the server."""
    sandbox = Sandbox(calls)
    nn = WasiNN({config.name: graph}, OpenVINOBackend().load, sandbox.watchdog, borrow=True)
    guest = Guest(sandbox.instantiate(sandbox.compile(BUILT_IN), nn, config.limits), config)
    tensors = {config.inputs[0].name: picture}
    return lambda: guest.infer([tensors], Deadline(30))


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3000)
    options = arguments.parse_args()
    picture = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    with TemporaryDirectory() as folder:
        graph, config = make_graph(Path(folder))
        direct = direct_call(graph, picture)
        raw = sandboxed_call(RawCalls(), graph, config, picture)
        boxed = sandboxed_call(BoxedCalls(), graph, config, picture)
        expected = next(iter(direct().values()))
        for call in (raw, boxed):
            assert np.array_equal(next(iter(call().values())), expected)
        direct_us, raw_us, boxed_us = medians_us([direct, raw, boxed], options.rounds)
    overheads = {"overhead_us": raw_us - direct_us, "public_api_overhead_us": boxed_us - direct_us}
    rows = [
        ("direct InferRequest", direct_us, 0.0, "-"),
        (
            "sandboxed, raw calls",
            raw_us,
            raw_us - direct_us,
            f"{(raw_us - direct_us) / LIMIT_US:.2f} of {LIMIT_US:.0f} us",
        ),
        ("sandboxed, public API", boxed_us, boxed_us - direct_us, "-"),
    ]
    print_table(("call", "median us", "overhead us", "limit"), rows)
    write_json(options.json, overheads)


if __name__ == "__main__":
    main()
