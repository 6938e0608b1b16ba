"""Make the plugin's model: ``python make_model.py``. A Hampel filter as an OpenVINO graph.

It answers how far each point of a series is from the median of its neighbours. There is nothing to train: the graph
is the model. The guest turns these deviations into scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import opset13 as ops

OUTPUT = Path(__file__).parent / "openvino_llama_anomaly" / "neighbours.xml"
REACH = 4
"""Neighbours that count, on each side."""


def neighbours(padded: ov.Node, length: ov.Node) -> ov.Node:
    """The values around each point, itself left out: (series, time, 2 * REACH)."""
    one = np.array([1])

    def shifted(start: int) -> ov.Node:
        begin = np.array([start])
        window = ops.slice(padded, begin, ops.add(length, begin), one, one)
        return ops.unsqueeze(window, -1)

    return ops.concat([shifted(start) for start in range(2 * REACH + 1) if start != REACH], -1)


def make() -> ov.Model:
    """The graph: ``series`` f32 (series, time) -> ``deviation`` of the same shape."""
    series = ops.parameter([-1, -1], np.float32, name="series")
    length = ops.gather(ops.shape_of(series), np.array([1]), np.array(0))
    ends = np.array([0, REACH])
    padded = ops.pad(series, ends, ends, "reflect")
    largest = ops.topk(neighbours(padded, length), np.array(REACH + 1), -1, "max", "value").output(0)
    middle = ops.gather(largest, np.array([REACH - 1, REACH]), np.array(-1))
    deviation = ops.subtract(series, ops.reduce_mean(middle, np.array([-1])))
    series.output(0).set_names({"series"})
    deviation.output(0).set_names({"deviation"})
    return ov.Model([deviation], [series], "neighbours")


if __name__ == "__main__":
    ov.save_model(make(), OUTPUT, compress_to_fp16=False)
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes, {OUTPUT.with_suffix('.bin').stat().st_size} bytes of weights")
