"""Texts of different lengths to inferences of few shapes, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llama import Batching, ModelConfig, Preprocessed
from openvino_llama_text.buckets import bucket, gather, split
from openvino_llama_text.tokenizers import Encoding

from .encoders import Bench, encoder


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def config(bench: Bench) -> ModelConfig:
    """A model that takes at most 300 tokens, and four texts at a time."""
    model = bench.load(
        encoder("last_hidden_state"), config={"max_sequence_length": 300}, batching=Batching(max_batch_size=4)
    )
    return bench.config(model)


def encodings(*lengths: int) -> list[Encoding]:
    """Texts of these lengths; the ids of each are its place."""
    return [Encoding([place + 1] * length, [0] * length) for place, length in enumerate(lengths)]


def parts(config: ModelConfig, *lengths: int) -> list[Preprocessed]:
    made = split(config, encodings(*lengths), lambda rows: rows)
    return [made] if isinstance(made, Preprocessed) else made


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_bucket_holds_the_text_and_little_more(length: int, most: int) -> None:
    """Never more than the model takes, and padding is less than 16 tokens or than an eighth."""
    length = min(length, most)
    padded = bucket(length, most)
    assert length <= padded <= most
    assert padded - length < max(16, length / 7)


def test_there_are_few_buckets() -> None:
    """Lengths up to 512 have 24 buckets, so that OpenVINO soon knows all shapes."""
    assert len({bucket(length, 512) for length in range(1, 513)}) == 24


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_every_text_is_in_one_inference(lengths: list[int]) -> None:
    """No text is lost or cut, the mask covers its tokens and no others, and no inference has too many rows."""
    for part in parts(_CONFIG[0], *lengths):
        ids, mask = part.tensors["input_ids"], part.tensors["attention_mask"]
        assert ids.shape == mask.shape
        assert len(ids) <= 4
        for row, kept in zip(ids, mask, strict=True):
            place = row[0] - 1
            assert kept.sum() == lengths[place]
            assert (row[: lengths[place]] == place + 1).all()
            assert not row[lengths[place] :].any()
    seen = [row[0] - 1 for part in parts(_CONFIG[0], *lengths) for row in part.tensors["input_ids"]]
    assert sorted(seen) == list(range(len(lengths)))


_CONFIG: list[ModelConfig] = []


@pytest.fixture(autouse=True)
def _shared(config: ModelConfig) -> Iterator[None]:
    """Hypothesis takes no fixtures of a function: the model's configuration lies here."""
    _CONFIG[:] = [config]
    yield
    _CONFIG.clear()


def test_short_texts_are_not_padded_to_long_ones(config: ModelConfig) -> None:
    """One long text among short ones has an inference of its own, though there was room for it."""
    shapes = sorted(part.tensors["input_ids"].shape for part in parts(config, 5, 250, 6))
    assert shapes == [(1, 256), (2, 16)]


def test_texts_of_near_lengths_share_an_inference(config: ModelConfig) -> None:
    """A few tokens of padding cost less than an inference."""
    assert [part.tensors["input_ids"].shape for part in parts(config, 10, 20, 30, 40)] == [(4, 48)]


def test_an_inference_has_64_rows_at_most(bench: Bench) -> None:
    """Whatever max_batch_size says: the runner may put several into one."""
    config = bench.config(bench.load(encoder("last_hidden_state"), batching=Batching(max_batch_size=1000)))
    assert sorted(len(part.tensors["input_ids"]) for part in parts(config, *[9] * 130)) == [2, 64, 64]


def test_a_fixed_length_is_the_only_one(bench: Bench) -> None:
    """Where all texts are padded alike, there are as few inferences as there can be."""
    config = bench.config(
        bench.load(encoder("last_hidden_state", shape=(-1, 200)), batching=Batching(max_batch_size=4))
    )
    assert [part.tensors["input_ids"].shape for part in parts(config, 5, 190, 6, 7, 100)] == [(4, 200), (1, 200)]


def test_a_fixed_shape_is_filled(bench: Bench) -> None:
    """A model of fixed rows and length gets exactly those; what fills the rows is in no answer."""
    config = bench.config(bench.load(encoder("last_hidden_state", shape=(4, 24))))
    made = parts(config, 3, 4, 5, 6, 7)
    assert [part.tensors["input_ids"].shape for part in made] == [(4, 24)] * 2
    for part in made:
        gather({"vectors": part.tensors["input_ids"][:, :1]}, part.context)
    assert gather({}, made[0].context).tolist() == [[1], [2], [3], [4], [5]]


def test_rows_come_back_in_the_order_of_the_request(config: ModelConfig) -> None:
    """Whatever the order in which inferences end, and although their memory is used again."""
    made = parts(config, 70, 3, 200, 4, 90, 5, 6, 7, 80)
    assert len(made) > 2
    for part in reversed(made):
        output = part.tensors["input_ids"][:, :1].copy()
        assert gather({"vectors": output}, part.context) is None
        output[:] = -1
    answer = gather({}, made[0].context)
    assert np.array_equal(answer, np.arange(1, 10)[:, None])


def test_one_inference_is_answered_at_once(config: ModelConfig) -> None:
    """A request of one inference waits for no further call."""
    made = split(config, encodings(3), lambda rows: rows.tolist())
    assert isinstance(made, Preprocessed)
    assert gather({"vectors": np.array([[7.0]])}, made.context) == [[7.0]]
