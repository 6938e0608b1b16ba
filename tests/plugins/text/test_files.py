"""Facts from the files beside a model, tolerant of what is not known, strict about what is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openvino_llama import ConfigError
from openvino_llama_text.files import ModelFacts, facts_of, generation_defaults_of, located, tokenizer_facts_of

from .models import model


def facts(folder: Path, **files: Any) -> ModelFacts:
    """The facts of a model beside which these files lie: name without suffix -> content."""
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return facts_of(model(folder))


def test_nothing_is_known_without_files(tmp_path: Path) -> None:
    assert facts(tmp_path) == ModelFacts()


@pytest.mark.parametrize(
    "field", ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length"]
)
def test_names_of_the_number_of_positions(tmp_path: Path, field: str) -> None:
    assert facts(tmp_path, config={field: 512, "unknown": [1]}).max_positions == 512
    assert facts(tmp_path, config={"text_config": {field: 256}}).max_positions == 256


def test_config(tmp_path: Path) -> None:
    config = {"model_type": "bert", "vocab_size": 9, "id2label": {"1": "b", "0": "a"}, "pad_token_id": 0}
    found = facts(tmp_path, config=config)
    assert (found.model_type, found.vocab_size, found.labels, found.pad_token_id) == ("bert", 9, ("a", "b"), 0)


def test_generation_config_comes_before_config(tmp_path: Path) -> None:
    found = facts(tmp_path, config={"eos_token_id": 1}, generation_config={"eos_token_id": [2, 3], "temperature": 1})
    assert found.eos_token_ids == (2, 3)
    defaults = generation_defaults_of(model(tmp_path))
    assert (defaults.temperature, defaults.top_p, defaults.do_sample) == (1.0, None, None)
    assert facts(tmp_path, generation_config={}).eos_token_ids == (1,)


@pytest.mark.parametrize(("stated", "known"), [(512, 512), (10**30, None), (1e30, None), (0, None), (-1, None)])
def test_lengths_that_mean_no_limit(tmp_path: Path, stated: float, known: int | None) -> None:
    assert facts(tmp_path, tokenizer_config={"model_max_length": stated}).max_sequence_length == known


def test_sentence_transformers(tmp_path: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Transformer"}]
    found = facts(
        tmp_path,
        tokenizer_config={"model_max_length": 512},
        sentence_bert_config={"max_seq_length": 256},
        modules=[*modules, {"type": "sentence_transformers.models.Normalize", "idx": 2}],
        **{"1_Pooling__config": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}},
    )
    assert (found.max_sequence_length, found.normalize, found.pooling) == (256, True, "cls")
    assert facts(tmp_path, modules=modules).normalize is False


def test_tokens_by_role(tmp_path: Path) -> None:
    facts(
        tmp_path,
        tokenizer_config={"eos_token": {"content": "</s>", "lstrip": False}, "bos_token": None},
        special_tokens_map={"eos_token": "<x>", "pad_token": "<pad>"},
    )
    found = tokenizer_facts_of(model(tmp_path))
    assert [found.token(role) for role in ("bos", "eos", "pad")] == [None, "</s>", "<pad>"]


def test_a_gguf_conversion_states_its_tokens(smollm2: Path) -> None:
    found = facts_of(model(smollm2))
    assert (found.bos_token_id, found.eos_token_ids, found.pad_token_id) == (1, (2,), 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"vocab_size": "many"}', r"file config.json: .*\$.vocab_size"),
        ("config.json", "{", "file config.json"),
        ("config.json", b"\xff\xfe", "file config.json"),
        ("config.json", "[" * 100_000, "file config.json"),
        ("config.json", '{"id2label": {"0": "a", "2": "c"}}', "field 'id2label'"),
        ("generation_config.json", '{"eos_token_id": ["x"]}', r"file generation_config.json: .*eos_token_id"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default"}]}', r"template"),
        ("modules.json", "{}", "file modules.json"),
        ("openvino_tokenizer.xml", "<net>", "openvino_tokenizer.xml is not well-formed"),
        ("openvino_tokenizer.xml", '<!DOCTYPE x [<!ENTITY a SYSTEM "/etc/hostname">]><x>&a;</x>', "not well-formed"),
    ],
)
def test_errors_name_file_and_field_and_no_path(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"model 'tale'.*{message}") as raised:
        facts_of(model(tmp_path))
    assert str(tmp_path) not in str(raised.value)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inside.json").write_text('{"vocab_size": 7}')
    (folder / "config.json").symlink_to("inside.json")
    assert facts_of(model(folder)).vocab_size == 7
    (folder / "generation_config.json").symlink_to("../secret.json")
    with pytest.raises(ConfigError, match=r"generation_config.json is a link out of the model's folder"):
        facts_of(model(folder))


def test_missing_and_broken_links_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to("nowhere")
    assert located(model(tmp_path), "config.json") is None
    assert located(model(tmp_path), "1_Pooling/config.json") is None
