"""The hooks of the anomaly plugin: CSV in, the points that do not fit their neighbours out.

The model answers how far each point is from its neighbours; the guest, ``anomaly.wasm``, fills gaps before the
inference and turns deviations into scores after it. Knows nothing of HTTP.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from openvino_llama import (
    ConfigError,
    DataType,
    InferenceRequest,
    InvalidInputError,
    ModelConfig,
    ModelType,
    Preprocessed,
    Reply,
    hookimpl,
)

OPENVINO_LLAMA_API = 1

_CSV = "text/csv"
_TIME = "time"
_LARGEST = float(np.finfo(np.float32).max)

Threshold = Annotated[float, Meta(gt=0)]


class AnomalyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``config`` of a registry entry of type ``timeseries``."""

    threshold: Threshold = 6.0
    """Score from which a point is an anomaly: multiples of the series' usual noise."""
    min_points: Annotated[int, Meta(ge=5)] = 16
    """Points that a series must have."""
    max_points: Annotated[int, Meta(ge=5)] = 100_000
    """Points that it may have."""


class AnomalyParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query parameters of ``POST /infer/anomaly``."""

    threshold: Threshold | None = None
    """Instead of the model's own."""


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """A point that does not fit."""

    row: int
    """From 0, the header not counted."""
    value: float | None
    """None is a gap."""
    score: float
    time: str = ""
    """What stands in the column ``time``, if there is one."""


class Series(msgspec.Struct, frozen=True):
    """What was found in one column."""

    name: str
    anomalies: list[Point]
    max_score: float


class Table(msgspec.Struct, frozen=True):
    """A CSV file that has been read, and what else ``postprocess`` needs to know of the request."""

    names: list[str]
    times: list[str]
    """Empty if there is no column ``time``."""
    values: NDArray[np.float32]  # (series, time), NaN where there is a gap
    threshold: float
    produces: str


@hookimpl
def model_types() -> Sequence[ModelType]:
    """``timeseries``, served as ``POST /infer/anomaly``."""
    return [
        ModelType(
            name="timeseries",
            config=AnomalyConfig,
            tasks=("anomaly_detection",),
            endpoint="anomaly",
            accepts=(_CSV,),
            produces=("application/json", _CSV),
            parameters=AnomalyParameters,
        )
    ]


@hookimpl
def model_index() -> Path:
    """The model that comes with this package: ``ovllama pull neighbours``."""
    return Path(__file__).with_name("index.json")


@hookimpl
def inferencer_module() -> Path:
    """A guest of our own."""
    return Path(__file__).with_name("anomaly.wasm")


@hookimpl
def validate_model(config: ModelConfig) -> None:
    """Refuse a model that does not map series to deviations."""
    for spec in (*config.input_specs(), *config.output_specs()):
        if spec.data_type is not DataType.F32 or len(spec.shape) != 2:
            found = f"{spec.data_type.value} {list(spec.shape)}"
            raise ConfigError(f"model {config.name!r}, tensor {spec.name!r}: expected f32 (series, time), got {found}")
    if len(config.input_specs()) != 1 or len(config.output_specs()) != 1:
        raise ConfigError(f"model {config.name!r}: expected one input and one output")


@hookimpl
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed:
    """Read the CSV file; its columns become the rows of the tensor."""
    names, rows = _read(request.body)
    _check_length(len(rows), config.config)
    times = [row[0] for row in rows] if names[0] == _TIME else []
    first = 1 if times else 0
    values = np.array([[_number(cell, line) for cell in row[first:]] for line, row in enumerate(rows, 2)], np.float32)
    table = Table(names[first:], times, np.ascontiguousarray(values.T), _threshold(config, request), request.produces)
    return Preprocessed({config.input_specs()[0].name: table.values}, table)


@hookimpl
def postprocess(outputs: Mapping[str, NDArray[Any]], context: Table) -> list[Series] | Reply:
    """Name the points whose score is over the threshold; as CSV, give every point's score."""
    scores = next(iter(outputs.values()))  # (series, time)
    if context.produces == _CSV:
        return Reply(_write(context, scores), _CSV)
    return [_series(context, column, scores[column]) for column in range(len(context.names))]


def _read(body: bytes) -> tuple[list[str], list[list[str]]]:
    """The header and the rows, all of one length."""
    try:
        header, *rows = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
    except UnicodeDecodeError:
        raise InvalidInputError("the body is not UTF-8") from None
    except (csv.Error, ValueError):
        raise InvalidInputError("the body is not CSV with a header") from None
    names = [name.strip() for name in header]
    if not [name for name in names if name != _TIME]:
        raise InvalidInputError("line 1: expected the names of the series")
    for line, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise InvalidInputError(f"line {line}: expected {len(names)} cells, got {len(row)}")
    return names, rows


def _check_length(points: int, config: AnomalyConfig) -> None:
    if not config.min_points <= points <= config.max_points:
        raise InvalidInputError(f"expected {config.min_points} to {config.max_points} rows of numbers, got {points}")


def _number(cell: str, line: int) -> float:
    """The number in a cell; NaN for an empty one, which is a gap."""
    text = cell.strip()
    if not text:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        number = math.inf
    if not abs(number) < _LARGEST:  # nor is "nan"
        raise InvalidInputError(f"line {line}: expected a number or nothing, got {text[:40]!r}")
    return number


def _threshold(config: ModelConfig, request: InferenceRequest) -> float:
    asked: float | None = request.parameters.threshold if request.parameters else None
    stated: float = config.config.threshold
    return stated if asked is None else asked


def _series(table: Table, column: int, scores: NDArray[np.float32]) -> Series:
    anomalies = [_point(table, column, int(row), scores) for row in np.flatnonzero(scores >= table.threshold)]
    return Series(table.names[column], anomalies, round(float(scores.max()), 2))


def _point(table: Table, column: int, row: int, scores: NDArray[np.float32]) -> Point:
    value = float(table.values[column, row])
    time = table.times[row] if table.times else ""
    return Point(row, None if math.isnan(value) else value, round(float(scores[row]), 2), time)


def _write(table: Table, scores: NDArray[np.float32]) -> bytes:
    target = io.StringIO(newline="")
    writer = csv.writer(target)
    writer.writerow([*([_TIME] if table.times else []), *table.names])
    for row, cells in enumerate(scores.T.round(2).tolist()):
        writer.writerow([*table.times[row : row + 1], *cells])
    return target.getvalue().encode()
