"""Plugins: real distributions on the path, loaded one by one; what each failure looks like, and that the rest runs."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.distributions import write_distribution, write_tiny

import openvino_llama
from openvino_llama import ModelConfig, ModelType, hookspecs
from openvino_llama.errors import PluginError
from openvino_llama.hookspecs import PROJECT, Preprocessed, hookimpl
from openvino_llama.plugins import Plugins, load_plugins
from tests import tiny

GOOD = """
from openvino_llama import ModelType, hookimpl
import msgspec
class Config(msgspec.Struct): pass
OPENVINO_LLAMA_API = 1
@hookimpl
def model_types():
    return [ModelType(name="NAME", config=Config, tasks=("t",), endpoint="NAME", accepts=("text/plain",))]
@hookimpl
def preprocess(config, request): pass
@hookimpl
def postprocess(config, outputs, context): pass
"""
PLAIN = GOOD.partition("@hookimpl")[0]
TYPES = """def model_types():
    return [ModelType(name="bad", config=Config, tasks=("t",), endpoint="bad", accepts=("a/b",), parameters=P)]
"""


def good(name: str = "other", more: str = "") -> str:
    return GOOD.replace("NAME", name) + more


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Write a distribution; it can be imported until the test ends."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str, **options: Any) -> None:
        write_distribution(tmp_path, name, code, **options)

    yield write
    for module in [name for name in sys.modules if name.startswith("ovllama_test_")]:
        del sys.modules[module]


def loaded(*names: str) -> Plugins:
    """The plugins, without those that this environment has installed for good."""
    from importlib.metadata import entry_points

    installed = {each.name for each in entry_points(group=PROJECT)} - set(names)
    return load_plugins(installed)


BAD = {
    "no-import": ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
    "syntax": ("def", "SyntaxError: "),
    "raises": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "base": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "no-api": ("", "OPENVINO_LLAMA_API must be 1, the version of this host's hooks; it is None"),
    "old-api": ("OPENVINO_LLAMA_API = 0", "OPENVINO_LLAMA_API must be 1, the version of this host's hooks; it is 0"),
    "new-api": (
        "OPENVINO_LLAMA_API = '1'",
        "OPENVINO_LLAMA_API must be 1, the version of this host's hooks; it is '1'",
    ),
    "misspelt": (
        good("bad", "@hookimpl\ndef preproces(config, request): pass\n"),
        "there is no hook 'preproces'; is 'preprocess' meant?",
    ),
    "unheard-of": (good("bad", "@hookimpl\ndef zzz(): pass\n"), "there is no hook 'zzz'"),
    "arguments": (
        good("bad", "@hookimpl\ndef model_loaded(config): pass\n@hookimpl\ndef preprocess(config, picture): pass\n"),
        "PluginValidationError: ",
    ),
    "no-generator": (good("bad", "@hookimpl(wrapper=True)\ndef preprocess(config): pass\n"), "PluginValidationError: "),
    "no-preprocess": (
        good("bad").replace("def preprocess(config, request)", "def validate_model(config)"),
        "it registers model type 'bad', but has no hook 'preprocess'",
    ),
    "no-postprocess": (
        good("bad", "postprocess = None\n"),
        "it registers model type 'bad', but has no hook 'postprocess'",
    ),
    "wraps-its-own": (
        good("bad", "@hookimpl(wrapper=True)\ndef postprocess(): return (yield)\n"),
        "it registers model type 'bad', but has no hook 'postprocess'",
    ),
    "wraps-a-contribution": (
        PLAIN + "@hookimpl(wrapper=True)\ndef model_types(): return (yield)\n",
        "hook 'model_types' cannot be wrapped; only prepare_model, ",
    ),
    "wraps-the-life-cycle": (
        PLAIN + "@hookimpl(hookwrapper=True)\ndef model_loaded(): yield\n",
        "hook 'model_loaded' cannot be wrapped; only prepare_model, ",
    ),
    "no-types": (
        PLAIN + "@hookimpl\ndef prepare_model(model): pass\n",
        "hook 'prepare_model' would never be called: the plugin registers no model type",
    ),
    "unmarked-types": (
        good("bad").replace("@hookimpl\ndef model_types", "def model_types"),
        "hook 'preprocess' would never be called: the plugin registers no model type",
    ),
    "types-raise": (good("bad", "@hookimpl\ndef model_types(): raise KeyError('x')\n"), "KeyError: 'x'"),
    "types-exit": (good("bad", "@hookimpl\ndef model_types(): raise SystemExit(1)\n"), "SystemExit: 1"),
    "types-none": (good("bad", "@hookimpl\ndef model_types(): return None\n"), "TypeError: "),
    "types-wrong": (
        good("bad", "@hookimpl\ndef model_types(): return ['vision']\n"),
        "model_types() must give ModelType objects, not str",
    ),
    "same-type": (good("tiny"), "model type 'tiny' is already served by openvino-llama-a-tiny"),
    "same-endpoint": (
        good("bad").replace('endpoint="bad"', 'endpoint="tiny"'),
        "endpoint 'tiny' already belongs to model type 'tiny'",
    ),
    "type-twice": (
        good("bad").replace("return [", "return 2 * ["),
        "model type 'bad' is already served by this plugin",
    ),
    "endpoint": (
        good("bad").replace('endpoint="bad"', 'endpoint="a/{b}"'),
        "model type 'bad': an endpoint is lower-case",
    ),
    "no-accepts": (good("bad").replace('("text/plain",)', "()"), "model type 'bad': accepts and produces must each"),
    "own-model": (
        good("bad", "class P(msgspec.Struct):\n  model: str = ''\n@hookimpl\n" + TYPES),
        "model type 'bad': the parameter 'model' is the server's own",
    ),
    "odd-parameters": (
        good("bad", "class P(msgspec.Struct):\n  x: complex = 0\n@hookimpl\n" + TYPES),
        "model type 'bad': its parameters cannot be described: ",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_plugin_is_reported_and_left_out(install: Install, name: str) -> None:
    """With distribution, version, reason and traceback; those before and after it are loaded."""
    code, reason = BAD[name]
    install("a-tiny", Path(tiny.__file__).read_text())
    install(f"b-{name}", code, version="7.1")
    install("c-other", good())
    plugins = loaded("a-tiny", f"b-{name}", "c-other")
    reports = {report.name: report for report in plugins.reports if report.status != "disabled"}
    bad = reports[f"b-{name}"]
    assert (bad.distribution, bad.version, bad.status) == (f"openvino-llama-b-{name}", "7.1", "failed")
    assert bad.reason.startswith(reason)
    assert "\n" not in bad.reason
    assert "Traceback" in bad.traceback
    assert {each: reports[each].status for each in ("a-tiny", "c-other")} == {"a-tiny": "loaded", "c-other": "loaded"}
    assert set(plugins.model_types) == {"tiny", "other"}
    assert plugins.model_type("tiny").endpoint == "tiny"


def test_nothing_of_a_bad_plugin_stays(install: Install) -> None:
    """Hooks that it registered before it failed are not called."""
    told = "told = []\n@hookimpl\ndef model_loaded(config): told.append(config)\n"
    install("a-bad", good("bad", told + "@hookimpl\ndef preprocess(nonsense): pass\n"))
    install("b-bad", good("bad", told + "@hookimpl\ndef nonsense(): pass\n"))
    install("c-good", good("other", told))
    plugins = loaded("a-bad", "b-bad", "c-good")
    plugins.model_loaded(config())
    counts = {name: len(sys.modules[f"ovllama_test_{name}"].told) for name in ("a_bad", "b_bad", "c_good")}
    assert counts == {"a_bad": 0, "b_bad": 0, "c_good": 1}
    plugins.add(PluginOf("bad"), name="a-bad")
    assert set(plugins.model_types) == {"bad", "other"}


def test_a_function_that_is_not_marked_is_no_hook(install: Install) -> None:
    """A plugin that registers nothing may have a function, or anything else, named as a hook is."""
    install("a-helper", PLAIN + "def model_types(): raise RuntimeError\npreprocess = 3\n")
    install("b-class", PLAIN + "from openvino_llama import ModelConfig\nmodel_types = ModelConfig\n")
    plugins = loaded("a-helper", "b-class")
    assert [report.status for report in plugins.reports if report.status != "disabled"] == ["loaded", "loaded"]
    assert not plugins.model_types


def test_names_are_taken_once(install: Install) -> None:
    """Two entry points of one name, or two of one module: the second is reported."""
    install("a-one", good("one"), entry="same")
    install("b-two", good("two"), entry="same")
    plugins = loaded("same")
    statuses = sorted(report.status for report in plugins.reports if report.name == "same")
    assert statuses == ["failed", "loaded"]
    assert len(plugins.model_types) == 1


@pytest.mark.parametrize("blocked", ["c-other", "openvino-llama-c-other"])
def test_disabled_plugins_are_not_even_imported(install: Install, blocked: str) -> None:
    """OVLLAMA_DISABLED_PLUGINS has names of entry points or of distributions."""
    install("c-other", "raise SystemExit('imported')")
    (report,) = [each for each in load_plugins([blocked, "vision"]).reports if each.name == "c-other"]
    assert (report.status, report.reason) == ("disabled", "")


def test_a_disabled_plugin_that_is_not_there(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever misspelt its name is told."""
    install("c-other", good("c_other"))
    load_plugins(["c-other", "c-othr"])
    [said] = [each.getMessage() for each in caplog.records]
    assert said.startswith("there is no plugin 'c-othr' to disable; installed: c-other")


def test_the_command_lists_all_of_them(tmp_path: Path) -> None:
    """``ovllama plugins``: loaded, failed with the reason, disabled; with --tracebacks, where."""
    write_tiny(tmp_path)
    write_distribution(tmp_path, "broken", "1 / 0", version="0.3")
    env = os.environ | {"PYTHONPATH": str(tmp_path), "OVLLAMA_DISABLED_PLUGINS": "vision"}
    command = [sys.executable, "-m", "openvino_llama", "plugins"]
    done = subprocess.run([*command], capture_output=True, text=True, env=env, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["tiny", "openvino-llama-tiny", "1.0", "loaded", "tiny"] in lines
    failed = next(line for line in lines if line[0] == "broken")
    assert failed[1:] == ["openvino-llama-broken", "0.3", "failed", "ZeroDivisionError:", "division", "by", "zero"]
    assert ["vision", "openvino-llama-vision", openvino_llama.__version__, "disabled"] in lines
    done = subprocess.run([*command, "--tracebacks"], capture_output=True, text=True, env=env, check=True)
    assert "ZeroDivisionError: division by zero" in done.stderr


class PluginOf:
    """A plugin with one model type, which answers with its name."""

    OPENVINO_LLAMA_API = 1

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []

    @hookimpl
    def model_types(self) -> list[ModelType]:
        return [
            ModelType(name=self.name, config=tiny.TinyConfig, tasks=("t",), endpoint=self.name, accepts=("text/plain",))
        ]

    @hookimpl
    def preprocess(self, config: ModelConfig, request: Any) -> Preprocessed:
        self.seen.append(config.type)
        return Preprocessed({}, self.name)

    @hookimpl
    def postprocess(self, config: ModelConfig, outputs: Any, context: Any) -> Any:
        return self.name

    @hookimpl
    def model_loaded(self, config: ModelConfig) -> None:
        self.seen.append("loaded")


class Wrapper:
    """Sees every call, and may change what comes and goes."""

    OPENVINO_LLAMA_API = 1

    def __init__(self) -> None:
        self.seen: list[str] = []

    @hookimpl(wrapper=True)
    def preprocess(self, config: ModelConfig) -> Any:
        self.seen.append(config.type)
        return (yield)

    @hookimpl(wrapper=True)
    def postprocess(self) -> Any:
        return (yield) + ", wrapped"


def config(kind: str = "one") -> ModelConfig:
    return ModelConfig(name="m", type=kind, task="t", files={}, config=None)


def test_hooks_are_bound_to_the_owner_of_the_model_type() -> None:
    """No plugin answers for another's models; the wrappers of any plugin see every call."""
    one, two, wrapper = PluginOf("one"), PluginOf("two"), Wrapper()
    plugins = Plugins()
    for name, each in (("one", one), ("wrapper", wrapper), ("two", two)):
        plugins.add(each, name=name)
    for kind in ("one", "two", "one"):
        hooks = plugins.hooks_for(kind)
        prepared = hooks.preprocess(config=config(kind), request=None)
        assert isinstance(prepared, Preprocessed)
        assert prepared.context == kind
        assert hooks.postprocess(config=config(kind), outputs={}, context=None) == f"{kind}, wrapped"
        assert hooks.prepare_model(config=config(kind), model=None) is None
    assert (one.seen, two.seen, wrapper.seen) == (["one", "one"], ["two"], ["one", "two", "one"])


def test_life_cycle_hooks_are_told_to_everybody() -> None:
    """In the order of registration; one that raises, or exits, does not keep it from the others."""
    told: list[str] = []

    class Listener:
        OPENVINO_LLAMA_API = 1

        def __init__(self, name: str, raised: BaseException | None = None) -> None:
            self.name, self.raised = name, raised

        @hookimpl
        def model_loaded(self, config: ModelConfig) -> None:
            told.append(self.name)
            if self.raised:
                raise self.raised

        @hookimpl
        def model_activated(self, endpoint: str) -> None:
            told.append(endpoint)

    plugins = Plugins()
    for number, raised in enumerate([None, ValueError(), SystemExit(), None]):
        plugins.add(Listener(str(number), raised), name=str(number))
    plugins.model_loaded(config())
    plugins.model_activated(config(), "there")
    plugins.model_unloaded(config())
    assert told == ["0", "1", "2", "3"] + 4 * ["there"]


def test_contributions_are_put_together() -> None:
    """Those of a plugin that raises are left out."""

    class Contributor:
        OPENVINO_LLAMA_API = 1

        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def route_handlers(self) -> list[str]:
            if self.name == "bad":
                raise SystemExit
            return [self.name]

        @hookimpl
        def model_index(self) -> Path:
            return Path(self.name)

    plugins = Plugins()
    for name in ("a", "bad", "c"):
        plugins.add(Contributor(name), name=name)
    assert plugins.route_handlers() == ["a", "c"]
    assert plugins.model_indexes() == [Path("a"), Path("bad"), Path("c")]


def test_an_unknown_model_type_names_what_is_served() -> None:
    """And the package that may be missing."""
    plugins = Plugins()
    with pytest.raises(PluginError, match=r"served: none.*openvino-llama-vision"):
        plugins.model_type("vision")
    plugins.add(tiny, name="tiny")
    with pytest.raises(PluginError, match="served: tiny"):
        plugins.hooks_for("vision")


HOOKS = [name for name, each in vars(hookspecs).items() if hasattr(each, f"{PROJECT}_spec")]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_where_it_is_specified(name: str) -> None:
    """When it is called, and on which thread or how often; each parameter has a type."""
    hook = getattr(hookspecs, name)
    text = inspect.getdoc(hook) or ""
    assert "alled" in text
    assert "thread" in text or "when" in text
    signature = inspect.signature(hook)
    assert all(each.annotation is not inspect.Parameter.empty for each in signature.parameters.values())
    assert signature.return_annotation is not inspect.Signature.empty
    assert name in (inspect.getdoc(hookspecs) or ""), "the module docstring lists all hooks"


def test_importing_the_package_is_light() -> None:
    """A plugin author's import loads neither OpenVINO, nor wasmtime, nor Litestar, nor NumPy."""
    code = "import json, sys, openvino_llama; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not modules & {"openvino", "wasmtime", "litestar", "numpy", "httpx", "uvicorn", "click", "yaml"}
