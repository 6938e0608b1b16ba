"""Streamed pieces hold whole characters only, and are together what decoding all tokens at once gives."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llama_text.detokenizer import Detokenizer
from openvino_llama_text.tokenizers import Tokenizer

from .models import KINDS, LOSSLESS, tokenizer
from .trained import MIXED

random_ids = st.lists(st.integers(0, 700), max_size=60)


def streamed(each: Tokenizer, groups: Iterable[list[int]]) -> list[str]:
    detokenizer = Detokenizer(each)
    return [*(detokenizer.push(ids) for ids in groups), detokenizer.flush()]


def one_by_one(ids: list[int]) -> list[list[int]]:
    return [[each] for each in ids]


@pytest.mark.parametrize("kind", LOSSLESS)
def test_no_half_characters(kind: str) -> None:
    """A text of many scripts comes as it is, and its pieces hold no replacement character."""
    each = tokenizer(kind)
    pieces = streamed(each, one_by_one(each.encode(MIXED)))
    assert "".join(pieces) == MIXED
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", LOSSLESS)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufdd0"), max_size=40))
def test_any_text_comes_whole(kind: str, text: str) -> None:
    each = tokenizer(kind)
    ids = each.encode(text)
    assert "".join(streamed(each, one_by_one(ids))) == each.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(ids=random_ids, cuts=st.lists(st.integers(0, 60)))
def test_random_tokens_in_random_groups(kind: str, ids: list[int], cuts: list[int]) -> None:
    """Even of what no model would say, bytes that are no UTF-8 included."""
    each = tokenizer(kind)
    ends = sorted({min(cut, len(ids)) for cut in cuts} | {0, len(ids)})
    groups = [ids[begin:end] for begin, end in itertools.pairwise(ends)]
    assert "".join(streamed(each, groups)) == each.decode(ids)


def test_random_tokens_of_openvino(smollm2_tokenizer: Tokenizer) -> None:
    @given(st.lists(st.integers(0, 49_151), max_size=40))
    def check(ids: list[int]) -> None:
        text = smollm2_tokenizer.decode(ids)
        assert "".join(streamed(smollm2_tokenizer, one_by_one(ids))) == text
        # The graph drops bytes that are no UTF-8, and its string tensors NULs at the end; here they are seen.
        assert text.replace("\ufffd", "").rstrip("\0") == smollm2_tokenizer.join(ids, skip_special_tokens=True)

    check()


def test_mixed_text_of_openvino(smollm2_tokenizer: Tokenizer) -> None:
    pieces = streamed(smollm2_tokenizer, one_by_one(smollm2_tokenizer.encode(MIXED)))
    assert "".join(pieces) == MIXED
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_incomplete_character_waits() -> None:
    each = tokenizer("bpe")
    assert each.pieces
    euro = [each.pieces.all.index(bytes([byte])) for byte in "€".encode()]
    detokenizer = Detokenizer(each)
    assert [detokenizer.push([one]) for one in euro] == ["", "", "€"]
    assert detokenizer.push(euro[:2]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""


def test_special_tokens_give_no_text() -> None:
    each = tokenizer("byte_level")
    hello = each.encode("Hello")
    assert "".join(streamed(each, [[1], hello, [2], [], hello, [10**6, -1]])) == "HelloHello"


def test_only_the_very_first_space_is_not_part_of_the_text() -> None:
    """SentencePiece writes one before each text; special tokens before it do not count."""
    each = tokenizer("byte_fallback")
    word = each.encode("Hello", add_special_tokens=False)
    assert streamed(each, [[1], word, word]) == ["", "Hello", " Hello", ""]
