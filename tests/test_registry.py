"""Registries: what is read, what is refused and with which words, and how they are changed."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from openvino_llama.config import Batching, Isolation, Limits, RegistryEntry
from openvino_llama.errors import ConfigError, MissingFileError
from openvino_llama.registry import (
    Registry,
    check_name,
    check_unique,
    locate,
    read_registry,
    remove_entry,
    save_entry,
)
from openvino_llama.registry.documents import dump_document
from openvino_llama.registry.durable import locked, write_file
from openvino_llama.sources import IndexedFile, IndexedModel, Sample, read_index
from openvino_llama.specs import DataType, TensorLayout, TensorSpec

ENTRY = RegistryEntry(type="vision", task="classification", files={"model": "a/model.xml"})
RAW: dict[str, Any] = {"type": "vision", "task": "classification", "files": {"model": "a/model.xml"}}
SUFFIXES = ["json", "yaml", "yml"]


def written(folder: Path, document: Any, suffix: str = "json") -> Path:
    path = folder / f"registry.{suffix}"
    path.write_bytes(dump_document(path, document))
    return path


class TestRead:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_the_specification_s_example(self, tmp_path: Path, suffix: str) -> None:
        """The registry that the specification shows is read as it stands, in JSON and in YAML."""
        mobilenet = {
            "type": "vision",
            "task": "classification",
            "files": {"model": "models/mobilenet_v2.xml", "weights": "models/mobilenet_v2.bin"},
            "config": {"input_shape": [1, 3, 224, 224], "output_classes": 1001},
        }
        llama = {"type": "text", "task": "generation", "files": {"tokenizer": "models/tokenizer.json"}}
        path = written(tmp_path, {"models": {"mobilenet_v2": mobilenet, "llama_7b": llama}}, suffix)
        registry = read_registry(path)
        assert list(registry.entries) == ["mobilenet_v2", "llama_7b"]
        assert registry.entries["mobilenet_v2"] == RegistryEntry(**mobilenet)  # type: ignore[arg-type]
        assert registry == Registry(path, registry.entries, {})

    def test_every_field(self, tmp_path: Path) -> None:
        """All that an entry may state is read into its type."""
        spec = {"name": "x", "shape": [-1, 3, 8, 8], "data_type": "u8", "layout": "NHWC"}
        raw = {
            **RAW,
            "device": "AUTO:GPU,CPU",
            "properties": {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 2},
            "inputs": [spec],
            "batching": {"max_batch_size": 4},
            "limits": {"queue_size": 3, "deadline_s": 0.5},
            "isolation": "per_request",
        }
        entry = read_registry(written(tmp_path, {"models": {"m": raw}})).entries["m"]
        assert entry.inputs == (TensorSpec("x", (-1, 3, 8, 8), DataType.U8, TensorLayout.NHWC),)
        assert entry.batching == Batching(4)
        assert entry.limits == Limits(queue_size=3, deadline_s=0.5)
        assert entry.isolation is Isolation.PER_REQUEST

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            ({"limits": {"queue_size": "3"}}, "model 'bad', field 'limits.queue_size': expected int, got '3'"),
            (
                {"limits": {"queue_size": 0}},
                "model 'bad', field 'limits': queue_size must be positive and at most 1000000, not 0",
            ),
            (
                {"limits": {"memory_mib": 5000}},
                "model 'bad', field 'limits': memory_mib must be positive and at most 4096",
            ),
            ({"limits": {"que": 1}}, "model 'bad', field 'limits.que': there is no such field"),
            ({"batching": {"max_batch_size": 0}}, "model 'bad', field 'batching': max_batch_size must be at least 1"),
            ({"typ": "vision"}, "model 'bad', field 'typ': there is no such field"),
            ({"type": None}, "model 'bad', field 'type': expected str, got null"),
            ({"files": {"model": 1}}, "model 'bad', field 'files[...]': expected str, got int"),
            ({"config": []}, "model 'bad', field 'config': expected object, got array"),
            ({"isolation": "none"}, "model 'bad', field 'isolation': expected 'pooled' or 'per_request', got 'none'"),
            (
                {"inputs": [{"name": "x", "shape": [0], "data_type": "u8"}]},
                "model 'bad', field 'inputs[0]': tensor 'x': a dimension is -1 (dynamic) or positive, not 0",
            ),
            (
                {"inputs": [{"name": "x", "shape": [1], "data_type": "f99"}]},
                "model 'bad', field 'inputs[0].data_type': expected 'f16' or 'f32' or ",
            ),
        ],
    )
    def test_a_wrong_entry(self, tmp_path: Path, suffix: str, change: dict[str, Any], problem: str) -> None:
        """The problem names file, model and field; the other models are read."""
        registry = read_registry(written(tmp_path, {"models": {"bad": {**RAW, **change}, "good": RAW}}, suffix))
        assert registry.entries == {"good": ENTRY}
        assert registry.problems["bad"].startswith(f"registry.{suffix}: {problem}")

    @pytest.mark.parametrize("missing", ["type", "task", "files"])
    def test_a_missing_field(self, tmp_path: Path, missing: str) -> None:
        raw = {key: value for key, value in RAW.items() if key != missing}
        problems = read_registry(written(tmp_path, {"models": {"m": raw}})).problems
        assert problems == {"m": f"registry.json: model 'm', field '{missing}': is required"}

    def test_names_too_much_alike(self, tmp_path: Path) -> None:
        """Of two names that differ in case only, the first is served."""
        registry = read_registry(written(tmp_path, {"models": {"cat": RAW, "CAT": RAW, "..": RAW}}))
        assert registry.entries == {"cat": ENTRY}
        assert registry.problems == {
            "CAT": "registry.json: model name 'CAT': too much like 'cat', which exists",
            "..": "registry.json: model name '..': that is a folder, not a name",
        }

    def test_a_name_that_is_a_number(self, tmp_path: Path) -> None:
        """YAML reads an unquoted 7 as a number, which no URL could name."""
        registry = read_registry(written(tmp_path, {"models": {7: RAW, "good": RAW}}, "yaml"))
        assert registry.entries == {"good": ENTRY}
        assert registry.problems == {"7": "registry.yaml: model 7: a name must be text; put it in quotes"}

    def test_a_byte_order_mark(self, tmp_path: Path) -> None:
        """Editors on Windows put one there."""
        path = tmp_path / "registry.json"
        path.write_bytes(b'\xef\xbb\xbf{"models": {}}')
        assert read_registry(path).entries == {}


BAD_JSON = {
    "empty": ("", "not JSON: Expecting value, line 1, column 1"),
    "truncated": ('{"models": {', "not JSON: Expecting property name enclosed in double quotes, line 1, column 13"),
    "not an object": ("[]", "expected an object with the field 'models'"),
    "no models": ("{}", "expected an object with the field 'models'"),
    "models is a list": ('{"models": []}', "field 'models': expected an object, got list"),
    "unknown field": ('{"models": {}, "x": 1}', "expected the field 'models' only, got 'x' too"),
    "duplicate name": ('{"models": {"a": {}, "a": {}}}', "the key 'a' stands twice in the same object"),
    "duplicate field": ('{"models": {"a": {"type": 1, "type": 2}}}', "the key 'type' stands twice"),
    "NaN": ('{"models": NaN}', "not JSON: NaN is no number"),
    "infinite": ('{"models": -Infinity}', "not JSON: -Infinity is no number"),
    "out of range": ('{"models": 1e999}', "not JSON: Number out of range"),
    "many digits": ('{"models": %s}' % ("1" * 5000), "Exceeds the limit"),
    "nested a bit": ('{"models": %s}' % ("[" * 150 + "]" * 150), "nested more than 100 deep"),
    "nested": ("[" * 100_000, "nested more than 100 deep"),
    "half a character": ('{"models": "\\ud800"}', "not JSON"),
}
BAD_YAML = {
    "empty": ("", "expected an object with the field 'models'"),
    "tabs": ("models:\n\ta: 1", "not YAML: found character '\\t' that cannot start any token, line 2, column 1"),
    "duplicate name": ("models:\n  a: {}\n  a: {}\n", "not YAML: the key 'a' stands twice in the same object, line 2"),
    "two documents": ("models: {}\n---\nmodels: {}\n", "not YAML: but found another document"),
    "alias": ("a: &a [x]\nmodels: [*a, *a]", "not YAML: aliases are not taken, line 2"),
    "object": ("models: !!python/object/apply:os.system ['true']", "not YAML: could not determine a constructor"),
    "NaN": ("models: .nan", "not YAML: nan is no number, line 1, column 9"),
    "infinite": ("models: -.inf", "not YAML: -inf is no number"),
    "nested": ("[" * 100_000, "nested more than 100 deep"),
    "half a character": ('models: "\\ud800"', "not YAML: half a character"),
    "a list as a key": ("models: {? [a] : 1}", "not YAML: found unhashable key"),
    "control character": ("models: \x01", "not YAML: unprintable characters"),
    "no date": ("models: 2024-13-45", "month must be in 1..12"),
}


class TestReadWrongFiles:
    @pytest.mark.parametrize("case", BAD_JSON)
    def test_json(self, tmp_path: Path, case: str) -> None:
        self.check(tmp_path / "registry.json", *BAD_JSON[case])

    @pytest.mark.parametrize("case", BAD_YAML)
    def test_yaml(self, tmp_path: Path, case: str) -> None:
        self.check(tmp_path / "registry.yaml", *BAD_YAML[case])

    @staticmethod
    def check(path: Path, text: str, message: str) -> None:
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            read_registry(path)
        assert str(caught.value).startswith((f"{path.name}: {message}", f"{path.name}, {message}"))

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_not_utf_8(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"registry.{suffix}"
        path.write_bytes(b'{"models": {"\xff": 1}}')
        with pytest.raises(ConfigError, match="not UTF-8 at byte 13"):
            read_registry(path)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_huge(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"registry.{suffix}"
        with path.open("wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(ConfigError, match="larger than 16 MiB"):
            read_registry(path)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^registry\.json: cannot be read: No such file or directory$"):
            read_registry(tmp_path / "registry.json")

    def test_another_format(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"expected a name that ends in \.json, \.yaml or \.yml, not '\.toml'"):
            read_registry(tmp_path / "registry.toml")

    def test_a_pipe(self, tmp_path: Path) -> None:
        """Reading a pipe would wait for ever."""
        os.mkfifo(tmp_path / "registry.json")
        with pytest.raises(ConfigError, match="is not a file"):
            read_registry(tmp_path / "registry.json")


REFUSED_NAMES = [
    "../etc",
    "a/../b",
    "../../etc/passwd",
    "model/..",
    "..",
    ".",
    "/etc/passwd",
    "model/sub",
    "model/",
    "model\\sub",
    " ..",
    ".. ",
    " model",
    "model\t",
    "",
    " ",
    "\u3000",
    "%2e%2e%2f",
    "a%00",
    "a\0b",
    "a\nb",
    "a\x7fb",
    "a\u202eb",
    "a\u200bb",
    "a\u00a0b",
    "a\u2028b",
    "\ud800",
    "u\u0308ber",
    "\uff0e\uff0e",
    "\u2025",
    "a\uff0fb",
    "m" * 129,
]
ALLOWED_NAMES = ["...", "..my_model", "model..1", "model.version1", "m" * 128, "llama:7b", "über", "猫", "my model"]


class TestNames:
    @pytest.mark.parametrize("name", REFUSED_NAMES)
    def test_refused(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"^model name "):
            check_name(name)

    @pytest.mark.parametrize("name", ALLOWED_NAMES)
    def test_allowed(self, name: str) -> None:
        check_name(name)

    @pytest.mark.parametrize("other", ["Model", "MODEL", "\uff4dodel"])
    def test_alike(self, other: str) -> None:
        with pytest.raises(ConfigError, match="too much like 'model', which exists"):
            check_unique(other, ["x", "model"])

    def test_the_same_name_is_no_clash(self) -> None:
        check_unique("model", ["model", "models"])

    @given(st.text())
    def test_what_is_allowed_is_harmless(self, name: str) -> None:
        """An allowed name, in any Unicode form, is one part of a path and shows on a terminal."""
        try:
            check_name(name)
        except ConfigError:
            return
        for form in ("NFC", "NFKC"):
            assert Path("/models", unicodedata.normalize(form, name)).resolve().parent == Path("/models")
        assert name.isprintable()


@pytest.fixture(name="registry")
def make_registry(tmp_path: Path) -> Path:
    """A registry in ``project/models`` with files in it, beside it and above what may be opened."""
    models = tmp_path / "project" / "models"
    (models / "m").mkdir(parents=True)
    for file in (models / "own.xml", models / "m" / "own.xml", models.parent / "parent.xml", tmp_path / "secret"):
        file.write_text(file.name)
    return written(models, {"models": {}})


REFUSED_PATHS = [
    "../etc",
    "m/../own.xml",
    "../../etc/passwd",
    "m/..",
    "..",
    ".",
    "./",
    "/etc/passwd",
    "//etc/passwd",
    "m/own.xml/",
    "m/missing",
    " ..",
    ".. ",
    ".. /x",
    "",
    " ",
    "%2e%2e%2fsecret",
    "own.xml\0",
    "..\\secret",
    "C:/x",
    "C:x",
    "\ud800",
    "~/x",
    "file:///etc/passwd",
    "x" * 300,
    "x/" * 5000 + "x",
]


class TestLocate:
    @pytest.mark.parametrize(
        ("path", "found"),
        [
            ("own.xml", "models/own.xml"),
            ("./own.xml", "models/own.xml"),
            ("m/own.xml", "models/m/own.xml"),
            ("models/own.xml", "models/own.xml"),
            ("parent.xml", "parent.xml"),
            ("m", "models/m"),
        ],
    )
    def test_found(self, registry: Path, path: str, found: str) -> None:
        """A path is taken from the registry's folder, then from its parent."""
        assert locate(path, registry) == registry.parent.parent / found

    @pytest.mark.parametrize("path", [each for each in REFUSED_PATHS if each != "m/own.xml/"])
    def test_refused(self, registry: Path, path: str) -> None:
        """The message has the path as it was written, and no other."""
        with pytest.raises(ConfigError) as caught:
            locate(path, registry)
        assert str(caught.value).startswith("file ")
        assert str(registry.parent.parent) not in str(caught.value)
        assert len(str(caught.value)) < 300

    def test_a_missing_file(self, registry: Path) -> None:
        with pytest.raises(MissingFileError, match=r"^file 'no\.xml': there is no such file in the models folder$"):
            locate("no.xml", registry)

    def test_a_client_s_entry_reaches_the_own_folder_only(self, registry: Path) -> None:
        with pytest.raises(ConfigError, match="outside the models folder"):
            locate("parent.xml", registry, own_folder_only=True)
        assert locate("models/own.xml", registry, own_folder_only=True).is_file()

    def test_the_whole_file_system_is_no_models_folder(self) -> None:
        """The parent of ``/models`` is ``/``."""
        with pytest.raises(ConfigError, match="outside the models folder"):
            locate("etc/passwd", Path("/models/registry.json"))

    @pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "../.."])
    def test_a_link_out(self, registry: Path, target: str) -> None:
        (registry.parent / "link").symlink_to(target)
        with pytest.raises(ConfigError, match=r"^file 'link': lies outside the models folder$"):
            locate("link", registry)

    def test_a_folder_behind_a_link_out(self, registry: Path) -> None:
        (registry.parent / "link").symlink_to("../..")
        with pytest.raises(ConfigError, match=r"^file 'link/secret': lies outside the models folder$"):
            locate("link/secret", registry)

    def test_a_link_within_keeps_its_name(self, registry: Path) -> None:
        """The suffix says the format; a hub's cache keeps the bytes under another name."""
        (registry.parent / "blob").write_text("x")
        (registry.parent / "model.onnx").symlink_to("blob")
        assert locate("model.onnx", registry).name == "model.onnx"

    def test_links_in_a_circle_or_to_nothing(self, registry: Path) -> None:
        (registry.parent / "circle").symlink_to("circle")
        (registry.parent / "nothing").symlink_to("nowhere")
        for path in ("circle", "nothing"):
            with pytest.raises(ConfigError):
                locate(path, registry)

    def test_no_device_no_pipe(self, registry: Path) -> None:
        """Reading these would never end."""
        os.mkfifo(registry.parent / "pipe")
        with pytest.raises(ConfigError, match="is a device, pipe or socket, not a file"):
            locate("pipe", registry)
        with pytest.raises(ConfigError, match="is a device, pipe or socket, not a file"):
            locate("null", Path("/dev/registry.json"))

    def test_a_folder_with_links_out(self, registry: Path) -> None:
        (registry.parent / "m" / "link").symlink_to("/etc/passwd")
        with pytest.raises(ConfigError, match="has links in it that lead out of the models folder"):
            locate("m", registry)

    def test_the_models_folder_itself(self, registry: Path) -> None:
        with pytest.raises(ConfigError, match="is the models folder itself"):
            locate("models", registry)

    def test_a_registry_behind_a_link(self, registry: Path, tmp_path: Path) -> None:
        """Orchestrators mount configuration as links: the folder that counts is where the link lies."""
        link = tmp_path / "project" / "registry.json"
        link.symlink_to(registry)
        assert locate("parent.xml", link) == tmp_path / "project" / "parent.xml"


PARTS = st.sampled_from(["..", ".", "", " ..", "m", "models", "own.xml", "link", "secret", "etc", "/", "~", "C:", "\\"])


@given(st.one_of(st.text(), st.lists(PARTS).map("/".join)))
def test_nothing_outside_is_ever_found(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    """Whatever the path, what is found lies below the registry's folder or its parent, links resolved."""
    root = tmp_path_factory.getbasetemp() / "located"
    models = root / "project" / "models"
    if not models.exists():
        models.mkdir(parents=True)
        (models / "link").symlink_to("../..")
        (models / "own.xml").write_text("")
        (root / "secret").write_text("")
    try:
        found = locate(path, models / "registry.json")
    except ConfigError:
        return
    assert found.is_absolute()
    assert found.resolve().is_relative_to(root / "project")


class TestSave:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_the_others_stay(self, tmp_path: Path, suffix: str) -> None:
        """Adding and replacing leave the other entries, the wrong ones too, and their order."""
        path = written(tmp_path, {"models": {"wrong": {"x": [1]}, "b": RAW, "a": RAW}}, suffix)
        save_entry(path, "new", ENTRY)
        save_entry(path, "b", msgspec.structs.replace(ENTRY, device="GPU"))
        assert yaml.safe_load(path.read_text()) == {
            "models": {"wrong": {"x": [1]}, "b": {**RAW, "device": "GPU"}, "a": RAW, "new": RAW}
        }
        assert list(read_registry(path).entries) == ["b", "a", "new"]

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_what_is_saved_is_read(self, tmp_path: Path, suffix: str) -> None:
        entry = RegistryEntry(
            type="vision",
            task="détection",
            files={"model": "m/猫.onnx"},
            config={"mean": [0.5, 1e-9], "labels": ["yes", "no", "1", "2024-01-01", "~", ""], "none": None},
            properties={"A": True, "B": 1, "C": 0.5, "D": "x"},
            inputs=(TensorSpec("x", (-1, 2), DataType.F32, TensorLayout.NCHW), TensorSpec("y", (1,), DataType.I64)),
            batching=Batching(2),
            limits=Limits(workers=1),
            isolation=Isolation.PER_REQUEST,
        )
        path = tmp_path / f"registry.{suffix}"
        save_entry(path, "猫", entry)
        assert read_registry(path) == Registry(path, {"猫": entry}, {})

    def test_json_is_for_people_too(self, tmp_path: Path) -> None:
        """Indented, with short lists on one line."""
        path = tmp_path / "registry.json"
        labels = ["a, [b]", *map(str, range(50))]
        entry = msgspec.structs.replace(
            ENTRY, config={"shape": [1, 3], "labels": labels, "no": [], "x": ["\n  ]", "{"]}
        )
        save_entry(path, "m", entry)
        assert (
            '\n        "shape": [1, 3],\n        "labels": [\n          "a, [b]",\n          "0",\n' in path.read_text()
        )
        assert json.loads(path.read_text()) == {"models": {"m": {**RAW, "config": entry.config}}}

    def test_comments_in_yaml_stay(self, tmp_path: Path) -> None:
        """Those of the other models, and those before the one that is changed."""
        path = tmp_path / "registry.yaml"
        model = "type: vision\n    task: classification  # for now\n    files: {model: a/model.xml}\n"
        path.write_text(f"# ours\nmodels:\n  # the first\n  a:\n    {model}\n  # the second\n  b:\n    {model}# end\n")
        save_entry(path, "a", msgspec.structs.replace(ENTRY, device="GPU"))
        save_entry(path, "c", ENTRY)
        a = "type: vision\n    task: classification\n    files: {model: a/model.xml}\n"
        b = f"  # the second\n  b:\n    {model}"
        gpu, rest = "    device: GPU\n", f"  c:\n    {a}# end\n"
        assert path.read_text() == f"# ours\nmodels:\n  # the first\n  a:\n    {a}{gpu}\n{b}{rest}"
        remove_entry(path, "a")
        assert path.read_text() == f"# ours\nmodels:\n  # the first\n\n{b}{rest}"

    @pytest.mark.parametrize(
        "text",
        [
            "models: {}",
            "models: {a: {}}",
            "{models: {a: {}}}\n",
            '"models":\n  ? a\n  : {}\n',
            "models:\n  a: {}",
            "---\nmodels:\n  a: {}\n...\n",
            "models:\n  a: {}\n---\n",
            "models:\n  a:\n    x: |\n      text\n      # text\n\n",
            "models: {a: {},\n  b: {}}\n",
            "models: !!map\n  a: {}\n",
            "models:\n  'a': 1\n  1: {}\n",
            "models:\r\n  a: {}\r\n",
            "models:\n  new:\n  a: 1\n",
        ],
    )
    @pytest.mark.parametrize("name", ["a", "new"])
    def test_yaml_however_it_is_laid_out(self, tmp_path: Path, text: str, name: str) -> None:
        """Whatever the layout, the change is made and nothing else is lost."""
        path = tmp_path / "registry.yaml"
        path.write_bytes(text.encode())
        if text.endswith("---\n"):
            with pytest.raises(ConfigError):
                save_entry(path, name, ENTRY)
            return
        before = yaml.safe_load(text)["models"]
        save_entry(path, name, ENTRY)
        assert yaml.safe_load(path.read_text()) == {"models": {**before, name: RAW}}
        remove_entry(path, name)
        before.pop(name, None)
        assert yaml.safe_load(path.read_text()) == {"models": before}

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_remove(self, tmp_path: Path, suffix: str) -> None:
        path = written(tmp_path, {"models": {"a": RAW, "b": RAW}}, suffix)
        remove_entry(path, "a")
        assert list(read_registry(path).entries) == ["b"]
        with pytest.raises(ConfigError, match="there is no model 'a'"):
            remove_entry(path, "a")

    @pytest.mark.parametrize("name", ["..", "B", "a/b"])
    def test_a_wrong_name(self, tmp_path: Path, name: str) -> None:
        path = written(tmp_path, {"models": {"b": RAW}})
        before = path.read_bytes()
        with pytest.raises(ConfigError, match=r"^model name "):
            save_entry(path, name, ENTRY)
        assert path.read_bytes() == before

    def test_a_wrong_registry_is_not_touched(self, tmp_path: Path) -> None:
        path = tmp_path / "registry.json"
        path.write_text("{")
        with pytest.raises(ConfigError, match="not JSON"):
            save_entry(path, "m", ENTRY)
        assert path.read_text() == "{"

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"^registry\.json: cannot be written: No such file or directory$"):
            save_entry(tmp_path / "no" / "registry.json", "m", ENTRY)

    def test_a_break_leaves_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = written(tmp_path, {"models": {}})

        def broken(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(KeyboardInterrupt):
            save_entry(path, "m", ENTRY)
        assert [each.name for each in tmp_path.iterdir()] == ["registry.json"]
        assert read_registry(path).entries == {}

    def test_a_link_stays_a_link_and_the_mode_stays(self, tmp_path: Path) -> None:
        real = tmp_path / "real.json"
        real.write_text('{"models": {}}')
        real.chmod(0o640)
        link = tmp_path / "registry.json"
        link.symlink_to("real.json")
        save_entry(link, "m", ENTRY)
        assert link.is_symlink()
        assert real.stat().st_mode & 0o777 == 0o640
        assert list(read_registry(real).entries) == ["m"]

    def test_many_at_a_time(self, tmp_path: Path) -> None:
        """Processes that save at the same time lose none of each other's entries, and leave no lock behind."""
        path = tmp_path / "registry.json"
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=save_many, args=(path, letter)) for letter in "abc"]
        for each in workers:
            each.start()
        for each in workers:
            each.join(60)
        assert sorted(read_registry(path).entries) == sorted(f"{x}{i}" for x in "abc" for i in range(20))
        assert [each.name for each in tmp_path.iterdir()] == ["registry.json"]


def save_many(path: Path, letter: str) -> None:
    for number in range(20):
        save_entry(path, f"{letter}{number}", ENTRY)


class TestDurable:
    def test_the_lock_does_not_follow_links(self, tmp_path: Path) -> None:
        (tmp_path / ".x.lock").symlink_to("elsewhere")
        with pytest.raises(OSError, match="symbolic links"), locked(tmp_path / "x"):
            pass
        assert not (tmp_path / "elsewhere").exists()

    def test_the_lock_is_given_back_after_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError), locked(tmp_path / "x"):
            raise KeyError
        with locked(tmp_path / "x"):
            assert [each.name for each in tmp_path.iterdir()] == [".x.lock"]
        assert list(tmp_path.iterdir()) == []

    def test_a_stale_part_is_written_over(self, tmp_path: Path) -> None:
        (tmp_path / ".x.part").write_text("what a kill left, longer")
        write_file(tmp_path / "x", b"new")
        assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"x": b"new"}


class TestDocument:
    """docs/models.md is what people write registries by."""

    TEXT = (Path(__file__).parent.parent / "docs" / "models.md").read_text()

    @pytest.mark.parametrize("struct", [RegistryEntry, Batching, Limits, TensorSpec, IndexedModel, IndexedFile, Sample])
    def test_has_every_field(self, struct: type[msgspec.Struct]) -> None:
        assert [field for field in struct.__struct_fields__ if f"`{field}`" not in self.TEXT] == []

    def test_examples_are_read(self, tmp_path: Path) -> None:
        """Each JSON example is a registry, or an index, without an error."""
        first, index, job, converted, own = re.findall(r"^ *```json\n(.*?)```", self.TEXT, re.DOTALL | re.MULTILINE)
        assert set(json.loads(job)) == {"by", "options", "task", "sources", "files", "target"}
        for text in (first, converted, own):
            (tmp_path / "registry.json").write_text(text)
            assert read_registry(tmp_path / "registry.json").problems == {}
        (tmp_path / "index.json").write_text(index)
        assert list(read_index([tmp_path / "index.json"])) == ["face_detection"]
