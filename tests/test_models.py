"""Models that come and go: states, conflicts, defaults, drained unloading, memory."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from openvino_llama import InferenceRequest, RegistryEntry
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.config import Batching, Defaults, Isolation, Limits
from openvino_llama.errors import (
    ConfigError,
    HookError,
    ModelConflictError,
    ModelLoadError,
    ModelNotFoundError,
    PluginError,
    QueueFullError,
    UnavailableError,
)
from openvino_llama.jobs import Job
from openvino_llama.models import Models, State
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins
from openvino_llama.runner import Runner
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from tests import graphs, guests, tiny


class Shelf:
    """Models over a folder of files."""

    def __init__(self, folder: Path, defaults: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.sandbox = Sandbox()
        plugins = Plugins()
        plugins.add(tiny, name="tiny")
        self.models = Models(
            plugins, self.sandbox, [OpenVINOBackend()], SilentObserver(), Defaults(active=defaults or {})
        )

    def load(self, name: str, file: str = "double.xml", **entry: Any) -> None:
        limits = entry.pop("limits", Limits(workers=1))
        given: dict[str, Any] = {"type": "tiny", "task": "double", "files": {"model": file}, "limits": limits} | entry
        self.models.load(name, RegistryEntry(**given), self.folder.joinpath)

    def infer(self, name: str, **asked: Any) -> Any:
        runner = self.models.get(name).serving.runner
        return submit(runner, **asked).result(20)["y"][0][0]

    def close(self) -> None:
        self.models.close()
        self.sandbox.close()


def submit(runner: Runner, **asked: Any) -> Any:
    body = json.dumps({"x": [[1, 2, 3, 4]], **asked}).encode()
    return runner.submit(Job(InferenceRequest(body, "application/json"), Deadline(20))).future


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    graphs.save(graphs.double(), made / "double.xml")
    graphs.save(graphs.double(factor=3), made / "triple.xml")
    return made


@pytest.fixture
def shelf(folder: Path) -> Iterator[Shelf]:
    tiny.TOLD.clear()
    made = Shelf(folder)
    yield made
    made.close()


def test_a_models_life(shelf: Shelf) -> None:
    """Loading, ready, gone; the plugin is told; the first one of an endpoint is active."""
    shelf.load("one")
    model = shelf.models.get("one")
    assert (model.state, shelf.models.active("tiny"), shelf.models.active_for("one")) == (State.READY, model, "tiny")
    assert model.config is not None
    assert [spec.shape for spec in model.config.input_specs()] == [(-1, 4)]
    assert shelf.infer("one") == 2
    shelf.models.unload("one")
    assert (shelf.models.all(), shelf.models.active_for("one")) == ([], None)
    with pytest.raises(ModelNotFoundError):
        shelf.models.get("one")
    with pytest.raises(ModelNotFoundError, match="no model is active"):
        shelf.models.active("tiny")
    assert tiny.TOLD == [("loaded", "one"), ("activated", "one"), ("unloaded", "one")]
    with pytest.raises(UnavailableError):
        _ = model.serving


def test_properties_are_checked_before_any_backend_reads(shelf: Shelf, tmp_path: Path) -> None:
    """No folder appears where an entry says."""
    cache = tmp_path / "elsewhere"
    with pytest.raises(ConfigError, match="CACHE_DIR"):
        shelf.load("one", properties={"CACHE_DIR": str(cache)})
    assert not cache.exists()


def test_activating(shelf: Shelf) -> None:
    """The second one takes over when it is told to; unloading the active one leaves none."""
    shelf.load("one")
    shelf.load("two", "triple.xml")
    assert shelf.models.active("tiny").name == "one"
    shelf.models.activate("two")
    assert (shelf.models.active("tiny").name, shelf.models.active_for("one")) == ("two", None)
    shelf.models.activate("two")
    shelf.models.unload("two")
    with pytest.raises(ModelNotFoundError):
        shelf.models.active("tiny")
    with pytest.raises(ModelNotFoundError):
        shelf.models.activate("two")


def test_the_default_model_is_active_as_soon_as_it_is_there(folder: Path) -> None:
    """Until then none is: what comes first does not count."""
    shelf = Shelf(folder, {"tiny": "two"})
    shelf.load("one")
    with pytest.raises(ModelNotFoundError):
        shelf.models.active("tiny")
    shelf.load("two")
    shelf.load("three")
    assert shelf.models.active("tiny").name == "two"
    shelf.close()


@pytest.mark.parametrize(
    ("entry", "error", "said"),
    [
        ({"type": "vision"}, PluginError, "no installed plugin"),
        ({"task": "t"}, ConfigError, "field 'task'"),
        ({"config": {"nothing": 1}}, ConfigError, "field 'config.nothing'"),
        ({"files": {}}, ConfigError, "field 'files'"),
        ({"file": "none.xml"}, ModelLoadError, "cannot be read"),
        ({"device": "NPU"}, ModelLoadError, "no device 'NPU' on this machine; there is CPU"),
        ({"device": "ZPU"}, ModelLoadError, "no device 'ZPU' on this machine; there is CPU"),
        ({"device": "cpu.0"}, ModelLoadError, "no device 'cpu.0' on this machine; there is CPU"),
        ({"config": {"refuse": "ConfigError"}}, ConfigError, "ConfigError"),
        ({"config": {"refuse": "KeyError"}}, HookError, "an unexpected error"),
        ({"config": {"refuse": "SystemExit"}}, HookError, "an unexpected error"),
        ({"config": {"guest": "00"}}, ModelLoadError, "no WebAssembly module"),
        ({"config": {"guest": guests.module("(module)").hex()}}, ModelLoadError, "exports no function"),
    ],
)
def test_a_load_that_fails(shelf: Shelf, entry: dict[str, Any], error: type[Exception], said: str) -> None:
    """The error is raised and kept with the model; the others serve; it can be tried again, or unloaded."""
    shelf.load("good")
    threads = threading.active_count()
    with pytest.raises(error, match=said):
        shelf.load("bad", **entry)
    bad = shelf.models.get("bad")
    assert bad.state is State.FAILED
    assert said in bad.reason
    assert bad.config is None
    assert threading.active_count() == threads
    for use in (lambda: bad.serving, lambda: shelf.models.activate("bad")):
        with pytest.raises(ModelConflictError, match="has failed to load"):
            use()
    assert shelf.infer("good") == 2
    shelf.load("bad")
    assert shelf.infer("bad") == 2
    shelf.models.unload("bad")


def test_a_failed_model_is_unloaded_like_any_other(shelf: Shelf) -> None:
    """So that it is not shown for ever."""
    with pytest.raises(ConfigError):
        shelf.load("bad", task="t")
    shelf.models.unload("bad")
    assert shelf.models.all() == []
    assert tiny.TOLD == []


def test_the_same_name_at_once(shelf: Shelf) -> None:
    """Of eight threads that load one name, one succeeds; the others are told what it is doing."""

    def load(_: int) -> str:
        try:
            shelf.load("one", config={"prepare_seconds": 0.3})
        except ModelConflictError as error:
            return str(error)
        return "loaded"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(load, range(8)))
    assert answers.count("loaded") == 1
    assert set(answers) - {"loaded"} <= {
        "model 'one' is already there: it is loading",
        "model 'one' is already there: it is ready",
    }
    assert shelf.infer("one") == 2


def test_the_same_unload_at_once(shelf: Shelf) -> None:
    """One unloads; the others find it unloading, or gone."""
    shelf.load("one")
    waiting = [submit(shelf.models.get("one").serving.runner, sleep=0.05) for _ in range(5)]

    def unload(_: int) -> str:
        try:
            shelf.models.unload("one")
        except (ModelConflictError, ModelNotFoundError) as error:
            return type(error).__name__
        return "unloaded"

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(unload, range(8)))
    assert answers.count("unloaded") == 1
    assert all(future.done() for future in waiting)


def test_looking_while_models_come_and_go(shelf: Shelf) -> None:
    """Whoever looks sees a model or none: no state in between makes a look fail."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def look() -> None:
        while not stop.is_set():
            try:
                for model in shelf.models.all():
                    _ = (model.config, model.queue_length, model.unready_reason(), shelf.models.active_for(model.name))
                with contextlib.suppress(ModelNotFoundError, UnavailableError, ModelConflictError, QueueFullError):
                    submit(shelf.models.active("tiny").serving.runner)
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(20):
        shelf.load(f"m{number % 2}")
        shelf.models.unload(f"m{number % 2}")
    stop.set()
    for thread in threads:
        thread.join(20)
    assert failures == []


def test_unloading_answers_everything_that_was_accepted(shelf: Shelf) -> None:
    """Under load from four threads, twenty times: an answer, or UnavailableError; nothing hangs."""
    outcomes: list[str] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            try:
                future = submit(shelf.models.get("one").serving.runner)
            except (UnavailableError, ModelNotFoundError):
                time.sleep(0.001)
                continue
            outcomes.append("answered" if future.result(10)["y"] == [[2, 4, 6, 8]] else "wrong")

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        shelf.load("one")
        time.sleep(0.02)
        shelf.models.unload("one")
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert set(outcomes) == {"answered"}


def test_defaults_of_server_and_guest(shelf: Shelf) -> None:
    """What an entry leaves open: the server's batch size; a fresh instance for guests that are not our own."""
    shelf.load("own")
    shelf.load("guest", config={"guest": guests.MOODY.hex()})
    shelf.load("stated", batching=Batching(max_batch_size=3), isolation=Isolation.PER_REQUEST)
    stated = {name: shelf.models.get(name).config for name in ("own", "guest", "stated")}
    assert {name: each.isolation for name, each in stated.items() if each} == {
        "own": Isolation.POOLED,
        "guest": Isolation.PER_REQUEST,
        "stated": Isolation.PER_REQUEST,
    }
    assert {name: each.batching.max_batch_size for name, each in stated.items() if each} == {
        "own": 8,
        "guest": 8,
        "stated": 3,
    }


def test_closing_finishes_what_was_accepted(folder: Path) -> None:
    """Of every model."""
    shelf = Shelf(folder)
    futures = []
    for name in ("one", "two"):
        shelf.load(name)
        futures += [submit(shelf.models.get(name).serving.runner, sleep=0.02) for _ in range(5)]
    shelf.close()
    assert [future.done() for future in futures] == [True] * 10
    assert shelf.models.all() == []


def test_models_that_are_expected(shelf: Shelf) -> None:
    """Before the registry's models are loaded, requests are told to come again, not that there is no model."""
    entry = RegistryEntry(type="tiny", task="double", files={"model": "double.xml"}, limits=Limits(workers=1))
    shelf.models.expect({"soon": entry})
    for ask in (lambda: shelf.models.active("tiny"), lambda: shelf.models.get("soon").serving):
        with pytest.raises(UnavailableError):
            ask()
    shelf.load("soon")
    assert shelf.models.active("tiny").name == "soon"


def test_defaults_that_do_not_come(folder: Path) -> None:
    """A default model keeps its endpoint for itself, and is named when it is not there."""
    shelf = Shelf(folder, {"tiny": "absent"})
    shelf.load("one")
    with pytest.raises(ModelNotFoundError):
        shelf.models.active("tiny")
    assert list(shelf.models.missing_defaults()) == ["absent"]
    shelf.models.activate("one")
    assert shelf.models.missing_defaults() == {}
    shelf.load("absent")
    assert shelf.models.active("tiny").name == "one", "loading takes nothing from a model that somebody activated"
    shelf.close()


def test_names_that_look_alike(shelf: Shelf) -> None:
    """Names that differ in case only are one name, even if they are loaded at once."""
    shelf.load("one")
    with pytest.raises(ConfigError, match="One"):
        shelf.load("One")
