"""The hooks as they are, without a server: what an author runs after each change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openvino_llama import ConfigError, DataType, InferenceRequest, InvalidInputError, ModelConfig, Reply, TensorSpec
from openvino_llama_anomaly import plugin

SAMPLE = Path(plugin.__file__).with_name("sample.csv")
TABLE = "time,a,b\n" + "".join(f"t{row},{row % 3},{row}\n" for row in range(20))


def model(
    config: plugin.AnomalyConfig | None = None, kind: DataType = DataType.F32, shape: tuple[int, ...] = (-1, -1)
) -> ModelConfig:
    """A model as the hooks see it, without files."""
    return ModelConfig(
        name="neighbours",
        type="timeseries",
        task="anomaly_detection",
        files={},
        config=config or plugin.AnomalyConfig(),
        inputs=(TensorSpec("series", shape, kind),),
        outputs=(TensorSpec("deviation", shape, kind),),
    )


def table(body: str | bytes, threshold: float | None = None, produces: str = "application/json") -> plugin.Table:
    """What preprocess makes of a body."""
    content = body.encode() if isinstance(body, str) else body
    parameters = plugin.AnomalyParameters(threshold)
    prepared = plugin.preprocess(model(), InferenceRequest(content, "text/csv", parameters, produces))
    assert set(prepared.tensors) == {"series"}
    context: plugin.Table = prepared.context
    return context


def scores(*rows: list[float]) -> dict[str, NDArray[np.float32]]:
    """What the guest gives."""
    return {"deviation": np.array(rows, np.float32)}


def test_columns_become_rows_of_the_tensor() -> None:
    """The column of times is kept aside; the others are series."""
    read = table(TABLE)
    assert (read.names, read.times[:2]) == (["a", "b"], ["t0", "t1"])
    assert read.values.shape == (2, 20)
    assert read.values.dtype == np.float32
    assert read.values.flags.c_contiguous
    assert read.values[1].tolist() == list(range(20))


def test_a_table_without_times() -> None:
    """No column is called time: all are series."""
    read = table("a\n" + "1\n" * 20)
    assert (read.names, read.times) == (["a"], [])


def test_an_empty_cell_is_a_gap() -> None:
    """It is NaN in the tensor, which the guest fills."""
    read = table("time,a\n" + "t,1\n" * 19 + "t,\n")
    assert np.isnan(read.values[0]).tolist() == [False] * 19 + [True]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "not CSV with a header"),
        (b"\xff\xfe", "not UTF-8"),
        ('a\n"1\n', "not CSV with a header"),
        ("time\n" + "1\n" * 20, "names of the series"),
        ("a\n1\n", "expected 16 to 100000 rows"),
        ("a,b\n" + "1\n" * 20, "line 2: expected 2 cells, got 1"),
        ("a\n" + "1\n" * 19 + "one\n", "line 21: expected a number or nothing, got 'one'"),
        ("a\n" + "1\n" * 19 + "inf\n", "line 21: expected a number"),
        ("a\n" + "1\n" * 19 + "nan\n", "line 21: expected a number"),
        ("a\n" + "1\n" * 19 + "1e300\n", "line 21: expected a number"),
    ],
)
def test_a_body_that_is_wrong_is_refused_with_its_line(body: str | bytes, message: str) -> None:
    """The client learns where the mistake is."""
    with pytest.raises(InvalidInputError, match=message):
        table(body)


def test_points_over_the_threshold_are_named() -> None:
    """With their row, value, score and time; a gap has no value."""
    read = table("time,a\n" + "t0,1\n" + "t1,\n" + "t2,3\n" * 18)
    found = plugin.postprocess(scores([7.0, 8.0, *[1.0] * 18]), read)
    expected = [plugin.Point(0, 1.0, 7.0, "t0"), plugin.Point(1, None, 8.0, "t1")]
    assert found == [plugin.Series("a", expected, 8.0)]


def test_the_threshold_of_a_request_wins() -> None:
    """Over the model's own."""
    found = plugin.postprocess(scores([7.0, *[1.0] * 19], [1.0] * 20), table(TABLE, threshold=7.5))
    assert isinstance(found, list)
    assert [each.anomalies for each in found] == [[], []]


def test_csv_gives_every_score() -> None:
    """In the form of the request: the times, then a column for each series."""
    found = plugin.postprocess(scores([0.5] * 20, [1.25] * 20), table(TABLE, produces="text/csv"))
    assert isinstance(found, Reply)
    assert found.media_type == "text/csv"
    assert found.body.decode().splitlines()[:2] == ["time,a,b", "t0,0.5,1.25"]
    assert len(found.body.splitlines()) == 21


def test_a_model_that_does_not_fit_is_refused() -> None:
    """When it is loaded, not at the first request."""
    plugin.validate_model(model())
    with pytest.raises(ConfigError, match=r"expected f32 \(series, time\), got u8"):
        plugin.validate_model(model(kind=DataType.U8))
    with pytest.raises(ConfigError, match=r"got f32 \[-1\]"):
        plugin.validate_model(model(shape=(-1,)))


def test_the_files_are_beside_the_plugin() -> None:
    """Guest, index and sample come with the package."""
    assert plugin.inferencer_module().read_bytes()[:4] == b"\0asm"
    assert plugin.model_index().is_file()
    assert table(SAMPLE.read_bytes()).names == ["cpu_percent", "requests_per_s"]
