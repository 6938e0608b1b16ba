"""GGUF files: those that lie are refused before a library sees them, a real one becomes OpenVINO IR."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from openvino_llama import ModelLoadError
from openvino_llama.errors import SourceError
from openvino_llama.registry import read_registry
from openvino_llama.sources import describe, pull
from openvino_llama_text.convert.choice import converter
from openvino_llama_text.convert.gguf_header import read_header
from openvino_llama_text.convert.gguf_model import convert_gguf
from openvino_llama_text.convert.job import Job

U8, U32, F32, STRING, ARRAY = 0, 4, 6, 8, 9
F32_TENSOR, Q4_1_TENSOR = 0, 3
HUGE = 1 << 60


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int = F32_TENSOR, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


PAIRS = (
    pair(b"general.architecture", STRING, text(b"llama")),
    pair(b"llama.context_length", U32, struct.pack("<I", 64)),
    pair(b"tokenizer.ggml.tokens", ARRAY, struct.pack("<IQ", STRING, 2) + text(b"<s>") + text("é".encode())),
    pair(b"tokenizer.ggml.scores", ARRAY, struct.pack("<IQ2f", F32, 2, 0, 0)),
)
TENSORS = (tensor(b"a", (32, 2), Q4_1_TENSOR), tensor(b"b", (3,), offset=64))
DATA = bytes(64 + 12)


def gguf(
    pairs: tuple[bytes, ...] = PAIRS,
    tensors: tuple[bytes, ...] = TENSORS,
    *,
    begin: bytes = b"GGUF\3\0\0\0",
    counts: tuple[int, int] | None = None,
    data: bytes = DATA,
) -> bytes:
    tensor_count, pair_count = counts or (len(tensors), len(pairs))
    head = begin + struct.pack("<QQ", tensor_count, pair_count) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + data


def read(folder: Path, content: bytes) -> Any:
    (folder / "x.gguf").write_bytes(content)
    return read_header(folder / "x.gguf")


def job(folder: Path, *names: str) -> Job:
    (folder / "target").mkdir(exist_ok=True)
    files = {name: name for name in names or ("x.gguf",)}
    return Job("gguf", "generation", folder, files, folder / "target")


class TestHeader:
    def test_what_a_good_one_says(self, tmp_path: Path) -> None:
        header = read(tmp_path, gguf())
        assert header.metadata == {
            "general.architecture": "llama",
            "llama.context_length": 64,
            "tokenizer.ggml.tokens": ["<s>", "é"],
            "tokenizer.ggml.scores": (2,),
        }
        assert header.tensors == {"a": (32, 2), "b": (3,)}

    @pytest.mark.parametrize("length", range(0, len(gguf()), 7))
    def test_truncated_anywhere(self, tmp_path: Path, length: int) -> None:
        with pytest.raises(ModelLoadError, match=r"^not a GGUF file that can be used: "):
            read(tmp_path, gguf()[:length])

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "it is empty"),
            (gguf(begin=b"GGML\3\0\0\0"), "does not begin with 'GGUF'"),
            (gguf(begin=b"GGUF\1\0\0\0"), "expected version 2 or 3, got 1"),
            (gguf(begin=b"GGUF\0\0\0\3"), "expected version 2 or 3, got 50331648"),
            (gguf(counts=(HUGE, 4)), f"has {HUGE} tensors"),
            (gguf(counts=(2, HUGE)), f"has {HUGE} keys"),
            (gguf(counts=(2, (1 << 64) - 1)), "keys, for which it is too short"),
            (gguf((text(b"key", HUGE),)), f"{HUGE} bytes are said to follow"),
            (gguf((pair(b"key", STRING, text(b"value", HUGE)),)), f"{HUGE} bytes are said to follow"),
            (gguf((pair(b"key", ARRAY, struct.pack("<IQ", U8, HUGE)),)), f"{HUGE} numbers in a list"),
            (gguf((pair(b"key", ARRAY, struct.pack("<IQ", STRING, HUGE)),)), f"{HUGE} values in a list"),
            (gguf((pair(b"key", ARRAY, struct.pack("<IQ", ARRAY, 1) * 10_000),)), "no type 9 of values"),
            (gguf((pair(b"key", 13, b""),)), "no type 13 of values"),
            (gguf((pair(b"key", STRING, text(b"\xff")),)), "not UTF-8"),
            (gguf((PAIRS[0], PAIRS[0])), "'general.architecture' stands twice"),
            (gguf(tensors=(tensor(b"a", (HUGE,)),)), "tensor 'a' is said to have 4611686018427387904 bytes at 0"),
            (gguf(tensors=(tensor(b"a", (1 << 32, 1 << 32)),)), "tensor 'a' has the impossible shape"),
            (gguf(tensors=(tensor(b"a", (1 << 62, 4)),)), "tensor 'a' has the impossible shape"),
            (gguf(tensors=(tensor(b"a", (0,)),)), "tensor 'a' has the impossible shape"),
            (gguf(tensors=(tensor(b"a", (33,), Q4_1_TENSOR),)), "tensor 'a' has the impossible shape"),
            (gguf(tensors=(tensor(b"a", (1,), offset=96),)), "tensor 'a' is said to have 4 bytes at 96; there are 76"),
            (gguf(tensors=(tensor(b"a", (1,), offset=(1 << 64) - 32),)), "tensor 'a' is said to have 4 bytes"),
            (gguf(tensors=(tensor(b"a", (1,), offset=4),)), "tensor 'a' is said to have 4 bytes at 4"),
            (gguf(tensors=(tensor(b"a", (1,), 99),)), "tensor 'a' has the unknown type 99"),
            (gguf(tensors=(tensor(b"a", (1,) * 9),)), "tensor 'a' is said to have 9 dimensions"),
            (gguf(tensors=(TENSORS[0], TENSORS[0])), "tensor 'a' stands twice"),
            (gguf((pair(b"general.alignment", U32, struct.pack("<I", 0)),)), "multiple of 8, got 0"),
            (gguf((pair(b"general.alignment", STRING, text(b"x")),)), "multiple of 8, got x"),
        ],
    )
    def test_lies(self, tmp_path: Path, content: bytes, message: str) -> None:
        """Each is told from the bytes that are there; nothing is allocated for what is not."""
        with pytest.raises(ModelLoadError, match=r"^not a GGUF file that can be used: ") as caught:
            read(tmp_path, content)
        assert message in str(caught.value)


class TestRefused:
    @pytest.mark.parametrize(("name", "shown"), [(b"gemma3", "'gemma3'"), (b"", "''")])
    def test_another_architecture(self, tmp_path: Path, name: bytes, shown: str) -> None:
        (tmp_path / "x.gguf").write_bytes(gguf((pair(b"general.architecture", STRING, text(name)),)))
        with pytest.raises(
            ModelLoadError, match=f"architecture {shown} cannot be converted; those of llama, qwen2, qwen3"
        ):
            convert_gguf(job(tmp_path), lambda _: None)

    def test_several_files(self, tmp_path: Path) -> None:
        with pytest.raises(ModelLoadError, match="expected one GGUF file, got 2"):
            convert_gguf(job(tmp_path, "a.gguf", "b.gguf"), lambda _: None)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (gguf(counts=(HUGE, 4)), "not a GGUF file that can be used: it says that it has"),
            (gguf(), "openvino-genai cannot convert the GGUF file"),  # true, but there is no model in it
        ],
    )
    def test_by_a_pull(self, tmp_path: Path, content: bytes, message: str) -> None:
        """In the converter's process: the sentence arrives, and nothing is left."""
        (tmp_path / "x.gguf").write_bytes(content)
        model = describe(str(tmp_path / "x.gguf"), {"type": "text", "task": "generation"}, lambda *_: None)
        with pytest.raises(SourceError, match=message):
            pull(model, "m", tmp_path / "models", converters=converter)
        assert list((tmp_path / "models").iterdir()) == []


@pytest.fixture(scope="module")
def models(smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder into which the file was pulled as "smol"."""
    folder = tmp_path_factory.mktemp("models")
    model = describe(str(smollm2_gguf), {"type": "text", "task": "generation"}, lambda *_: None)
    pull(model, "smol", folder, converters=converter)
    return folder


@pytest.mark.slow
class TestSmolLM2:
    def test_the_folder_of_the_model(self, models: Path) -> None:
        """IR, tokenizer, and what else the plugin reads; the GGUF file itself is not kept."""
        assert read_registry(models / "registry.json").entries["smol"].files == {
            "model": "smol/openvino_model.xml",
            "weights": "smol/openvino_model.bin",
            "tokenizer": "smol/tokenizer.json",
        }
        assert {path.name for path in (models / "smol").iterdir()} == {
            *(f"openvino_{part}.{kind}" for part in ("model", "tokenizer", "detokenizer") for kind in ("xml", "bin")),
            *("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"),
            *("tokenizer.json", "conversion.json"),
        }

    def test_what_the_folder_says(self, models: Path) -> None:
        """Values of the GGUF file's metadata, under the names that Hugging Face gives them."""
        said = {path.name: json.loads(path.read_bytes()) for path in (models / "smol").glob("*config.json")}
        assert said["config.json"] == {
            "model_type": "llama",
            "max_position_embeddings": 8192,
            "vocab_size": 49152,
            "hidden_size": 576,
            "num_hidden_layers": 30,
        }
        assert said["generation_config.json"] == {"bos_token_id": 1, "eos_token_id": [2], "pad_token_id": 2}
        assert said["tokenizer_config.json"] == {
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|im_end|>",
            "add_bos_token": False,
        }
        assert "<|im_start|>assistant" in (models / "smol" / "chat_template.jinja").read_text("utf-8")

    def test_it_speaks(self, models: Path) -> None:
        """The converted model knows what the original knows."""
        import openvino_genai

        pipeline = openvino_genai.LLMPipeline(str(models / "smol"), "CPU")
        options = {"max_new_tokens": 12, "do_sample": False, "apply_chat_template": False}
        assert "Paris" in str(pipeline.generate("The capital of France is", **options))
