"""Stop strings are found wherever the text is cut into pieces, and nothing is held back without need."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llama_text.stops import StopStrings

texts = st.text("ab\n.", max_size=30)
stop_lists = st.lists(st.text("ab\n.", min_size=1, max_size=4), max_size=4)


def send(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """Everything that is sent of these pieces, and whether a stop string ended it."""
    matcher = StopStrings(stops)
    sent = ""
    for piece in pieces:
        text, stopped = matcher.push(piece)
        sent += text
        if stopped:
            return sent, True
    return sent + matcher.flush(), False


def naive(text: str, stops: list[str]) -> tuple[str, bool]:
    """Grow the text character by character until it ends in a stop string."""
    for end in range(len(text) + 1):
        ending = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(ending)], True
    return text, False


@given(texts, stop_lists, st.lists(st.integers(0, 30)))
def test_any_splitting_gives_what_the_whole_text_gives(text: str, stops: list[str], cuts: list[int]) -> None:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[begin:end] for begin, end in itertools.pairwise(ends)]
    assert send(pieces, stops) == naive(text, stops)


@given(texts, stop_lists)
def test_only_what_may_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    matcher = StopStrings(stops)
    sent, stopped = matcher.push(text)
    held = matcher.flush()
    assert stopped or sent + held == text
    assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


@pytest.mark.parametrize(
    ("pieces", "stops", "sent"),
    [
        (["Hello", "\n", "\nUser:"], ["\n\nUser:"], "Hello"),
        (["1, 2, 3", ", 4"], ["3, 4", "9"], "1, 2, "),
        (["aaab"], ["aab"], "a"),
        (["👩", "\u200d", "👧!"], ["👩\u200d👧"], ""),
        (["abc"], ["bc", "abc"], ""),
        (["abc"], ["b", "abc"], "a"),
    ],
)
def test_examples(pieces: list[str], stops: list[str], sent: str) -> None:
    """The text before the stop string that is complete first; of two complete at once, before the longer one."""
    assert send(pieces, stops) == (sent, True)


def test_without_stop_strings_everything_goes_through() -> None:
    """Empty ones stop nothing."""
    assert send(["a", "", "b"], []) == send(["a", "b"], [""]) == ("ab", False)


def test_nothing_follows_a_stop_string() -> None:
    matcher = StopStrings(["."])
    assert matcher.push("one. two") == ("one", True)
    assert matcher.push("three.") == ("", True)
    assert matcher.flush() == ""
