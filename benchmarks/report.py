"""What the benchmarks share: a table, and ``--json FILE``."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["best_of", "median_ratio", "medians_us", "parser", "percentile", "picked", "print_table", "write_json"]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return arguments


def medians_us(functions: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Median time of each function in microseconds; the calls take turns, so that noise meets all alike."""
    times: list[list[int]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, spent in zip(functions, times, strict=True):
            started = time.perf_counter_ns()
            function()
            spent.append(time.perf_counter_ns() - started)
    return [statistics.median(spent) / 1000 for spent in times]


def best_of(tried: Sequence[dict[str, float]]) -> list[float]:
    """The rates of whichever number of threads has the best median over these rounds."""
    return max(([each[threads] for each in tried] for threads in tried[0]), key=statistics.median)


def median_ratio(rates: Sequence[float], limits: Sequence[float]) -> float:
    """Of those that were measured beside each other."""
    return statistics.median(rate / limit for rate, limit in zip(rates, limits, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def picked(figures: Mapping[str, Mapping[str, Any]], keys: Sequence[str]) -> list[Sequence[Any]]:
    """A row for each name, with its figures of these keys; a dash where there is none."""
    return [(name, *(each.get(key, "-") for key in keys)) for name, each in figures.items()]


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table with aligned columns."""
    cells = [list(head), *[[_shown(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write the figures, if somebody wants them."""
    if path:
        path.write_text(json.dumps(figures, indent=2) + "\n")


def _shown(cell: Any) -> str:
    return f"{cell:.2f}" if isinstance(cell, float) else str(cell)
