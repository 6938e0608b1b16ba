"""A ``tokenizer.json`` made of graphs does what they do, or there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openvino_tokenizers import tokenizer_pipeline as pipeline

from openvino_llama_text.convert.byte_level import byte_level_json
from openvino_llama_text.tokenizers.huggingface import HuggingFaceTokenizer
from openvino_llama_text.tokenizers.openvino import OpenVINOTokenizer
from openvino_llama_text.tokenizers.pieces import byte_alphabet

from . import trained

PATTERNS = {
    "gpt2": [r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
    "smollm": [r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"],
    "qwen2": [
        (
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
    ],
    "other": [
        r"[\p{P}\$\+<=>\^~\|]+",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        *(r"\p{N}+", r"[0-9][0-9][0-9]"),
    ],
}
"""How openvino-genai cuts the texts of GGUF files, and GPT-2."""


def splits(kind: str = "gpt2") -> list[Any]:
    """Steps that cut texts; making a graph of them changes them."""
    return [pipeline.RegexSplitStep(each, behaviour="isolate", mergeable=False) for each in PATTERNS[kind]]


def graphs(folder: Path, before: Sequence[Any], after: Sequence[Any] = ()) -> tuple[Path, Path]:
    """The files of a small tokenizer and its detokenizer, with these steps before and after the merging of bytes."""
    description = json.loads(trained.byte_level())
    merging = pipeline.BPETokenizationStep.from_hf_json(description)
    special = [each["id"] for each in description["added_tokens"]]
    vocabulary = sorted(description["model"]["vocab"], key=description["model"]["vocab"].__getitem__)
    steps = [
        *(pipeline.SpecialTokensSplit.from_string_iter(trained.SPECIAL), *before, pipeline.BytesToCharsStep(), merging),
        *(*after, pipeline.PaddingStep(_token_id=0)),
        pipeline.VocabDecoderStep(vocab=[_bytes(each) for each in vocabulary], skip_tokens=special),
        *(pipeline.CharsToBytesStep(), pipeline.UTF8ValidateStep()),
    ]
    return saved(folder, steps)


def saved(folder: Path, steps: Sequence[Any]) -> tuple[Path, Path]:
    made = pipeline.TokenizerPipeline()
    made.add_steps(steps)
    paths = folder / "openvino_tokenizer.xml", folder / "openvino_detokenizer.xml"
    openvino.save_model(made.get_tokenizer_ov_subgraph(), paths[0])
    openvino.save_model(made.get_detokenizer_ov_subgraph(), paths[1])
    return paths


def _bytes(token: str) -> bytes:
    return bytes(byte_alphabet()[character] for character in token)


def twins(paths: tuple[Path, Path]) -> tuple[OpenVINOTokenizer, HuggingFaceTokenizer]:
    content = byte_level_json(*paths)
    assert content is not None
    return OpenVINOTokenizer(*paths), HuggingFaceTokenizer(content.decode())


@pytest.fixture(scope="module", params=PATTERNS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return twins(graphs(tmp_path_factory.mktemp("graphs"), splits(request.param)))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40).filter(lambda text: not text.endswith("\0")))
def test_the_same_tokens(both: tuple[OpenVINOTokenizer, HuggingFaceTokenizer], text: str) -> None:
    graph, twin = both
    assert twin.segment([text]) == graph.segment([text])
    (ids,) = twin.segment([text])
    assert twin.decode(ids) == graph.decode(ids)


def test_special_tokens_are_special(both: tuple[OpenVINOTokenizer, HuggingFaceTokenizer]) -> None:
    graph, twin = both
    assert twin.encode("a<|im_start|> b<|im_end|>") == graph.encode("a<|im_start|> b<|im_end|>")
    assert twin.special_ids == graph.special_ids == {0, 1, 2}
    assert twin.decode([1, *twin.encode("a"), 2]) == "a"
    assert (twin.vocab_size, twin.longest_token) == (graph.vocab_size, graph.longest_token)


SURROUNDED = pipeline.CombineSegmentsStep([pipeline.AddToken(None, 1, 0), pipeline.Sequence(0)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([pipeline.NormalizeUnicode("NFC"), *splits()], []),
        ([pipeline.CaseFoldStep(), *splits()], []),
        ([pipeline.RegexNormalizationStep("e", "a"), *splits()], []),
        ([*splits(), pipeline.RegexSplitStep("q", behaviour="mergedwithnext", mergeable=False)], []),
        ([*splits(), pipeline.RegexSplitStep("(", behaviour="isolate", mergeable=False)], []),
        (splits(), [SURROUNDED]),
    ],
    ids=["NFC", "case", "replacement", "split", "no pattern", "tokens around"],
)
def test_none_where_a_graph_does_more(tmp_path: Path, before: list[Any], after: list[Any]) -> None:
    """What the description does not know shows in the tokens."""
    assert byte_level_json(*graphs(tmp_path, before, after)) is None


def test_none_of_another_kind(tmp_path: Path) -> None:
    description = json.loads(trained.word_piece())
    steps = [
        *(pipeline.SpecialTokensSplit.from_string_iter(["[PAD]"]), pipeline.RegexSplitStep.whitespace_splitter()),
        pipeline.WordPieceTokenizationStep.from_hf_json(description),
        *(pipeline.PaddingStep(_token_id=0), pipeline.VocabDecoderStep(vocab=["[PAD]"], skip_tokens=[0])),
        *(pipeline.FuseStep(), pipeline.UTF8ValidateStep()),
    ]
    assert byte_level_json(*saved(tmp_path, steps)) is None
