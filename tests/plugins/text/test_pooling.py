"""One vector for each text: what pooling makes of tokens' vectors, whatever the padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from openvino_llama import ConfigError, OpenVINOLlamaError
from openvino_llama_text.tokenizers import find_tokenizer

from .encoders import Bench, encoder, reference

TEXTS = ["the cat", "a red bird flies on the green tree", "dog", "the dog runs " * 9]
Vectors = NDArray[np.float32]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def ids_of(bench: Bench, model: Any) -> list[list[int]]:
    tokenizer = find_tokenizer(bench.config(model))
    return [tokenizer.encode(text) for text in TEXTS]


def unit(vector: Vectors) -> Vectors:
    length: np.float32 = np.linalg.norm(vector)
    return vector / length


def vectors(bench: Bench, model: Any) -> Vectors:
    return np.array(bench.ask(model, {"input": TEXTS}).embeddings)


def _weighted_mean(tokens: Vectors) -> Vectors:
    weights = np.arange(1, len(tokens) + 1)[:, None]
    mean: Vectors = (tokens * weights).sum(0) / weights.sum()
    return mean


POOLINGS: dict[str, tuple[str, Callable[[Vectors], Any]]] = {
    "mean": ("pooling_mode_mean_tokens", lambda tokens: tokens.mean(0)),
    "cls": ("pooling_mode_cls_token", lambda tokens: tokens[0]),
    "last": ("pooling_mode_lasttoken", lambda tokens: tokens[-1]),
    "max": ("pooling_mode_max_tokens", lambda tokens: tokens.max(0)),
    "mean_sqrt_len": ("pooling_mode_mean_sqrt_len_tokens", lambda tokens: tokens.sum(0) / np.sqrt(len(tokens))),
    "weighted_mean": ("pooling_mode_weightedmean_tokens", _weighted_mean),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_pooling_is_that_of_the_files(bench: Bench, name: str) -> None:
    """Texts of all lengths in one request have the vectors that numpy makes of each text's tokens alone."""
    field, pooled = POOLINGS[name]
    bench.write("1_Pooling/config.json", {field: True})
    bench.write("modules.json", [{"type": "sentence_transformers.models.Transformer"}])  # and no Normalize
    model = bench.load(encoder("last_hidden_state"))
    alone = reference(encoder("last_hidden_state"), ids_of(bench, model))
    assert np.allclose(vectors(bench, model), [pooled(tokens) for tokens in alone], atol=1e-4)


@pytest.mark.parametrize("name", ["mean", "cls", "last"])
def test_pooling_of_the_registry_wins(bench: Bench, name: str) -> None:
    """What the registry states is taken, whatever the files say."""
    bench.write("1_Pooling/config.json", {"pooling_mode_max_tokens": True})
    bench.write("modules.json", [])
    model = bench.load(encoder("last_hidden_state"), config={"pooling": name, "normalize": True})
    alone = reference(encoder("last_hidden_state"), ids_of(bench, model))
    assert np.allclose(vectors(bench, model), [unit(POOLINGS[name][1](tokens)) for tokens in alone], atol=1e-5)


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_may_stand_on_either_side(bench: Bench, name: str) -> None:
    """The graph finds the first and the last token by the mask."""
    bench.write("1_Pooling/config.json", {POOLINGS[name][0]: True})
    graph = bench.load(encoder("last_hidden_state", inputs=["input_ids", "attention_mask"])).serving.graph
    ids = np.array([[0, 0, 2, 5, 6, 3], [2, 5, 6, 3, 0, 0]])
    left, right = graph.compiled([ids, (ids != 0).astype(np.int64)])[0]  # type: ignore[attr-defined]
    assert np.allclose(left, right, atol=1e-6)


def test_mean_and_length_one_are_the_default(bench: Bench) -> None:
    """Without any files beside the model."""
    model = bench.load(encoder("last_hidden_state"))
    alone = reference(encoder("last_hidden_state"), ids_of(bench, model))
    assert np.allclose(vectors(bench, model), [unit(tokens.mean(0)) for tokens in alone], atol=1e-5)


@pytest.mark.parametrize("outputs", [("last_hidden_state", "pooler_output"), ("pooler_output", "last_hidden_state")])
def test_other_outputs_are_dropped(bench: Bench, outputs: tuple[str, ...]) -> None:
    """BERT's pooler_output is no embedding; the guest carries vectors of texts alone, and requests share inferences."""
    config = bench.config(bench.load(encoder(*outputs)))
    assert [(spec.name, spec.shape) for spec in config.output_specs()] == [("sentence_embedding", (-1, 12))]
    assert config.batching.max_batch_size == 8


@pytest.mark.parametrize("outputs", [("last_hidden_state", "sentence_embedding"), ("pooler_output",)])
def test_vectors_of_texts_are_only_normalized(bench: Bench, outputs: tuple[str, ...]) -> None:
    """A model that pools on its own is left to it."""
    bench.write("1_Pooling/config.json", {"pooling_mode_max_tokens": True})
    model = bench.load(encoder(*outputs))
    alone = reference(encoder(*outputs), ids_of(bench, model), output=len(outputs) - 1)
    assert np.allclose(vectors(bench, model), [unit(vector) for vector in alone], atol=1e-5)


def test_normalizing_can_be_switched_off(bench: Bench) -> None:
    """By the registry, over the files."""
    bench.write("modules.json", [{"type": "sentence_transformers.models.Normalize"}])
    model = bench.load(encoder("pooler_output"), config={"normalize": False})
    alone = reference(encoder("pooler_output"), ids_of(bench, model))
    assert np.allclose(vectors(bench, model), alone, atol=1e-5)


def test_other_element_types(bench: Bench) -> None:
    """Inputs may be i32, as those of some exports are."""
    model = bench.load(encoder("last_hidden_state", kind=np.int32))
    assert vectors(bench, model).shape == (4, 12)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (encoder("last_hidden_state", inputs=["input_ids"]), "input_ids and attention_mask"),
        (encoder("pooler_output", "logits"), "expected an output sentence_embedding or last_hidden_state"),
    ],
)
def test_graphs_that_do_not_fit_are_refused(bench: Bench, model: ov.Model, message: str) -> None:
    """Padding must be seen, and there must be no doubt which output is meant."""
    with pytest.raises(ConfigError, match=message):
        bench.load(model)


def test_a_layer_that_is_not_in_the_graph_is_refused(bench: Bench) -> None:
    """Vectors without the Dense layer that a model was trained with would be wrong without any sign of it."""
    bench.write("modules.json", [{"type": "sentence_transformers.models.Dense"}])
    with pytest.raises(OpenVINOLlamaError, match=r"modules\.json: .* a module Dense"):
        bench.load(encoder("last_hidden_state"))
