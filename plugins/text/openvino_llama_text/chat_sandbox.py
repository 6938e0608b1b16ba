"""Jinja for templates that come with models, and are code of strangers.

Jinja's own sandbox keeps them from Python's insides; it does not keep them from taking all memory and time. Here no
value of a template gets larger than a bound: what could make a larger one is computed in advance (``*``, ``replace``,
``join``...), measured when made (calls, filters, literals, ``~``) or not offered (``center``, ``zfill``...). Loops and
calls look at the clock. What remains is work on values within the bound, between two looks at the clock.

Knows nothing of chats.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from types import BuiltinMethodType
from typing import Any, NoReturn

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from openvino_llama_text.chat_bounds import (
    MOST_WIDTH,
    TooMuchError,
    bounded,
    check_items,
    check_method,
    check_operation,
    check_replacement,
    check_size,
    refuse_format,
    tick,
    written,
)

__all__ = ["LimitedEnvironment", "RefusedError"]

# fmt: off
_FILTERS = frozenset({
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "forceescape", "groupby", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min",
    "reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr", "sort", "string",
    "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "wordcount",
})
# fmt: on
_LISTING = frozenset({"groupby", "list", "sort", "unique"})
"""Those that make lists of what they are given, character by character if it is a text."""


class RefusedError(TemplateError):
    """What a template says itself by ``raise_exception``."""


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Renders as transformers does, within the bounds."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # Without the optimizer: it would compute constant expressions while compiling, and not by what is below.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=[_Generation, loopcontrols],
            finalize=written,
        )
        self.filters = {
            name: _watched(each, lists=name in _LISTING) for name, each in self.filters.items() if name in _FILTERS
        }
        self.filters |= {"tojson": _watched(_tojson), "indent": _watched(_indent), _BOUNDED: bounded}
        self.filters |= {_CONCAT: _watched(_joined), _TICK: _ticking}
        self.filters["replace"] = _watched(_replaced)
        self.filters["join"] = _watched(_join_filter)
        self.globals = {name: self.globals[name] for name in ("dict", "namespace", "range")}
        self.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """What Jinja puts the output together with, and that of macros and block assignments."""
        return _joined(pieces)

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        """One dict: each rendering copies it, which takes longer than the rendering where it is Jinja's ChainMap."""
        return {**self.globals, **(d or {})}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template: nodes.Template = _Bounding().visit(super()._parse(source, name, filename))
        return template

    def wrap_str_format(self, value: Any) -> Any:
        """``str.format``, which Jinja would make safe, but not small."""
        wrapped = super().wrap_str_format(value)
        return wrapped and refuse_format

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call in a template comes here."""
        tick()
        if isinstance(obj, BuiltinMethodType):
            check_method(obj.__self__, obj.__name__, args)
        return bounded(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Results are estimated before they are made."""
        tick()
        check_operation(operator, left, right)
        return bounded(super().call_binop(context, operator, left, right))


_MOST_INDENT = 10
_BOUNDED, _CONCAT, _TICK = "-bounded", "-concat", "-tick"  # no template can write these names


class _Bounding(NodeTransformer):
    """Measures what literals and ``~`` make, and has loops look at the clock."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _TICK, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), _CONCAT, [], [], None, None, lineno=node.lineno)

    def _measured(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, _BOUNDED, [], [], None, None, lineno=node.lineno)

    visit_List = visit_Dict = _measured  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        if node.ctx != "load":  # the names that a loop or an assignment gives values to
            return node
        return self._measured(node)


class _Generation(Extension):
    """``{% generation %}`` marks what an assistant said, for training; here it is what it contains."""

    tags = {"generation"}  # noqa: RUF012  Jinja declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _watched(function: Callable[..., Any], lists: bool = False) -> Callable[..., Any]:
    """A filter that looks at the clock and at what it returns."""

    @functools.wraps(function)  # also takes over whether it wants the context
    def filtered(*args: Any, **kwargs: Any) -> Any:
        tick()
        for each in args:
            written(each)
            if lists:
                check_items(each)
        result = bounded(function(*args, **kwargs))
        return _ticking(result) if isinstance(result, Iterator) else result

    return filtered


def _ticking(values: Any) -> Any:
    """The same items, with a look at the clock at each."""
    if isinstance(values, Undefined):
        return values
    return _each(values)


def _each(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        tick()
        yield value


def _joined(pieces: Iterable[Any]) -> str:
    texts, size = [], 0
    for piece in pieces:
        text = piece if isinstance(piece, str) else str(written(piece))
        texts.append(text)
        size += len(text)
        check_size(size)
        tick()
    return "".join(texts)


def _join_filter(value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = (each[attribute] for each in value)
    texts = [str(written(each)) for each in _each(value)]
    check_size(sum(map(len, texts)) + len(d) * len(texts))
    return str(d).join(texts)


def _replaced(text: Any, old: Any, new: Any, count: int = -1) -> str:
    text, old, new = str(text), str(old), str(new)
    check_replacement(text, old, new)
    replaced: str = text.replace(old, new, -1 if count is None else count)
    return replaced


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As transformers has it: nothing is escaped for HTML."""
    if isinstance(indent, int) and indent > _MOST_INDENT:
        raise TooMuchError("indents too far")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """Jinja's own, for indentations within reason."""
    margin = width if isinstance(width, str) else " " * min(width, MOST_WIDTH)
    lines = str(text).split("\n")
    check_size(len(str(text)) + len(margin) * len(lines))
    rest = [margin + line if line or blank else line for line in lines[1:]]
    return "\n".join([(margin if first else "") + lines[0], *rest])


def _refuse(message: Any) -> NoReturn:
    raise RefusedError(str(message))


_DIRECTIVES = re.compile(r"(?:[^%]|%[-#]?[A-Za-z%])*")


def _strftime_now(form: str) -> str:
    if not _DIRECTIVES.fullmatch(form) or len(form) > MOST_WIDTH:  # %1000000d is a width to some C libraries
        raise SecurityError("no such form of a date")
    return dt.datetime.now().strftime(form)
