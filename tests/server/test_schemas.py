"""JSON Schema of Structs, as the OpenAPI document holds it."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import pytest
from msgspec import Meta

from openvino_llama.server.schemas import as_text, schema_of

Item = TypeVar("Item")


class Base(msgspec.Struct):
    """What both have."""

    first: int
    """By its docstring."""
    second: Annotated[int, Meta(description="By its Meta.")] = 2
    """Not by this."""


class Shared(Base):
    """One that inherits, and holds another one."""

    third: Base | None = None
    """Of a class
    in two lines."""


class Tree(msgspec.Struct):
    """One that holds itself."""

    name: str
    children: list[Tree] = []


class Box(msgspec.Struct, Generic[Item]):
    """One of any kind."""

    content: Item
    """What is inside."""


def test_fields_are_described() -> None:
    """By their Meta, or else by their docstrings, those of the base class included."""
    fields = schema_of(Shared)["properties"]
    assert {name: each["description"] for name, each in fields.items()} == {
        "first": "By its docstring.",
        "second": "By its Meta.",
        "third": "Of a class\nin two lines.",
    }
    assert schema_of(Box[int])["properties"] == {"content": {"type": "integer", "description": "What is inside."}}


def test_what_has_no_source_is_not_described() -> None:
    """A Struct made at run time."""
    made = msgspec.defstruct("Made", [("x", int)])
    assert schema_of(made)["properties"] == {"x": {"type": "integer"}}


def test_there_are_no_references() -> None:
    """Not even where a Struct holds itself: that is anything."""
    [third] = [each for each in schema_of(Shared)["properties"]["third"]["anyOf"] if each["type"] == "object"]
    assert third["properties"]["first"] == {"type": "integer"}
    children = schema_of(Tree)["properties"]["children"]
    assert children == {"type": "array", "items": {}, "default": []}
    assert "$" not in str(schema_of(Tree))


def test_examples_are_kept() -> None:
    """What stands beside a reference belongs to what it refers to."""
    schema = schema_of(Annotated[Base, Meta(examples=[{"first": 1}])])
    assert (schema["title"], schema["examples"]) == ("Base", [{"first": 1}])
    assert schema["properties"]["first"]["description"] == "By its docstring."


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, {"type": "integer"}),
        (int | None, {"type": "integer"}),
        (str | list[int] | None, {"type": "string"}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Any, {}),
        (list[int], None),
        (dict[str, int] | None, None),
        (None, None),
    ],
)
def test_what_a_query_can_state(kind: Any, expected: Any) -> None:
    """Numbers, truth values and texts; no null, no list, no object."""
    assert as_text(schema_of(kind)) == expected


def test_a_default_of_null_is_none() -> None:
    """A page would offer it as a text."""
    assert as_text({"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}) == {"type": "integer"}
    assert as_text({"type": "boolean", "default": False}) == {"type": "boolean", "default": False}
