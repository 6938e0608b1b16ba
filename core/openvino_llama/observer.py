"""Who is told what happens to requests, for the metrics. Knows nothing of how it is shown."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Observer", "SilentObserver"]


class Observer(Protocol):
    """Is told what happens, for metrics. Called on worker threads."""

    def stage(self, model: str, stage: str, seconds: float) -> None:
        """A stage of a request has ended: ``queue``, ``preprocess``, ``sandbox``, ``compute``, ``postprocess``."""

    def batch(self, model: str, size: int) -> None:
        """So many requests went into one inference."""

    def trap(self, model: str) -> None:
        """A guest has trapped."""

    def stream(self, model: str, first: float, rest: float, tokens: int) -> None:
        """A stream has ended: seconds from its arrival to its first output, and from there to its end; its tokens."""


class SilentObserver:
    """Tells nobody."""

    def stage(self, model: str, stage: str, seconds: float) -> None:
        """Nothing."""

    def batch(self, model: str, size: int) -> None:
        """Nothing."""

    def trap(self, model: str) -> None:
        """Nothing."""

    def stream(self, model: str, first: float, rest: float, tokens: int) -> None:
        """Nothing."""
