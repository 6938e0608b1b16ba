"""Names of models: what one may look like, and when two of them are too much alike.

A name stands in URLs, in messages, in environment variables and as a folder's name, on any operating system. It is
only ever looked up, never opened; the rules here are the second line of defence.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from openvino_llama.errors import ConfigError

__all__ = ["MAX_LENGTH", "check_name", "check_unique", "folded", "shown"]

MAX_LENGTH = 128
"""Characters of the longest name."""

_SEPARATORS = frozenset("/\\%")
"""Separators of folders, and the percent sign, behind which a second decoding would find one."""


def check_name(name: str) -> None:
    """Raise ConfigError unless a model may have this name."""
    objection = _objection(name)
    if objection:
        raise ConfigError(f"model name {shown(name)}: {objection}")


def check_unique(name: str, existing: Iterable[str]) -> None:
    """Raise ConfigError if another name differs from this one in case or Unicode form only."""
    for other in existing:
        if other != name and folded(other) == folded(name):
            raise ConfigError(f"model name {shown(name)}: too much like {shown(other)}, which exists")


def folded(name: str) -> str:
    """What is left of a name when case and Unicode form do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def shown(text: str) -> str:
    """The text as it may stand in a message: quoted, unseen characters escaped, not too long."""
    return repr(text) if len(text) <= MAX_LENGTH else f"{text[:40]!r}... ({len(text)} characters)"


def _objection(name: str) -> str | None:
    if not name.strip():
        return "a name must not be empty or blank"
    if len(name) > MAX_LENGTH:
        return f"a name has at most {MAX_LENGTH} characters"
    if name != name.strip():
        return "a name must not begin or end with a blank"
    if not name.isprintable():
        return "a name must not have control or invisible characters"
    if not unicodedata.is_normalized("NFC", name):
        return "a name must be in Unicode's composed form (NFC)"
    # What folds to a separator or to dots (fullwidth forms, for one) is as good as one.
    return _as_path(name) or _as_path(unicodedata.normalize("NFKC", name))


def _as_path(name: str) -> str | None:
    if name in {".", ".."}:
        return "that is a folder, not a name"
    if _SEPARATORS & set(name):
        return "a name must not have '/', '\\' or '%' in it"
    return None
