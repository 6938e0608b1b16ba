"""Changing one model of a registry in YAML without losing the comments around it.

Works on lines, where the registry is written as people write it; what comes out is read again, and written anew from
nothing if it does not say exactly what it should.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import yaml

from openvino_llama.registry import yaml_documents

__all__ = ["update"]


def update(text: str, document: Mapping[str, Any]) -> str:
    """The text, changed to say what the document says."""
    try:
        changed = _splice(text, document["models"])
        if yaml_documents.parse(changed) == document:
            return changed
    except ValueError:  # more has changed than one model, or the text is not laid out in lines
        pass
    return yaml_documents.dump(document)


def _splice(text: str, models: Mapping[str, Any]) -> str:
    old = yaml_documents.parse(text)["models"]
    (name,) = (each for each in {**old, **models} if old.get(each) != models.get(each))
    lines = text.splitlines(keepends=True)
    nodes = _key_nodes(text)
    spans = dict(_spans(lines, [node.start_mark.line for node in nodes], [node.value for node in nodes]))
    end = max(last for _, last in spans.values())
    first, last = spans.get(name, (end, end))
    indent = " " * nodes[0].start_mark.column
    new = textwrap.indent(yaml_documents.dump({name: models[name]}), indent) if name in models else ""
    return "".join([*lines[:first], new, *lines[last:]])


def _key_nodes(text: str) -> list[yaml.ScalarNode]:
    """The names of the models, where they stand; ValueError unless each begins a line."""
    root: Any = yaml.compose(text, yaml.SafeLoader)
    ((_, models),) = root.value  # the key 'models' and nothing else
    if models.flow_style or not text.endswith("\n"):
        raise ValueError
    return [key for key, _ in models.value]


def _spans(lines: list[str], starts: list[int], names: list[str]) -> Iterator[tuple[str, tuple[int, int]]]:
    """First and last line of each model; comments and blank lines before the next one belong to that."""
    for name, (first, last) in zip(names, pairwise([*starts, len(lines)]), strict=True):
        end = last
        while lines[end - 1].strip()[:1] in {"", "#"}:
            end -= 1
        yield name, (first, end)
