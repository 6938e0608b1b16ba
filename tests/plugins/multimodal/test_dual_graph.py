"""What becomes of a dual encoder's graph, and which models are refused when they are loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from openvino_llama import ConfigError, DataType

from .dual_bench import TINY_CLIP, TINY_SIGLIP, Bench, golden


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(TINY_CLIP, tmp_path / "model")
    yield made
    made.close()


@pytest.fixture
def siglip(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(TINY_SIGLIP, tmp_path / "model")
    yield made
    made.close()


def read(bench: Bench) -> ov.Model:
    return ov.Core().read_model(bench.folder / "openvino_model.xml")


def write(bench: Bench, model: ov.Model) -> None:
    ov.save_model(model, bench.folder / "other.xml", compress_to_fp16=False)


def inputs_of(model: Any) -> dict[str, Any]:
    return {spec.name: (spec.shape, spec.data_type) for spec in model.serving.config.inputs}


def test_pixels_are_bytes(bench: Bench) -> None:
    """Of the processor's size, channels last; texts stay of any length, and both of any number."""
    assert inputs_of(bench.load()) == {
        "pixel_values": ((-1, 32, 32, 3), DataType.U8),
        "input_ids": ((-1, -1), DataType.I64),
        "attention_mask": ((-1, -1), DataType.I64),
    }


def test_texts_without_a_mask_have_the_trained_length(siglip: Bench) -> None:
    """SigLIP has seen none that were not padded to it."""
    assert inputs_of(siglip.load())["input_ids"] == ((-1, 24), DataType.I64)
    described = {"text_config": {"model_type": "siglip_text_model"}, "model_type": "siglip"}
    (siglip.folder / "config.json").unlink()
    siglip.change("config.json", **described)
    with pytest.raises(ConfigError, match=r"field 'text_config.max_position_embeddings': expected the length"):
        siglip.load()


def test_a_model_for_one_picture_is_opened_for_any_number(bench: Bench) -> None:
    """An export of fixed shapes serves as well."""
    model = read(bench)
    model.reshape({"pixel_values": [1, 3, 32, 32], "input_ids": [1, 77], "attention_mask": [1, 77]})
    write(bench, model)
    fixed = bench.load(files={"model": "other.xml"})
    assert inputs_of(fixed)["input_ids"][0] == (-1, 77)
    exact = (TINY_CLIP / "exact.png").read_bytes()
    expected = golden(TINY_CLIP)
    found = bench.match(fixed, exact, expected.texts)
    assert found.confidence == pytest.approx(max(expected.pictures["exact"].scores), abs=1e-5)


def test_halves_alone_are_refused(bench: Bench) -> None:
    """What has no picture, or no text, is no dual encoder: the message says what it has."""
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    ids.output(0).set_names({"input_ids"})
    write(bench, ov.Model([ops.convert(ids, "f32")], [ids]))
    with pytest.raises(ConfigError, match=r"expected a dual encoder, .*; got the inputs input_ids and the outputs"):
        bench.load(files={"model": "other.xml"})


def test_logits_of_something_else_are_refused(bench: Bench) -> None:
    """Where pictures and texts meet before their vectors do, each cannot be computed alone."""
    model = read(bench)
    logits = model.output("logits_per_image").get_node()
    more = ops.add(logits.input_value(0), ops.reduce_sum(model.input("pixel_values"), np.array([0, 1, 2, 3])))
    logits.input(0).replace_source_output(more.output(0))
    write(bench, model)
    with pytest.raises(ConfigError, match="its logits_per_image cannot be computed from image_embeds and text_embeds"):
        bench.load(files={"model": "other.xml"})


def test_a_text_must_have_room(bench: Bench) -> None:
    """A limit that the special tokens use up is refused."""
    with pytest.raises(ConfigError, match="at most 2 tokens, and 2 of them are special"):
        bench.load(config={"text": {"max_sequence_length": 2}})


def test_files_must_be_there(bench: Bench) -> None:
    """The tokenizer, and the processor."""
    (bench.folder / "tokenizer.json").rename(bench.folder / "kept.json")
    with pytest.raises(ConfigError, match="no tokenizer"):
        bench.load()
    (bench.folder / "kept.json").rename(bench.folder / "tokenizer.json")
    (bench.folder / "processor_config.json").unlink()
    with pytest.raises(ConfigError, match=r"no preprocessor_config\.json beside the model"):
        bench.load()
