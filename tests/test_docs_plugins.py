"""``docs/plugins.md``: its files are written, its commands are typed, and what it shows is what comes back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.markdown import ROOT, Block, Command, blocks, commands

from openvino_llama.hookspecs import PROJECT

PAGE = ROOT / "docs" / "plugins.md"
ADDRESS = "http://127.0.0.1:3000"


class Desk:
    """A folder with the page's files, and a shell with the plugin installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        site = folder / ".site"
        tools = folder / ".tools"
        tools.mkdir()
        for name, words in {"ovllama": "-m openvino_llama", "python": "", "pip": "-m pip"}.items():
            (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            (tools / name).chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(site),
            "OVLLAMA_DISABLED_PLUGINS": "multimodal,text,vision",
            "OVLLAMA_CACHE_DIR": "",
        }
        self._install(site)

    def _install(self, site: Path) -> None:
        """What ``pip install -e .`` does, into a folder of its own and without the internet."""
        self.run("python -m build -q --wheel --no-isolation --outdir .wheel .")
        self.run(f"pip install -q --disable-pip-version-check --no-deps --no-index --target {site} .wheel/*.whl")

    def run(self, line: str) -> str:
        """What a line of shell prints."""
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The address of ``ovllama serve`` on a free port."""
        command = [sys.executable, "-m", "openvino_llama", "serve", "--port", "0"]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as stdout:
            try:
                line = stdout.readline()
                yield line.split()[-1]
            finally:
                process.terminate()
                process.wait(30)
        assert line.startswith("OpenVINO-Llama serves on http")


def titled(title: str) -> Block:
    """The block with this title."""
    return next(block for block in blocks(PAGE) if block.title == title)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    folder = tmp_path_factory.mktemp("tabular")
    for block in blocks(PAGE):
        if "." in block.title:
            path = folder / block.title
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, "utf-8")
    return Desk(folder)


def test_every_block_is_tested() -> None:
    """A block of Python is a file of the example, or has a name by which a test here takes it."""
    names = {block.title for block in blocks(PAGE) if block.language != "console"}
    assert {name for name in names if "." not in name} == {
        "wrapper",
        "per_model",
        "parameters",
        "guest",
        "streaming",
        "several",
        "routes",
    }


def test_ten_minutes(desk: Desk) -> None:
    """Every command up to the server and beyond prints what the page says."""
    wanted = [each for each in commands(PAGE) if not each.line.startswith("python wasm/build.py")]
    lines = [each.line for each in wanted]
    assert lines[0] == "pip install -e ."
    serve = lines.index("ovllama serve")
    for each in wanted[1:serve]:
        assert shown(desk.run(each.line)) == each.output, each.line
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    with desk.serving() as address:
        for each in wanted[serve + 1 :]:
            assert desk.run(each.line.replace(ADDRESS, address)) == each.output, each.line


def shown(output: str) -> str:
    """What the page shows of it: not the plugins that only this checkout has."""
    return "\n".join(line for line in output.splitlines() if "  disabled" not in line)


def test_the_pages_tests_pass(desk: Desk) -> None:
    """Those that an author is told to write."""
    desk.run("python -m pytest -q -p no:cacheprovider -c /dev/null tests")


def run_block(title: str) -> dict[str, object]:
    """The names that a block defines."""
    names: dict[str, object] = {"__file__": str(PAGE), "__name__": title}
    exec(compile(titled(title).text, title, "exec", dont_inherit=True), names)
    return names


def test_the_wrapper_sees_other_plugins_calls(caplog: pytest.LogCaptureFixture) -> None:
    """And its audit line is written."""
    import types

    import msgspec

    from openvino_llama import ModelType, Preprocessed, hookimpl
    from openvino_llama.plugins import Plugins

    class Empty(msgspec.Struct):
        pass

    @hookimpl
    def model_types() -> list[ModelType]:
        return [ModelType(name="tiny", config=Empty, tasks=("any",), endpoint="tiny", accepts=("text/plain",))]

    @hookimpl
    def preprocess() -> Preprocessed:
        return Preprocessed({})

    @hookimpl
    def postprocess(outputs: object) -> object:
        return outputs

    owner, wrapper = types.ModuleType("owner"), types.ModuleType("wrapper")
    hooks = {"model_types": model_types, "preprocess": preprocess, "postprocess": postprocess}
    vars(owner).update(hooks, OPENVINO_LLAMA_API=1)
    vars(wrapper).update(run_block("wrapper"))
    plugins = Plugins()
    plugins.add(owner, name="owner")
    plugins.add(wrapper, name="wrapper")
    config = types.SimpleNamespace(name="mine")
    with caplog.at_level("INFO"):
        answer = plugins.hooks_for("tiny").postprocess(config=config, outputs={"a": 1}, context=None)
    assert answer == {"a": 1}
    assert "mine answered {'a': 1}" in caplog.text


def test_what_is_remembered_for_a_model(tmp_path: Path) -> None:
    """The block about per_model reads labels once."""
    from openvino_llama import ModelConfig

    labels = run_block("per_model")["labels"]
    assert callable(labels)
    file = tmp_path / "labels.txt"
    file.write_text("a\nb\n")
    config = ModelConfig(name="m", type="t", task="x", files={"labels": file}, config=None)
    assert labels(config) == ["a", "b"]
    file.unlink()
    assert labels(config) == ["a", "b"]


def test_the_parameters_are_read_from_a_query() -> None:
    """With their bounds."""
    import msgspec

    from openvino_llama import InvalidInputError, ModelType
    from openvino_llama.pipeline import read_parameters

    struct = run_block("parameters")["TabularParameters"]
    assert isinstance(struct, type)
    assert issubclass(struct, msgspec.Struct)
    kind = ModelType(name="t", config=struct, tasks=(), endpoint="t", accepts=(), parameters=struct)
    assert read_parameters(kind, {"top_k": "3"}) == struct(top_k=3)
    with pytest.raises(InvalidInputError, match="top_k"):
        read_parameters(kind, {"top_k": "11"})


def test_the_block_that_streams() -> None:
    """Each output is a chunk, the end of a line is the last, and the answer has all of it."""
    import numpy as np

    from openvino_llama import Chunk, InferenceRequest, Preprocessed

    hooks: Any = run_block("streaming")
    prepared = hooks["preprocess"](None, InferenceRequest(b"hi", "text/plain"))
    assert isinstance(prepared, Preprocessed)
    assert prepared.tensors["input_ids"].tolist() == [[104, 105]]
    tokens = {"tokens": np.array([33, 33])}
    assert hooks["postprocess"](None, tokens, prepared.context) == Chunk({"text": "!!"}, tokens=2)
    assert hooks["postprocess"](None, {"tokens": np.array([10])}, prepared.context).last
    assert hooks["postprocess"](None, {}, prepared.context) == {"text": "!!\n"}


def test_the_block_of_several_inferences() -> None:
    """In any order, the answer has them in that of the request."""
    import numpy as np

    from openvino_llama import InferenceRequest

    hooks: Any = run_block("several")
    prepared = hooks["preprocess"](None, InferenceRequest(b"[[1, 2], [3]]", "application/json"))
    assert [each.tensors["input_ids"].shape for each in prepared] == [(1, 2), (1, 1)]
    for score, each in reversed(list(enumerate(prepared))):
        hooks["postprocess"](None, {"score": np.array([score])}, each.context)
    assert hooks["postprocess"](None, {}, prepared[0].context) == [0.0, 1.0]


def test_the_block_with_a_route(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves the page's own plugin: several inferences of one request, and errors in a shape of its own."""
    import types

    from tests.server.support import live_server

    from openvino_llama.plugins import Plugins
    from openvino_llama.server.settings import Settings

    desk.run("mkdir -p models/flowers && python make_model.py")
    plugins = Plugins()
    for title in ("openvino_llama_tabular/plugin.py", "routes"):
        module = types.ModuleType(f"page {title}")
        monkeypatch.setitem(sys.modules, module.__name__, module)  # where Litestar looks the route's annotations up
        exec(compile(titled(title).text, title, "exec", dont_inherit=True), vars(module))
        plugins.add(module, name=title)
    with live_server(Settings(registry=desk.folder / "models" / "registry.json", port=0), plugins) as live:
        flowers = [[[5.1, 3.5, 1.4, 0.2]], [[6.3, 2.9, 5.6, 1.8]]]
        answer = live.http.post("/v1/tables", json={"tables": flowers})
        assert [[row["class"] for row in rows] for rows in answer.json()] == [["setosa"], ["virginica"]]
        wrong = live.http.post("/v1/tables", json={"tables": [[[1]]]})
        assert wrong.status_code == 400
        assert wrong.json() == {"error": {"message": "field 'rows': expected rows of 4 numbers"}}


def test_the_guest_of_the_block_is_the_examples() -> None:
    """The page's hook, word for word, is the one of the example plugin."""
    hook = titled("guest").text.partition("@hookimpl")[2].strip()
    name = re.search(r'with_name\("(.*)"\)', hook)
    assert name is not None
    package = ROOT / "examples" / "plugin-anomaly" / "openvino_llama_anomaly"
    assert (package / name[1]).is_file()
    assert name[0] in (package / "plugin.py").read_text("utf-8")


def test_the_entry_points_group_is_the_one_that_is_read() -> None:
    """The group in the page's pyproject is the project's."""
    assert f"[project.entry-points.{PROJECT}]" in titled("pyproject.toml").text


def test_the_last_command_compiles_a_guest() -> None:
    """Both of its paths are there."""
    line = next(each for each in commands(PAGE) if each.line.startswith("python wasm/build.py"))
    assert line == Command(line.line, "")
    assert all((ROOT / word).is_file() for word in line.line.split()[1:])
