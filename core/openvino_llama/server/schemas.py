"""JSON Schema of Structs, as an OpenAPI document holds it: without references, each field described.

Knows nothing of routes.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec

__all__ = ["as_text", "schema_of"]

Schema = dict[str, Any]

_IN_TEXT = {"string", "integer", "number", "boolean"}


def schema_of(kind: Any) -> Schema:
    """The schema of a type; the fields of a Struct are described by their Meta, or else by their docstrings."""
    document = msgspec.json.schema(kind)
    schema: Schema = _resolved(document, document.pop("$defs", {}), ())
    for name, text in _docstrings(getattr(kind, "__origin__", kind)).items():
        if name in schema.get("properties", {}):
            schema["properties"][name] = {"description": text} | schema["properties"][name]
    return schema


def as_text(schema: Schema) -> Schema | None:
    """What of a schema can stand in a query, which has neither null nor lists; None if nothing can."""
    members = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    choices = [each for each in schema.get("anyOf", ({},)) if (members | each).get("type", "string") in _IN_TEXT]
    if len(choices) > 1:
        return members | {"anyOf": choices}
    return choices[0] | members if choices else None


def _resolved(node: Any, definitions: Schema, within: tuple[str, ...]) -> Any:
    """With each reference replaced by what it refers to, but for one that is within itself: it may be anything."""
    if isinstance(node, list):
        return [_resolved(each, definitions, within) for each in node]
    if not isinstance(node, dict):
        return node
    name = node["$ref"].rpartition("/")[2] if "$ref" in node else None
    members = {key: _resolved(each, definitions, within) for key, each in node.items() if key != "$ref"}
    if name is None or name in within:
        return members
    found: Schema = _resolved(definitions[name], definitions, (*within, name))
    return found | members


def _docstrings(kind: Any) -> dict[str, str]:
    """The docstrings of a Struct's fields, which only its source has; of what has no source, none."""
    found: dict[str, str] = {}
    for each in reversed(getattr(kind, "__mro__", ())):
        if issubclass(each, msgspec.Struct) and each is not msgspec.Struct:
            found |= _own_docstrings(each)
    return found


@cache
def _own_docstrings(struct: type) -> dict[str, str]:
    try:
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(struct))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    return {
        ast.unparse(field.target): inspect.cleandoc(text.value.value)
        for field, text in pairwise(definition.body if isinstance(definition, ast.ClassDef) else ())
        if isinstance(field, ast.AnnAssign)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
