"""OpenVINO-Llama: a universal inference server with every model's code in a WebAssembly sandbox.

What is exported here is what a plugin may use; everything else may change. Importing it loads neither OpenVINO, nor
wasmtime, nor Litestar.
"""

from openvino_llama.config import Batching, Isolation, Limits, ModelConfig, ModelType, RegistryEntry
from openvino_llama.errors import (
    ConfigError,
    InferenceError,
    InputTooLargeError,
    InvalidInputError,
    InvalidTensorError,
    LimitError,
    ModelLoadError,
    NotAcceptableError,
    OpenVINOLlamaError,
    RequestError,
    UnavailableError,
    UnsupportedMediaTypeError,
    UnsupportedTargetError,
)
from openvino_llama.hookspecs import API_VERSION, InferenceRequest, Part, Preprocessed, Reply, hookimpl
from openvino_llama.permodel import per_model
from openvino_llama.specs import DYNAMIC, DataType, TensorLayout, TensorSpec

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "DYNAMIC",
    "Batching",
    "ConfigError",
    "DataType",
    "InferenceError",
    "InferenceRequest",
    "InputTooLargeError",
    "InvalidInputError",
    "InvalidTensorError",
    "Isolation",
    "LimitError",
    "Limits",
    "ModelConfig",
    "ModelLoadError",
    "ModelType",
    "NotAcceptableError",
    "OpenVINOLlamaError",
    "Part",
    "Preprocessed",
    "RegistryEntry",
    "Reply",
    "RequestError",
    "TensorLayout",
    "TensorSpec",
    "UnavailableError",
    "UnsupportedMediaTypeError",
    "UnsupportedTargetError",
    "hookimpl",
    "per_model",
]
