"""The same tokenizer twice: what an OpenVINO graph of byte-level BPE does, as a ``tokenizer.json``.

openvino-genai makes a graph of the tokenizer in a GGUF file. The library ``tokenizers`` needs a seventh of its time for
a prompt, and nothing can begin before that. The graph's constants say what it does, but nothing of it is believed: both
have to give the same tokens for thousands of texts, or there is no ``tokenizer.json``. Knows nothing of GGUF.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from openvino_llama_text.tokenizers.huggingface import HuggingFaceTokenizer
from openvino_llama_text.tokenizers.openvino import OpenVINOTokenizer, read_constant, read_graph, read_strings
from openvino_llama_text.tokenizers.pieces import byte_alphabet

__all__ = ["byte_level_json"]

_TOKENS, _LEFT, _RIGHT, _ADDED, _ADDED_IDS = 5, 8, 11, 14, 17
"""Inputs of a BPETokenizer behind the text: each text of bytes is three of them, the ids of the added tokens one."""
_COMPARED = 3000
"""Tokens that are compared as texts; as many texts of mixed characters are."""
_TOGETHER = 256
_RANGES = ((0x20, 0x7E), (0x20, 0x7E), (0x09, 0x0D), (0xA0, 0x2FFF), (0x3000, 0xD7FF), (0x1F300, 0x1FAFF))
"""First and last character of what mixed texts are made of."""

_CHARACTERS = {byte: character for character, byte in byte_alphabet().items()}


def byte_level_json(tokenizer: Path, detokenizer: Path) -> bytes | None:
    """A ``tokenizer.json`` that does what these graphs do; None if none is known that does."""
    graph = OpenVINOTokenizer(tokenizer, detokenizer)
    try:
        content = msgspec.json.encode(_description(read_graph(tokenizer), graph.special_ids))
        twin = HuggingFaceTokenizer(content.decode())
    except Exception:  # the library has no other: for a pattern that its regular expressions do not know, for example
        return None
    return content if _are_same(graph, twin) else None


def _are_same(graph: OpenVINOTokenizer, twin: HuggingFaceTokenizer) -> bool:
    if not (graph.pieces and twin.pieces) or graph.pieces.all != twin.pieces.all:
        return False
    if (graph.special_ids, graph.template) != (twin.special_ids, twin.template):
        return False
    texts = _texts([piece.decode("utf-8", "ignore") for piece in graph.pieces.all], graph.special_texts)
    batches = [texts[at : at + _TOGETHER] for at in range(0, len(texts), _TOGETHER)]
    return all(graph.segment(batch) == twin.segment(batch) for batch in batches)


def _texts(pieces: Sequence[str], special: Sequence[str]) -> list[str]:
    """Tokens alone and in rows, characters of many scripts in disorder, spaces, and what is special among others."""
    chance = random.Random(0)  # noqa: S311 - the same texts each time
    words = chance.sample(pieces, min(len(pieces), _COMPARED))
    rows = ["".join(chance.choices(words, k=6)) for _ in words[::4]]
    mixed = ["".join(_character(chance) for _ in range(chance.randrange(1, 40))) for _ in range(_COMPARED)]
    amid = [text.join(around) for text in special for around in (("", ""), ("a", "b"), (" ", "\n"))]
    plain = [f"{before}It's 1234 o'clock{after}" for before in ("", " ", "\n\n", "\t ") for after in ("", "  ", " \n")]
    every = (*words, *rows, *mixed, *amid, *plain)
    return [text for text in every if text and not text.endswith("\0")]  # graphs do not keep a NUL at the end


def _character(chance: random.Random) -> str:
    return chr(chance.randint(*chance.choice(_RANGES)))


def _description(graph: Any, special: frozenset[int]) -> dict[str, Any]:
    """What ``tokenizer.json`` says of a graph that cuts texts by patterns and puts their bytes together by BPE.

    What else the graph does to a text is not looked for here; ValueError or another error if it is of another kind.
    """
    operations = list(graph.get_ordered_ops())
    (bpe,) = (each for each in operations if each.get_type_name() == "BPETokenizer")
    ids = read_constant(bpe, _ADDED_IDS).tolist()
    added = {each: text.decode() for each, text in zip(ids, read_strings(bpe, _ADDED), strict=True)}
    tokens = [added.get(each) or _written(token) for each, token in enumerate(read_strings(bpe, _TOKENS))]
    splits = [_split(each) for each in operations if each.get_type_name() == "RegexSplit"]
    return {
        "version": "1.0",
        "added_tokens": [_added(each, text, special=each in special) for each, text in added.items()],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, _BYTES]},
        "decoder": _BYTES,
        "model": {
            "type": "BPE",
            "vocab": {token: each for each, token in enumerate(tokens)},
            "merges": list(
                zip(map(_written, read_strings(bpe, _LEFT)), map(_written, read_strings(bpe, _RIGHT)), strict=True)
            ),
        },
    }


_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def _split(operation: Any) -> dict[str, Any]:
    """A step that cuts texts wherever its pattern is."""
    attributes = operation.get_attributes()
    pattern = read_constant(operation, len(operation.inputs()) - 1).tobytes().decode()
    behavior = {"isolate": "Isolated", "remove": "Removed"}.get(attributes["behaviour"], attributes["behaviour"])
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": attributes["invert"]}


def _added(number: int, text: str, *, special: bool) -> dict[str, Any]:
    kept = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": text, "special": special, **kept}


def _written(token: bytes) -> str:
    """A token as ``tokenizer.json`` writes it: one printable character for each byte."""
    return "".join(map(_CHARACTERS.__getitem__, token))
