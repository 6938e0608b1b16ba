"""Sampling parameters: their ranges, and what holds where a request, the registry or the model's files say nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from openvino_llama import ConfigError
from openvino_llama_text.sampling import MAX_STOPS, Sampling, defaults_of, with_defaults

from .models import model

RANGES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "max_tokens": ((1, 1 << 24), (0, -1, (1 << 24) + 1, 1.5, "1")),
    "min_tokens": ((0, 5), (-1, "x")),
    "temperature": ((0, 0.0, 1, 100), (-0.1, 100.1, float("nan"), float("inf"), "1")),
    "top_p": ((0.01, 1), (0, 1.01, float("nan"))),
    "top_k": ((0, 40), (-1, 0.5)),
    "min_p": ((0, 0.99), (1, -0.1, float("nan"))),
    "repetition_penalty": ((0.01, 1, 10), (0, 10.1, float("nan"))),
    "presence_penalty": ((-2, 0, 2), (-2.1, 2.1, float("-inf"))),
    "frequency_penalty": ((-2, 0, 2), (-2.1, 2.1, float("nan"))),
    "stop": (("a", ["a", "b"], [], ["x" * 1024], ["a"] * MAX_STOPS), ("", [""], [1], ["x" * 1025], ["a"] * 17, 5)),
    "stop_token_ids": (([], [0, 5]), ([-1], ["a"], [1 << 40], [1] * 65)),
    "ignore_eos": ((True, False), (1, "true")),
    "seed": ((0, (1 << 63) - 1), (-1, 1 << 63, 0.5)),
    "json_schema": (({}, '{"type": "object"}'), ([], "", {"a": "x" * (1 << 16)})),
    "regex": (("a+",), ("", "é" * (1 << 15) + "a", 5)),
    "grammar": (('root ::= "a"',), ("", 5)),
}


def test_every_field_has_a_range() -> None:
    assert set(RANGES) == set(Sampling.__struct_fields__)


@pytest.mark.parametrize("name", RANGES)
def test_ranges(name: str) -> None:
    """What is in a field's range is taken, null too; what is not is refused, by the field's name."""
    good, bad = RANGES[name]
    for value in (*good, None):
        assert getattr(msgspec.convert({name: value}, Sampling), name) == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError, match=name):
            msgspec.convert({name: value}, Sampling)


def test_one_form_at_most() -> None:
    """A text cannot follow a schema and a regular expression."""
    with pytest.raises(msgspec.ValidationError, match="json_schema and regex: expected one of them at most"):
        msgspec.convert({"json_schema": {}, "regex": "a"}, Sampling)


def written(folder: Path, stated: dict[str, Any], **generation: Any) -> Sampling:
    """The defaults of a model whose generation_config.json and registry entry state that."""
    (folder / "generation_config.json").write_text(json.dumps(stated))
    return defaults_of(model(folder, generation=generation))


def test_the_registry_comes_before_the_files(tmp_path: Path) -> None:
    """What it states holds; what it does not is the files'."""
    stated = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 64, "pad_token_id": 3}
    found = written(tmp_path, stated, top_p=0.5, stop=["\n"])
    assert found == Sampling(temperature=0.7, top_p=0.5, max_tokens=64, stop=["\n"])


@pytest.mark.parametrize(
    ("stated", "temperature"),
    [
        ({"do_sample": False, "temperature": 0.7}, 0.0),
        ({"do_sample": False}, 0.0),
        ({"do_sample": True}, 1.0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({}, 1.0),
    ],
)
def test_whether_a_model_is_to_sample(tmp_path: Path, stated: dict[str, Any], temperature: float) -> None:
    """One that is not is greedy, whatever temperature stands beside that; else it is 1, as OpenAI's."""
    assert written(tmp_path, stated).temperature == temperature


@pytest.mark.parametrize("generation", [{"temperature": -1}, {"surprise": 1}, {"logprobs": True}, {"stop": [""]}])
def test_wrong_defaults_are_refused(tmp_path: Path, generation: dict[str, Any]) -> None:
    """When the model is loaded, by the field's name."""
    with pytest.raises(ConfigError, match=next(iter(generation))):
        written(tmp_path, {}, **generation)


def test_a_request_comes_before_all() -> None:
    """Even where it states what would hold if nobody said anything."""
    defaults = Sampling(temperature=0.7, presence_penalty=1.0, ignore_eos=True, stop=["a"], min_tokens=4, top_k=5)
    asked = Sampling(temperature=0.0, presence_penalty=0.0, ignore_eos=False, stop=[], min_tokens=0)
    assert with_defaults(asked, defaults) == msgspec.structs.replace(asked, top_k=5)
    assert with_defaults(Sampling(), defaults) == defaults


def test_a_form_takes_the_place_of_the_default_one() -> None:
    """Of whichever kind they are."""
    defaults = Sampling(json_schema={"type": "object"}, top_k=5)
    assert with_defaults(Sampling(regex="a"), defaults) == Sampling(regex="a", top_k=5)
    assert with_defaults(Sampling(), defaults) == defaults
