"""Which token is chosen: each parameter's effect, seen in many draws."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openvino_llama import InferenceError
from openvino_llama_multimodal.encoder_decoder.sampling import Sampler
from openvino_llama_text.engine.parameters import EngineParameters

PROBABILITIES = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
LOGITS = np.log(PROBABILITIES).astype(np.float32)


def sampler(prompt: tuple[int, ...] = (), ends: tuple[int, ...] = (), **parameters: Any) -> Sampler:
    return Sampler(EngineParameters(max_tokens=1000, **parameters), prompt, ends)


def drawn(count: int = 4000, logits: Any = LOGITS, **parameters: Any) -> dict[int, float]:
    """How often each token is drawn by sequences of one token."""
    seeds = np.random.default_rng(0).integers(1 << 60, size=count).tolist()
    found = Counter(sampler(seed=seed, **parameters).choose(logits)[0] for seed in seeds)
    return {token: found[token] / count for token in sorted(found)}


def test_greedy_takes_the_most_probable_token() -> None:
    """So does a temperature that logits cannot be divided by; of equal ones it is the first."""
    for temperature in (0, 1e-300, 1e-6):
        assert sampler(temperature=temperature).choose(LOGITS)[0] == 0
    assert sampler().choose(np.array([1.0, 2.0, 2.0]))[0] == 1


def test_the_log_probability_is_the_models_own() -> None:
    """Whatever temperature and penalties have made of it."""
    one = sampler(temperature=1.5, frequency_penalty=2, seed=3)
    for _ in range(20):
        token, logprob = one.choose(LOGITS)
        assert logprob == pytest.approx(np.log(PROBABILITIES[token]), abs=1e-6)


def test_draws_follow_the_probabilities() -> None:
    """At temperature 1 they are the model's."""
    found = drawn(temperature=1)
    assert [found[token] for token in range(5)] == pytest.approx(PROBABILITIES.tolist(), abs=0.03)


def test_temperature_sharpens_and_flattens() -> None:
    """Probabilities to the power of 1 / temperature, normalised."""
    for temperature in (0.5, 2.0):
        expected = PROBABILITIES ** (1 / temperature)
        found = drawn(temperature=temperature)
        assert [found[token] for token in range(5)] == pytest.approx((expected / expected.sum()).tolist(), abs=0.03)


@pytest.mark.parametrize(
    ("parameters", "left"),
    [
        ({"top_k": 2}, 2),
        ({"top_k": 5}, 5),
        ({"top_k": 99}, 5),
        ({"top_p": 0.39}, 1),
        ({"top_p": 0.41}, 2),
        ({"top_p": 0.86}, 4),
        ({"top_p": 1e-9}, 1),
        ({"min_p": 0.5}, 2),
        ({"min_p": 0.74}, 2),
        ({"min_p": 0.76}, 1),
        ({"top_k": 3, "top_p": 0.8}, 2),  # of what top_k has left
        ({"min_p": 0.3, "top_k": 4}, 3),
    ],
)
def test_only_the_most_probable_tokens_are_left(parameters: dict[str, Any], left: int) -> None:
    """In their proportions."""
    found = drawn(temperature=1, **parameters)
    expected = PROBABILITIES[:left] / PROBABILITIES[:left].sum()
    assert list(found) == list(range(left))
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=0.03)


def test_min_p_looks_at_the_probabilities_after_temperature() -> None:
    """As vLLM does: a high temperature lets more tokens in."""
    assert len(drawn(temperature=1, min_p=0.3)) == 3
    assert len(drawn(temperature=3, min_p=0.3)) == 5


def test_a_repetition_penalty_counts_the_prompt() -> None:
    """Positive logits are divided by it, negative ones multiplied; how often a token came does not matter."""
    logits = np.array([2.0, -1.0, 0.5])
    assert sampler(repetition_penalty=2).choose(logits)[0] == 0
    assert sampler(prompt=(0, 0), repetition_penalty=2).choose(np.array([2.0, 1.1]))[0] == 1
    assert sampler(prompt=(0, 0), repetition_penalty=2).choose(np.array([2.0, 0.9]))[0] == 0
    assert sampler(prompt=(1,), repetition_penalty=2).choose(np.array([-1.9, -1.0]))[0] == 0
    assert sampler(prompt=(1,), repetition_penalty=0.5).choose(np.array([-0.6, -1.0]))[0] == 1


def test_presence_and_frequency_penalties_count_the_answer_only() -> None:
    """The one once for a token, the other for each time that it came."""
    logits = np.array([1.0, 0.5, 0.0])
    assert [*_chosen(sampler(prompt=(0,), presence_penalty=0.7), logits, 4)] == [0, 1, 0, 0]
    assert [*_chosen(sampler(prompt=(0,), frequency_penalty=0.4), logits, 4)] == [0, 0, 1, 0]
    assert [*_chosen(sampler(frequency_penalty=-1), np.array([1.0, 1.1]), 3)] == [1, 1, 1]


def _chosen(one: Sampler, logits: Any, count: int) -> list[int]:
    return [one.choose(logits)[0] for _ in range(count)]


def test_the_end_waits_for_the_least_number_of_tokens() -> None:
    """Neither greedily nor by chance is it chosen before; ends that the model does not know are no matter."""
    assert _chosen(sampler(ends=(0, 77), min_tokens=3), LOGITS, 5) == [1, 1, 1, 0, 0]
    assert 0 not in _chosen(sampler(ends=(0,), min_tokens=50, temperature=1), LOGITS, 50)


def test_a_seed_repeats_a_sequence() -> None:
    """Another one gives another, and none is different each time."""
    draw: dict[str, Any] = {"temperature": 1.0}
    assert _chosen(sampler(seed=7, **draw), LOGITS, 30) == _chosen(sampler(seed=7, **draw), LOGITS, 30)
    assert _chosen(sampler(seed=7, **draw), LOGITS, 30) != _chosen(sampler(seed=8, **draw), LOGITS, 30)
    assert _chosen(sampler(**draw), LOGITS, 30) != _chosen(sampler(**draw), LOGITS, 30)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_an_error(wrong: float) -> None:
    """They would choose something all the same."""
    with pytest.raises(InferenceError, match="not finite"):
        sampler(temperature=1).choose(np.array([0.0, wrong]))


def test_minus_infinity_is_never_drawn() -> None:
    """Models forbid tokens so."""
    assert list(drawn(200, np.array([0.0, -np.inf, 0.0]), temperature=100.0)) == [0, 2]


@example(logits=[0.0], temperature=1.0, top_p=5e-324, top_k=0, min_p=0.0)
@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
    temperature=st.floats(0, 100),
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=st.integers(0, 30),
    min_p=st.floats(0, 1, exclude_max=True),
)
def test_there_is_always_a_token(logits: list[float], **parameters: Any) -> None:
    """Whatever the logits and the parameters; its log-probability is a number, and not above 0."""
    token, logprob = sampler(ends=(0,), min_tokens=len(logits) > 1, **parameters).choose(np.array(logits, np.float32))
    assert 0 <= token < len(logits)
    assert -2.1e4 < logprob <= 1e-9
