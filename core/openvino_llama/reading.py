"""What somebody has written, read into Structs, and what is wrong with it in words for whoever wrote it.

msgspec says which type a field has, but neither which values an enumeration has nor which value came. Knows nothing of
HTTP, files or models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from openvino_llama.errors import InvalidInputError

__all__ = ["check_nesting", "decode_object", "field_error", "read_fields", "read_json"]

_MAX_DEPTH = 100
_LONGEST_SHOWN = 60
_MOST_EXPLAINED = 1 << 20
"""Bytes of a body that is read once more to say what is wrong with it: that takes the GIL, 150 ms for each MiB."""
_INVALID = "Invalid enum value "
_UNKNOWN = object()
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

Read = TypeVar("Read")
Step = str | int


def read_json(body: bytes, kind: type[Read]) -> Read:
    """JSON as a Struct or a dict; InvalidInputError says where it is no JSON, or which field is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(body, kind, error) from error


def read_fields(given: Mapping[str, Any], kind: type[Read], *, strict: bool = True, word: str = "field") -> Read:
    """Fields as a Struct; InvalidInputError names one that is wrong.

    ``strict`` is false for texts that stand for values; ``word`` is what fields are called: ``field``, ``parameter``.
    """
    try:
        return msgspec.convert(given, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _invalid(error, given, kind, word) from error
    except RecursionError as error:
        raise InvalidInputError("the body is nested too deep") from error


def decode_object(body: bytes) -> dict[str, Any]:
    """A JSON object; InvalidInputError if it is none, or nested too deep."""
    decoded = read_json(body, dict[str, Any])
    check_nesting(decoded, "the body")
    return decoded


def check_nesting(value: Any, name: str) -> None:
    """InvalidInputError if JSON that may be anything is nested deeper than those who walk through it can follow.

    To be called for a Struct's fields of type ``Any``: how deep msgspec reads them depends on Python's version.
    """
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH):
        level = [child for each in level for child in _children(each)]
        if not level:
            return
    raise InvalidInputError(f"{name} is nested more than {_MAX_DEPTH} deep")


def field_error(
    error: Exception, given: Any = _UNKNOWN, kind: Any = None, *, word: str = "field", within: str = ""
) -> str:
    """A validation error as ``field 'limits.queue_size': expected int, got 'many'``.

    ``given`` is what was read and ``kind`` what it was read as, for the values that came and that there are; ``within``
    is the field that all of it is.
    """
    message, path = _split(str(error).replace("`", ""))
    known = re.fullmatch(r"Object (missing required|contains unknown) field (.+)", message)
    if known:
        path = f"{path}.{known[2]}".lstrip(".")
        message = "is required" if known[1] == "missing required" else f"there is no such {word}"
    else:
        steps = _steps(path)
        message = _expected(message, _value_at(given, steps), _allowed_at(kind, steps))
    path = f"{within}.{path}".strip(".")
    return f"{word} {_shortened(path)!r}: {message}" if path else message


def _refusal(body: bytes, kind: Any, error: Exception) -> InvalidInputError:
    if len(body) > _MOST_EXPLAINED:
        told = (
            field_error(error) if isinstance(error, msgspec.ValidationError) else "expected JSON, not nested too deep"
        )
        return InvalidInputError(f"the body: {told}")
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return InvalidInputError(f"the body {_not_json(body)}")
    return _invalid(error, given, kind)


def _invalid(error: Exception, given: Any, kind: Any, word: str = "field") -> InvalidInputError:
    if not isinstance(given, dict):
        return InvalidInputError(f"the body: {field_error(error)}")
    message = field_error(error, given, kind, word=word)
    if message == "field 'model': there is no such field":  # many other servers have it there
        message += "; the model is named in the query, ?model=NAME"
    return InvalidInputError(message)


def _split(message: str) -> tuple[str, str]:
    text, _, path = message.partition(" - at ")
    return text, path.replace("key in $", "$").removeprefix("$").lstrip(".")


def _expected(message: str, value: Any, allowed: Sequence[Any]) -> str:
    """What msgspec expected, with the value that came and those that there are."""
    if message.startswith(_INVALID) and allowed:
        wanted, came = f"expected {' or '.join(map(_shown, allowed))}", _shortened(message.removeprefix(_INVALID))
    elif message.startswith("Expected"):
        wanted, _, came = f"e{message[1:]}".partition(", got ")
        wanted = wanted.replace(" | null", "").replace(" | ", " or ")
    else:  # of a Struct's own
        return message
    if value is None or isinstance(value, str | int | float):
        came = _shown(value)
    elif not came and isinstance(value, list | dict):
        came = str(len(value))
    return f"{wanted}, got {came}" if came else wanted


def _shown(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    return _shortened(repr(value) if isinstance(value, str) else json.dumps(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _steps(path: str) -> list[Step]:
    """``messages[0].role`` as ``["messages", 0, "role"]``."""
    found = re.findall(r"\[(\d+)\]|\[\.\.\.\]|([^.\[\]]+)", path)
    return [int(index) if index else name for index, name in found]


def _value_at(given: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        try:
            given = given[step]
        except (KeyError, IndexError, TypeError):
            return _UNKNOWN
    return given


def _allowed_at(kind: Any, steps: Sequence[Step]) -> list[Any]:
    """The values of an enumeration; none if there is none in that place."""
    found = list(_members(inspect.type_info(kind))) if kind is not None else []
    for step in steps:
        found = [member for each in found for inner in _inside(each, step) for member in _members(inner)]
    literals = [value for each in found if isinstance(each, inspect.LiteralType) for value in each.values]
    return literals + [value for each in found if isinstance(each, inspect.EnumType) for value in each.cls]


def _members(info: inspect.Type) -> Iterator[inspect.Type]:
    """The types of a union, or the one."""
    if isinstance(info, inspect.Metadata):
        yield from _members(info.type)
    elif isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _members(each)
    else:
        yield info


def _inside(info: inspect.Type, step: Step) -> Iterator[inspect.Type]:
    """What stands in a field, or in a place of a list."""
    if isinstance(info, inspect.StructType):
        yield from (field.type for field in info.fields if field.encode_name == step)
    elif isinstance(info, inspect.DictType):
        yield info.value_type
    elif isinstance(info, inspect.CollectionType):
        yield info.item_type


def _not_json(body: bytes) -> str:
    """Why bytes are no JSON."""
    if not body.strip():
        return "is empty; expected JSON"
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8 at byte {error.start}"
    try:
        json.loads(text, parse_constant=_refuse, parse_int=len)  # says where, and lets pass what msgspec refuses
    except json.JSONDecodeError as error:
        return f"is not JSON: {error.msg}, line {error.lineno}, column {error.colno}"
    except RecursionError:
        return "is nested too deep"
    except ValueError as error:
        return f"is not JSON: {error}"
    return _not_strict(text)


def _not_strict(text: str) -> str:
    if _SURROGATE.search(text):
        return r"has half a character, a lone surrogate (\ud800 to \udfff)"
    return "is not JSON, or has a number that is too large"


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number")


def _children(value: Any) -> Sequence[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else ()
