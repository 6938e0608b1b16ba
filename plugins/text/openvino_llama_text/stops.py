"""Stop strings in a text that arrives in pieces. Knows nothing of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["StopStrings"]

_NEVER = re.compile(r"(?!)")


class StopStrings:
    """Lets a text through up to its first stop string, and holds back what may still become one.

    Of stop strings that end at the same character the one that begins first counts: the text is cut as soon as any of
    them is complete. Empty ones are ignored. One instance serves one text.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple({stop for stop in stops if stop})
        self._longest = max(map(len, self._stops), default=0)
        self._begin = re.compile("|".join({re.escape(stop[0]) for stop in self._stops})) if self._stops else _NEVER
        self._held = ""
        self._stopped = False

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that may be sent now, and whether a stop string has been found; nothing follows it."""
        if self._stopped or not self._stops:
            return "" if self._stopped else piece, self._stopped
        text = self._held + piece
        cut = self._first_stop(text)
        self._stopped = cut is not None
        if cut is None:
            cut = self._undecided(text)
        self._held = "" if self._stopped else text[cut:]
        return text[:cut], self._stopped

    def flush(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _first_stop(self, text: str) -> int | None:
        """Where the stop string begins that is complete first."""
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _undecided(self, text: str) -> int:
        """From where on the text may be the beginning of a stop string; its length if from nowhere."""
        for match in self._begin.finditer(text, max(0, len(text) - self._longest + 1)):
            if any(stop.startswith(text[match.start() :]) for stop in self._stops):
                return match.start()
        return len(text)
