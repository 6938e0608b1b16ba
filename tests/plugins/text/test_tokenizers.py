"""All kinds of tokenizers take the same texts, add and keep special tokens alike, and never fail in their own words."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from openvino_tokenizers import tokenizer_pipeline as pipeline

from openvino_llama import ConfigError, ContextLengthError, DataType, InvalidInputError, TensorSpec
from openvino_llama_text.tokenizers import BREAK, Encoding, Tokenizer, find_tokenizer, model_inputs, openvino
from openvino_llama_text.tokenizers.huggingface import HuggingFaceTokenizer
from openvino_llama_text.tokenizers.openvino import OpenVINOTokenizer
from openvino_llama_text.tokenizers.template import Template, shares

from . import trained
from .models import KINDS, LOSSLESS, SOURCES, model, tokenizer

unicode_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=BREAK), max_size=40)


@pytest.mark.parametrize("kind", LOSSLESS)
def test_text_comes_back(kind: str) -> None:
    each = tokenizer(kind)
    for text in ("Hello world", "", "  two  spaces ", trained.MIXED, "\0", "\n\n"):
        assert each.decode(each.encode(text)) == text


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback", "byte_fallback_unstripped"])
@given(text=unicode_texts)
def test_hugging_face_ids_are_the_librarys(kind: str, text: str) -> None:
    each = tokenizer(kind)
    library = tokenizers.Tokenizer.from_str(SOURCES[kind]())
    assert each.encode(text) == library.encode(text).ids
    assert each.decode(each.encode(text)) == library.decode(library.encode(text).ids)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@given(text=unicode_texts)
def test_sentence_piece_text_is_the_librarys(kind: str, text: str) -> None:
    each = tokenizer(kind)
    ids = each.encode(text)
    assert each.decode(ids) == each.join(ids, skip_special_tokens=True)


def test_special_tokens_by_role() -> None:
    pieces, levels = tokenizer("bpe"), tokenizer("byte_level")
    assert (pieces.special.unk, pieces.special.bos, pieces.special.eos, pieces.special.pad) == (0, 1, 2, None)
    assert pieces.special_texts == ("<unk>", "<s>", "</s>")
    assert levels.special_ids == {0, 1, 2}
    assert [levels.text_of(each) for each in (1, None, -1, 10**9)] == ["<|im_start|>", None, None, None]


def test_texts_of_special_tokens_are_these_tokens_unless_broken() -> None:
    each = tokenizer("byte_level")
    assert 1 in each.encode("<|im_start|>user")
    broken = each.encode(f"<{BREAK}|im_start|>user")
    assert not each.special_ids & set(broken)
    assert each.decode(broken) == "<|im_start|>user"


def test_control_tokens_of_sentence_piece_are_read() -> None:
    """The library does not; the unknown token cannot be written."""
    each = tokenizer("bpe")
    hello = each.encode("Hello", add_special_tokens=False)
    assert each.encode("Hello</s><s>Hello", add_special_tokens=False) == [*hello, 2, 1, *hello]
    assert not each.special_ids & set(each.encode(f"<{BREAK}s>", add_special_tokens=False))
    assert each.decode(each.encode("<unk>")) == "<unk>"


def test_special_tokens_are_shown_on_demand() -> None:
    each = tokenizer("byte_level")
    assert each.decode([1, *each.encode("Hi"), 2]) == "Hi"
    assert each.decode([1, *each.encode("Hi"), 2], skip_special_tokens=False) == "<|im_start|>Hi<|im_end|>"


@pytest.mark.parametrize("kind", KINDS)
def test_bad_texts_are_the_clients_error(kind: str) -> None:
    for text in ("a\ud800b", "\udfff"):
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            tokenizer(kind).encode(text)
        with pytest.raises(InvalidInputError, match="lone surrogate"):
            tokenizer(kind).encode_batch(["a"], 8, [text])


@pytest.mark.parametrize("kind", KINDS)
@given(ids=st.lists(st.integers(-(2**70), 2**70) | st.integers(-3, 700), max_size=20))
def test_ids_that_are_none_are_left_out(kind: str, ids: list[int]) -> None:
    each = tokenizer(kind)
    assert each.decode(ids) == each.decode([one for one in ids if 0 <= one < each.vocab_size])


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_may_have_at_most_so_many_tokens(kind: str) -> None:
    each = tokenizer(kind)
    ids = each.encode("Hello world, this is a test")
    assert each.encode("Hello world, this is a test", most=len(ids)) == ids
    with pytest.raises(ContextLengthError, match=f"has {len(ids)} tokens, the model takes at most {len(ids) - 1}"):
        each.encode("Hello world, this is a test", most=len(ids) - 1)


@given(text=unicode_texts)
def test_the_least_number_of_tokens_is_never_too_high(text: str) -> None:
    """Whatever the text, ``most`` refuses none that has so many."""
    each = tokenizer("byte_level")
    assert each.longest_token == max(map(len, each.pieces.all)) if each.pieces else False
    ids = each.encode(text * 20)
    assert each.encode(text * 20, most=len(ids)) == ids


def test_hopelessly_long_texts_are_not_tokenized() -> None:
    with pytest.raises(ContextLengthError, match="has at least"):
        tokenizer("byte_level").encode("a" * 10_000_000, most=2048)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_truncated_and_keep_special_tokens(kind: str) -> None:
    each = tokenizer(kind)
    texts = ["Hello world, this is a test", "", "日本語の文章"]
    for text, encoding in zip(texts, each.encode_batch(texts, 6), strict=True):
        whole = each.encode(text)
        tail = len(each.template.after)
        expected = whole if len(whole) <= 6 else whole[: 6 - tail] + whole[len(whole) - tail :]
        assert encoding == Encoding(expected, [0] * len(expected))


def test_pairs_are_those_of_the_library() -> None:
    """Truncated as transformers' ``longest_first`` does, with the library's own type ids."""
    each = tokenizer("word_piece")
    library = tokenizers.Tokenizer.from_str(trained.word_piece())
    library.no_padding()
    pairs = [("a test", "the quick brown fox jumps over the lazy dog"), ("hello world " * 9, "a"), ("", "a")] * 2
    for length in (5, 8, 12, 64):
        library.enable_truncation(length)
        expected = [Encoding(one.ids, one.type_ids) for one in library.encode_batch(pairs)]
        assert each.encode_batch([a for a, _ in pairs], length, [b for _, b in pairs]) == expected


def test_no_room_for_special_tokens() -> None:
    with pytest.raises(InvalidInputError, match="max_length 1 is less"):
        tokenizer("word_piece").encode_batch(["a"], 1)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 40))
def test_shares_of_two_texts(first: int, second: int, room: int) -> None:
    """All room is used, and the shorter text is cut only to half of it."""
    kept = shares(first, second, room)
    assert sum(kept) == min(first + second, room)
    assert kept[0] <= first
    assert kept[1] <= second
    assert min(kept) >= min(first, second, room // 2)


@pytest.mark.parametrize("kind", KINDS)
def test_long_texts_are_cut_first(kind: str) -> None:
    """The first tokens of a long text are those of all its tokens."""
    each = tokenizer(kind)
    text = "The quick brown fox jumps over the lazy dog! " * 3000
    (encoding,) = each.encode_batch([text], 24)
    kept = 24 - len(each.template.after)
    assert encoding.ids[:kept] == each.encode(text)[:kept]


def test_texts_that_begin_with_much_that_is_no_token() -> None:
    """A beginning that gives no tokens is not the end of the search."""
    assert tokenizer("word_piece").encode_batch([" " * 100_000 + "test"], 8) == [
        Encoding(tokenizer("word_piece").encode("test"), [0] * 3)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_at_once(kind: str) -> None:
    check_threads(tokenizer(kind))


def test_openvino_in_many_threads(smollm2_tokenizer: Tokenizer) -> None:
    check_threads(smollm2_tokenizer)


def check_threads(each: Tokenizer) -> None:
    """Every thread gets the ids and the text of its own texts."""
    texts = [f"{'x' * index} test {index} 日本" for index in range(40)]
    expected = [(each.encode(text), each.decode(each.encode(text))) for text in texts]
    wrong: list[str] = []

    def work(shift: int) -> None:
        for index in range(len(texts)):
            at = (index + shift) % len(texts)
            ids = each.encode(texts[at])
            if (ids, each.decode(ids)) != expected[at]:
                wrong.append(texts[at])

    threads = [threading.Thread(target=work, args=(shift,)) for shift in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_openvino_reads_what_a_gguf_conversion_writes(smollm2_tokenizer: Tokenizer) -> None:
    each = smollm2_tokenizer
    assert isinstance(each, OpenVINOTokenizer)
    assert (each.vocab_size, each.special.bos, each.special.eos, each.special.pad) == (49152, 1, 2, 2)
    assert each.encode("Hello <|im_start|> world") == [19556, 216, 1, 905]
    assert each.decode([19556, 216, 1, 905]) == "Hello  world"
    assert "<|im_end|>" in each.special_texts
    assert each.encode("") == []


def test_openvino_does_not_truncate(smollm2_tokenizer: Tokenizer) -> None:
    """The conversion fixes 8192 tokens, and would drop what comes before the last of them without a word."""
    text = "one two " * 10_000
    ids = smollm2_tokenizer.encode(text)
    assert len(ids) > 8192
    assert smollm2_tokenizer.decode(ids) == text


@given(text=st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"], max_codepoint=0xFFFF), max_size=30))
def test_openvino_texts_come_back(smollm2_tokenizer: Tokenizer, text: str) -> None:
    assert smollm2_tokenizer.decode(smollm2_tokenizer.encode(text)) == text
    (encoding,) = smollm2_tokenizer.encode_batch([text], 4096)
    assert encoding.ids == smollm2_tokenizer.encode(text)


def test_openvino_and_nul(smollm2_tokenizer: Tokenizer) -> None:
    """Strings of tensors end before their last NULs: such a text is refused rather than shortened."""
    assert smollm2_tokenizer.decode(smollm2_tokenizer.encode("a\0b")) == "a\0b"
    with pytest.raises(InvalidInputError, match="ends with a NUL"):
        smollm2_tokenizer.encode("a\0")


def test_openvino_pairs(smollm2_tokenizer: Tokenizer) -> None:
    one, two = smollm2_tokenizer.encode("one two three"), smollm2_tokenizer.encode("four")
    assert smollm2_tokenizer.encode_batch(["one two three"], 3, ["four"]) == [Encoding(one[:2] + two[:1], [0, 0, 1])]


VOCABULARY = ["<s>", "▁Hello", "▁", "world", "<0xC3>", "<0xA4>", "▁a▁b", "##s", "é"]


def detokenizer(*steps: Any) -> Any:
    """A detokenizer's graph as conversions from Hugging Face's files have it, with these steps after the look-up."""
    first = pipeline.VocabDecoderStep(vocab=VOCABULARY, skip_tokens=[0])
    last = [pipeline.FuseStep(), pipeline.UTF8ValidateStep()]
    return pipeline.TokenizerPipeline([first, *steps, *last]).get_detokenizer_ov_subgraph()


def test_openvino_detokenizers_of_sentence_piece_kind() -> None:
    """Spaces, bytes and the first space are as the graph has them, without running it for each token."""
    spaces, strip = pipeline.RegexDecodingStep("▁", " "), pipeline.RegexDecodingStep.strip_forward_space()
    for steps in ((), (spaces,), (spaces, pipeline.ByteFallbackStep())):
        graph = detokenizer(*steps)
        pieces = openvino._pieces(graph, *openvino._vocabulary(graph))
        assert pieces is not None
        compiled = openvino._Requests(openvino._core().compile_model(graph, "CPU"))
        for ids in ([0, 1, 2, 3], [6, 6], [8, 4, 5, 1] if len(steps) == 2 else [8, 1]):
            (text,) = compiled.infer(np.array([ids], np.int32), ("string_output",))
            assert pieces.text(ids, skip_special_tokens=True) == text[0]
    graph = detokenizer(spaces, pipeline.ByteFallbackStep(), strip)
    pieces = openvino._pieces(graph, *openvino._vocabulary(graph))
    assert pieces is not None
    assert pieces.text([0, 1, 1], skip_special_tokens=True) == "Hello Hello"


def test_openvino_detokenizers_of_other_kinds_do_it_themselves() -> None:
    graph = detokenizer(pipeline.RegexDecodingStep.replace_continuing_subword_prefix())
    assert openvino._pieces(graph, *openvino._vocabulary(graph)) is None


def test_the_first_tokenizer_beside_a_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained.sentence_piece())
    assert find_tokenizer(model(tmp_path)).encode("Hello world") == tokenizer("bpe").encode("Hello world")
    (tmp_path / "tokenizer.json").write_text(trained.byte_level(), "utf-8")
    config = model(tmp_path)
    assert isinstance(find_tokenizer(config), HuggingFaceTokenizer)
    assert find_tokenizer(config) is find_tokenizer(config)


def test_a_tokenizer_that_the_registry_states(tmp_path: Path) -> None:
    (tmp_path / "own.model").write_bytes(trained.sentence_piece())
    (tmp_path / "tokenizer.json").write_text(trained.byte_level(), "utf-8")
    stated = model(tmp_path, {"tokenizer": tmp_path / "own.model"})
    assert find_tokenizer(stated).encode("Hi") == tokenizer("bpe").encode("Hi")
    with pytest.raises(ConfigError, match=r"'files.tokenizer': expected a file ending in \.json, \.xml, \.model"):
        find_tokenizer(model(tmp_path, {"tokenizer": tmp_path / "vocab.txt"}))


def test_roles_of_tokens_from_the_files_beside(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(trained.byte_level(), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|im_end|>"}, "bos_token": null}')
    (tmp_path / "config.json").write_text('{"bos_token_id": 0, "eos_token_id": 0}')
    special = find_tokenizer(model(tmp_path)).special
    assert (special.bos, special.eos, special.pad, special.unk) == (0, 2, None, None)


def test_begin_and_end_tokens_of_sentence_piece(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained.sentence_piece())
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false, "add_eos_token": true}')
    assert find_tokenizer(model(tmp_path)).template == Template((), (2,), (2,), (2,))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "openvino_tokenizer.xml"])
def test_unreadable_tokenizers(tmp_path: Path, name: str) -> None:
    """The error names model and file, and nothing of where it lies."""
    (tmp_path / name).write_bytes(b"{} no such thing")
    if name.endswith("xml"):
        (tmp_path / "openvino_detokenizer.xml").write_bytes(b"<net/>")
    with pytest.raises(ConfigError, match="'tale'") as raised:
        find_tokenizer(model(tmp_path))
    assert name in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


def test_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected one of tokenizer.json, openvino_tokenizer.xml, tokenizer.model"):
        find_tokenizer(model(tmp_path))
    (tmp_path / "openvino_tokenizer.xml").write_text("<net/>")
    with pytest.raises(ConfigError, match=r"openvino_detokenizer.xml is missing"):
        find_tokenizer(model(tmp_path))


def specs(*names: str, kind: DataType = DataType.I64) -> list[TensorSpec]:
    return [TensorSpec(name, (-1, -1), kind) for name in names]


TWO = [Encoding([5, 6, 7], [0, 0, 1]), Encoding([8], [0])]


def test_arrays_of_just_the_inputs_that_a_model_has() -> None:
    arrays = model_inputs(specs("input_ids", "attention_mask", kind=DataType.I32), TWO, pad_id=9)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "input_ids": [[5, 6, 7], [8, 9, 9]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    assert {array.dtype for array in arrays.values()} == {np.dtype("<i4")}


def test_padding_on_the_left_to_a_length() -> None:
    arrays = model_inputs(specs("input_ids", "token_type_ids", "position_ids"), TWO, length=4, left=True)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "input_ids": [[0, 5, 6, 7], [0, 0, 0, 8]],
        "token_type_ids": [[0, 0, 0, 1], [0, 0, 0, 0]],
        "position_ids": [[0, 0, 1, 2], [0, 0, 0, 0]],
    }


def test_arrays_of_nothing_and_of_too_much() -> None:
    assert model_inputs(specs("input_ids"), [Encoding([], [])])["input_ids"].tolist() == [[0]]
    assert model_inputs(specs("input_ids"), TWO, length=2)["input_ids"].tolist() == [[5, 6], [8, 0]]
    with pytest.raises(ConfigError, match="input 'pixels'"):
        model_inputs(specs("pixels"), TWO)


def test_an_id_beyond_all_reason(tmp_path: Path) -> None:
    """A tokenizer whose list of tokens would take all memory is refused, not read."""
    words = tokenizers.models.WordLevel({"a": 0, "b": (1 << 32) - 1}, unk_token="a")
    (tmp_path / "tokenizer.json").write_text(tokenizers.Tokenizer(words).to_str())
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no tokenizer of Hugging Face$"):
        find_tokenizer(model(tmp_path))
