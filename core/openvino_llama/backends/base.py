"""The protocols of a WASI-NN backend: Backend, Graph, ExecutionContext.

A backend turns model files or bytes into a Graph; a Graph gives ExecutionContexts; a context takes input tensors,
computes, and shows its outputs. Knows nothing of WebAssembly: handles, guest memory and errno are the sandbox's.

Errors, as the sandbox tells them to guests: InvalidTensorError (invalid argument), ModelLoadError and InferenceError
(runtime error), UnsupportedTargetError (unsupported operation), LimitError (too large).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from openvino_llama.config import ModelConfig
from openvino_llama.specs import TensorSpec

if TYPE_CHECKING:
    import openvino as ov
    from numpy.typing import NDArray

__all__ = [
    "Backend",
    "Encoding",
    "ExecutionContext",
    "Graph",
    "LivingGraph",
    "Prepare",
    "Step",
    "StreamingContext",
    "Target",
]

Prepare = Callable[["ov.Model", Sequence[TensorSpec], Sequence[TensorSpec]], "ov.Model"]
"""What is done to an OpenVINO model, with these inputs and outputs, between reading and compiling it."""


class Encoding(IntEnum):
    """Model formats, numbered as in WASI-NN's witx."""

    OPENVINO = 0
    ONNX = 1
    TENSORFLOW = 2
    PYTORCH = 3
    TENSORFLOWLITE = 4
    AUTODETECT = 5


class Target(IntEnum):
    """Devices, numbered as in WASI-NN's witx."""

    CPU = 0
    GPU = 1
    TPU = 2


class Step(Enum):
    """How one step of a stream ended."""

    OUTPUT = "output"
    END_OF_SEQUENCE = "end of sequence"
    CONTEXT_FULL = "context full"
    PROMPT_TOO_LONG = "prompt too long"


class ExecutionContext(Protocol):
    """One inference at a time. Used by one thread, except for ``cancel``."""

    def set_input(self, index: int, tensor: NDArray[Any], *, borrow: bool) -> None:
        """Set an input; InvalidTensorError if it does not fit the graph's spec or the index is out of range.

        The tensor is copied, unless ``borrow`` promises that its memory stays unchanged until ``compute`` returns.
        """

    def compute(self) -> None:
        """Run the inference; InferenceError if it fails, an input is missing, or it was cancelled."""

    def output(self, index: int) -> NDArray[Any]:
        """An output of the last compute: C-contiguous, valid until the next one; InvalidTensorError if out of range."""

    def cancel(self) -> None:
        """Make a running ``compute`` end soon. May be called from any thread, at any time."""

    def close(self) -> None:
        """Give the context's memory back."""


class StreamingContext(ExecutionContext, Protocol):
    """A context that yields output after output for the same inputs (generation)."""

    def compute_single(self) -> Step:
        """Work until the next output, or the end."""

    def finish(self) -> None:
        """Drop what is left of the sequence; the inputs may be set for the next one."""


class Graph(Protocol):
    """A loaded model, ready to run. Used by several threads."""

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What the graph takes, in its order."""

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        """What the graph gives, in its order."""

    @property
    def parallelism(self) -> int:
        """How many contexts it is best to run at the same time."""

    @property
    def batches(self) -> bool:
        """Whether every output has one row for each row of the inputs, so that requests may share an inference.

        A graph without this attribute is one that does not.
        """

    def create_context(self) -> ExecutionContext:
        """A new execution context."""

    def close(self) -> None:
        """Give the graph's memory back; its contexts have been closed before."""


@runtime_checkable
class LivingGraph(Protocol):
    """A graph that lives on its own (in a process) and tells how it is; a graph need not have this."""

    def unready_reason(self) -> str:
        """Why no inference is possible now; empty if one is. It is shown to clients."""

    def gauges(self) -> Mapping[str, float]:
        """Name -> value of what an operator may want to watch, for the metrics."""


class Backend(Protocol):
    """A way to run graphs."""

    name: str

    def serves(self, config: ModelConfig) -> bool:
        """Whether this backend opens that model, in OpenVINO's place."""

    def open(self, config: ModelConfig, prepare: Prepare) -> Graph:
        """Load a model from its files; ModelLoadError if that fails. ``prepare`` is for OpenVINO graphs only."""

    def load(self, builders: Sequence[memoryview], encoding: Encoding, target: Target) -> Graph:
        """Load a model from a guest's bytes; ModelLoadError if that fails.

        The builders are views of the guest's memory, valid during the call.
        """
