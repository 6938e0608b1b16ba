"""A model as the server runs it, without server and sandbox: the plugin's hooks around OpenVINO itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openvino_llama import DataType, InferenceRequest, ModelConfig, RegistryEntry, TensorSpec
from openvino_llama.config import typed_config
from openvino_llama_vision import plugin
from openvino_llama_vision.config import VisionParameters

TYPES = {"u8": DataType.U8, "f32": DataType.F32, "i32": DataType.I32, "i64": DataType.I64, "f16": DataType.F16}


def specs(ports: list[Any]) -> tuple[TensorSpec, ...]:
    """The ports of a model as specs."""
    return tuple(
        TensorSpec(
            port.get_any_name(),
            tuple(each.get_length() if each.is_static else -1 for each in port.get_partial_shape()),
            TYPES[port.get_element_type().to_string()],
        )
        for port in ports
    )


class Served:
    """One loaded model."""

    def __init__(self, model: ov.Model, task: str, config: dict[str, Any], labels: Path | None = None) -> None:
        files = {"model": "model"} | ({"labels": str(labels)} if labels else {})
        entry = RegistryEntry(type="vision", task=task, files=files, config=config)
        stated = typed_config("test", entry, plugin.model_types()[0], Path)
        stated = msgspec.structs.replace(stated, inputs=specs(model.inputs), outputs=specs(model.outputs))
        self.model = plugin.prepare_model(stated, model)
        self.config: ModelConfig = msgspec.structs.replace(
            stated, inputs=specs(self.model.inputs), outputs=specs(self.model.outputs)
        )
        self.compiled = ov.Core().compile_model(self.model, "CPU", {"INFERENCE_NUM_THREADS": 2})
        plugin.validate_model(self.config)

    def infer(self, tensors: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the model on its checked inputs."""
        self.config.validate_input(tensors)
        results = self.compiled(dict(tensors))
        return {spec.name: results[index] for index, spec in enumerate(self.config.outputs)}

    def request(
        self, body: bytes, media_type: str = "image/png", produces: str = "application/json", **parameters: Any
    ) -> Any:
        """The whole way of one request, as the client sees its results."""
        asked = msgspec.convert(parameters, VisionParameters, strict=False)
        prepared = plugin.preprocess(self.config, InferenceRequest(body, media_type, asked, produces))
        outputs = self.infer(dict(prepared.tensors))
        answer = plugin.postprocess(self.config, outputs, prepared.context)
        return answer if produces != "application/json" else msgspec.to_builtins(answer)

    def tensor(self, body: bytes, media_type: str = "image/png") -> NDArray[np.uint8]:
        """The input tensor of a request."""
        prepared = plugin.preprocess(self.config, InferenceRequest(body, media_type))
        return next(iter(prepared.tensors.values()))


def read(path: Path) -> ov.Model:
    """A model from its file."""
    return ov.Core().read_model(path)
