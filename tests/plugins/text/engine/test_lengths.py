"""How long prompts are, as far as that is known before and after the model has seen a picture of their size."""

from __future__ import annotations

import pytest

from openvino_llama_text.engine.frames import Illustrated, Picture
from openvino_llama_text.engine.lengths import PromptLength, PromptLengths


def picture(height: int = 30, width: int = 40) -> Picture:
    return Picture(height, width, b"")


def illustrated(text: str, *pictures: Picture) -> Illustrated:
    return Illustrated("".join(f"<ov_genai_image_{number}>" for number in range(len(pictures))) + text, list(pictures))


@pytest.fixture
def lengths() -> PromptLengths:
    """A token for each character."""
    return PromptLengths(len)


def test_tokens_are_counted(lengths: PromptLengths) -> None:
    """Eight bytes each."""
    assert lengths.of(b"\0" * 80) == PromptLength(10, 10)
    assert lengths.of(b"\0" * 80).is_known


def test_a_text_without_pictures_is_known(lengths: PromptLengths) -> None:
    """Its tokens are all that there are."""
    assert lengths.of(illustrated("hello")) == PromptLength(5, 5)
    assert lengths.of(illustrated("")) == PromptLength(0, 0)


def test_marks_are_no_text(lengths: PromptLengths) -> None:
    """What stands for a picture, whatever its number, is counted as a picture."""
    many = [picture()] * 12
    found = lengths.of(illustrated("hello", *many))
    assert found.least == 5 + 12
    assert not found.is_known


def test_large_pictures_may_become_many_tokens(lengths: PromptLengths) -> None:
    """One for each 28 x 28 pixels and more, if that is more than any model makes of its tiles."""
    assert lengths.of(illustrated("", picture(4000, 4000))).most >= 4000 * 4000 // 28**2
    assert lengths.of(illustrated("", picture(1, 1))).most >= 2880  # LLaVA-NeXT's


def test_one_picture_of_a_size_tells_of_all(lengths: PromptLengths) -> None:
    """Once a prompt has ended, those with pictures of the same size are known; turned by 90 degrees it is another."""
    lengths.learn(illustrated("hello", picture()), 5 + 16)
    assert lengths.of(illustrated("hi", picture(), picture())) == PromptLength(34, 34)
    assert not lengths.of(illustrated("hi", picture(40, 30))).is_known
    assert lengths.of(illustrated("hi", picture(), picture(40, 30))).least == 2 + 16 + 1


def test_pictures_of_several_sizes_tell_nothing(lengths: PromptLengths) -> None:
    """Nobody knows how many tokens each of them has become."""
    lengths.learn(illustrated("hello", picture(), picture(40, 30)), 40)
    assert not lengths.of(illustrated("hello", picture())).is_known


def test_several_of_one_size_are_rounded_up(lengths: PromptLengths) -> None:
    """What is written beside each is counted with it, and no prompt turns out longer than was said."""
    lengths.learn(illustrated("", *[picture()] * 3), 50)
    assert lengths.of(illustrated("", picture())) == PromptLength(17, 17)
    assert lengths.of(illustrated("", *[picture()] * 3)).most >= 50


def test_what_was_learned_first_stays(lengths: PromptLengths) -> None:
    """A size always becomes the same."""
    lengths.learn(illustrated("", picture()), 16)
    lengths.learn(illustrated("", picture()), 99)
    assert lengths.of(illustrated("", picture())) == PromptLength(16, 16)


def test_memory_is_bounded(lengths: PromptLengths) -> None:
    """Pictures of ever new sizes fill nothing up; those that were learned before remain known."""
    for width in range(1, 5001):
        lengths.learn(illustrated("", picture(1, width)), 16)
    known = [lengths.of(illustrated("", picture(1, width))).is_known for width in (1, 4000, 5000)]
    assert known == [True, True, False]
