"""What the documents promise is so: commands, routes, settings, metrics, errors, hooks, links, versions."""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import pkgutil
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from tests.markdown import ROOT, blocks, commands, documents

import openvino_llama
import openvino_llama_text
import openvino_llama_vision
from openvino_llama import errors, hookspecs, web
from openvino_llama.backends import base as backends
from openvino_llama.cli.commands import main
from openvino_llama.config import Limits, ModelType, RegistryEntry
from openvino_llama.plugins import load_plugins
from openvino_llama.registry import read_registry
from openvino_llama.server.app import create_app
from openvino_llama.server.metrics import Metrics
from openvino_llama.server.problems import STATUSES
from openvino_llama.server.settings import _VARIABLES, Settings, _default_models
from openvino_llama.sources import read_index
from openvino_llama_multimodal.config import MultimodalConfig
from openvino_llama_multimodal.description import Description
from openvino_llama_multimodal.dual_matching import Match
from openvino_llama_text.classification import ClassificationRequest
from openvino_llama_text.config import Adapter, EngineConfig, TextConfig
from openvino_llama_text.convert.choice import WEIGHTS
from openvino_llama_text.embedding import EmbeddingRequest
from openvino_llama_text.openai.bodies import ChatBody, CompletionBody, EmbeddingBody, RerankBody
from openvino_llama_text.requests import GenerationRequest
from openvino_llama_text.rerank import RerankRequest

README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
TEXT = ROOT / "plugins" / "text"
MULTIMODAL = ROOT / "plugins" / "multimodal"
PLUGINS = (ROOT / "plugins" / "vision", TEXT, MULTIMODAL)
METHODS = "GET|POST|PUT|DELETE"
PLUGIN_ONLY = re.compile(r"/infer/(?!image$|text$|text/stream$)")
"""Routes of plugins that documents make up or that are examples."""


def text(path: Path) -> str:
    return path.read_text("utf-8")


def project(folder: Path) -> dict[str, Any]:
    """The ``[project]`` table of a pyproject.toml."""
    table: dict[str, Any] = tomllib.loads(text(folder / "pyproject.toml"))["project"]
    return table


def sources() -> list[Path]:
    """Every Python file of the project but its tests."""
    folders = ("core", "plugins", "wasm", "benchmarks", "examples")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if not {"build", ".venv"} & set(path.relative_to(ROOT).parts)]


# ---- commands -------------------------------------------------------------------------------------------------------


def readme_commands() -> list[str]:
    """The lines of the README's shell blocks."""
    return [line for block in blocks(README) if block.language == "bash" for line in block.text.splitlines()]


def test_the_readme_has_its_two_commands() -> None:
    """One runs the demo, one runs the tests, from nothing."""
    demo = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/ovllama demo"
    tests = "python3 -m venv .venv-dev && .venv-dev/bin/pip install -r requirements-dev.txt && .venv-dev/bin/pytest"
    assert readme_commands().count(demo) == 1
    assert readme_commands().count(tests) == 1


def test_the_gate_runs_the_readmes_command() -> None:
    """Word for word: it is taken from the README, not copied."""
    [extract] = [line for line in text(ROOT / ".ci" / "run").splitlines() if line.startswith("command=")]
    script = f'{extract}; echo "$command"'
    found = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert found in readme_commands()
    assert found.endswith(".venv-dev/bin/pytest")


def test_the_gate_and_tox_check_the_same() -> None:
    """Every tool that tox runs is run by the gate, with the same arguments."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    gate = " ".join(text(ROOT / ".ci" / "run").replace("\\\n", " ").split())
    for environment in ("lint", "types", "imports", "guest"):
        for command in tox[f"testenv:{environment}"]["commands"].strip().splitlines():
            assert command in gate, environment


def program() -> dict[str, click.Command]:
    """The commands by name, those of the plugins included."""
    context = click.Context(main)
    found = {name: main.get_command(context, name) for name in main.list_commands(context)}
    return {name: command for name, command in found.items() if command}


def ovllama_lines() -> Iterator[tuple[str, list[str]]]:
    """Every ``ovllama ...`` of a document, as words."""
    for path in documents():
        for command in commands(path):
            line = command.line.partition("  #")[0].partition(" | ")[0]
            if line.startswith("ovllama "):
                yield path.name, shlex.split(line)[1:]
    for line in readme_commands():
        if "bin/ovllama " in line:
            yield "README.md", shlex.split(line.partition("bin/ovllama ")[2])


def test_every_documented_command_exists() -> None:
    """With every option that is shown."""
    found, existing = list(ovllama_lines()), program()
    assert len(found) > 8
    for document, words in found:
        rest = [word for word in words if word not in ("-v", "--verbose")]
        command = existing[rest[0]]
        options = {option for each in command.params for option in each.opts}
        own = rest[1 : rest.index("--")] if "--" in rest else rest[1:]
        used = {word.partition("=")[0] for word in own if word.startswith("-")}
        assert used <= options | {"--help"}, f"{document}: ovllama {' '.join(words)}"


def test_every_command_is_in_the_readme() -> None:
    """And explains itself, with an example that is a command of this program."""
    shown = {words[0] for document, words in ovllama_lines() if document == "README.md"}
    assert set(program()) == shown
    for name, command in main.commands.items():
        context = click.Context(command, info_name=name)
        assert re.search(rf"Example\W+(\n.*)*\s+ovllama {name}", command.get_help(context)), name


def test_what_is_to_be_installed_is_in_the_clone() -> None:
    """The project's own distributions are named by their folders; by their names only as what will be."""
    seen = 0
    for path in documents():
        for line in re.findall(r"pip install ([^`\n]*)", text(path)):
            folders = [each.partition("[")[0] for each in shlex.split(line) if each.startswith(("./", "/src"))]
            assert all((ROOT / each.replace("/src", ".", 1)).is_dir() for each in folders), f"{path.name}: {line}"
            seen += len(folders)
        for paragraph in text(path).split("\n\n"):
            if re.search(r"pip install '?openvino-llama", paragraph):
                assert "once it is published" in paragraph.replace("\n", " "), f"{path.name}: {paragraph}"
    assert seen >= 8


# ---- routes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def operations() -> set[tuple[str, str]]:
    """Method and path of every operation in the OpenAPI document."""
    schema = create_app(Settings(), load_plugins()).openapi_schema.to_schema()
    return {(method.upper(), path) for path, item in schema["paths"].items() for method in item}


def is_documented_elsewhere(path: str) -> bool:
    """The description itself is not in the description; other plugins' routes are in theirs."""
    return path.startswith("/schema") or bool(PLUGIN_ONLY.match(path))


def test_documented_routes_exist(operations: set[tuple[str, str]]) -> None:
    """Every ``METHOD /path`` in a document is in the OpenAPI document."""
    for path in documents():
        for method, route in re.findall(rf"`({METHODS}) (/[^\s`?]*)", text(path)):
            assert is_documented_elsewhere(route) or (method, route) in operations, f"{path.name}: {method} {route}"


def test_documented_addresses_exist(operations: set[tuple[str, str]]) -> None:
    """Every address that a document's commands ask is one of a route."""
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for _, path in operations]
    for document in documents():
        for command in commands(document):
            for route in re.findall(r"http://127\.0\.0\.1:3000(/[^\s'\"?]*)", command.line):
                known = is_documented_elsewhere(route) or any(each.fullmatch(route) for each in patterns)
                assert known, f"{document.name}: {command.line}"


def test_every_route_is_in_the_readme(operations: set[tuple[str, str]]) -> None:
    """As ``METHOD /path``, or as the address of a command."""
    readme = text(README)
    for method, route in operations:
        asked = re.search(rf"http://127\.0\.0\.1:3000{re.escape(route)}\b", readme)
        assert f"`{method} {route}`" in readme or asked, f"{method} {route}"


# ---- JSON -----------------------------------------------------------------------------------------------------------


def test_every_json_example_is_json() -> None:
    """Whatever a document calls JSON can be read."""
    for path in documents():
        for block in blocks(path):
            if block.language == "json":
                json.loads(block.text)


def test_every_example_of_a_registry_is_read(tmp_path: Path) -> None:
    """As a registry, or as an index of models, with nothing to complain about."""
    seen = 0
    for path in documents():
        for block in blocks(path):
            content = json.loads(block.text) if block.language == "json" else {}
            if "models" not in content:
                continue
            seen += 1
            file = tmp_path / "registry.json"
            file.write_text(block.text, "utf-8")
            if any("entry" in model for model in content["models"].values()):
                assert read_index([file]), path.name
            else:
                assert not read_registry(file).problems, path.name
            check_configs(content["models"], path)
    assert seen >= 3


def check_configs(models: dict[str, Any], path: Path) -> None:
    """The part that the plugin of an installed model type reads."""
    types = load_plugins().model_types
    for name, model in models.items():
        entry = model.get("entry", model)
        if entry["type"] in types:
            kind = types[entry["type"]]
            assert entry["task"] in kind.tasks, f"{path.name}: {name}"
            msgspec.convert(entry.get("config", {}), kind.config)


# ---- settings, metrics, errors, hooks -------------------------------------------------------------------------------


def table(path: Path, heading: str) -> set[str]:
    """What stands in backticks in the first column of the table under a heading."""
    section = re.split(rf"^#+ {re.escape(heading)}$", text(path), flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    return {
        each
        for row in re.findall(r"^\| *(`[^|]+) *\|", section, re.MULTILINE)
        for each in re.findall(r"`([^`]+)`", row)
    }


def test_every_variable_is_documented() -> None:
    """Those that are read, and no others."""
    stated = table(OPERATIONS, "Settings")
    kinds = {name for name in stated if _default_models({name: "model"})}
    assert kinds
    assert stated - kinds == set(_VARIABLES)


def test_every_option_is_documented() -> None:
    """Those of ``ovllama serve``."""
    options = {option for each in main.commands["serve"].params for option in each.opts if option != "--help"}
    section = text(OPERATIONS).partition("## Settings")[2].partition("\n## ")[0]
    assert set(re.findall(r"\| `(--[\w-]+)", section)) == options


def test_every_option_of_run_is_documented() -> None:
    """What a program may be given."""
    options = {option for each in main.commands["run"].params for option in each.opts if option.startswith("--")}
    section = text(ROOT / "docs" / "guests.md").partition("## Programs")[2].partition("\n## ")[0]
    assert set(re.findall(r"^- `(--[\w-]+)", section, re.MULTILINE)) == options - {"--help"}


def test_the_documented_defaults_are_right() -> None:
    """Numbers and addresses in the table are those of the Settings."""
    defaults = {name: getattr(Settings(), field) for name, field in _VARIABLES.items()}
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", text(OPERATIONS), re.MULTILINE)
    for name, cell in rows:
        value = defaults.get(name)
        if isinstance(value, int | str) and value != "":
            assert cell.strip("` ") == str(value), name


def test_every_metric_is_documented() -> None:
    """Under the name that Prometheus shows, and no others."""
    metrics = Metrics()
    metrics.watch(list)
    names = set(re.findall(r"^# TYPE (\w+)", metrics.exposition().decode(), re.MULTILINE))
    assert table(OPERATIONS, "Metrics") == {name for name in names if not name.endswith("_created")}


def test_every_status_is_documented() -> None:
    """Every one that an error of ours becomes."""
    section = text(OPERATIONS).partition("## Problem answers")[2].partition("\n## ")[0]
    assert {str(status) for status in STATUSES.values()} <= set(re.findall(r"^\| (\d+) \|", section, re.MULTILINE))


def test_every_error_is_in_the_tree() -> None:
    """``errors.py`` draws the tree of its classes: each of them, below its base."""
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in classes.items()}
    assert set(errors.__all__) == set(classes)
    assert max(len(kind.__mro__) for kind in classes.values()) <= len(Exception.__mro__) + 3


def hooks() -> dict[str, Any]:
    """The hooks by name."""
    return {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "openvino_llama_spec")}


def test_every_hook_is_documented() -> None:
    """Where it is declared, and with its arguments in ``docs/plugins.md``; no other hook is."""
    page = text(ROOT / "docs" / "plugins.md").partition("## The hooks")[2].partition("\n## ")[0]
    stated = dict(re.findall(r"^\| `(\w+)\(([^)]*)\)`", page, re.MULTILINE))
    wanted = {name: ", ".join(hook.__code__.co_varnames[: hook.__code__.co_argcount]) for name, hook in hooks().items()}
    assert stated == wanted
    for name, hook in hooks().items():
        assert "Called" in (hook.__doc__ or ""), name


def test_every_hook_is_called_somewhere() -> None:
    """The facade over pluggy knows each of them."""
    source = text(ROOT / "core" / "openvino_llama" / "plugins.py")
    for name in hooks():
        assert re.search(rf'"{name}"|\.{name}\(\)', source), name


def test_the_fields_of_public_structs_are_documented() -> None:
    """Those of the registry in ``docs/models.md``, those of a plugin in ``docs/plugins.md``."""
    models, plugins = text(ROOT / "docs" / "models.md"), text(ROOT / "docs" / "plugins.md")
    for field in (*RegistryEntry.__struct_fields__, *Limits.__struct_fields__):
        assert f"`{field}`" in models, field
    for field in ModelType.__struct_fields__:
        assert f"`{field}`" in plugins, field


def test_what_plugins_may_use_is_documented() -> None:
    """Chunks, requests, the protocols of backends, and all that is there for routes."""
    page = text(ROOT / "docs" / "plugins.md")
    for name in (*web.__all__, *backends.__all__):
        if name not in ("Encoding", "Prepare", "Target"):  # of backends that load out of a guest's memory
            assert re.search(rf"`{name}\b", page), name
    for field in (*hookspecs.Chunk.__struct_fields__, *hookspecs.InferenceRequest.__struct_fields__):
        assert f"`{field}`" in page, field
    for protocol in (backends.ExecutionContext, backends.StreamingContext, backends.LivingGraph, web.Exchange):
        for name in (name for name in vars(protocol) if not name.startswith("_")):
            assert re.search(rf"`{name}\b", page), name


# ---- the text plugin ------------------------------------------------------------------------------------------------


def test_the_fields_of_a_text_models_config_are_documented() -> None:
    """In the plugin's README: those of ``config``, and no others; its default values are the code's."""
    page = TEXT / "README.md"
    prefixes: tuple[tuple[Any, str], ...] = ((TextConfig, ""), (EngineConfig, "engine."))
    fields = {f"{prefix}{name}" for kind, prefix in prefixes for name in kind.__struct_fields__ if name != "engine"}
    assert table(page, "Configuration") == fields
    rows = dict(re.findall(r"^\| `engine\.(\w+)` \| ([^|]*) \|", text(page), re.MULTILINE))
    for field in msgspec.structs.fields(EngineConfig):
        if isinstance(field.default, int):
            assert rows[field.name].strip() == str(field.default).lower(), field.name
    for name in Adapter.__struct_fields__:
        assert f'"{name}"' in text(page), name


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Generation", GenerationRequest),
        ("Embedding", EmbeddingRequest),
        ("Classification", ClassificationRequest),
        ("Reranking", RerankRequest),
    ],
)
def test_the_fields_of_requests_for_texts_are_documented(heading: str, kind: Any) -> None:
    """Each task has a table with the fields of its requests, and no others."""
    assert table(TEXT / "README.md", heading) == set(kind.__struct_fields__)


def test_the_fields_of_openais_requests_are_documented() -> None:
    """Each that a body may have is named."""
    section = text(TEXT / "README.md").partition("## For OpenAI's clients")[2].partition("\n## ")[0]
    for kind in (ChatBody, CompletionBody, EmbeddingBody, RerankBody):
        for field in kind.__struct_fields__:
            assert f"`{field}`" in section, field
    for weights in WEIGHTS:
        assert f"`{weights}`" in text(TEXT / "README.md"), weights


def test_the_fields_of_a_multimodal_models_config_are_documented() -> None:
    """In the plugin's README, and no others; likewise the fields of its answers."""
    page = MULTIMODAL / "README.md"
    assert table(page, "Configuration") == set(MultimodalConfig.__struct_fields__)
    assert set(Description.__struct_fields__) <= table(page, "Vision-language models")
    assert set(Match.__struct_fields__) <= table(page, "Dual encoders")


# ---- code -----------------------------------------------------------------------------------------------------------


def test_every_module_says_what_it_does() -> None:
    """In its docstring."""
    for path in sources():
        if path.stat().st_size:
            assert ast.get_docstring(ast.parse(text(path))), path.relative_to(ROOT)


def modules(package: Any) -> list[Any]:
    """A package and everything below it."""
    found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    return [package, *(importlib.import_module(each.name) for each in found if not each.name.endswith("__main__"))]


def kind_and_name(name: str) -> tuple[int, str]:
    """Constants first, then classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


PACKAGES = [openvino_llama, openvino_llama_vision, openvino_llama_text]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names_are_sorted_and_there(package: Any) -> None:
    """Each ``__all__``."""
    for module in modules(package):
        names = getattr(module, "__all__", [])
        assert names == sorted(names, key=kind_and_name), module.__name__
        assert all(hasattr(module, name) for name in names), module.__name__


def test_every_module_of_the_core_states_its_public_names() -> None:
    """All but packages that export nothing."""
    for module in modules(openvino_llama):
        assert hasattr(module, "__all__") or hasattr(module, "__path__"), module.__name__


# ---- versions and links ---------------------------------------------------------------------------------------------


def test_the_distributions_have_one_version() -> None:
    """And each plugin wants a core of just this minor version."""
    version = openvino_llama.__version__
    minor = version.rpartition(".")[0]
    assert {openvino_llama_vision.__version__, openvino_llama_text.__version__} == {version}
    for folder in (*PLUGINS, ROOT / "examples" / "plugin-anomaly"):
        assert f"openvino-llama~={minor}.0" in project(folder)["dependencies"], folder.name


def test_the_changelog_has_this_version() -> None:
    """At its top."""
    first = re.search(r"^## \[([^\]]+)\]", text(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert first is not None
    assert first[1] == openvino_llama.__version__


def test_every_distribution_supports_the_same_pythons() -> None:
    """As the classifiers and tox have them."""
    wanted = project(ROOT)["requires-python"]
    assert {project(folder)["requires-python"] for folder in PLUGINS} == {wanted}
    versions = [each.rpartition(" ")[2] for each in project(ROOT)["classifiers"] if "Python :: 3." in each]
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert f"py{{{','.join(version.replace('.', '') for version in versions)}}}" in tox["tox"]["env_list"]


def test_tools_are_pinned() -> None:
    """Exactly: a new release of a tool must not change what the gate says."""
    lines = text(ROOT / "requirements-dev.txt").splitlines()
    required = [line for line in lines if line and not line.startswith(("#", "-e "))]
    assert [line for line in required if not re.fullmatch(r"[\w-]+==[\w.]+", line)] == []


def test_the_lowest_versions_are_those_that_are_promised() -> None:
    """What ``tox -e lowest`` installs is what the distributions' ranges begin with."""
    stated = [*project(ROOT)["dependencies"], *project(ROOT)["optional-dependencies"]["hf"]]
    stated += [each for folder in PLUGINS for each in project(folder)["dependencies"] if "llama" not in each]
    lowest = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text(ROOT / "requirements-lowest.txt"), re.MULTILINE))
    for requirement in stated:
        name, low = re.findall(r"^([\w-]+)>=([\d.]+)", requirement)[0]
        assert f"{lowest[name]}.0.0".startswith(f"{low}."), requirement
    assert set(lowest) == {requirement.partition(">=")[0] for requirement in stated}


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as they are made on the web."""
    headings = re.findall(r"^#+ (.*)$", text(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link of a document, and the heading that it names."""
    prose = re.sub(r"```.*?```", "", text(path), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        file, _, anchor = target.partition("#")
        if "://" in file:
            continue
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{path.name}: {target}"
        if anchor and linked.suffix == ".md":
            assert anchor in anchors(linked), f"{path.name}: {target}"
