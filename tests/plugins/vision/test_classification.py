"""The best classes are named, in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from openvino_llama import ModelConfig
from openvino_llama_vision.classification import classify
from openvino_llama_vision.config import VisionConfig, VisionParameters


def model(**config: Any) -> ModelConfig:
    return ModelConfig(
        name="test", type="vision", task="classification", files={"model": Path("m")}, config=VisionConfig(**config)
    )


SCORES = np.array([[0.1, 0.5, 0.05, 0.3, 0.05]], np.float32)


def ids(scores: NDArray[Any], config: ModelConfig | None = None, **parameters: Any) -> list[int]:
    return [each.class_id for each in classify(config or model(), scores, VisionParameters(**parameters))]


def test_top_k() -> None:
    assert ids(SCORES) == [1, 3, 0, 2, 4]
    assert ids(SCORES, top_k=2) == [1, 3]
    assert ids(SCORES, model(top_k=3)) == [1, 3, 0]
    assert ids(SCORES, top_k=1000) == [1, 3, 0, 2, 4]


def test_threshold() -> None:
    assert ids(SCORES, threshold=0.3) == [1, 3]
    assert ids(SCORES, threshold=0.9) == []


def test_quantised_scores_are_255ths() -> None:
    (best, *_) = classify(model(), np.array([[0, 255, 51]], np.uint8), VisionParameters())
    assert (best.class_id, best.confidence) == (1, 1.0)
    assert ids(np.array([[0, 255, 51]], np.uint8), threshold=0.2) == [1, 2]


def test_extra_dimensions_do_not_matter() -> None:
    assert ids(SCORES.reshape(1, 5, 1, 1), top_k=1) == [1]


def test_labels_are_names_or_numbers() -> None:
    named = classify(model(labels=("a", "b")), SCORES, VisionParameters(top_k=2))
    assert [each.label for each in named] == ["b", "3"]


@given(arrays.arrays(np.uint8, st.integers(1, 50)), st.integers(1, 60))
def test_the_order_is_that_of_a_full_sort(scores: NDArray[np.uint8], top_k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda each: (-int(scores[each]), each))[:top_k]
    assert ids(scores[None], top_k=top_k) == expected


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_numbers_are_plain_and_short(kind: type) -> None:
    (best, *_) = classify(model(), SCORES.astype(kind), VisionParameters())
    assert isinstance(best.confidence, float)
    assert len(str(best.confidence)) <= 8
