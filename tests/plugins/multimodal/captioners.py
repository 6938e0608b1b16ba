"""Short ways to have the checked-in encoder-decoders generate: by the backend's contexts, and as a server would."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops
from PIL import Image
from tests.plugins.vision.pictures import astronaut

from openvino_llama import InferenceRequest, ModelConfig, Part, RegistryEntry, Step
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.jobs import Job
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama_multimodal import plugin
from openvino_llama_multimodal.config import MultimodalConfig
from openvino_llama_multimodal.encoder_decoder.backend import EncoderDecoderBackend
from openvino_llama_multimodal.encoder_decoder.contexts import EncoderDecoderContext, EncoderDecoderGraph
from openvino_llama_multimodal.processor import vision_of
from openvino_llama_text.config import TextConfig
from openvino_llama_vision.pixels import plan_of

MODELS = Path(__file__).parent.parent.parent / "models"
CAPTIONER, READER = MODELS / "tiny-captioner", MODELS / "tiny-reader"
"""A decoder of GPT-2's kind, and one of TrOCR's."""
ENCODER, DECODER, FIRST = (f"openvino_{name}_model.xml" for name in ("encoder", "decoder_with_past", "decoder"))
START, END, POSITIONS, VOCABULARY = 0, 2, 64, 300
EXACT: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}


class Golden(msgspec.Struct, frozen=True):
    """What transformers makes of a picture after a prompt, greedily."""

    picture: str
    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


def golden(folder: Path) -> list[Golden]:
    """Those of a model, as ``tests/heavy`` has written them."""
    return msgspec.json.decode((folder / "golden.json").read_bytes(), type=list[Golden])


def picture(name: str, folder: Path = CAPTIONER) -> Image.Image:
    """The picture of exactly the models' size, or the photograph."""
    return Image.open(folder / "exact.png").convert("RGB") if name == "exact" else Image.fromarray(astronaut())


def config(folder: Path, **text: Any) -> ModelConfig:
    """A model in that folder, computing in f32."""
    return ModelConfig(
        name="tale",
        type="multimodal",
        task="vision_language",
        files={"model": folder / ENCODER},
        properties=EXACT,
        config=MultimodalConfig(text=TextConfig(**text)),
    )


def opened(folder: Path, **text: Any) -> EncoderDecoderGraph:
    return EncoderDecoderBackend().open(config(folder, **text), None)


def pixels(graph: EncoderDecoderGraph, name: str = "exact") -> NDArray[np.uint8]:
    plan = plan_of(vision_of(config(CAPTIONER)), graph.inputs[0])
    image = picture(name)
    return plan.render(image, plan.place(image.size))


def context(
    graph: EncoderDecoderGraph, name: str = "exact", prompt: Sequence[int] = (START,), **parameters: Any
) -> EncoderDecoderContext:
    """A context with its inputs set."""
    made = graph.create_context()
    give(made, pixels(graph, name), prompt, **parameters)
    return made


def give(made: EncoderDecoderContext, picture: NDArray[Any], prompt: Sequence[int], **parameters: Any) -> None:
    """Set the inputs of a context."""
    made.set_input(0, picture, borrow=False)
    made.set_input(1, np.array([prompt], np.int64), borrow=False)
    text = msgspec.json.encode({"max_tokens": 20} | parameters)
    made.set_input(2, np.frombuffer(text, np.uint8), borrow=False)


def pull(made: EncoderDecoderContext) -> tuple[list[int], list[float], Step]:
    """All tokens of a sequence, their log-probabilities, and how it ended."""
    tokens, logprobs = [], []
    while (step := made.compute_single()) is Step.OUTPUT:
        tokens += made.output(0).tolist()
        logprobs += made.output(1).tolist()
    made.finish()
    return tokens, logprobs, step


def generate(
    graph: EncoderDecoderGraph, name: str = "exact", prompt: Sequence[int] = (START,), **parameters: Any
) -> tuple[list[int], list[float], Step]:
    made = context(graph, name, prompt, **parameters)
    try:
        return pull(made)
    finally:
        made.close()


def changed(source: Path, folder: Path, name: str, change: Callable[[ov.Model], ov.Model]) -> Path:
    """A copy of a model, one of whose graphs is another one."""
    shutil.copytree(source, folder)
    core = ov.Core()
    core.set_property({"ENABLE_MMAP": False})
    ov.save_model(change(core.read_model(source / name)), folder / name, compress_to_fp16=False)
    return folder


def slowed(model: ov.Model, steps: int = 30, size: int = 1024) -> ov.Model:
    """The same, with multiplications of matrices that change nothing and take some tenths of a second of a core."""
    result = model.get_results()[0]
    source = result.input_value(0)
    matrix = np.eye(size, dtype=np.float32)
    product: Any = ops.multiply(ops.reduce_max(source, np.arange(3), keep_dims=False), matrix * 0)
    for _ in range(steps):
        product = ops.relu(ops.matmul(product, matrix, False, False))
    names = result.output(0).get_names()
    changed = ops.add(source, ops.reduce_sum(product, np.arange(2), keep_dims=False))
    result.input(0).replace_source_output(changed.output(0))
    changed.output(0).set_names(names)
    return model


class Bench:
    """Loads models from a folder, and asks them through the sandbox, without HTTP."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sandbox = Sandbox()
        plugins = Plugins()
        plugins.add(plugin, name="multimodal")
        backends = [*plugins.backends(), OpenVINOBackend()]
        self.models = Models(plugins, self._sandbox, backends, SilentObserver())

    def load(self, **entry: Any) -> Model:
        """Load the folder's model, computing in f32."""
        usual: dict[str, Any] = {"files": {"model": ENCODER}, "properties": EXACT}
        stated = RegistryEntry(type="multimodal", task="vision_language", **(usual | entry))
        return self.models.load(f"model-{len(self.models.all())}", stated, self.folder.joinpath)

    def submit(self, model: Model, *parts: Part, chunks: list[Any] | None = None) -> Job:
        """Send a form; pieces of the answer go to ``chunks`` as they come."""
        request = InferenceRequest(b"", "multipart/form-data", parts=parts, stream=chunks is not None)
        emit = None if chunks is None else chunks.append
        return model.serving.runner.submit(Job(request, Deadline(60), emit=emit))

    def ask(self, model: Model, *parts: Part, chunks: list[Any] | None = None) -> dict[str, Any]:
        """The answer, as JSON has it."""
        answer = self.submit(model, *parts, chunks=chunks).future.result(60)
        return dict(json.loads(msgspec.json.encode(answer)))

    def close(self) -> None:
        """Unload everything."""
        self.models.close()
        self._sandbox.close()


def form(name: str, **fields: str) -> list[Part]:
    """The parts of a multipart body with a picture."""
    file = io.BytesIO()
    picture(name).save(file, "PNG")
    image = Part("image", file.getvalue(), "image/png", "picture.png")
    return [image, *(Part(field, text.encode()) for field, text in fields.items())]
