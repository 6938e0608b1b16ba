"""Reranking by models that read pairs, and by models that embed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from openvino_llama import ConfigError, InvalidInputError
from openvino_llama_text.rerank import Ranking, RerankRequest
from openvino_llama_text.tokenizers import find_tokenizer, model_inputs

from .encoders import WORDS, Bench, encoder

QUERY = "the cat"
DOCUMENTS = ["a red bird flies on the green tree", "dog", "the dog runs " * 9, "the cat is on the house", "cat"]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def cross(bench: Bench) -> Any:
    """A model that reads pairs."""
    return bench.load(encoder("logits", classes=1), "rerank", config={"max_sequence_length": 60})


def expected(bench: Bench, model: Any, query: str = QUERY) -> NDArray[np.float32]:
    """The score of each pair, read without any other beside it."""
    tokenizer = find_tokenizer(bench.config(model))
    compiled = ov.Core().compile_model(encoder("logits", classes=1), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    pairs = tokenizer.encode_batch([query] * len(DOCUMENTS), 60, DOCUMENTS)
    assert 0 < sum(pairs[0].type_ids) < len(pairs[0].ids)
    rows = [compiled(model_inputs(bench.config(model).input_specs(), [pair]))[0][0, 0] for pair in pairs]
    scores: NDArray[np.float32] = 1 / (1 + np.exp(-np.array(rows)))
    return scores


def test_pairs_are_scored(bench: Bench, cross: Any) -> None:
    """Each document with the query, told apart by their types; the best first, each with its place."""
    found = bench.ask(cross, {"query": QUERY, "documents": DOCUMENTS})
    scores = expected(bench, cross)
    assert [each.index for each in found] == np.argsort(-scores).tolist()
    assert np.allclose([each.relevance_score for each in found], np.sort(scores)[::-1], atol=1e-5)
    assert sorted(msgspec.to_builtins(found[0])) == ["index", "relevance_score"]


def test_documents_may_be_objects_and_come_back(bench: Bench, cross: Any) -> None:
    """As other services have it; ``top_n`` says how many are wanted."""
    asked = {
        "query": QUERY,
        "documents": [{"text": text} for text in DOCUMENTS],
        "top_n": 2,
        "return_documents": True,
    }
    found = bench.ask(cross, asked)
    assert [each.index for each in found] == np.argsort(-expected(bench, cross))[:2].tolist()
    assert [each.document.text for each in found] == [DOCUMENTS[each.index] for each in found]


def test_what_another_route_has_read(bench: Bench, cross: Any) -> None:
    """It is told the number of tokens too."""
    found = bench.ask(cross, RerankRequest(QUERY, DOCUMENTS))
    assert isinstance(found, Ranking)
    assert msgspec.to_builtins(found.results) == msgspec.to_builtins(
        bench.ask(cross, {"query": QUERY, "documents": DOCUMENTS})
    )
    assert found.tokens == sum(5 + len(document.split()) for document in DOCUMENTS)


def test_long_documents_lose_their_end_and_the_query_does_not(bench: Bench, cross: Any) -> None:
    """A document of any length has the score of what fits beside the query."""
    words = (WORDS * 10)[: 60 - 5]
    long, fitting, shorter = " ".join(words + WORDS), " ".join(words), " ".join(words[:-1])
    found = bench.ask(cross, {"query": QUERY, "documents": [long, fitting, shorter]})
    by_index = {each.index: each.relevance_score for each in found}
    assert by_index[0] == pytest.approx(by_index[1], abs=1e-5)
    assert abs(by_index[2] - by_index[1]) > 1e-4


def test_a_classifier_of_one_class_reranks_by_its_route(bench: Bench, cross: Any) -> None:
    """The route says what is wanted, not the model's task."""
    classifier = bench.load(encoder("logits", classes=1), "classification", config={"max_sequence_length": 60})
    found = bench.ask(classifier, RerankRequest(QUERY, DOCUMENTS))
    assert found == bench.ask(cross, RerankRequest(QUERY, DOCUMENTS))


def test_an_empty_document(bench: Bench, cross: Any) -> None:
    """Has a score as any other."""
    assert len(bench.ask(cross, RerankRequest(QUERY, ["", *DOCUMENTS])).results) == len(DOCUMENTS) + 1


@pytest.mark.parametrize(("task", "normalize"), [("embedding", True), ("embedding", False), ("rerank", True)])
def test_an_embedding_model_reranks_by_cosines(bench: Bench, task: str, normalize: bool) -> None:
    """Of the query's vector with each document's, whether the vectors have length 1 or not."""
    model = bench.load(encoder("last_hidden_state"), task, config={"normalize": normalize})
    embedder = bench.load(encoder("last_hidden_state"))
    query, *documents = np.array(bench.ask(embedder, {"input": [QUERY, *DOCUMENTS]}).embeddings)
    cosines = np.array(documents) @ query
    found = bench.ask(model, RerankRequest(QUERY, DOCUMENTS)).results
    assert [each.index for each in found] == np.argsort(-cosines).tolist()
    assert np.allclose([each.relevance_score for each in found], np.sort(cosines)[::-1], atol=1e-5)


def test_an_empty_text_is_named(bench: Bench) -> None:
    """Nothing can be asked for; where no special tokens stand around it, a document of nothing has no vector either."""
    bench.load(encoder("last_hidden_state"))
    described = msgspec.json.decode((bench.folder / "tokenizer.json").read_bytes())
    (bench.folder / "tokenizer.json").write_bytes(msgspec.json.encode(described | {"post_processor": None}))
    model = bench.open("model.xml")
    for query, documents, said in [
        ("", ["a"], "^query: expected some text, got none$"),
        ("a", ["a", ""], r"^documents\[1\]: the text has no tokens$"),
    ]:
        with pytest.raises(InvalidInputError, match=said):
            bench.ask(model, RerankRequest(query, documents))


def test_a_classifier_of_several_classes_does_not(bench: Bench) -> None:
    """It can say nothing of two texts, neither when it is loaded for that nor when it is asked."""
    with pytest.raises(ConfigError, match=r"expected an output \(texts, 1\) or vectors"):
        bench.load(encoder("logits"), "rerank")
    classifier = bench.load(encoder("logits"), "classification")
    with pytest.raises(InvalidInputError, match="cannot rerank"):
        bench.ask(classifier, RerankRequest(QUERY, DOCUMENTS))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", 1]}, r"documents\[1\]"),
        ({"documents": [{"title": "a"}]}, "title"),
        ({"documents": ["a", "b\0"]}, r"documents\[1\]: a NUL"),
        ({"query": "\0"}, "query: a NUL"),
        ({"query": None}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"model": "x"}, "model"),
    ],
)
def test_what_is_wrong_is_named(bench: Bench, cross: Any, wrong: dict[str, Any], message: str) -> None:
    """The field, and which of the documents."""
    with pytest.raises(InvalidInputError, match=message):
        bench.ask(cross, {"query": QUERY, "documents": DOCUMENTS} | wrong)
