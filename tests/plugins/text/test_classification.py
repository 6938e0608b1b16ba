"""Text classification: named classes with their probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from openvino_llama import ConfigError, InvalidInputError
from openvino_llama_text.classification import ClassificationRequest
from openvino_llama_text.tokenizers import find_tokenizer

from .encoders import Bench, encoder, reference

TEXTS = ["the cat", "a red bird flies on the green tree", "dog", "the dog runs " * 9]
NAMES = {"0": "joy", "1": "anger", "2": "fear"}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.write("config.json", {"id2label": NAMES})
    yield made
    made.close()


def load(bench: Bench, **entry: Any) -> Any:
    return bench.load(encoder("logits"), "classification", **entry)


def logits(bench: Bench, model: Any) -> NDArray[np.float32]:
    """Of each text alone."""
    tokenizer = find_tokenizer(bench.config(model))
    return np.array(reference(encoder("logits"), [tokenizer.encode(text) for text in TEXTS]))


def scores(found: list[Any]) -> NDArray[Any]:
    """(texts, classes), by class id."""
    return np.array([[each.confidence for each in sorted(one, key=lambda each: each.class_id)] for one in found])


def test_classes_exclude_each_other(bench: Bench) -> None:
    """Softmax over the logits that each text alone has; the best class first."""
    model = load(bench)
    found = bench.ask(model, {"input": TEXTS})
    powers = np.exp(logits(bench, model))
    assert np.allclose(scores(found), powers / powers.sum(1, keepdims=True), atol=1e-5)
    for one in found:
        assert [each.confidence for each in one] == sorted((each.confidence for each in one), reverse=True)
        assert all(NAMES[str(each.class_id)] == each.label for each in one)


def test_classes_that_do_not_exclude_each_other(bench: Bench) -> None:
    """Sigmoid, if config.json says that a text may be of several classes."""
    bench.write("config.json", {"id2label": NAMES, "problem_type": "multi_label_classification"})
    model = load(bench)
    found = bench.ask(model, {"input": TEXTS})
    assert np.allclose(scores(found), 1 / (1 + np.exp(-logits(bench, model))), atol=1e-5)


def test_one_text_has_one_list(bench: Bench) -> None:
    """A text that is no list is answered as a picture is."""
    model = load(bench)
    alone = msgspec.to_builtins(bench.ask(model, {"input": TEXTS[0]}))
    assert alone == msgspec.to_builtins(bench.ask(model, {"input": TEXTS}))[0]
    assert sorted(alone[0]) == ["class_id", "confidence", "label"]
    assert alone == msgspec.to_builtins(bench.ask(model, ClassificationRequest(TEXTS[0])))


def test_as_many_classes_as_are_wanted(bench: Bench) -> None:
    """``top_k`` of them, all if there are fewer."""
    model = load(bench)
    assert [len(bench.ask(model, {"input": "cat", "top_k": count})) for count in (1, 2, 9)] == [1, 2, 3]


def test_names_come_from_the_registry_first(bench: Bench) -> None:
    """Then from config.json, else they are numbers."""
    stated = bench.ask(load(bench, config={"labels": ["x", "y", "z"]}), {"input": "cat"})
    assert sorted(each.label for each in stated) == ["x", "y", "z"]
    bench.write("config.json", {})
    assert sorted(each.label for each in bench.ask(load(bench), {"input": "cat"})) == ["0", "1", "2"]


def test_a_wrong_number_of_names_is_refused(bench: Bench) -> None:
    """When the model is loaded, with the place where they are stated."""
    with pytest.raises(ConfigError, match=r"'config\.labels': 2 labels for 3 classes"):
        load(bench, config={"labels": ["x", "y"]})
    bench.write("config.json", {"id2label": {"0": "x"}})
    with pytest.raises(ConfigError, match=r"config\.json, field 'id2label': 1 labels for 3 classes"):
        load(bench)


def test_a_model_without_logits_is_refused(bench: Bench) -> None:
    """Tokens' vectors are no classes."""
    with pytest.raises(ConfigError, match="expected an output logits of 2 dimensions, got last_hidden_state"):
        bench.load(encoder("last_hidden_state"), "classification")


@pytest.mark.parametrize("body", [{"input": []}, {"input": "cat", "top_k": 0}, {"text": "cat"}, {"input": ["cat", 1]}])
def test_what_is_wrong_is_refused(bench: Bench, body: dict[str, Any]) -> None:
    """With the field's name."""
    with pytest.raises(InvalidInputError, match=r"input|top_k|text"):
        bench.ask(load(bench), body)
