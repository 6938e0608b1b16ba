"""A place where dual encoders are served as a server would, in the sandbox, without HTTP; and the checked-in one."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from openvino_llama import InferenceRequest, Part, RegistryEntry
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.jobs import Job
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama_multimodal import plugin
from openvino_llama_multimodal.config import MATCH

__all__ = ["TINY_CLIP", "TINY_SIGLIP", "Bench", "Golden", "close", "file_of", "form", "golden"]

MODELS = Path(__file__).parent.parent.parent / "models"
TINY_CLIP, TINY_SIGLIP = MODELS / "tiny-clip", MODELS / "tiny-siglip"


class GoldenPicture(msgspec.Struct, frozen=True):
    """What transformers makes of a picture and all texts."""

    scores: list[float]
    embedding: list[float]


class Golden(msgspec.Struct, frozen=True):
    """``golden.json``, which ``tests/heavy`` writes: transformers' results in float32."""

    texts: list[str]
    tokens: list[int]
    text_embeds: list[list[float]]
    pictures: dict[str, GoldenPicture]


def golden(folder: Path) -> Golden:
    """Those of a model."""
    return msgspec.json.decode((folder / "golden.json").read_bytes(), type=Golden)


def file_of(picture: NDArray[Any] | Image.Image) -> bytes:
    """A picture as a PNG."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Recorder(SilentObserver):
    """Remembers how many jobs each inference was for."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch(self, model: str, size: int) -> None:
        self.batches.append(size)


class Bench:
    """Loads models from a folder, which is a copy, and asks them."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.folder = shutil.copytree(source, folder)
        self.observer = Recorder()
        self._sandbox = Sandbox()
        plugins = Plugins()
        plugins.add(plugin, name="multimodal")
        self.models = Models(plugins, self._sandbox, [OpenVINOBackend()], self.observer)

    def change(self, name: str, **fields: Any) -> None:
        """Other values for the fields of a JSON file beside the model."""
        path = self.folder / name
        stated = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(stated | fields), "utf-8")

    def load(self, **entry: Any) -> Model:
        """Load the folder's model, computing in f32."""
        usual = {
            "files": {"model": "openvino_model.xml"},
            "properties": {"INFERENCE_PRECISION_HINT": "f32"},
        }
        stated = RegistryEntry(type="multimodal", task=MATCH, **(usual | entry))
        return self.models.load(f"model-{len(self.models.all())}", stated, self.folder.joinpath)

    def submit(self, model: Model, asked: Any) -> Job:
        """Send a form (a list of parts), or a request that has been read already."""
        parts = tuple(asked) if isinstance(asked, list) else ()
        request = InferenceRequest(b"", "multipart/form-data", None if parts else asked, parts=parts)
        return model.serving.runner.submit(Job(request, Deadline(60)))

    def ask(self, model: Model, asked: Any) -> Any:
        """The answer, or what went wrong."""
        return self.submit(model, asked).future.result(60)

    def match(self, model: Model, picture: bytes, texts: Sequence[str], **fields: str) -> Any:
        """Which of the texts fits the picture."""
        return self.ask(model, form([picture], texts, fields))

    def close(self) -> None:
        """Unload everything."""
        self.models.close()
        self._sandbox.close()


def form(pictures: Sequence[bytes], texts: Sequence[str], fields: Mapping[str, str] = {}) -> list[Part]:
    """The parts of a multipart body."""
    files = [Part("image", each, "image/png", "picture.png") for each in pictures]
    named = [("text", text) for text in texts] + list(fields.items())
    return files + [Part(name, text.encode()) for name, text in named]


def close(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether numbers are equal up to that difference."""
    return bool(np.abs(np.asarray(found, np.float64) - np.asarray(expected)).max() <= tolerance)
