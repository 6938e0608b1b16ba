"""Bounds on what a chat template may compute: sizes of values, and a clock for each thread.

No value gets larger than a bound, so that whatever is done to one takes bounded time and memory. Knows nothing of
Jinja's syntax.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any, NoReturn

from jinja2.exceptions import SecurityError, TemplateError
from jinja2.utils import Namespace

__all__ = [
    "MOST_WIDTH",
    "TooMuchError",
    "bounded",
    "check_items",
    "check_method",
    "check_operation",
    "check_replacement",
    "check_size",
    "refuse_format",
    "sandboxed",
    "tick",
    "written",
]

MOST_WIDTH = 1000
"""Characters of an indentation, or of the form of a date."""
_MOST_CHARACTERS = 1 << 24
_MOST_ITEMS = 1 << 20
"""Of a list or object with all that is in it."""
_MOST_SECONDS = 2.0
"""Time of its own that a template may compute."""
_MOST_BITS = 4096
# fmt: off
_STRING_METHODS = frozenset({
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower",
    "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rpartition",
    "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
})
# fmt: on


class TooMuchError(TemplateError):
    """A template would take more time or memory than it may."""


class sandboxed:  # noqa: N801  a context manager, named as a function
    """The time that a template has begins here, for this thread."""

    def __enter__(self) -> None:
        _clock.earliest = time.monotonic() + _MOST_SECONDS
        _clock.end = time.thread_time() + _MOST_SECONDS

    def __exit__(self, *_: object) -> None:
        _clock.earliest = math.inf


class _Clock(threading.local):
    end = 0.0
    earliest = math.inf
    """No thread computes for longer than time passes: before this, its own need not be asked for, a system call."""


_clock = _Clock()


def tick() -> None:
    """Raise TooMuchError if the template's time is over."""
    if time.monotonic() > _clock.earliest and time.thread_time() > _clock.end:
        raise TooMuchError("takes too long")


def check_size(characters: int) -> None:
    """Raise TooMuchError for a text of more characters than the bound."""
    if characters > _MOST_CHARACTERS:
        raise TooMuchError("makes too long a text")


def bounded(value: Any) -> Any:
    """The value itself, if it is within the bounds."""
    if isinstance(value, str):
        check_size(len(value))
    elif isinstance(value, list | tuple | dict):
        _measure(value)
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise TooMuchError("makes too large a number")
    return value


def written(value: Any) -> Any:
    """A value that is to be a text: namespaces may hold themselves, and have nothing to say."""
    if isinstance(value, Namespace):
        raise SecurityError("a namespace is no text")
    return bounded(value)


def _measure(value: Any) -> None:
    """Count a container with all that is in it as often as it is in it: so often it would be written."""
    characters, items, waiting = 0, 0, [value]
    while waiting:
        each = waiting.pop()
        items += 1
        if isinstance(each, dict):
            waiting += each.keys()
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
        elif isinstance(each, str):
            characters += len(each)
        else:
            written(each)
        _check_items(items + len(waiting))
    check_size(characters)


def _check_items(items: int) -> None:
    if items > _MOST_ITEMS:
        raise TooMuchError("makes too long a list")


def check_method(owner: Any, name: str, args: tuple[Any, ...]) -> None:
    """Raise for a method of a built-in type that is not offered, or that would make too much."""
    if isinstance(owner, int | float | bytes | bytearray) or (isinstance(owner, str) and name not in _STRING_METHODS):
        raise SecurityError(f"the method {name} is not offered")
    if not isinstance(owner, str):
        return
    if name == "replace" and len(args) >= 2:
        check_replacement(owner, str(args[0]), str(args[1]))
    elif name == "join" and args:
        check_size((len(args[0]) if hasattr(args[0], "__len__") else _MOST_ITEMS) * len(owner))
    elif name in ("split", "rsplit", "splitlines"):
        separator = args[0] if args and isinstance(args[0], str) and args[0] else None
        _check_items(owner.count(separator) if separator else sum(map(owner.count, " \t\r\n")))


def check_items(value: Any) -> None:
    """Raise TooMuchError for a text that would be too long a list of characters."""
    if isinstance(value, str):
        _check_items(len(value))


def check_replacement(text: str, old: str, new: str) -> None:
    """Raise TooMuchError if the text would become too long."""
    if len(new) > len(old):
        check_size(len(text) + text.count(old) * (len(new) - len(old)))


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Raise if the result of ``+``, ``*``, ``**`` or ``%`` would be too large."""
    if operator == "+":
        _check_length(left, _length(left) + _length(right))
    elif operator == "*":
        for value, times in ((left, right), (right, left)):
            _check_length(value, _length(value) * times if isinstance(times, int) else 0)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        if left.bit_length() * abs(right) > _MOST_BITS:
            raise TooMuchError("makes too large a number")
    elif operator == "%" and isinstance(left, str):
        refuse_format()


def _check_length(value: Any, length: int) -> None:
    if isinstance(value, str):
        check_size(length)
    elif isinstance(value, list | tuple):
        _check_items(length)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def refuse_format(*_: Any, **__: Any) -> NoReturn:
    """Formats can ask for any width."""
    raise SecurityError("formatting is not offered")
