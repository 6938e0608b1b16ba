"""``ovllama``: help with examples, human errors, one inference without a server, models, pull."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner
from tests.distributions import write_distribution, write_tiny

from openvino_llama import __version__
from openvino_llama.cli import commands
from openvino_llama.cli.commands import main
from openvino_llama.cli.demo import _request as demo_request
from openvino_llama.registry import read_registry
from openvino_llama.sources import Sample
from tests import graphs

COMMANDS = sorted(main.commands)
BODY = json.dumps({"x": [[1, 2, 3, 4]]})
ANSWER = {"model_type": "tiny", "task": "double", "results": {"y": [[2, 4, 6, 8]]}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny plugin, and one that knows a model that can be pulled."""
    folder = tmp_path_factory.mktemp("site")
    write_tiny(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with its registry."""
    made = tmp_path_factory.mktemp("root") / "models"
    made.mkdir()
    graphs.save(graphs.double(), made / "double.xml")
    entry = {"type": "tiny", "task": "double", "files": {"model": "double.xml"}}
    models = {
        "double": entry,
        "missing": entry | {"files": {"model": "missing.xml"}},
        "wrong": {"type": "tiny"},
        "unknown": entry | {"type": "unknown"},
    }
    (made / "registry.json").write_text(json.dumps({"models": models}))
    (made / "good.json").write_text(json.dumps({"models": {"double": entry}}))
    (made / "empty.json").write_text('{"models": {}}')
    (made / "request.json").write_text(BODY)
    return made


def ovllama(
    site: Path, *arguments: str, stdin: bytes = b"", stdout: int = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as somebody would, with the tiny plugin installed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OVLLAMA", "MODEL_", "DEFAULT_"))}
    own = {"PYTHONPATH": str(site), "OVLLAMA_CACHE_DIR": "", "OVLLAMA_DISABLED_PLUGINS": "vision,text,multimodal"}
    env = kept | own | variables
    command = [sys.executable, "-m", "openvino_llama", *arguments]
    return subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, env=env, timeout=60, check=False)


def failed(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that a failed command says."""
    text = done.stderr.decode()
    assert done.returncode != 0
    assert "Traceback" not in text
    assert text.startswith(("Error: ", "Usage: ")), text
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    """``--help`` says what it does and ends with an example whose options exist."""
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0
    text, _, example = done.output.partition("Example:\n")
    assert f"ovllama {name}" in example
    assert main.commands[name].help
    for word in example.split():
        assert not word.startswith("--") or word == "--" or word in text


def test_the_commands_are_those_of_the_documentation() -> None:
    """None is forgotten here."""
    assert COMMANDS == ["demo", "infer", "models", "plugins", "pull", "remove", "run", "serve"]
    assert isinstance(main, click.Group)


def test_version_and_short_help() -> None:
    """``--version``; ``-h`` is ``--help``."""
    assert CliRunner().invoke(main, ["--version"]).output == f"ovllama, version {__version__}\n"
    assert CliRunner().invoke(main, ["-h"]).output == CliRunner().invoke(main, ["--help"]).output


def test_infer_reads_a_file(site: Path, folder: Path) -> None:
    """Its media type is guessed from its name; the answer is that of the server, on a line."""
    done = ovllama(site, "infer", "double", str(folder / "request.json"), "--registry", str(folder / "good.json"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == ANSWER
    assert done.stdout.endswith(b"}\n")


def test_infer_reads_stdin_and_takes_parameters(site: Path, folder: Path) -> None:
    """``-`` with --media-type; NAME=VALUE; the registry from the environment."""
    body = json.dumps({"x": [[0.1234, 0, 0, 0]]}).encode()
    arguments = ("infer", "double", "-", "--media-type", "application/json", "digits=1")
    done = ovllama(site, *arguments, stdin=body, MODEL_REGISTRY_PATH=str(folder / "good.json"))
    assert json.loads(done.stdout)["results"]["y"][0][0] == pytest.approx(0.2)


def test_infer_writes_what_is_wanted(site: Path, folder: Path, tmp_path: Path) -> None:
    """``--accept`` picks the answer's form, ``-o`` its place."""
    arguments = ("infer", "double", str(folder / "request.json"), "--registry", str(folder / "good.json"))
    done = ovllama(site, *arguments, "--accept", "text/plain", "-o", str(tmp_path / "answer"))
    assert (done.returncode, done.stdout) == (0, b"")
    assert (tmp_path / "answer").read_text() == "{'y': [[2.0, 4.0, 6.0, 8.0]]}"


@pytest.mark.skipif(sys.platform == "win32", reason="no terminals of one's own")
def test_infer_writes_texts_only_to_a_terminal(site: Path, folder: Path, tmp_path: Path) -> None:
    """Other bytes would change what the terminal does: -o is named."""
    tiny = (site / "ovllama_test_tiny.py").read_text()
    produces = '("application/json", "text/plain")'
    assert tiny.count(produces) == 1
    write_distribution(tmp_path, "tiny", tiny.replace(produces, '("application/json", "text/plain", "image/png")'))
    request = (str(folder / "request.json"), "--registry", str(folder / "good.json"))
    terminal, inner = os.openpty()
    refused = ovllama(tmp_path, "infer", "double", *request, "--accept", "image/png", stdout=inner)
    assert failed(refused) == "Error: the answer is image/png, which is not for a terminal: -o FILE writes it"
    assert ovllama(tmp_path, "infer", "double", *request, stdout=inner).returncode == 0
    assert json.loads(os.read(terminal, 10_000)) == ANSWER
    os.close(inner)
    os.close(terminal)
    assert ovllama(tmp_path, "infer", "double", *request, "--accept", "image/png").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody", "REQUEST"], "has no model 'nobody'; it has double"),
        (["wrong", "REQUEST"], "registry.json: model 'wrong', field 'task'"),
        (["missing", "REQUEST"], "model 'missing', field 'files.model': file 'missing.xml': there is no such file"),
        (["unknown", "REQUEST"], "no installed plugin serves models of type 'unknown'"),
        (["double", "/no/such/file"], "File '/no/such/file' does not exist."),
        (["double", "FOLDER"], "is a directory"),
        (["double", "REGISTRY-TEXT"], "expected application/json, multipart/form-data"),
        (["double", "REQUEST", "--media-type", "image/png"], "expected application/json, multipart/form-data"),
        (["double", "-"], "- is of an unknown type, which --media-type states; expected application/json"),
        (["double", "REQUEST", "--accept", "image/png"], "--accept: expected one of application/json, text/plain"),
        (["double", "REQUEST", "digits"], "NAME=VALUE"),
        (["double", "REQUEST", "digits=x"], "digits"),
        (["double", "REQUEST", "nothing=1"], "nothing"),
        (["double", "-", "--media-type", "application/json"], "is empty"),
        (["double", "REQUEST", "-o", "/no/such/folder/x"], "No such file or directory"),
        (["double", "BAD"], "expected rows of numbers of one length"),
        (["double", "SHAPE"], "expected shape [-1, 4], got [1, 2]"),
        (["double", "RAISES"], "the request failed unexpectedly"),
        (["double"], "Missing argument 'FILE|TEXT'"),
    ],
)
def test_infer_fails_in_a_line(site: Path, folder: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    """Every error names what is wrong."""
    (tmp_path / "bad.json").write_text('{"x": [[1], [2, 3]]}')
    (tmp_path / "shape.json").write_text('{"x": [[1, 2]]}')
    (tmp_path / "raises.json").write_text('{"raises": "KeyError"}')
    (tmp_path / "text.txt").write_text("x")
    places = {
        "REQUEST": folder / "request.json",
        "FOLDER": folder,
        "REGISTRY-TEXT": tmp_path / "text.txt",
        "BAD": tmp_path / "bad.json",
        "SHAPE": tmp_path / "shape.json",
        "RAISES": tmp_path / "raises.json",
    }
    given = [str(places.get(each, each)) for each in arguments]
    done = ovllama(site, "infer", *given, "--registry", str(folder / "registry.json"))
    if arguments[1:] == ["RAISES"]:  # the log has the error
        assert done.returncode == 1
        assert (
            done.stderr.decode().rstrip().splitlines()[-1]
            == "Error: the request failed unexpectedly; the log has the error"
        )
    else:
        assert said in failed(done)


def test_models_lists_the_registry_and_its_problems(site: Path, folder: Path) -> None:
    """Problems go to stderr and make the exit code 1."""
    done = ovllama(site, "models", "--registry", str(folder / "good.json"))
    assert done.stdout.split() == [b"double", b"tiny", b"double", b"CPU"]
    done = ovllama(site, "models", "--registry", str(folder / "registry.json"))
    assert done.returncode == 1
    assert b"model 'wrong', field 'task'" in done.stderr
    assert b"model 'missing', field 'files.model': file 'missing.xml': there is no such file" in done.stderr
    states = {line.split()[0]: line.split()[4:] for line in done.stdout.splitlines()}
    assert states == {b"double": [], b"missing": [b"unusable"], b"unknown": []}
    done = ovllama(site, "models", "--registry", str(folder / "empty.json"))
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"has no models; ovllama pull adds some" in done.stderr


def test_models_without_a_registry(site: Path, folder: Path, tmp_path: Path) -> None:
    """The line names the path, and what can be done; so does that of infer."""
    missing = str(tmp_path / "none.json")
    for arguments in (("models",), ("infer", "double", str(folder / "request.json"))):
        said = failed(ovllama(site, *arguments, "--registry", missing))
        assert said == f"Error: there is no registry {missing}; ovllama pull makes one, --registry names another"


@pytest.mark.parametrize("registry", ["none.json", "", "request.json", "double.bin", "."])
def test_models_of_what_is_no_registry(site: Path, folder: Path, registry: str) -> None:
    """A line that says so."""
    assert failed(ovllama(site, "models", "--registry", str(folder / registry) if registry else ""))


@pytest.fixture
def pullable(tmp_path: Path, folder: Path) -> tuple[Path, Path]:
    """A site with a plugin that knows the model "pulled", and a mirror that has its files."""
    mirror, site = tmp_path / "mirror", tmp_path / "site"
    mirror.mkdir()
    site.mkdir()
    files = {}
    for role, name in (("model", "double.xml"), ("weights", "double.bin")):
        content = (folder / name).read_bytes()
        (mirror / f"any-{name}").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files[role] = {
            "source": f"file:{mirror / name}",
            "path": f"pulled/{name}",
            "sha256": digest,
            "size": len(content),
        }
    index: dict[str, Any] = {
        "models": {
            "pulled": {
                "description": "Doubles",
                "license": "Apache-2.0",
                "entry": {"type": "tiny", "task": "double"},
                "files": files,
            }
        }
    }
    (site / "index.json").write_text(json.dumps(index))
    write_tiny(site)
    code = "from pathlib import Path\nfrom openvino_llama import hookimpl\nOPENVINO_LLAMA_API = 1\n@hookimpl\n"
    code += f"def model_index(): return Path({str(site / 'index.json')!r})\n"
    write_distribution(site, "index", code)
    return site, mirror


def test_pull_lists_fetches_and_registers(pullable: tuple[Path, Path], tmp_path: Path) -> None:
    """From a mirror, by sha256; the model is then served by its name."""
    site, mirror = pullable
    listed = ovllama(site, "pull")
    assert b"pulled" in listed.stdout, listed.stderr
    registry = ("--registry", str(tmp_path / "models" / "mine.yaml"))
    done = ovllama(site, "pull", "pulled", *registry, "--mirror", str(mirror))
    assert done.returncode == 0, done.stderr
    line = f"pulled is there: ovllama infer pulled FILE --registry {registry[1]}\n"
    assert done.stdout.decode() == line
    assert ovllama(site, "pull", "pulled", *registry).stdout.decode() == line
    (tmp_path / "request.json").write_text(BODY)
    arguments = ("infer", "pulled", str(tmp_path / "request.json"), *registry)
    assert json.loads(ovllama(site, *arguments).stdout) == ANSWER
    assert ovllama(site, "remove", "pulled", *registry).returncode == 0
    assert b"has no models" in ovllama(site, "models", *registry).stderr
    assert "there is no model 'pulled'" in failed(ovllama(site, "remove", "pulled", *registry))


def test_what_has_not_been_pulled_is_said_to_be(pullable: tuple[Path, Path], tmp_path: Path) -> None:
    """Where an index knows the model, with the command that brings it."""
    site, mirror = pullable
    registry = tmp_path / "models" / "registry.json"
    option = ("--registry", str(registry))
    assert ovllama(site, "pull", "pulled", *option, "--mirror", str(mirror)).returncode == 0
    assert ovllama(site, "models", *option).returncode == 0
    (registry.parent / "pulled" / "double.xml").unlink()
    done = ovllama(site, "models", *option)
    assert done.stdout.decode().split() == ["pulled", "tiny", "double", "CPU", "not", "pulled"]
    assert done.stderr.decode() == f"not pulled yet: ovllama pull pulled --registry {registry}\n"
    assert done.returncode == 1
    (tmp_path / "request.json").write_text(BODY)
    said = failed(ovllama(site, "infer", "pulled", str(tmp_path / "request.json"), *option))
    assert said.endswith("there is no such file in the models folder; `ovllama pull pulled` brings it")


def test_pull_fails_in_a_line(pullable: tuple[Path, Path], tmp_path: Path) -> None:
    """An unknown model, a mirror that is no folder."""
    site, _ = pullable
    unknown = ovllama(site, "pull", "nobody", "--registry", str(tmp_path / "r.json"))
    assert "no model 'nobody' is known" in failed(unknown)
    assert "does not exist" in failed(ovllama(site, "pull", "pulled", "--mirror", str(tmp_path / "none")))


CONVERTER = """
import json, shutil, sys
from pathlib import Path
job = json.loads(sys.stdin.readline())
for path in job["files"].values():
    shutil.copyfile(Path(job["sources"]) / path, Path(job["target"]) / Path(path).name)
print(json.dumps({"files": {"model": "double.xml", "weights": "double.bin"}}))
"""
CONVERTING = """
from openvino_llama import ConfigError
@hookimpl
def model_converter(by, options):
    if by == "huggingface":
        raise ConfigError("install it with: pip install converter")
    if options.get("weights") == "int1":
        raise ConfigError("no weights of int1")
    return "ovllama_test_converter" if by in {"exported", "copy"} else None
"""


@pytest.fixture
def convertible(pullable: tuple[Path, Path], folder: Path) -> tuple[Path, Path]:
    """A site with a plugin that converts, and knows three models; and a folder with a model in it."""
    site, mirror = pullable
    index = json.loads((site / "index.json").read_bytes())
    model = index["models"].pop("pulled") | {"starter": True}
    (site / "ovllama_test_converter.py").write_text(CONVERTER)
    module = site / "ovllama_test_index.py"
    module.write_text(module.read_text() + CONVERTING)
    for name, by in (("copied", "copy"), ("heavy", "huggingface"), ("strange", "unknown")):
        index["models"][name] = model | {"convert": {"by": by}}
    for file in model["files"].values():
        file["path"] = Path(file["path"]).name
    (site / "index.json").write_text(json.dumps(index))
    given = mirror.parent / "given"
    given.mkdir()
    for suffix in (".xml", ".bin"):
        (given / f"openvino_model{suffix}").write_bytes((folder / f"double{suffix}").read_bytes())
    return site, mirror


def test_pull_converts(convertible: tuple[Path, Path], tmp_path: Path) -> None:
    """The model that was made is registered, and serves."""
    site, mirror = convertible
    registry = ("--registry", str(tmp_path / "models" / "registry.json"))
    done = ovllama(site, "pull", "copied", *registry, "--mirror", str(mirror))
    assert done.returncode == 0, done.stderr
    assert b"converting" in done.stderr
    (tmp_path / "request.json").write_text(BODY)
    answer = ovllama(site, "infer", "copied", str(tmp_path / "request.json"), *registry)
    assert json.loads(answer.stdout) == ANSWER
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["copied", "registry.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("heavy",), "install it with: pip install converter"),
        (("strange",), "no installed plugin knows the conversion 'unknown'"),
        (("copied", "--weights", "int1"), "no weights of int1"),
        (("copied", "nobody"), "no model 'nobody' is known"),
    ],
)
def test_what_cannot_be_converted_is_not_fetched(
    convertible: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    registry = tmp_path / "models" / "registry.json"
    assert said in failed(ovllama(convertible[0], "pull", *arguments, "--registry", str(registry)))
    assert not list(registry.parent.glob("*"))


def test_the_demo_leaves_out_what_cannot_be_converted(convertible: tuple[Path, Path], tmp_path: Path) -> None:
    """A line for each; the others are served."""
    site, mirror = convertible
    registry = tmp_path / "models" / "registry.json"
    done = ovllama(site, "demo", "--registry", str(registry), "--mirror", str(mirror), "--port", "0", "--exit")
    assert done.returncode == 0, done.stderr
    assert b"heavy is left out: install it with: pip install converter\n" in done.stderr
    assert b"strange is left out: no installed plugin knows the conversion 'unknown'\n" in done.stderr
    assert list(read_registry(registry).entries) == ["copied"]


def test_pull_of_what_no_index_knows(convertible: tuple[Path, Path], tmp_path: Path) -> None:
    """It needs a name, a type and a task, and one source."""
    site, mirror = convertible
    registry = tmp_path / "models" / "registry.json"
    source = str(mirror.parent / "given")
    options = ("--name", "mine", "--type", "tiny", "--task", "double", "--registry", str(registry))
    refused = ovllama(site, "pull", source, *options[:4])
    assert refused.returncode == 2
    assert b"one SOURCE, --name, --type and --task" in refused.stderr
    assert "there is no such file or folder" in failed(ovllama(site, "pull", "absent", *options))
    (site / "ovllama_test_converter.py").write_text(CONVERTER.replace("double.", "openvino_model."))
    done = ovllama(site, "pull", source, *options)
    assert done.returncode == 0, done.stderr
    assert read_registry(registry).entries["mine"].files["model"] == "mine/openvino_model.xml"


def test_verbose_shows_the_cause(site: Path, folder: Path) -> None:
    """``-v`` logs what is behind an error."""
    arguments = ("infer", "missing", str(folder / "request.json"), "--registry", str(folder / "registry.json"))
    done = ovllama(site, "-v", *arguments)
    assert b"Traceback" in done.stderr
    assert done.stderr.rstrip().splitlines()[-1].startswith(b"Error: model 'missing'")


def test_nothing_heavy_is_imported_for_help(site: Path) -> None:
    """``ovllama --help`` answers before OpenVINO could be loaded."""
    code = "import sys; from openvino_llama.cli import commands; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("openvino'", "wasmtime'", "litestar'", "numpy'", "httpx'"):
        assert f"'{heavy}" not in done.stdout
    assert commands.__doc__


def test_how_the_demo_asks_with_several_parts(tmp_path: Path) -> None:
    """What it sends is what the curl command that it shows would send, whatever is in the fields."""
    sample = Sample("package:a/b.png", "image/png", part="image", fields={"text": 'What\'s "this"?', "max_tokens": "9"})
    sent, options = demo_request(sample, b"PNG", tmp_path / "b.png")
    request = httpx.Request("POST", "http://127.0.0.1/", **sent)
    body = request.read()
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'name="image"; filename="b.png"\r\nContent-Type: image/png\r\n\r\nPNG\r\n' in body
    assert b'name="text"\r\n\r\nWhat\'s "this"?\r\n' in body
    expected = ["-F", f"image=@{tmp_path / 'b.png'}", "-F", 'text=What\'s "this"?', "-F", "max_tokens=9"]
    assert shlex.split(options) == expected
