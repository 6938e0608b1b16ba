"""``openvino_tokenizer.xml`` and ``openvino_detokenizer.xml``: tokenizers as OpenVINO graphs; no other file is needed.

They run on OpenVINO itself, with the extension of openvino_tokenizers: unlike the tokenizer of openvino_genai that
releases the interpreter's lock, and lets what a conversion has fixed be undone: the length from which on it truncates
without a word.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openvino_llama import ConfigError, InvalidInputError, ModelConfig
from openvino_llama_text.files import ModelFacts, facts_of, tokenizer_info_of
from openvino_llama_text.tokenizers.base import SpecialTokens, Tokenizer
from openvino_llama_text.tokenizers.pieces import SPACE, Pieces, fallback_byte
from openvino_llama_text.tokenizers.template import Template

__all__ = ["OpenVINOTokenizer", "read_constant", "read_graph", "read_strings"]

_NO_LIMIT = (1 << 31) - 1
_MOST_PADDED = 1 << 24
"""Bytes of texts that are tokenized together, all counted with the length of the longest."""
_CONCATENATING = {
    "Parameter",
    "Constant",
    "Convert",
    "Slice",
    "VocabDecoder",
    "ByteFallback",
    "FuzeRagged",
    "RegexNormalization",
    "UTF8Validate",
    "StringTensorPack",
    "Result",
}
"""Operations of a detokenizer that does nothing but put the bytes of tokens together..."""
_LEADING_SPACE, _SPACES = (b"^ ", b""), (SPACE.encode(), b" ")
_REPLACEMENTS = {_LEADING_SPACE, _SPACES}
"""...as long as these are its replacements."""


class OpenVINOTokenizer(Tokenizer):
    """A tokenizer and its detokenizer, compiled for the CPU."""

    longest_token: int | None = None

    def __init__(
        self, tokenizer: Path, detokenizer: Path, model: ModelFacts | None = None, info: dict[str, str] | None = None
    ) -> None:
        """``model`` says which token has which role, ``info`` is what the tokenizer states under ``rt_info``."""
        core = _core()
        model, info = model or ModelFacts(), info or {}
        graph, reverse = read_graph(tokenizer), read_graph(detokenizer)
        _lift_limits(graph)
        tokens, special = _vocabulary(reverse)
        self.vocab_size = len(tokens)
        self.special_ids = frozenset(special)
        self.special_texts = tuple(tokens[each].decode("utf-8", "replace") for each in special if each < len(tokens))
        self.special = SpecialTokens(model.bos_token_id, next(iter(model.eos_token_ids), None), model.pad_token_id)
        self.pieces = _pieces(reverse, tokens, special)
        self._tokenizing = _Requests(core.compile_model(graph, "CPU", _THROUGHPUT))
        self._detokenizing = _Requests(core.compile_model(reverse, "CPU", _THROUGHPUT))
        self.template = Template()
        self.template = self._template(info)
        if self.pieces and _is_lossless(graph):
            self.longest_token, self.unknown_bytes = max(map(len, tokens)), self.pieces.unknown_bytes

    @classmethod
    def read(cls, config: ModelConfig, path: Path) -> OpenVINOTokenizer:
        """The tokenizer of a model."""
        reverse = path.with_name(path.name.replace("tokenizer", "detokenizer"))
        if not reverse.is_file():
            raise ConfigError(f"model {config.name!r}: {reverse.name} is missing beside {path.name}")
        try:
            return cls(path, reverse, facts_of(config), tokenizer_info_of(config))
        except (RuntimeError, StopIteration, ValueError) as error:
            raise ConfigError(f"model {config.name!r}: {path.name} is no OpenVINO tokenizer") from error

    def segment(self, texts: Sequence[str]) -> list[list[int]]:
        """As the base class has it; InvalidInputError for a NUL at the end, which string tensors do not keep."""
        encoded = [text.encode("utf-8") for text in texts]
        for text in encoded:
            if text.endswith(b"\0"):
                raise InvalidInputError("the text, or a part of it, ends with a NUL character")
        if not encoded:
            return []
        together = max(map(len, encoded)) * len(encoded) <= _MOST_PADDED
        batches = [encoded] if together else [[text] for text in encoded]
        start, stop = len(self.template.before), len(self.template.after)
        return [ids[start : len(ids) - stop] for batch in batches for ids in self._ids(batch)]

    def _ids(self, batch: list[bytes]) -> list[list[int]]:
        ids, mask = self._tokenizing.infer(batch, ("input_ids", "attention_mask"))
        return [row[kept].tolist() for row, kept in zip(ids, mask.astype(bool), strict=True)]

    def join(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """As the graph does it, whichever special tokens it skips."""
        shown = [each for each in ids if not (skip_special_tokens and each in self.special_ids)]
        (text,) = self._detokenizing.infer(np.array([shown], np.int64), ("string_output",))
        return str(text[0])

    def _template(self, info: dict[str, str]) -> Template:
        """What the graph puts around texts, seen from an empty text and another one."""
        (around,), (whole,) = self._ids([b""]), self._ids([b"a"])
        fits = [cut for cut in range(len(around) + 1) if whole[:cut] == around[:cut]]
        cut = max((cut for cut in fits if whole[len(whole) - len(around) + cut :] == around[cut:]), default=0)
        before, after = tuple(around[:cut]), tuple(around[cut:])
        try:
            pair = json.loads(info["processed_post_processor_template"])["pair"]
            _, between, last = _split(pair["ids"])
            return Template(before, after, between, last, pair["type_ids"][pair["ids"].index(-2)])
        except (KeyError, ValueError, TypeError):
            return Template(before, after, after, after)  # as BERT has it


_THROUGHPUT = {"PERFORMANCE_HINT": "THROUGHPUT"}


class _Requests:
    """Infer requests of one graph: as many as are in use at a time, for they cannot be shared."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._free: deque[Any] = deque()

    def infer(self, value: Any, outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        """Outputs for the only input, copied."""
        import openvino

        try:
            request = self._free.pop()
        except IndexError:
            request = self._model.create_infer_request()
        request.set_input_tensor(openvino.Tensor(value))
        request.start_async()  # ``infer`` would make arrays of all outputs, with the GIL
        request.wait()
        results = [_copied(request.get_tensor(name)) for name in outputs]
        self._free.append(request)
        return results


def _copied(tensor: Any) -> NDArray[Any]:
    text = tensor.element_type.to_string() == "string"
    data: NDArray[Any] = tensor.str_data if text else tensor.data.copy()
    return data


def read_graph(path: Path) -> Any:
    """The graph of a tokenizer or a detokenizer, an ``openvino.Model``; RuntimeError if it cannot be read."""
    return _core().read_model(path)


def read_constant(operation: Any, index: int) -> NDArray[Any]:
    """What an input of an operation is; AttributeError if it is no constant."""
    data: NDArray[Any] = operation.input(index).get_source_output().get_node().get_data()
    return data


def read_strings(operation: Any, first: int) -> list[bytes]:
    """Texts that are three inputs of an operation: where each begins and ends, and the bytes of all."""
    begins, ends, characters = (read_constant(operation, first + each) for each in range(3))
    content = characters.tobytes()
    return [content[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]


@functools.cache
def _core() -> Any:
    """An OpenVINO core that knows the operations of tokenizers.

    The package that has them is not imported: that would teach them to every other core of this process too.
    """
    import openvino

    spec = importlib.util.find_spec("openvino_tokenizers")
    folders = spec.submodule_search_locations if spec else None
    library = next(Path(folders[0], "lib").glob("*openvino_tokenizers.*")) if folders else "openvino_tokenizers"
    core = openvino.Core()
    core.add_extension(str(library))
    return core


def _lift_limits(graph: Any) -> None:
    """Undo truncation, which conversions from GGUF have at the context's length."""
    import openvino

    for operation in graph.get_ops():
        if operation.get_type_name() not in ("Minimum", "Truncate"):
            continue
        for entry in operation.inputs():
            source = entry.get_source_output()
            is_number = source.get_element_type() == openvino.Type.i32 and source.get_partial_shape().is_static
            if source.get_node().get_type_name() == "Constant" and is_number and _elements(source) == 1:
                limit = openvino.opset13.constant(np.full(source.get_shape(), _NO_LIMIT, np.int32))
                entry.replace_source_output(limit.output(0))


def _elements(output: Any) -> int:
    return int(np.prod(list(output.get_shape())))


def _vocabulary(detokenizer: Any) -> tuple[list[bytes], list[int]]:
    """The bytes of each token, and the ids that are skipped."""
    decoder = next(each for each in detokenizer.get_ops() if each.get_type_name() == "VocabDecoder")
    tokens = read_strings(decoder, 1)
    if len(decoder.inputs()) < 5:
        return tokens, decoder.get_attributes().get("skip_tokens", [])
    skipped = decoder.input(4).get_source_output().get_node()
    while skipped.get_type_name() != "Constant":  # the tokens themselves, then how many of them
        skipped = skipped.input(0).get_source_output().get_node()
    return tokens, skipped.get_data().tolist()


def _pieces(detokenizer: Any, tokens: list[bytes], special: list[int]) -> Pieces | None:
    """The bytes of each token, if the graph only puts them together, and has spaces as SentencePiece writes them."""
    operations = list(detokenizer.get_ops())
    kinds = {each.get_type_name() for each in operations}
    replacements = {_constants(each) for each in operations if each.get_type_name() == "RegexNormalization"}
    if not (kinds <= _CONCATENATING and replacements <= _REPLACEMENTS):
        return None
    if "ByteFallback" in kinds:
        tokens = [fallback_byte(each.decode("utf-8", "replace")) or each for each in tokens]
    if _SPACES in replacements:
        tokens = [each.replace(*_SPACES) for each in tokens]
    return Pieces(tokens, special, leading_spaces=int(_LEADING_SPACE in replacements))


def _constants(operation: Any) -> tuple[bytes, ...]:
    """What stands in an operation's constant inputs."""
    sources = [entry.get_source_output().get_node() for entry in operation.inputs()]
    return tuple(source.get_data().tobytes() for source in sources if source.get_type_name() == "Constant")


def _is_lossless(tokenizer: Any) -> bool:
    """Whether tokens stand for all bytes that they know: byte-level BPE of which no operation drops anything."""
    operations = list(tokenizer.get_ops())
    kinds = {each.get_type_name() for each in operations}
    splits = [each.get_attributes() for each in operations if each.get_type_name() == "RegexSplit"]
    specials = [each for each in operations if each.get_type_name() == "SpecialTokensSplit"]
    return (
        "BPETokenizer" in kinds
        and not kinds & {"RegexNormalization", "NormalizeUnicode", "CaseFold", "CharsMapNormalization"}
        and not any(each.get("behaviour") in ("remove", "removed") for each in splits)
        # Some special tokens take the spaces around them along.
        and not any(b"\\s" in pattern for each in specials for pattern in _constants(each))
    )


def _split(ids: list[int]) -> list[tuple[int, ...]]:
    """Special tokens before, between and after two texts, which stand as -1 and -2."""
    first, second = ids.index(-1), ids.index(-2)
    return [tuple(ids[:first]), tuple(ids[first + 1 : second]), tuple(ids[second + 1 :])]
