"""Hugging Face folders: what comes into one, what is refused, and what is converted."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import mirrored

from openvino_llama import ConfigError, ModelLoadError
from openvino_llama.errors import SourceError
from openvino_llama.sources import describe, pull
from openvino_llama_text.convert.choice import converter
from openvino_llama_text.convert.exported import check_readable, convert_exported, roles
from openvino_llama_text.convert.huggingface import convert_huggingface
from openvino_llama_text.convert.job import Job
from openvino_llama_text.convert.sources import check_weights, gather

CONFIG = b'{"model_type": "bert"}'
OPTIMUM = find_spec("optimum") is not None and find_spec("torch") is not None


def job(folder: Path, task: str = "embedding", **options: Any) -> Job:
    """Everything in the folder's ``sources``, into its ``target``."""
    sources, target = folder / "sources", folder / "target"
    target.mkdir(exist_ok=True)
    names = [path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.is_file()]
    return Job("huggingface", task, sources, {name: name for name in names}, target, options)


def written(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        path = folder / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def zipped(folder: Path, members: Mapping[Any, bytes]) -> Path:
    (folder / "sources").mkdir()
    with zipfile.ZipFile(folder / "sources" / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder


def gathered(folder: Path) -> set[str]:
    made = job(folder)
    gather(made, made.target)
    return {path.relative_to(made.target).as_posix() for path in made.target.rglob("*") if path.is_file()}


class TestGather:
    def test_known_kinds_of_files(self, tmp_path: Path) -> None:
        """Neither code nor pickles come into the folder that is converted."""
        taken = {"config.json", "model.safetensors", "vocab.txt", "1_Pooling/config.json", "tokenizer.model", "t.jinja"}
        others = {"modeling.py", "pytorch_model.bin", "a.pt", "b.pkl", "run.sh", "x.so", "2_Dense/pytorch_model.bin"}
        written(tmp_path, **dict.fromkeys(taken | others, b"x"))
        assert gathered(tmp_path) == taken

    @pytest.mark.parametrize("top", ["", "model/", "a/b/"])
    def test_an_archive(self, tmp_path: Path, top: str) -> None:
        """The folder may be anywhere in it."""
        members = {f"{top}config.json": CONFIG, f"{top}1_Pooling/config.json": b"{}", f"{top}evil.py": b""}
        assert gathered(zipped(tmp_path, {**members, "README.txt": b""})) >= {"config.json", "1_Pooling/config.json"}
        assert (tmp_path / "target" / "config.json").read_bytes() == CONFIG
        assert not list(tmp_path.rglob("evil.py"))

    @pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "/x.json", "a/..", "C:/x.json", "..\\x.json"])
    def test_members_that_leave_the_folder(self, tmp_path: Path, name: str) -> None:
        """The whole archive is refused: it is not one that somebody made in good faith."""
        zipped(tmp_path, {"config.json": CONFIG, name: b"x"})
        with pytest.raises(ModelLoadError, match="would leave the folder"):
            gathered(tmp_path)
        assert not list((tmp_path / "target").iterdir())
        assert not (tmp_path / "x.json").exists()

    def test_links(self, tmp_path: Path) -> None:
        link = zipfile.ZipInfo("link.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        with pytest.raises(ModelLoadError, match=r"'link\.json' is a link"):
            gathered(zipped(tmp_path, {"config.json": CONFIG, link: b"/etc/passwd"}))

    def test_a_bomb(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="which is not believed"):
            gathered(zipped(tmp_path, {"config.json": CONFIG, "x.json": bytes(1 << 20)}))

    def test_a_member_that_is_longer_than_it_says(self, tmp_path: Path) -> None:
        zipped(tmp_path, {"config.json": CONFIG * 100})
        path = tmp_path / "sources" / "model.zip"
        said, lie = (size.to_bytes(4, "little") for size in (len(CONFIG) * 100, 10))
        path.write_bytes(path.read_bytes().replace(said, lie))
        with pytest.raises(ModelLoadError, match="damaged"):
            gathered(tmp_path)
        assert (tmp_path / "target" / "config.json").stat().st_size <= 10

    def test_too_many_members(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="10001 members"):
            gathered(zipped(tmp_path, {f"{number}.json": b"" for number in range(10_001)}))

    @pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
    def test_no_archive(self, tmp_path: Path, content: bytes) -> None:
        with pytest.raises(ModelLoadError, match="the archive is damaged"):
            gathered(written(tmp_path, **{"model.zip": content}))

    def test_no_model_in_the_archive(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match=r"no config\.json"):
            gathered(zipped(tmp_path, {"x.json": b""}))


class TestWeights:
    def test_safetensors_are_enough(self, tmp_path: Path) -> None:
        """What lies beside them is not looked at."""
        written(tmp_path, **{"model.safetensors": b"", "pytorch_model.bin": b""})
        check_weights(job(tmp_path), tmp_path / "sources")

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "tf_model.h5"])
    def test_pickles_are_refused(self, tmp_path: Path, name: str) -> None:
        written(tmp_path, **{"config.json": CONFIG, name: b""})
        with pytest.raises(ModelLoadError, match=f"'{name}' is not read, because reading it can run code"):
            convert_huggingface(job(tmp_path), lambda _: None)

    def test_pickles_in_archives(self, tmp_path: Path) -> None:
        zipped(tmp_path, {"m/config.json": CONFIG, "m/pytorch_model.bin": b""})
        with pytest.raises(ModelLoadError, match=r"'pytorch_model\.bin' is not read"):
            convert_huggingface(job(tmp_path), lambda _: None)

    def test_none_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="there are no weights"):
            convert_huggingface(job(written(tmp_path, **{"config.json": CONFIG})), lambda _: None)

    def test_a_task_without_a_conversion(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="task 'dance' cannot be converted"):
            convert_huggingface(job(written(tmp_path, x=b""), "dance"), lambda _: None)


class TestChoice:
    def test_others_are_not_ours(self) -> None:
        assert converter("onnx", {}) is None

    @pytest.mark.parametrize(
        ("by", "options", "message"),
        [
            ("gguf", {"weights": "int4"}, "'gguf' has no option 'weights': the weights stay as they are"),
            ("exported", {"weights": "int4"}, "'exported' has no option 'weights'"),
            ("huggingface", {"weights": "int2"}, "expected one of fp32, fp16, int8, int4, got 'int2'"),
            ("huggingface", {"task": "x"}, "no option 'task'"),
        ],
    )
    def test_wrong_options(self, by: str, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            converter(by, options)

    @pytest.mark.skipif(OPTIMUM, reason="the extra is installed")
    def test_without_the_extra(self, tmp_path: Path) -> None:
        """The command that installs it, before anything is fetched."""
        written(tmp_path, **{"config.json": CONFIG, "model.safetensors": b""})
        model = describe(str(tmp_path / "sources"), {"type": "text", "task": "embedding"}, lambda *_: None)
        shutil.rmtree(tmp_path / "sources")
        with pytest.raises(SourceError, match=r"install it with: pip install 'openvino-llama-text\[convert\]'"):
            pull(model, "m", tmp_path / "models", converters=converter)


class TestExported:
    def test_a_folder_that_is_converted_already(self, smollm2: Path, tmp_path: Path) -> None:
        made = Job("exported", "generation", smollm2, {path.name: path.name for path in smollm2.iterdir()}, tmp_path)
        files = convert_exported(made, lambda _: None)
        assert files["model"] == "openvino_model.xml"
        assert (tmp_path / "openvino_model.bin").read_bytes() == (smollm2 / "openvino_model.bin").read_bytes()
        assert not list(tmp_path.glob("*.gguf"))

    def test_truncated_weights(self, smollm2: Path, tmp_path: Path) -> None:
        """As a full disk leaves them, where the writer does not look."""
        for name in ("openvino_model.xml", "openvino_model.bin"):
            shutil.copyfile(smollm2 / name, tmp_path / name)
        with (tmp_path / "openvino_model.bin").open("rb+") as file:
            file.truncate(1000)
        made = Job("exported", "generation", tmp_path, {}, tmp_path)
        with pytest.raises(ModelLoadError, match=r"openvino_model\.xml cannot be read; is the disk full\?"):
            convert_exported(made, lambda _: None)

    def test_several_graphs(self, tmp_path: Path) -> None:
        """Of a vision-language model: the language model stands for it, and all the others come with it."""
        source = mirrored("tiny-llava")
        target = tmp_path / "target"
        target.mkdir()
        made = Job("exported", "vision_language", source, {path.name: path.name for path in source.iterdir()}, target)
        assert convert_exported(made, lambda _: None) == {
            "model": "openvino_language_model.xml",
            "weights": "openvino_language_model.bin",
            "tokenizer": "tokenizer.json",
        }
        for path in source.glob("*.*n*"):
            assert (target / path.name).read_bytes() == path.read_bytes()

    @pytest.mark.parametrize("name", ["openvino_vision_embeddings_model.bin", "openvino_text_embeddings_model.bin"])
    def test_any_graph_may_be_truncated(self, tmp_path: Path, name: str) -> None:
        """It is told which, though it is not the one that stands for the model."""
        folder = shutil.copytree(mirrored("tiny-llava"), tmp_path / "llava", copy_function=shutil.copyfile)
        with (folder / name).open("rb+") as file:
            file.truncate(1000)
        with pytest.raises(ModelLoadError, match=rf"^{name.replace('.bin', '.xml')} cannot be read; is the disk full"):
            check_readable(folder)

    @pytest.mark.parametrize(
        ("graphs", "model"),
        [
            (["openvino_model", "openvino_tokenizer"], "openvino_model"),
            (["openvino_encoder_model", "openvino_decoder_model"], "openvino_encoder_model"),
            (["openvino_vision_embeddings_model", "openvino_language_model"], "openvino_language_model"),
        ],
    )
    def test_the_graph_that_stands_for_the_model(self, tmp_path: Path, graphs: list[str], model: str) -> None:
        """By the name that it has for its architecture."""
        for graph in graphs:
            (tmp_path / f"{graph}.xml").write_bytes(b"")
        assert roles(tmp_path)["model"] == f"{model}.xml"

    def test_graphs_without_one_that_stands_for_the_model(self, tmp_path: Path) -> None:
        """Are told what is missing."""
        (tmp_path / "openvino_vision_embeddings_model.xml").write_bytes(b"")
        with pytest.raises(ModelLoadError, match=r"none of openvino_model\.xml, openvino_language_model\.xml"):
            check_readable(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not OPTIMUM, reason="needs optimum-intel and torch: the extra 'convert'")
class TestOptimum:
    @pytest.mark.parametrize("weights", [None, "fp32", "fp16", "int8", "int4"])
    def test_a_tiny_bert(self, tmp_path: Path, weights: str | None) -> None:
        """The graph computes what torch computes; the files beside the model stay as they were."""
        import openvino as ov
        import torch

        model = tiny_bert(tmp_path / "bert")
        told = describe(str(tmp_path / "bert"), {"type": "text", "task": "embedding"}, lambda *_: None)
        told = told.with_options({"weights": weights} if weights else {})
        entry = pull(told, "bert", tmp_path / "models", converters=converter)
        assert entry.files["tokenizer"] == "bert/tokenizer.json"
        made = tmp_path / "models" / "bert"
        assert (made / "tokenizer.json").read_bytes() == (tmp_path / "bert" / "tokenizer.json").read_bytes()
        assert (made / "1_Pooling" / "config.json").is_file()
        assert not list(made.rglob("*.safetensors"))
        ids = np.array([[1, 2, 3, 4]])
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        with torch.no_grad():
            expected = model(**{name: torch.from_numpy(each) for name, each in given.items()}).last_hidden_state.numpy()
        found = ov.Core().compile_model(made / "openvino_model.xml", "CPU")(given)["last_hidden_state"]
        assert np.abs(found - expected).max() < (0.5 if weights == "int4" else 0.1)


def tiny_bert(folder: Path) -> Any:
    """With random weights and the tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertModel(BertConfig(vocab_size=64, max_position_embeddings=32, **sizes)).eval()
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "cat": 2, "[PAD]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    return model
