"""Reading what somebody has written: each mistake is told with its place, what was expected and what came."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from openvino_llama import InvalidInputError, check_nesting, read_fields, read_json, reading
from openvino_llama.reading import decode_object, field_error


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct, forbid_unknown_fields=True):
    form: Literal["round", "square"] | None = None
    colour: Colour | None = None
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    exact: Literal[False] = False

    def __post_init__(self) -> None:
        if self.share == 1:
            raise ValueError("share: all of it is too much")


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    size: int | None = None
    name: str | list[str] = ""
    parts: Annotated[list[Part], msgspec.Meta(max_length=2)] = []
    named: dict[str, Part] = {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": "abc"}, "field 'size': expected int, got 'abc'"),
        ({"size": "x" * 1000}, f"field 'size': expected int, got '{'x' * 59}..."),
        ({"size": []}, "field 'size': expected int, got array"),
        ({"name": 5}, "field 'name': expected str or array, got 5"),
        ({"name": True}, "field 'name': expected str or array, got true"),
        ({"parts": [{}, {}, {}]}, "field 'parts': expected array of length <= 2, got 3"),
        ({"parts": [{}, {"form": "oval"}]}, "field 'parts[1].form': expected 'round' or 'square', got 'oval'"),
        ({"parts": [{"colour": "grey"}]}, "field 'parts[0].colour': expected 'red' or 'blue', got 'grey'"),
        ({"parts": [{"exact": True}]}, "field 'parts[0].exact': expected false, got true"),
        ({"parts": [{"share": -1}]}, "field 'parts[0].share': expected float >= 0.0, got -1"),
        ({"parts": [{"share": 1}]}, "field 'parts[0]': share: all of it is too much"),
        ({"named": {"a": {"form": "oval"}}}, "field 'named[...].form': expected 'round' or 'square', got 'oval'"),
        ({"sizes": 1}, "field 'sizes': there is no such field"),
        ({"model": "a"}, "field 'model': there is no such field; the model is named in the query, ?model=NAME"),
    ],
)
def test_fields(given: dict[str, Any], said: str) -> None:
    """The same from JSON and from what has been read already."""
    with pytest.raises(InvalidInputError) as caught:
        read_fields(given, Whole)
    assert str(caught.value) == said
    with pytest.raises(InvalidInputError) as caught:
        read_json(msgspec.json.encode(given), Whole)
    assert str(caught.value) == said


def test_parameters() -> None:
    """Texts that stand for values, and are shown as such."""
    assert read_fields({"size": "3"}, Whole, strict=False) == Whole(3)
    for given, said in (
        ({"size": "abc"}, "parameter 'size': expected int, got 'abc'"),
        ({"model": "a"}, "parameter 'model': there is no such parameter"),
    ):
        with pytest.raises(InvalidInputError) as caught:
            read_fields(given, Whole, strict=False, word="parameter")
        assert str(caught.value) == said


def test_fields_within_a_field() -> None:
    """As the config of an entry."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"size": "x"}, Whole)
    assert field_error(caught.value, within="config") == "field 'config.size': expected int, got str"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the body is empty; expected JSON"),
        (b" \n", "the body is empty; expected JSON"),
        (b'{"a": 1', "the body is not JSON: Expecting ',' delimiter, line 1, column 8"),
        (b'{\n"a": }', "the body is not JSON: Expecting value, line 2, column 6"),
        (b"{} {}", "the body is not JSON: Extra data, line 1, column 4"),
        (b'{"a": NaN}', "the body is not JSON: NaN is no number"),
        (b'{"a": 1e999}', "the body is not JSON, or has a number that is too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "the body is not JSON, or has a number that is too large"),
        (b'{"a": "\xff"}', "the body is not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "the body is not UTF-8 at byte 0"),
        (rb'{"a": "\ud800"}', r"the body has half a character, a lone surrogate (\ud800 to \udfff)"),
        (b"[]", "the body: expected object, got array"),
        (b"5", "the body: expected object, got int"),
        (b"[5", "the body is not JSON: Expecting ',' delimiter, line 1, column 3"),
        (b"[" * 1_000_000, "the body is nested too deep"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "the body is nested more than 100 deep"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_bodies(body: bytes, said: str) -> None:
    """Nothing, no JSON and where, no text, no object."""
    with pytest.raises(InvalidInputError) as caught:
        decode_object(body)
    assert str(caught.value) == said


@pytest.mark.parametrize("depth", [101, 1000, 100_000])
def test_what_is_nested_too_deep(depth: int) -> None:
    """Without recursion: it may be deeper than Python's stack."""
    nested: Any = 1
    for number in range(depth):
        nested = [nested] if number % 2 else {"a": nested}
    with pytest.raises(InvalidInputError, match=r"^variables is nested more than 100 deep$"):
        check_nesting(nested, "variables")
    while depth > 99:  # nor does it end at the interpreter's limit when it is freed
        nested, depth = (nested[0] if isinstance(nested, list) else nested["a"]), depth - 1
    check_nesting(nested, "variables")


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (b'{"size": "', b'"}', "^the body: field 'size': expected int, got str$"),
        (b'{"name": "', b"", "^the body: expected JSON, not nested too deep$"),
    ],
)
def test_large_bodies_are_not_read_again(monkeypatch: pytest.MonkeyPatch, begin: bytes, end: bytes, said: str) -> None:
    """To say where they are wrong would hold everybody up: it takes the GIL for seconds."""
    monkeypatch.setattr(reading, "_not_json", None)
    with pytest.raises(InvalidInputError, match=said):
        read_json(begin + b"a" * (1 << 21) + end, Whole)
