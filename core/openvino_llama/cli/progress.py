"""A progress bar for a pull. Knows nothing of where the bytes come from."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

__all__ = ["Bar"]


class Bar:
    """One bar on stderr, for one description after the other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None
        self._description = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def __call__(self, description: str, done: int, total: int | None) -> None:
        """Show that ``done`` of ``total`` bytes are there."""
        if self._bar is None or description != self._description:
            self._end()
            self._description = description
            label = description.removeprefix(f"{self._name}: ")
            self._bar = tqdm(total=total, desc=f"{self._name}: {label}", unit="B", unit_scale=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
