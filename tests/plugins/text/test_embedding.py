"""Embedding: what is asked, what comes back, and whether all-MiniLM-L6-v2 gives the vectors that it is known for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from openvino_llama import Batching, ConfigError, ContextLengthError, InferenceRequest, InvalidInputError, Limits
from openvino_llama_text.embedding import EmbeddingRequest, Embeddings, preprocess

from .encoders import WORDS, Bench, encoder

LONG = " ".join(WORDS * 20)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def model(bench: Bench) -> Any:
    return bench.load(encoder("last_hidden_state"), config={"max_sequence_length": 100})


def test_a_text_has_a_vector(bench: Bench, model: Any) -> None:
    """Of length 1, with its size and the number of tokens beside it."""
    result = msgspec.to_builtins(bench.ask(model, {"input": "the cat"}))
    assert sorted(result) == ["dimensions", "embeddings", "tokens"]
    assert result["dimensions"] == 12
    assert result["tokens"] == 4
    assert np.isclose(np.linalg.norm(result["embeddings"]), 1)


def test_company_changes_nothing(bench: Bench, model: Any) -> None:
    """A text's vector is the same alone and among others, shorter and longer, in one request and in many at once."""
    texts = [" ".join(WORDS[: 1 + place % 17] * (1 + place % 5)) for place in range(60)]
    together = bench.ask(model, {"input": texts})
    with ThreadPoolExecutor(8) as threads:
        alone = list(threads.map(lambda text: bench.ask(model, {"input": text}), texts))
    assert np.allclose(together.embeddings, [each.embeddings[0] for each in alone], atol=1e-5)
    assert together.tokens == sum(each.tokens for each in alone)
    assert len(np.unique(np.round(together.embeddings, 4), axis=0)) > 50


def test_requests_share_inferences(bench: Bench) -> None:
    """Texts of near lengths come into one inference, whoever sent them."""
    model = bench.load(encoder("last_hidden_state"), limits=Limits(workers=1))
    jobs = [bench.submit(model, {"input": ["the cat", "a dog runs"]}) for _ in range(20)]
    assert len({str(job.future.result(30).embeddings) for job in jobs}) == 1
    assert max(bench.observer.batches) == 4  # of two rows each: max_batch_size is 8


def test_max_batch_size_of_one(bench: Bench) -> None:
    """A request of several texts is then one of as many inferences."""
    model = bench.load(encoder("last_hidden_state"), batching=Batching(max_batch_size=1))
    assert len(bench.ask(model, {"input": ["the cat"] * 3}).embeddings) == 3
    assert bench.observer.batches == [1, 1, 1]


def test_what_another_route_has_read(bench: Bench, model: Any) -> None:
    """It gets an array, with the same numbers."""
    found = bench.ask(model, EmbeddingRequest(["the cat", "a dog"]))
    assert isinstance(found, Embeddings)
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (2, 12)
    assert np.allclose(bench.ask(model, {"input": ["the cat", "a dog"]}).embeddings, found.vectors, atol=1e-8)


def test_fewer_dimensions(bench: Bench, model: Any) -> None:
    """The first of them, of length 1 again."""
    whole = np.array(bench.ask(model, {"input": "the cat"}).embeddings[0])
    cut = bench.ask(model, {"input": "the cat", "dimensions": 5})
    assert cut.dimensions == 5
    assert np.allclose(cut.embeddings[0], whole[:5] / np.linalg.norm(whole[:5]), atol=1e-6)


def test_fewer_dimensions_of_vectors_as_they_are(bench: Bench) -> None:
    """Where vectors are not normalized, neither are their beginnings."""
    model = bench.load(encoder("last_hidden_state"), config={"normalize": False})
    whole = bench.ask(model, {"input": "the cat"}).embeddings[0]
    assert bench.ask(model, {"input": "the cat", "dimensions": 5}).embeddings[0] == whole[:5]


def test_long_texts_lose_their_end(bench: Bench, model: Any) -> None:
    """The special token at the end stays; which texts were too long is told."""
    found = bench.ask(model, {"input": ["the cat", LONG]})
    kept = bench.ask(model, {"input": " ".join((WORDS * 20)[:98])})
    assert found.truncated == [1]
    assert found.tokens == 4 + 100
    assert kept.truncated == []
    assert np.allclose(found.embeddings[1], kept.embeddings[0], atol=1e-5)


def test_long_texts_may_be_refused(bench: Bench, model: Any) -> None:
    """By the client's wish, with the place of the first; one that just fits is none."""
    fitting = " ".join((WORDS * 20)[:98])
    assert bench.ask(model, {"input": fitting, "truncate": False}).tokens == 100
    with pytest.raises(ContextLengthError, match=r"input\[1\]: the text has more than the 100 tokens"):
        bench.ask(model, {"input": ["the cat", LONG], "truncate": False})


def test_the_least_of_all_limits_holds(bench: Bench) -> None:
    """The registry's, the operator's, those of the files and that of the graph."""
    bench.write("config.json", {"max_position_embeddings": 80})
    for config, most in [({}, 80), ({"max_sequence_length": 70}, 70)]:
        assert bench.ask(bench.load(encoder("last_hidden_state"), config=config), {"input": LONG}).tokens == most
    limited = bench.load(encoder("last_hidden_state"), limits=Limits(max_sequence_length=60))
    assert bench.ask(limited, {"input": LONG}).tokens == 60
    bench.write("sentence_bert_config.json", {"max_seq_length": 50})
    assert bench.ask(bench.load(encoder("last_hidden_state")), {"input": LONG}).tokens == 50
    fixed = bench.load(encoder("last_hidden_state", shape=(1, 40)))
    assert bench.ask(fixed, {"input": [LONG, "the cat"]}).tokens == 44


def test_there_must_be_room_for_a_text(bench: Bench) -> None:
    """A limit that special tokens use up is refused when the model is loaded."""
    assert bench.ask(bench.load(encoder("last_hidden_state"), limits=Limits(max_sequence_length=3)), {"input": LONG})
    with pytest.raises(ConfigError, match="at most 2 tokens, and 2 of them are special"):
        bench.load(encoder("last_hidden_state"), limits=Limits(max_sequence_length=2))


def test_positions_that_padding_takes_are_no_room(bench: Bench) -> None:
    """RoBERTa begins to count after the id of padding: its last two positions are none."""
    bench.write("config.json", {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1})
    assert bench.ask(bench.load(encoder("last_hidden_state")), {"input": LONG}).tokens == 64


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "^field 'input': is required"),
        ({"input": []}, "^field 'input': expected array of length >= 1, got 0"),
        ({"input": ["the"] * 2049}, "^field 'input': expected array of length <= 2048, got 2049"),
        ({"input": 5}, "^field 'input': expected str or array, got 5"),
        ({"input": ["the", None]}, r"^field 'input\[1\]': expected str, got null"),
        ({"input": "the", "inputs": "a"}, "^field 'inputs': there is no such field"),
        ({"input": "the", "dimensions": 0}, "dimensions"),
        ({"input": "the", "dimensions": 13}, "dimensions: the model's vectors have 12, not 13"),
        ({"input": "the", "dimensions": 1.5}, "dimensions"),
        ({"input": ["the", "a\0b"]}, "input\\[1\\]: a NUL character stands at character 1"),
        ({"input": "a\0b"}, "input: a NUL character"),
        ({"input": ["\ud800"]}, "the body"),
    ],
)
def test_what_is_wrong_is_named(bench: Bench, model: Any, body: dict[str, Any], message: str) -> None:
    """Which field, which of the texts, what was expected and what came."""
    with pytest.raises(InvalidInputError, match=message):
        bench.ask(model, body)


def test_lone_surrogates_are_named(bench: Bench, model: Any) -> None:
    """A route that has read them some other way than from JSON may have let them through."""
    with pytest.raises(InvalidInputError, match=r"input\[1\]: a lone surrogate stands at character 4"):
        bench.ask(model, EmbeddingRequest(["the", "the \ud800"]))


def test_a_text_without_tokens_is_refused(bench: Bench, model: Any) -> None:
    """A blank has a vector where special tokens stand around it, and else none."""
    assert bench.ask(model, {"input": ["the", " "]}).tokens == 5
    tokenizer = bench.folder / "bare" / "tokenizer.json"
    tokenizer.parent.mkdir()
    described = msgspec.json.decode((bench.folder / "tokenizer.json").read_bytes())
    tokenizer.write_bytes(msgspec.json.encode(described | {"post_processor": None}))
    for name in ("model.xml", "model.bin"):
        shutil.copy(bench.folder / name, tokenizer.parent)
    with pytest.raises(InvalidInputError, match=r"input\[1\]: the text has no tokens"):
        bench.ask(bench.open("bare/model.xml"), {"input": ["the", " "]})


@pytest.mark.parametrize(("given", "place"), [("", "input"), (["the", ""], r"input\[1\]")])
def test_an_empty_text_is_refused(bench: Bench, model: Any, given: Any, place: str) -> None:
    """As OpenAI does."""
    with pytest.raises(InvalidInputError, match=f"^{place}: expected some text, got none$"):
        bench.ask(model, {"input": given})


def test_forms_are_read_too(bench: Bench, model: Any) -> None:
    """As those of a browser are."""
    request = InferenceRequest(b"input=the+cat&dimensions=5", "application/x-www-form-urlencoded")
    prepared = preprocess(bench.config(model), request)
    assert prepared.tensors["attention_mask"].sum() == 4  # type: ignore[union-attr]


def test_a_model_without_tokenizer_is_refused(bench: Bench) -> None:
    """When it is loaded, not when it is asked."""
    bench.load(encoder("last_hidden_state"))
    (bench.folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="no tokenizer"):
        bench.open("model.xml")


@pytest.fixture
def minilm() -> Iterator[tuple[Bench, Any]]:
    """all-MiniLM-L6-v2 as ``optimum-cli export openvino --task feature-extraction --weight-format fp32`` writes it."""
    folder = Path(os.environ.get("OVLLAMA_TEST_MINILM", ""))
    if not (folder / "openvino_model.xml").is_file():
        pytest.skip("OVLLAMA_TEST_MINILM is not the folder of a converted all-MiniLM-L6-v2")
    made = Bench(folder)
    yield made, made.open("openvino_model.xml")
    made.close()


# The first eight numbers of SentenceTransformer(folder).encode(text), rounded, by sentence-transformers and torch on a
# CPU in float32 with the same weights. The last text is cut at the 256 tokens that the model was trained for.
REFERENCE = {
    "A man is eating food.": [0.03324, 0.00441, -0.00628, 0.04838, -0.1387, -0.03362, 0.10113, -0.05438],
    "A man is eating a piece of bread.": [0.05252, 0.05524, -0.01119, -0.00575, -0.12721, -0.02225, 0.07688, 0.01319],
    "The girl is carrying a baby.": [-0.03631, -0.03565, -0.02722, 0.03832, 0.07078, -0.01658, 0.06168, 0.05444],
    "naïve café über straße": [0.08758, 0.0441, -0.05404, 0.00545, -0.05868, 0.05109, 0.02783, -0.05265],
    "The cat sat on the mat and looked at the rain. " * 60: [
        0.02143,
        -0.01512,
        0.01943,
        0.00593,
        -0.00816,
        0.03502,
        0.01013,
        0.01492,
    ],
}


def test_vectors_are_those_of_sentence_transformers(minilm: tuple[Bench, Any]) -> None:
    """Texts of very different lengths in one request, each to 1e-4."""
    bench, model = minilm
    found = bench.ask(model, {"input": list(REFERENCE)})
    assert found.dimensions == 384
    assert found.truncated == [4]
    assert np.allclose([vector[:8] for vector in found.embeddings], list(REFERENCE.values()), atol=1e-4)


def test_texts_that_mean_alike_are_near(minilm: tuple[Bench, Any]) -> None:
    """Two meals are nearer to each other than to a baby: by the cosines that sentence-transformers finds."""
    bench, model = minilm
    food, bread, baby = np.array(bench.ask(model, {"input": list(REFERENCE)[:3]}).embeddings)
    assert np.isclose(food @ bread, 0.7553, atol=1e-3)
    assert np.isclose(food @ baby, -0.1050, atol=1e-3)
