"""OpenVINO-Llama: a universal inference server with every model's code in a WebAssembly sandbox.

What is exported here is what a plugin may use; everything else may change. Importing it loads neither OpenVINO, nor
wasmtime, nor Litestar.
"""

from openvino_llama.backends.base import (
    Backend,
    Encoding,
    ExecutionContext,
    Graph,
    LivingGraph,
    Prepare,
    Step,
    StreamingContext,
    Target,
)
from openvino_llama.config import Batching, Isolation, Limits, ModelConfig, ModelType, RegistryEntry
from openvino_llama.errors import (
    ConfigError,
    ContextLengthError,
    InferenceError,
    InputTooLargeError,
    InvalidInputError,
    InvalidTensorError,
    LimitError,
    ModelLoadError,
    ModelNotFoundError,
    NotAcceptableError,
    OpenVINOLlamaError,
    QueueFullError,
    RequestError,
    SandboxError,
    SourceError,
    UnavailableError,
    UnsupportedMediaTypeError,
    UnsupportedTargetError,
)
from openvino_llama.hookspecs import API_VERSION, Chunk, InferenceRequest, Part, Preprocessed, Reply, hookimpl
from openvino_llama.permodel import per_model
from openvino_llama.priority import make_way
from openvino_llama.reading import check_nesting, read_fields, read_json
from openvino_llama.specs import DYNAMIC, DataType, TensorLayout, TensorSpec

__version__ = "0.1.0"

__all__ = [
    "API_VERSION",
    "DYNAMIC",
    "Backend",
    "Batching",
    "Chunk",
    "ConfigError",
    "ContextLengthError",
    "DataType",
    "Encoding",
    "ExecutionContext",
    "Graph",
    "InferenceError",
    "InferenceRequest",
    "InputTooLargeError",
    "InvalidInputError",
    "InvalidTensorError",
    "Isolation",
    "LimitError",
    "Limits",
    "LivingGraph",
    "ModelConfig",
    "ModelLoadError",
    "ModelNotFoundError",
    "ModelType",
    "NotAcceptableError",
    "OpenVINOLlamaError",
    "Part",
    "Prepare",
    "Preprocessed",
    "QueueFullError",
    "RegistryEntry",
    "Reply",
    "RequestError",
    "SandboxError",
    "SourceError",
    "Step",
    "StreamingContext",
    "Target",
    "TensorLayout",
    "TensorSpec",
    "UnavailableError",
    "UnsupportedMediaTypeError",
    "UnsupportedTargetError",
    "check_nesting",
    "hookimpl",
    "make_way",
    "per_model",
    "read_fields",
    "read_json",
]
