"""Exports that are served, and those that are refused when they are loaded, with what is wrong."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from openvino_llama import ConfigError, ModelLoadError, UnsupportedTargetError
from openvino_llama_multimodal.encoder_decoder.backend import EncoderDecoderBackend
from openvino_llama_multimodal.encoder_decoder.exported import read_decoder, read_encoder, read_first_decoder
from openvino_llama_multimodal.encoder_decoder.graphs import join

from .captioners import CAPTIONER, DECODER, ENCODER, FIRST, READER, changed, config, generate, golden, opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(READER, tmp_path / "model"))


def joined(source: Path) -> tuple[ov.Model, ov.Model]:
    core, model = ov.Core(), config(source)
    return join(model, read_encoder(core, model), read_decoder(core, model), lambda: read_first_decoder(core, model))


@pytest.mark.parametrize("source", [CAPTIONER, READER])
def test_what_depends_on_the_picture_alone_is_the_encoders(source: Path) -> None:
    """Keys and values of two layers' cross-attention: the decoder takes them, and no more, beside its tokens."""
    encoder, decoder = joined(source)
    given = [port.any_name for port in encoder.outputs]
    assert [port.get_shape() for port in encoder.outputs] == [[1, 4, 17, 8]] * 4
    assert sorted(port.any_name for port in decoder.inputs) == sorted(["input_ids", *given])
    assert [port.any_name for port in decoder.outputs] == ["logits"]
    assert [port.get_shape() for port in encoder.inputs] == [[1, 32, 32, 3]]
    products = Counter(node.get_type_name() for node in decoder.get_ordered_ops())
    assert products["ScaledDotProductAttention"] == 4
    assert products["ReadValue"] == 4


def test_weights_stay_compressed(tmp_path: Path) -> None:
    """Half the precision is half the bytes, of what has been moved as well."""
    core = ov.Core()
    for name in (ENCODER, DECODER, FIRST):
        path = tmp_path / name
        ov.save_model(core.read_model(READER / name), path, compress_to_fp16=True)
    shutil.copytree(READER, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.xml", "*.bin"))
    for model in joined(tmp_path):
        large = [
            node for node in model.get_ordered_ops() if node.get_type_name() == "Constant" and node.data.size > 500
        ]
        assert large
        assert {node.get_element_type().to_string() for node in large} == {"f16"}
    graph = opened(tmp_path)
    expected = golden(READER)[0]
    assert generate(graph)[1] == pytest.approx(expected.logprobs, abs=0.05)
    graph.close()


def test_files_may_lie_elsewhere(folder: Path) -> None:
    """Under their roles; weights lie beside their graphs."""
    (folder / "parts").mkdir()
    for name in (DECODER, FIRST):
        for suffix in (".xml", ".bin"):
            path = (folder / name).with_suffix(suffix)
            path.rename(folder / "parts" / path.name)
    model = config(folder)
    roles = {"decoder": folder / "parts" / FIRST, "decoder_with_past": folder / "parts" / DECODER}
    graph = EncoderDecoderBackend().open(msgspec.structs.replace(model, files=model.files | roles), None)
    assert generate(graph)[0] == golden(READER)[0].tokens
    graph.close()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (DECODER, f"expected {DECODER} beside the encoder.*--task image-to-text-with-past"),
        (FIRST, f"expected {FIRST} beside the encoder"),
        (DECODER.replace("xml", "bin"), "there is no file openvino_decoder_with_past_model.bin"),
        (ENCODER.replace("xml", "bin"), "there is no file openvino_encoder_model.bin"),
        ("config.json", "max_position_embeddings or n_positions"),
        ("preprocessor_config.json", "no preprocessor_config.json beside the model"),
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str, told: str) -> None:
    """The message says what writes it, or what may be stated in its place; of no path."""
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=told) as error:
        opened(folder)
    assert str(folder) not in str(error.value)


def test_a_decoder_that_leaves_nothing_to_another_needs_none(tmp_path: Path) -> None:
    """GPT-2's kind computes all by itself: the checked-in captioner has no first decoder."""
    assert not (CAPTIONER / FIRST).exists()
    assert joined(CAPTIONER)


@pytest.mark.parametrize("name", [ENCODER, DECODER, FIRST])
@pytest.mark.parametrize("content", [b"", b"<net", b"<net name='x' version='11'><layers/></net>"])
def test_a_broken_file_is_named(folder: Path, name: str, content: bytes) -> None:
    """Whatever OpenVINO makes of it; its own words stay in the cause."""
    (folder / name).write_bytes(content)
    with pytest.raises((ModelLoadError, ConfigError)) as error:
        opened(folder)
    assert str(folder) not in str(error.value)


def test_the_captioners_decoder_does_not_fit_the_readers(folder: Path) -> None:
    """Of a cache that no graph gives it is said so."""
    for suffix in (".xml", ".bin"):
        shutil.copy((CAPTIONER / DECODER).with_suffix(suffix), (folder / FIRST).with_suffix(suffix))
    with pytest.raises(ConfigError, match=r"takes past_key_values.0.encoder.key, which the decoder without a cache"):
        opened(folder)


def with_input(model: ov.Model) -> ov.Model:
    mask = ops.parameter([-1, -1], np.int64, "attention_mask")
    mask.output(0).set_names({"attention_mask"})
    model.add_parameters([mask])
    return model


def of_other_width(model: ov.Model) -> ov.Model:
    """Vectors of 31 numbers."""
    result = model.get_results()[0]
    narrow = ops.slice(result.input_value(0), np.array([0]), np.array([31]), np.array([1]), np.array([2]))
    result.input(0).replace_source_output(narrow.output(0))
    return model


def without_cache(model: ov.Model) -> ov.Model:
    return ov.Model([model.output("logits").get_node()], model.get_parameters())


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        (DECODER, with_input, "expected a decoder with the inputs .* got the inputs attention_mask, enc"),
        (DECODER, without_cache, "takes the cache past_key_values.0.*, but gives none for it"),
        (ENCODER, of_other_width, "the decoder attends to vectors of 32 numbers, the encoder gives 31"),
        (ENCODER, with_input, "expected an encoder that takes one picture, got the inputs"),
    ],
)
@pytest.mark.parametrize("source", [CAPTIONER, READER])
def test_graphs_that_do_not_fit_are_refused(
    source: Path, name: str, change: Callable[[ov.Model], ov.Model], told: str, tmp_path: Path
) -> None:
    """With what was expected, and what there is."""
    with pytest.raises(ConfigError, match=told):
        opened(changed(source, tmp_path / "model", name, change))


def test_a_decoder_is_no_encoder(folder: Path) -> None:
    """Nor the other way round."""
    model = config(folder)
    backend = EncoderDecoderBackend()
    with pytest.raises(ConfigError, match="expected an encoder that takes one picture"):
        backend.open(msgspec.structs.replace(model, files={"model": folder / DECODER}), None)
    roles = model.files | {"decoder_with_past": folder / ENCODER}
    with pytest.raises(ConfigError, match="expected a decoder with the inputs"):
        backend.open(msgspec.structs.replace(model, files=roles), None)


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("generation_config.json", {"decoder_start_token_id": 300}, "begins with the token 300; .* 0 to 299"),
        ("generation_config.json", {"decoder_start_token_id": "a"}, "generation_config.json: Expected `int"),
        ("config.json", {"decoder": []}, "config.json: Expected `object`"),
        ("config.json", {"decoder": {"max_position_embeddings": 0}}, "max_position_embeddings or n_positions"),
        (
            "preprocessor_config.json",
            {"size": {"height": 30, "width": 30}},
            "not take pictures of the size \\[30, 30\\]",
        ),
    ],
)
def test_files_that_say_nonsense_are_refused(folder: Path, file: str, fields: dict[str, Any], told: str) -> None:
    """With the file's name, or what does not fit."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    with pytest.raises((ConfigError, ModelLoadError), match=told):
        opened(folder)


def test_no_file_says_what_a_text_begins_with(folder: Path) -> None:
    """Neither the start of a decoder, nor of a text at all."""
    for file in ("generation_config.json", "config.json"):
        stated = json.loads((folder / file).read_text())
        for field in ("decoder_start_token_id", "bos_token_id"):
            stated.pop(field, None)
        (folder / file).write_text(json.dumps(stated))
    with pytest.raises(ConfigError, match="which token a text begins with; generation_config"):
        opened(folder)


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    """Without OpenVINO's words."""
    with pytest.raises(ModelLoadError, match="could not join and compile"):
        EncoderDecoderBackend().open(msgspec.structs.replace(config(folder), device="GPU.7"), None)


def test_guests_bring_none_of_their_own() -> None:
    """There is more to it than one graph."""
    with pytest.raises(UnsupportedTargetError, match="by name only"):
        EncoderDecoderBackend().load([], None, None)
