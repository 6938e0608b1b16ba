"""JSON and YAML documents, read strictly: everything that two readers could take in two ways is an error.

That is: a key that stands twice, NaN and infinity, half characters, aliases, nesting without end. Knows nothing of
what the documents say.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama.errors import ConfigError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "dump_document", "read_document"]

MAX_BYTES = 16 * 2**20
"""Size of the largest document."""
MAX_DEPTH = 100
"""Objects and lists inside each other."""


def read_document(path: Path, label: str) -> Any:
    """The document in a file whose suffix says its format; ConfigError, beginning with the label, if it is wrong."""
    try:
        parse, _ = _format(path)
        document = parse(_read_text(path))
        _check_depth(document)
    except RecursionError as error:
        raise ConfigError(f"{label}: nested more than {MAX_DEPTH} deep") from error
    except OSError as error:
        raise ConfigError(f"{label}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{label}: {error}") from error
    return document


def dump_document(path: Path, document: Any) -> bytes:
    """What a file of this name holds when it says this document; comments that it has in it now are kept."""
    if path.suffix.lower() != ".json" and path.exists():
        from openvino_llama.registry import yaml_comments

        return yaml_comments.update(_read_text(path), document).encode()
    _, dump = _format(path)
    return dump(document).encode()


def _format(path: Path) -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    match path.suffix.lower():
        case ".json":
            return _parse_json, _dump_json
        case ".yaml" | ".yml":
            from openvino_llama.registry import yaml_documents  # only who has YAML pays for its import

            return yaml_documents.parse, yaml_documents.dump
        case suffix:
            raise ValueError(f"expected a name that ends in .json, .yaml or .yml, not {suffix!r}")


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise ValueError("is not a file")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error


def _parse_json(text: str) -> Any:
    try:
        # The standard library says where an error is and lets us see duplicates; msgspec refuses what it lets pass:
        # numbers out of range and half characters.
        document = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse)
        msgspec.json.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg}, line {error.lineno}, column {error.colno}") from error
    except msgspec.DecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    return document


def _dump_json(document: Any) -> str:
    return _LIST.sub(_on_one_line, json.dumps(document, indent=2, ensure_ascii=False)) + "\n"


_LIST = re.compile(r"\[\n *([^][{}]*)\n *\]")
"""A list of numbers or texts. What is broken into lines here is never a text: these have no line ends in JSON."""


def _on_one_line(match: re.Match[str]) -> str:
    """A shape or a colour as people write it; long lists, of labels say, stay one to a line."""
    line = re.sub(r"\n *", " ", match[1])
    return f"[{line}]" if len(line) <= 80 else match[0]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice!r} stands twice in the same object")
    return document


def _refuse(constant: str) -> Any:
    raise ValueError(f"not JSON: {constant} is no number")


def _check_depth(value: Any, left: int = MAX_DEPTH) -> None:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if children and not left:
        raise RecursionError
    for child in children:
        _check_depth(child, left - 1)
