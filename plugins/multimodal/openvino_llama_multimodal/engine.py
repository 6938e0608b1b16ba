"""The text plugin's generation engine for models that take pictures: the same process, with another graph to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import (
    DYNAMIC,
    ConfigError,
    DataType,
    InferenceError,
    InvalidTensorError,
    ModelConfig,
    TensorLayout,
    TensorSpec,
)
from openvino_llama_multimodal.config import Fusion, fusion_of, text_half
from openvino_llama_text.engine.backend import EngineBackend, EngineContext, EngineGraph, Signature, start_engine
from openvino_llama_text.engine.files import link
from openvino_llama_text.engine.frames import Illustrated, Picture
from openvino_llama_text.engine.parameters import EngineParameters, read_parameters

__all__ = ["PicturesContext", "VisionLanguageBackend", "lay_out"]

_LANGUAGE = "openvino_language_model"
_TOKENIZER = "openvino_tokenizer.xml"
_PREPROCESSOR, _PROCESSOR = "preprocessor_config.json", "processor_config.json"

_INPUTS = (
    TensorSpec("prompt", (DYNAMIC,), DataType.U8),
    TensorSpec("pixels", (DYNAMIC, DYNAMIC, DYNAMIC, 3), DataType.U8, TensorLayout.NHWC),
    TensorSpec("sizes", (DYNAMIC, 2), DataType.I64),
    TensorSpec("parameters", (DYNAMIC,), DataType.U8),
)
_OUTPUTS = (
    TensorSpec("tokens", (DYNAMIC,), DataType.I64, TensorLayout.SEQUENCE),
    TensorSpec("logprobs", (DYNAMIC,), DataType.F32, TensorLayout.SEQUENCE),
    TensorSpec("prompt_tokens", (1,), DataType.I64),
)


class VisionLanguageBackend(EngineBackend):
    """Vision-language models by openvino-genai, each in a process of its own."""

    name = "openvino-genai-vision"

    def serves(self, config: ModelConfig) -> bool:
        """Whether a model is this backend's: multimodal ones of early fusion."""
        return config.type == "multimodal" and fusion_of(config) is Fusion.EARLY

    def open(self, config: ModelConfig, prepare: object) -> EngineGraph:  # noqa: ARG002 - genai compiles the graphs
        """Start the model's engine; ModelLoadError if it cannot load the model."""
        return start_engine(text_half(config), lay_out, Signature(_INPUTS, _OUTPUTS, PicturesContext))


class PicturesContext(EngineContext):
    """A sequence that goes on from a text with pictures in it.

    ``prompt`` is UTF-8, with ``<ov_genai_image_0>`` where the first picture stands, and so on; ``pixels`` are RGB, each
    picture in the upper left corner of its place; ``sizes`` are the pictures' heights and widths. All of them are to be
    set for each sequence.
    """

    def __init__(self, graph: EngineGraph) -> None:
        super().__init__(graph)
        self._given: dict[str, NDArray[Any]] = {}
        self._parameters: EngineParameters | None = None

    def take(self, name: str, tensor: NDArray[Any], *, borrow: bool) -> None:
        """Keep an input."""
        if name == "parameters":
            self._parameters = read_parameters(tensor.tobytes())
        self._given[name] = tensor if borrow else tensor.copy()

    def asked(self) -> tuple[Illustrated, EngineParameters]:
        """The text, its pictures and the parameters. Inputs are not kept: pictures are large, and contexts are many."""
        for spec in _INPUTS:
            if spec.name not in self._given:
                raise InferenceError(f"input {spec.name!r} has not been set")
        given, self._given = self._given, {}
        assert self._parameters is not None  # noqa: S101 - set with its tensor
        return Illustrated(_text(given["prompt"]), _pictures(given["pixels"], given["sizes"])), self._parameters


def _pictures(pixels: NDArray[Any], sizes: NDArray[Any]) -> list[Picture]:
    most = pixels.shape[1:3]
    if len(pixels) != len(sizes) or np.any(sizes < 1) or np.any(sizes > most):
        raise InvalidTensorError(
            f"tensor 'sizes': expected a height and width for each of the {len(pixels)} pictures, "
            f"from 1 to {list(most)}; got {sizes.tolist()}"
        )
    return [
        Picture(height, width, each[:height, :width].tobytes())
        for each, (height, width) in zip(pixels, sizes.tolist(), strict=True)
    ]


def _text(prompt: NDArray[Any]) -> str:
    try:
        return prompt.tobytes().decode()
    except UnicodeDecodeError as error:
        raise InvalidTensorError("tensor 'prompt': expected UTF-8") from error


def lay_out(files: Mapping[str, Path], folder: Path) -> Path:
    """The model as openvino-genai takes it: its own folder, or ``folder`` filled with links.

    openvino-genai wants ``preprocessor_config.json``; newer exports have the same as a member of
    ``processor_config.json``.
    """
    model = files["model"]
    weights = files.get("weights", model.with_suffix(".bin"))
    wanted = {each.name: each for each in model.parent.iterdir() if each.is_file() and not each.name.startswith(".")}
    named = {f"{_LANGUAGE}.xml": model, f"{_LANGUAGE}.bin": weights}
    if _TOKENIZER not in wanted:
        raise ConfigError(f"expected {_TOKENIZER} beside the model: its engine tokenizes prompts with pictures itself")
    if not wanted.keys() & {_PREPROCESSOR, _PROCESSOR}:
        raise ConfigError(f"expected {_PREPROCESSOR} or {_PROCESSOR} beside the model: pictures would not be resized")
    if _PREPROCESSOR in wanted and all(wanted.get(name) == path for name, path in named.items()):
        return model.parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in (wanted | named).items():
        link(path, folder / name)
    if _PREPROCESSOR not in wanted and _PROCESSOR in wanted:
        (folder / _PREPROCESSOR).write_bytes(_image_processor(wanted[_PROCESSOR]))
    return folder


class _Processor(msgspec.Struct, frozen=True):
    image_processor: msgspec.Raw


def _image_processor(path: Path) -> bytes:
    try:
        return bytes(msgspec.json.decode(path.read_bytes(), type=_Processor).image_processor)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"file {path.name}: expected a JSON object with 'image_processor'") from error
