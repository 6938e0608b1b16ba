"""YAML as far as it says what JSON can say, and no further.

Aliases are refused: a few lines of them can stand for gigabytes, and nothing here needs them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

__all__ = ["dump", "parse"]


class _Loader(yaml.SafeLoader):
    """The safe loader, without aliases, duplicates, endless numbers and half characters."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise yaml.MarkedYAMLError(problem="aliases are not taken", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = Counter(self.construct_object(key, deep=True) for key, _ in node.value)
            raise _error(f"the key {keys.most_common(1)[0][0]!r} stands twice in the same object", node)
        return mapping


class _Dumper(yaml.SafeDumper):
    """The safe dumper, without aliases."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _error("half a character", node) from error
    return text


def _construct_number(loader: _Loader, node: yaml.ScalarNode) -> float:
    number = float(loader.construct_yaml_float(node))
    if not math.isfinite(number):
        raise _error(f"{number} is no number", node)
    return number


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_number)


def _error(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def parse(text: str) -> Any:
    """The one document in the text; ValueError, with line and column, if there is not exactly one good one."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"not YAML: {error.problem}{where}") from error
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise ValueError("not YAML: unprintable characters") from error


def dump(document: Any) -> str:
    """The document as YAML, its keys in their order."""
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
    return str(text)
