"""Models that are converted when they are pulled: in a process of their own, whole or not at all, once."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openvino_llama.errors import ConfigError, SourceError
from openvino_llama.registry import read_registry
from openvino_llama.sources import (
    Convert,
    IndexedFile,
    IndexedModel,
    Sample,
    check_convertible,
    describe,
    pull,
    read_index,
    read_sample,
)

BODY = bytes(range(256)) * 1024  # 256 KiB
SHA256 = hashlib.sha256(BODY).hexdigest()
ENTRY = {"type": "tiny", "task": "double"}
CONVERTER = """
import json, os, signal, sys, time
from pathlib import Path
job = json.loads(sys.stdin.readline())
do = job["options"].get("do", "")
target, sources = Path(job["target"]), Path(job["sources"])
(source,) = (sources / each for each in job["files"].values())
def say(**message): print(json.dumps(message), flush=True)
say(step="turning")
print("a library greets", flush=True)
print("a library warns", file=sys.stderr, flush=True)
os.write(1, b"\\xff{\\n")
(target / "sub").mkdir()
(target / "sub" / "turned.bin").write_bytes(source.read_bytes()[::-1])
(target / "job.json").write_text(json.dumps(job))
if do == "wait":
    Path(job["options"]["pid"]).write_text(str(os.getpid()))
    while sys.stdin.readline(): pass
    sys.exit(1)
if do == "leave":
    import subprocess
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **nothing)
    Path(job["options"]["pid"]).write_text(str(left.pid))
if do == "crash": os.kill(os.getpid(), signal.SIGSEGV)
if do == "refuse": say(error="its tensors lie")
if do == "exit": sys.exit(3)
if do == "full":
    try: (target / "big").write_bytes(bytes(1 << 20))
    except OSError as error: say(error=f"{error.strerror}")
files = {"": {"model": "sub/turned.bin"}, "absent": {"model": "absent"}, "out": {"model": "../sources/model.bin"}}
say(files=files.get(do, {"": ""} if do == "empty" else files[""]) if do != "modelless" else {"labels": "job.json"})
if do == "late": sys.exit(3)
"""


def indexed(source: str, **options: Any) -> IndexedModel:
    file = IndexedFile(source, SHA256, len(BODY), "model.bin")
    return IndexedModel("", "MIT", {"source": file}, ENTRY, Convert("turning", options))


def converters(by: str, options: Mapping[str, Any]) -> str | None:
    if options.get("do") == "missing":
        raise ConfigError("needs turner; install it with: pip install turner")
    return "turn_around" if by == "turning" else None


def left(folder: Path) -> set[str]:
    """What is in the folder, below it and hidden too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(name="source")
def make_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    site = tmp_path / "site"
    site.mkdir()
    (site / "turn_around.py").write_text(CONVERTER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "source.bin").write_bytes(BODY)
    return f"file:{tmp_path / 'source.bin'}"


@pytest.fixture(name="models")
def make_models(tmp_path: Path) -> Path:
    return tmp_path / "models"


MADE = {"registry.json", "m", "m/sub", "m/sub/turned.bin", "m/job.json", "m/conversion.json"}


class TestConversion:
    def test_the_converter_s_files_become_the_model(self, source: str, models: Path) -> None:
        """The folder is there with what the converter has made; the sources are gone, and the registry names it."""
        entry = pull(indexed(source), "m", models, converters=converters)
        assert left(models) == MADE
        assert (models / "m" / "sub" / "turned.bin").read_bytes() == BODY[::-1]
        assert entry.files == {"model": "m/sub/turned.bin"}
        assert read_registry(models / "registry.json").entries == {"m": entry}

    def test_what_it_is_told(self, source: str, models: Path) -> None:
        """The job, with the options of the command line over those of the index."""
        model = indexed(source, a=1, b=1).with_options({"b": 2})
        pull(model, "m", models, converters=converters)
        scratch = models.resolve() / ".m.pull"
        assert json.loads((models / "m" / "job.json").read_bytes()) == {
            "by": "turning",
            "options": {"a": 1, "b": 2},
            "task": "double",
            "sources": str(scratch / "sources"),
            "files": {"source": "model.bin"},
            "target": str(scratch / "target"),
        }

    def test_progress_says_what_is_being_done(self, source: str, models: Path) -> None:
        told: list[tuple[str, int, int | None]] = []
        pull(indexed(source), "m", models, converters=converters, progress=lambda *each: told.append(each))
        assert ("m: model.bin", len(BODY), len(BODY)) in told
        assert {each[0] for each in told} == {"m: model.bin", "m: turning"}
        assert max(done for step, done, _ in told if step == "m: turning") >= len(BODY)

    def test_what_it_prints_goes_to_the_log(
        self, source: str, models: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with caplog.at_level("INFO"):
            pull(indexed(source), "m", models, converters=converters)
        assert "a library greets" in caplog.text
        assert "a library warns" in caplog.text
        assert capfd.readouterr() == ("", "")

    def test_what_it_has_started_ends_with_it(self, source: str, models: Path, tmp_path: Path) -> None:
        """Also when all went well."""
        pid_file = tmp_path / "pid"
        pull(indexed(source, do="leave", pid=str(pid_file)), "m", models, converters=converters)
        wait_for_end(int(pid_file.read_text()))

    def test_a_second_pull_does_nothing(self, source: str, models: Path) -> None:
        """It needs neither the source nor the converter any more."""
        pull(indexed(source, a=1), "m", models, converters=converters)
        before = (models / "m").stat().st_ino
        pull(indexed("file:missing", a=1), "m", models)
        pull(indexed("file:missing"), "m", models)  # who states no option takes what is there
        assert (models / "m").stat().st_ino == before

    def test_other_options_convert_anew(self, source: str, models: Path) -> None:
        pull(indexed(source, a=1), "m", models, converters=converters)
        pull(indexed(source, a=2), "m", models, converters=converters)
        assert json.loads((models / "m" / "job.json").read_bytes())["options"] == {"a": 2}
        assert left(models) == MADE

    def test_a_file_that_has_gone_is_made_anew(self, source: str, models: Path) -> None:
        pull(indexed(source), "m", models, converters=converters)
        (models / "m" / "sub" / "turned.bin").unlink()
        pull(indexed(source), "m", models, converters=converters)
        assert left(models) == MADE

    def test_two_at_a_time(self, source: str, models: Path) -> None:
        """The second waits, and finds it done."""
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=pull_one, args=(source, models)) for _ in range(3)]
        for each in workers:
            each.start()
        for each in workers:
            each.join(60)
        assert [each.exitcode for each in workers] == [0] * 3
        assert left(models) == MADE


def pull_one(source: str, models: Path) -> None:
    pull(indexed(source), "m", models, converters=converters)


class TestFailure:
    @pytest.mark.parametrize(
        ("do", "message"),
        [
            ("refuse", "^its tensors lie$"),
            ("crash", "'turning' ended with exit code -11 and without a model"),
            ("exit", "'turning' ended with exit code 3 and without a model"),
            ("late", "'turning' ended with exit code 3"),
            ("absent", "has not made the file of role 'model'"),
            ("modelless", "no file of role 'model'"),
        ],
    )
    def test_nothing_is_left(self, source: str, models: Path, do: str, message: str) -> None:
        """Neither model, nor source, nor entry; the cause has what the converter printed."""
        with pytest.raises(SourceError, match=message) as caught:
            pull(indexed(source, do=do), "m", models, converters=converters)
        assert left(models) == set()
        if do in {"refuse", "crash", "exit"}:
            assert "a library warns" in str(caught.value.__cause__)

    def test_a_file_outside_the_folder(self, source: str, models: Path) -> None:
        with pytest.raises(ConfigError, match=r"must not have '\.\.'"):
            pull(indexed(source, do="out"), "m", models, converters=converters)
        assert left(models) == set()

    def test_an_older_model_stays_when_a_new_one_fails(self, source: str, models: Path) -> None:
        pull(indexed(source), "m", models, converters=converters)
        with pytest.raises(SourceError):
            pull(indexed(source, do="crash"), "m", models, converters=converters)
        assert left(models) == MADE

    @pytest.mark.parametrize(("do", "by"), [("missing", "turning"), ("", "unknown")])
    def test_who_cannot_convert_fetches_nothing(self, models: Path, do: str, by: str) -> None:
        """The message of the plugin, or that there is none."""
        model = indexed("file:missing", **({"do": do} if do else {}))
        assert model.convert is not None
        model = IndexedModel("", "", model.files, ENTRY, Convert(by, model.convert.options))
        expected = "pip install turner" if do else "no installed plugin knows the conversion 'unknown'"
        with pytest.raises(SourceError, match=expected):
            pull(model, "m", models, converters=converters)
        with pytest.raises(SourceError, match=expected):
            check_convertible(model, "m", models, converters)
        assert left(models) == set()

    def test_somebody_else_s_folder_is_not_touched(self, source: str, models: Path) -> None:
        (models / "m").mkdir(parents=True)
        (models / "m" / "mine").touch()
        with pytest.raises(SourceError, match="'m' in the models folder is in the way"):
            pull(indexed(source), "m", models, converters=converters)
        assert left(models) == {"m", "m/mine"}

    def test_a_model_with_the_registry_s_name(self, source: str, models: Path) -> None:
        with pytest.raises(SourceError, match="in the way"):
            pull(indexed(source), "registry.json", models, converters=converters)
        assert left(models) == set()

    def test_a_source_that_fails(self, models: Path) -> None:
        with pytest.raises(SourceError, match="no such file to copy"):
            pull(indexed("file:missing"), "m", models, converters=converters)
        assert left(models) == set()

    def test_options_are_for_conversions(self) -> None:
        file = IndexedFile("file:x", SHA256, 1, "m/x")
        with pytest.raises(ConfigError, match="weights: only for models that are converted"):
            IndexedModel("", "", {"model": file}, ENTRY).with_options({"weights": "int8"})

    def test_too_little_room_is_known_beforehand(
        self, source: str, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For the sources and the model."""
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 0, 300_000))
        with pytest.raises(SourceError, match="needs 524288 bytes"):
            pull(indexed(source), "m", models, converters=converters)
        assert left(models) == set()

    def test_a_full_disk(self, source: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file system that has room for the sources, but says at first that it has more."""
        models.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=640k", "none", models], check=False)
        if mounted.returncode:
            pytest.skip("needs the right to mount a file system")
        real, lies = shutil.disk_usage, iter([shutil._ntuple_diskusage(10**9, 0, 10**9)])
        monkeypatch.setattr(shutil, "disk_usage", lambda path: next(lies, None) or real(path))
        try:
            with pytest.raises(SourceError, match=f"no room on the disk to convert it: {os.strerror(errno.ENOSPC)}"):
                pull(indexed(source, do="full"), "m", models, converters=converters)
            assert left(models) == set()
        finally:
            subprocess.run(["umount", models], check=True)


PULL = """
import signal
import sys
from pathlib import Path
from openvino_llama.sources import pull
from tests.test_sources_convert import converters, indexed
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what runs in the background
pull(indexed(sys.argv[1], do="wait", pid=sys.argv[3]), "m", Path(sys.argv[2]), converters=converters)
"""


class TestBreak:
    @pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
    def test_the_converter_ends_with_the_pull(self, source: str, models: Path, tmp_path: Path, kill: int) -> None:
        """Nothing is under the model's name; the next pull goes on with the sources that are there."""
        pid_file = tmp_path / "pid"
        root = Path(__file__).parent.parent
        with subprocess.Popen(
            [sys.executable, "-c", PULL, source, str(models), str(pid_file)], cwd=root, stderr=subprocess.PIPE
        ) as pulling:
            child = int(wait_for(pid_file))
            pulling.send_signal(kill)
            pulling.communicate(timeout=60)
        wait_for_end(child)
        assert not (models / "m").exists()
        assert not (models / "registry.json").exists()
        assert (models / ".m.pull" / "sources" / "model.bin").read_bytes() == BODY
        pull(indexed("file:missing"), "m", models, converters=converters)
        assert left(models) - {".m.lock"} == MADE  # which a kill leaves, and nobody holds

    def test_the_converter_is_killed(self, source: str, models: Path, tmp_path: Path) -> None:
        """By the system, when memory runs out: an error, and nothing is left."""
        pid_file = tmp_path / "pid"
        context = multiprocessing.get_context("spawn")
        worker = context.Process(target=pull_killed, args=(source, models, pid_file))
        worker.start()
        os.kill(int(wait_for(pid_file)), signal.SIGKILL)
        worker.join(60)
        assert worker.exitcode == 0
        assert left(models) == set()


def pull_killed(source: str, models: Path, pid_file: Path) -> None:
    with pytest.raises(SourceError, match="ended with exit code -9"):
        pull(indexed(source, do="wait", pid=str(pid_file)), "m", models, converters=converters)


def wait_for(path: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError("the converter has not begun")


def wait_for_end(pid: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":  # nobody has waited for it yet
            return
        time.sleep(0.02)
    raise AssertionError("the converter goes on")


class TestIndex:
    def test_a_conversion_and_a_body(self, tmp_path: Path) -> None:
        """A source's path is below a folder of its own; a sample may be a JSON object."""
        file = {"source": "file:x", "sha256": SHA256, "size": 1, "path": "x.gguf"}
        body = {"description": "", "license": "MIT", "files": {"source": file}, "entry": ENTRY}
        body |= {"convert": {"by": "turning"}, "sample": {"body": {"prompt": "hi"}}}
        (tmp_path / "index.json").write_text(json.dumps({"models": {"m": body}}))
        model = read_index([tmp_path / "index.json"])["m"]
        assert model.convert == Convert("turning")
        assert model.sample == Sample(body={"prompt": "hi"})
        assert model.sample.media_type == "application/json"
        assert read_sample(model.sample) == b'{"prompt":"hi"}'

    @pytest.mark.parametrize(
        "change",
        [
            {"convert": {}},
            {"convert": {"by": "x", "y": 1}},
            {"sample": {"media_type": "image/png"}},
            {"sample": {"source": "file:x", "body": {}}},
            {"files": {"source": {"source": "file:x", "sha256": SHA256, "size": 1, "path": "../x"}}},
        ],
    )
    def test_a_wrong_one(self, tmp_path: Path, change: dict[str, Any]) -> None:
        file = {"source": "file:x", "sha256": SHA256, "size": 1, "path": "x.gguf"}
        body = {"description": "", "license": "MIT", "files": {"source": file}, "entry": ENTRY}
        body |= {"convert": {"by": "turning"}, **change}
        (tmp_path / "index.json").write_text(json.dumps({"models": {"m": body}}))
        with pytest.raises(ConfigError, match=r"index\.json: "):
            read_index([tmp_path / "index.json"])


class TestGiven:
    """What an operator names, that no index knows."""

    @pytest.mark.parametrize("prefix", ["", "file:"])
    def test_a_gguf_file(self, tmp_path: Path, prefix: str) -> None:
        (tmp_path / "x.gguf").write_bytes(BODY)
        model = describe(f"{prefix}{tmp_path / 'x.gguf'}", ENTRY, silent)
        assert model.files == {"source": IndexedFile(f"file:{tmp_path / 'x.gguf'}", SHA256, len(BODY), "x.gguf")}
        assert model.convert == Convert("gguf")
        assert model.entry == ENTRY

    @pytest.mark.parametrize(
        ("names", "by", "taken"),
        [
            (
                [
                    "config.json",
                    "model.safetensors",
                    "pytorch_model.bin",
                    "1_Pooling/config.json",
                    ".git/x",
                    "onnx/x.onnx",
                ],
                "huggingface",
                {"config.json", "model.safetensors", "1_Pooling/config.json"},
            ),
            (["config.json", "pytorch_model.bin"], "huggingface", {"config.json", "pytorch_model.bin"}),
            (
                ["config.json", "openvino_model.xml", "openvino_model.bin", "pytorch_model.bin"],
                "exported",
                {"config.json", "openvino_model.xml", "openvino_model.bin"},
            ),
            (
                [
                    "openvino_language_model.xml",
                    "openvino_language_model.bin",
                    "openvino_vision_embeddings_model.bin",
                    "preprocessor_config.json",
                    "README.md",
                ],
                "exported",
                {
                    "openvino_language_model.xml",
                    "openvino_language_model.bin",
                    "openvino_vision_embeddings_model.bin",
                    "preprocessor_config.json",
                },
            ),
        ],
    )
    def test_a_folder(self, tmp_path: Path, names: list[str], by: str, taken: set[str]) -> None:
        """Without what is hidden, and what is not needed beside the format that is taken."""
        for name in names:
            path = tmp_path / "folder" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        model = describe(str(tmp_path / "folder"), ENTRY, silent)
        assert model.convert == Convert(by)
        assert set(model.files) == {file.path for file in model.files.values()} == taken

    @pytest.mark.parametrize("source", ["missing", "file:missing", "hf:a", "hf:a/b/c", "."])
    def test_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SourceError):
            describe(source, ENTRY, silent)


def silent(description: str, done: int, total: int | None) -> None:
    pass
