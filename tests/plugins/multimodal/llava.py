"""The tiny LLaVA of the mirror: its configuration, its golden tokens, and short ways to have it generate."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tests.conftest import mirrored

from openvino_llama import InferenceRequest, ModelConfig, Part, Step
from openvino_llama_multimodal.config import MultimodalConfig
from openvino_llama_multimodal.engine import PicturesContext
from openvino_llama_text.config import EngineConfig, TextConfig
from openvino_llama_text.engine.backend import EngineContext, EngineGraph

__all__ = [
    "EXACT",
    "PICTURE_TOKENS",
    "POSITIONS",
    "PROMPT",
    "Golden",
    "cat_file",
    "cat_pixels",
    "context",
    "copied",
    "file_of",
    "form",
    "generate",
    "give",
    "golden",
    "llava",
    "pull",
]

EXACT = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
"""Nothing is rounded: at the precision that the engine chooses, tokens depend on what else it generates meanwhile."""
PROMPT = "USER: <ov_genai_image_0>describe the image ASSISTANT:"
"""What the engine gets of the golden prompt; openvino-genai itself writes a line's end behind a picture."""
PICTURE_TOKENS, POSITIONS = 16, 512


class Golden(msgspec.Struct, frozen=True):
    """What transformers makes of the cat, greedily."""

    prompt: str
    prompt_tokens: int
    tokens: list[int]


def golden() -> Golden:
    return msgspec.json.decode((mirrored("tiny-llava") / "golden.json").read_bytes(), type=Golden)


def cat_file() -> bytes:
    """The picture as a JPEG."""
    return (mirrored("tiny-llava") / "cat.jpg").read_bytes()


def cat_pixels() -> NDArray[np.uint8]:
    """The same, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(cat_file())).convert("RGB"))


def llava(folder: Path | None = None, text: Mapping[str, Any] = {}, **stated: Any) -> ModelConfig:
    """The model, or what a folder has of it; ``text`` is for the TextConfig, the rest for the MultimodalConfig."""
    engine = {name: value for name, value in text.items() if name in EngineConfig.__struct_fields__}
    others = {name: value for name, value in text.items() if name not in engine}
    half = TextConfig(**others, engine=EngineConfig(**engine))
    return ModelConfig(
        name="llava",
        type="multimodal",
        task="vision_language",
        files={"model": (folder or mirrored("tiny-llava")) / "openvino_language_model.xml"},
        properties=dict(EXACT),
        config=MultimodalConfig(text=half, **stated),
    )


def copied(folder: Path, *without: str) -> Path:
    """A folder with the model's files, which may be written to."""
    made = folder / "llava"
    made.mkdir()
    for path in mirrored("tiny-llava").iterdir():
        if path.name not in without:
            shutil.copyfile(path, made / path.name)
    return made


def file_of(pixels: NDArray[np.uint8] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def form(text: str | None, *pictures: bytes, **fields: str) -> InferenceRequest:
    """A multipart body."""
    parts = [Part("image", each, "application/octet-stream", "picture") for each in pictures]
    named = ([] if text is None else [("text", text)]) + list(fields.items())
    parts += [Part(name, value.encode()) for name, value in named]
    return InferenceRequest(b"", "multipart/form-data", parts=tuple(parts))


def context(
    graph: EngineGraph, prompt: str | bytes, pictures: Sequence[NDArray[np.uint8]], **parameters: Any
) -> EngineContext:
    """A context with its inputs set."""
    made = graph.create_context()
    assert isinstance(made, PicturesContext)
    give(made, prompt, pictures, **parameters)
    return made


def give(made: EngineContext, prompt: str | bytes, pictures: Sequence[NDArray[np.uint8]], **parameters: Any) -> None:
    """Set the inputs of a context; the pictures may be of different sizes."""
    sizes = np.array([each.shape[:2] for each in pictures], np.int64).reshape(-1, 2)
    pixels = np.full((len(pictures), *sizes.max(axis=0, initial=0), 3), 255, np.uint8)
    for target, each in zip(pixels, pictures, strict=True):
        target[: each.shape[0], : each.shape[1]] = each
    text = prompt if isinstance(prompt, bytes) else prompt.encode()
    told = msgspec.json.encode({"max_tokens": 20} | parameters)
    for index, tensor in enumerate((np.frombuffer(text, np.uint8), pixels, sizes, np.frombuffer(told, np.uint8))):
        made.set_input(index, tensor, borrow=False)


def pull(made: EngineContext) -> tuple[list[int], Step, int]:
    """All tokens of a sequence, how it ended, and how long the prompt turned out to be."""
    tokens: list[int] = []
    length = 0
    while (step := made.compute_single()) is Step.OUTPUT:
        tokens += made.output(0).tolist()
        length = int(made.output(2)[0]) or length
    made.finish()
    return tokens, step, length


def generate(
    graph: EngineGraph, prompt: str | bytes, pictures: Sequence[NDArray[np.uint8]], **parameters: Any
) -> tuple[list[int], Step, int]:
    made = context(graph, prompt, pictures, **parameters)
    try:
        return pull(made)
    finally:
        made.close()
