"""ModelConfig, the entries it is made of, and the public names."""

from __future__ import annotations

import importlib
import math
import pkgutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import openvino_llama
from openvino_llama import DataType, ModelConfig, ModelType, RegistryEntry, TensorSpec
from openvino_llama.config import Batching, Limits, typed_config
from openvino_llama.errors import ConfigError, InvalidInputError, InvalidTensorError
from openvino_llama.pipeline import read_parameters
from openvino_llama.server.settings import Settings


class Typed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: int = 1


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    top_k: int = 5
    exact: bool = False
    share: float = 0.5


KIND = ModelType(
    name="kind", config=Typed, tasks=("one", "two"), endpoint="kind", accepts=("a/b",), parameters=Parameters
)


def entry(**fields: Any) -> RegistryEntry:
    return RegistryEntry(**({"type": "kind", "task": "one", "files": {"model": "m.xml"}} | fields))


def test_a_config_has_typed_values_and_absolute_files() -> None:
    """What the entry states is what the config has; files go through ``locate``."""
    spec = TensorSpec("x", (1,), DataType.F32)
    made = typed_config("m", entry(config={"size": 3}, inputs=(spec,), device="GPU"), KIND, Path("/models").joinpath)
    assert (made.config, made.files, made.device) == (Typed(3), {"model": Path("/models/m.xml")}, "GPU")
    assert (made.input_specs(), made.output_specs()) == ((spec,), ())
    made.validate_input({"x": np.zeros(1, np.float32)})
    with pytest.raises(InvalidTensorError):
        made.validate_input({"x": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"task": "three"}, "model 'm', field 'task': a kind model has one of the tasks one, two; got 'three'"),
        ({"config": {"size": "x"}}, "model 'm', field 'config.size': expected int, got 'x'"),
        ({"config": {"sise": 1}}, "model 'm', field 'config.sise': there is no such field"),
        ({"files": {"labels": "no.txt"}}, r"model 'm', field 'files.labels': not allowed"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], said: str) -> None:
    """Model and field."""

    def locate(path: str) -> Path:
        if path == "no.txt":
            raise ConfigError("not allowed")
        return Path(path)

    with pytest.raises(ConfigError, match=said):
        typed_config("m", entry(**fields), KIND, locate)


def test_configs_are_keys_of_caches() -> None:
    """Compared by identity, and hashable, whatever is in them."""
    first, second = (ModelConfig(name="m", type="t", task="t", files={}, config=[]) for _ in range(2))
    assert first != second
    assert len({first, second}) == 2


@pytest.mark.parametrize(
    ("field", "most"),
    [
        ("memory_mib", 4096),
        ("table_elements", 10_000_000),
        ("handles", 65_536),
        ("deadline_s", 86_400),
        ("queue_size", 1_000_000),
        ("workers", 1024),
    ],
)
def test_limits_have_limits(field: str, most: Any) -> None:
    """Zero is none that anybody could mean, and a million threads are none; the message says the range."""
    wrongs: tuple[Any, ...] = (0, -1, most + 1, 10**30, math.inf, math.nan)
    for wrong in wrongs:
        with pytest.raises(ValueError, match=f"{field} must be positive and at most {most}, not "):
            Limits(**{field: wrong})
    assert getattr(Limits(**{field: most}), field) == most


def test_batches_have_limits() -> None:
    """At least one request, and no more than any memory could hold."""
    for wrong in (0, -1, 65_537):
        with pytest.raises(ValueError, match=f"max_batch_size must be at least 1 and at most 65536, not {wrong}"):
            Batching(max_batch_size=wrong)


def test_parameters_come_from_texts() -> None:
    """Numbers and truth values, as query strings and command lines have them."""
    assert read_parameters(KIND, {"top_k": "3", "exact": "true", "share": "0.25"}) == Parameters(3, True, 0.25)
    assert read_parameters(KIND, {}) == Parameters()
    for wrong in ({"top_k": "x"}, {"top_k": "1.5"}, {"other": "1"}, {"exact": "perhaps"}, {"share": ""}):
        with pytest.raises(InvalidInputError, match=r"^parameter '"):
            read_parameters(KIND, wrong)
    none = msgspec.structs.replace(KIND, parameters=None)
    assert read_parameters(none, {}) is None
    with pytest.raises(InvalidInputError, match="takes no parameters"):
        read_parameters(none, {"top_k": "3"})


def test_settings_from_the_environment() -> None:
    """The specification's variables, our own, and options that win over them."""
    environment = {
        "MODEL_REGISTRY_PATH": "./models/registry.json",
        "DEFAULT_VISION_MODEL": "mobilenet_v2",
        "DEFAULT_TEXT_MODEL": "llama_7b",
        "MAX_BATCH_SIZE": "16",
        "OVLLAMA_PORT": "3001",
        "OVLLAMA_CORS_ORIGINS": "http://a, http://b,",
        "OVLLAMA_DISABLED_PLUGINS": "",
        "OVLLAMA_CACHE_DIR": "",
        "HOME": "/nowhere",
    }
    settings = Settings.from_environment(environment, port=4000, host=None, default_models={"text": "other"})
    assert settings == Settings(
        registry=Path("models/registry.json"),
        port=4000,
        max_batch_size=16,
        cors_origins=("http://a", "http://b"),
        default_models={"vision": "mobilenet_v2", "text": "other"},
    )
    default = Settings.from_environment({"XDG_CACHE_HOME": "/cache"})
    assert (default.host, default.port, default.max_batch_size) == ("127.0.0.1", 3000, 8)
    assert default.cors_origins == ("http://localhost:8000",)
    assert default.cache_dir == Path("/cache/openvino-llama/compiled")


@pytest.mark.parametrize("name", ["OVLLAMA_PORT", "MAX_BATCH_SIZE", "OVLLAMA_API_KEY", "MODEL_REGISTRY_PATH"])
def test_settings_that_are_empty(name: str) -> None:
    """An empty variable is a mistake, above all an empty key; the message names it."""
    with pytest.raises(ConfigError, match=name):
        Settings.from_environment({name: ""})


def modules() -> list[str]:
    found = pkgutil.walk_packages(openvino_llama.__path__, "openvino_llama.")
    return [each.name for each in found if not each.name.endswith("__main__")]


@pytest.mark.parametrize("name", ["openvino_llama", *modules()])
def test_public_names_are_sorted_and_there(name: str) -> None:
    """``__all__`` names what exists, in the order that ruff sorts it, and every module says what it is for."""
    module = importlib.import_module(name)
    assert module.__doc__
    stated = getattr(module, "__all__", [])

    def key(each: str) -> tuple[int, str]:  # constants, then classes, then functions
        return (0 if each.isupper() else 1 if each[:1].isupper() else 2, each)

    assert list(stated) == sorted(stated, key=key)
    assert all(hasattr(module, each) for each in stated)
