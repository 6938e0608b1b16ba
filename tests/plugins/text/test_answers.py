"""One text as it grows: where it ends, what is shown when, and what it is as a whole."""

from __future__ import annotations

import math
from typing import Any

import pytest

from openvino_llama_text.answers import Answer
from openvino_llama_text.requests import GenerationRequest
from openvino_llama_text.sampling import Sampling

from .models import tokenizer

END = 0
"""The tokenizer's end of a text."""


def ids(text: str) -> list[int]:
    return tokenizer("byte_level").encode(text, add_special_tokens=False)


def begun(prompt: str = "a prompt", *, max_tokens: int = 1000, **asked: Any) -> Answer:
    request = GenerationRequest(prompt=prompt, **asked)
    sampling = Sampling(
        max_tokens=max_tokens,
        stop=request.stop,
        min_tokens=request.min_tokens,
        ignore_eos=request.ignore_eos,
        stop_token_ids=request.stop_token_ids or [END],
    )
    return Answer(request, sampling, tokenizer("byte_level"), ids(prompt))


def grown(answer: Answer, tokens: list[int], step: int = 1) -> list[str]:
    """The pieces that come while the tokens come, so many at a time, until the text has ended."""
    pieces = []
    for start in range(0, len(tokens), step):
        group = tokens[start : start + step]
        answer.add(group, [-0.5] * len(group))
        if piece := answer.news():
            pieces.append(piece.text)
        if answer.ended:
            break
    return pieces


TEXT = "the quick brown fox, a café, 日本 and 🙂 end"


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_pieces_are_the_text(step: int) -> None:
    """However many tokens come at a time; a character is shown when it is whole."""
    answer = begun()
    pieces = grown(answer, [*ids(TEXT), END], step)
    assert "".join(pieces) == answer.whole().generated_text == TEXT
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_end_token_ends_it() -> None:
    """It is counted, and gives no text."""
    answer = begun()
    grown(answer, [*ids("the end"), END])
    whole = answer.whole()
    assert (answer.ended, whole.generated_text, whole.finish_reason) == (True, "the end", "stop")
    assert whole.tokens_generated == len(ids("the end")) + 1
    assert whole.usage.total_tokens == len(ids("a prompt")) + whole.tokens_generated


def test_enough_tokens_end_it() -> None:
    """With what is there of a character that is not whole."""
    tokens = ids("é🙂")[:-1]
    answer = begun(max_tokens=len(tokens))
    pieces = grown(answer, tokens)
    assert "".join(pieces) == answer.whole().generated_text
    assert pieces[-1].endswith("\ufffd")
    assert (answer.ended, answer.whole().finish_reason) == (True, "length")


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("stop", ["ick br", ["zzz", ", a"], "🙂", "the quick brown fox", "t"])
def test_stop_strings_end_it(step: int, stop: str | list[str]) -> None:
    """Nothing of them is shown, and tokens behind the one that completes them are not of the text."""
    answer = begun(stop=stop)
    pieces = grown(answer, ids(TEXT), step)
    whole = answer.whole()
    cut = TEXT.index(stop if isinstance(stop, str) else stop[1])
    assert "".join(pieces) == whole.generated_text == TEXT[:cut]
    assert (answer.ended, whole.finish_reason) == (True, "stop")
    alone = begun(stop=stop)
    grown(alone, ids(TEXT))
    assert whole.tokens_generated == alone.whole().tokens_generated < len(ids(TEXT))


def test_what_was_held_back_comes_at_the_end() -> None:
    """When no stop string came of it."""
    answer = begun(stop="end of all", max_tokens=len(ids("the end of")))
    pieces = grown(answer, ids("the end of"))
    assert "".join(pieces) == "the end of"
    assert "end" not in "".join(pieces[:-1])


def test_the_engine_may_end_it() -> None:
    """Without a last token, when its memory is full: what was held back is in the whole then."""
    answer = begun(stop="end of all")
    shown = "".join(grown(answer, ids("the end of")))
    answer.end()
    assert (shown, answer.whole().generated_text) == ("the ", "the end of")
    assert answer.whole().finish_reason == "length"


@pytest.mark.parametrize("step", [1, 1000])
def test_stated_tokens_end_it_although_the_models_own_do_not(step: int) -> None:
    """``ignore_eos`` makes the engine ignore all of them: those that are stated end the text here."""
    stop = ids(",")[0]
    answer = begun(ignore_eos=True, stop_token_ids=[stop])
    tokens = [*ids("the"), END, *ids(" end"), stop, *ids("and more")]
    grown(answer, tokens, step)
    whole = answer.whole()
    assert (answer.ended, whole.generated_text, whole.finish_reason) == (True, "the end", "stop")
    assert whole.tokens_generated == tokens.index(stop) + 1


def test_not_before_there_are_enough() -> None:
    """``min_tokens`` holds for the tokens that end a text here, too."""
    stop = ids(",")[0]
    answer = begun(ignore_eos=True, stop_token_ids=[stop], min_tokens=3)
    grown(answer, [stop] * 10)
    assert answer.whole().tokens_generated == 4


def test_echo() -> None:
    """The prompt comes first, and no stop string is looked for in it."""
    answer = begun("quick", echo=True, stop="quick")
    pieces = grown(answer, [*ids(" the"), END])
    assert "".join(pieces) == answer.whole().generated_text == "quick the"
    assert pieces[0].startswith("quick")


@pytest.mark.parametrize("asked", [{"return_token_ids": True}, {"logprobs": True}])
def test_ids_come_with_the_pieces(asked: dict[str, Any]) -> None:
    """All of them, though some give no text; and with the whole text, if they are wanted."""
    tokens = [*ids(TEXT), END]
    answer = begun(**asked)
    found: list[int] = []
    logprobs: list[float] = []
    for token in tokens:
        answer.add([token], [-0.5] if "logprobs" in asked else [])
        piece = answer.news()
        assert piece
        found += piece.token_ids
        logprobs += piece.logprobs
    assert found == answer.whole().token_ids == tokens
    assert logprobs == answer.whole().logprobs == ([-0.5] * len(tokens) if "logprobs" in asked else [])
    assert bool(answer.whole().prompt_token_ids) == ("return_token_ids" in asked)


def test_nothing_that_was_not_asked_for() -> None:
    """No ids, and no piece where there is nothing to show."""
    answer = begun()
    answer.add(ids("🙂")[:1], [])
    assert answer.news() is None
    assert answer.whole().token_ids == []


def test_confidence() -> None:
    """The geometric mean of the tokens' probabilities, also if nobody has asked to see them."""
    answer = begun()
    assert answer.confidence == 0
    answer.add(ids("the end")[:1], [math.log(0.5)])
    assert answer.confidence == pytest.approx(0.5)
    answer.add(ids("the end")[:1], [math.log(0.125)])
    assert answer.confidence == pytest.approx(0.25)
    assert answer.whole().logprobs == []
    news = answer.news()
    assert news
    assert news.logprobs == []


def test_confidence_of_what_is_shown() -> None:
    """Tokens behind a stop string count for nothing."""
    answer = begun(stop="quick")
    tokens = ids("the quick brown fox")
    taken = answer.add(tokens, [-1.0] * len(tokens))
    assert 0 < taken < len(tokens)
    assert answer.confidence == pytest.approx(math.exp(-1))
    behind = begun(stop="quick")
    behind.add(tokens, [-1.0] * taken + [-50.0] * (len(tokens) - taken))
    assert behind.confidence == answer.confidence


def test_confidence_is_zero_if_nothing_is_known() -> None:
    """Of tokens without probabilities."""
    answer = begun()
    answer.add(ids("the end"), [])
    assert answer.confidence == 0


def test_a_prompt_may_be_more_than_its_tokens() -> None:
    """What the engine has counted, pictures and all, is what usage says."""
    answer = begun("a prompt")
    assert answer.whole().usage.prompt_tokens == len(ids("a prompt"))
    answer.prompt_tokens = 600
    grown(answer, [*ids("the end"), END])
    usage = answer.whole().usage
    assert (usage.prompt_tokens, usage.total_tokens) == (600, 600 + usage.completion_tokens)
