"""Generation as a WASI-NN backend: graphs are engines, execution contexts are sequences.

A context's first ``compute_single`` submits the sequence; each one waits for tokens and takes all that are there.
Knows nothing of processes beyond starting and ending them, nor of text.
"""

from __future__ import annotations

import abc
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openvino_llama import (
    DYNAMIC,
    ConfigError,
    DataType,
    InferenceError,
    InvalidTensorError,
    ModelConfig,
    Step,
    TensorLayout,
    TensorSpec,
    UnsupportedTargetError,
)
from openvino_llama_text.config import EngineConfig, TextConfig
from openvino_llama_text.engine.files import lay_out
from openvino_llama_text.engine.frames import Illustrated, Load, Output, Reason
from openvino_llama_text.engine.grammar import GrammarChecker
from openvino_llama_text.engine.parameters import EngineParameters, check_tokens, read_parameters
from openvino_llama_text.engine.process import EngineProcess
from openvino_llama_text.engine.sequence import Sequence as Generated
from openvino_llama_text.files import facts_of

__all__ = ["EngineBackend", "EngineContext", "EngineGraph", "Signature", "start_engine"]

_INPUTS = (
    TensorSpec("input_ids", (1, DYNAMIC), DataType.I64, TensorLayout.SEQUENCE),
    TensorSpec("parameters", (DYNAMIC,), DataType.U8),
)
_OUTPUTS = (
    TensorSpec("tokens", (DYNAMIC,), DataType.I64, TensorLayout.SEQUENCE),
    TensorSpec("logprobs", (DYNAMIC,), DataType.F32, TensorLayout.SEQUENCE),
)

LayOut = Callable[[Mapping[str, Path], Path], Path]
"""The files of a model, by role, and an empty folder -> the model as openvino-genai takes it."""


class EngineBackend:
    """Text generation by openvino-genai, each model in a process of its own."""

    name = "openvino-genai"

    def serves(self, config: ModelConfig) -> bool:
        """Whether a model is this backend's: text models that generate."""
        return config.type == "text" and config.task == "generation"

    def open(self, config: ModelConfig, prepare: object) -> EngineGraph:  # noqa: ARG002 - there is no graph to prepare
        """Start the model's engine; ModelLoadError if it cannot load the model."""
        return start_engine(config, lay_out, Signature(_INPUTS, _OUTPUTS, TokensContext))

    def load(self, builders: object, encoding: object, target: object) -> EngineGraph:  # noqa: ARG002
        """Not from a guest's memory: no engine would be told how to share the machine."""
        raise UnsupportedTargetError("generation models are loaded by name only")


class Signature(NamedTuple):
    """What an engine's graph looks like from the guest."""

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]
    context: Callable[[EngineGraph], EngineContext]


def start_engine(config: ModelConfig, place: LayOut, signature: Signature) -> EngineGraph:
    """A model's engine; ModelLoadError if it cannot load the model.

    ``config.config`` is a TextConfig; ``place`` puts the model's files where openvino-genai looks for them.
    """
    scratch = tempfile.TemporaryDirectory(prefix="ovllama-engine-")
    try:
        load = _load(config, place, Path(scratch.name))
        checker = GrammarChecker(load.model)
        return EngineGraph(EngineProcess(config.name, load), checker, config.config.engine, scratch, signature)
    except BaseException:
        scratch.cleanup()
        raise


class EngineGraph:
    """A model's engine."""

    batches = False

    def __init__(
        self,
        process: EngineProcess,
        checker: GrammarChecker,
        engine: EngineConfig,
        scratch: tempfile.TemporaryDirectory[str],
        signature: Signature,
    ) -> None:
        self.process = process
        self.checker = checker
        self.inputs = signature.inputs
        self.outputs = signature.outputs
        self._make_context = signature.context
        self._engine = engine
        self._scratch = scratch

    @property
    def parallelism(self) -> int:
        """Sequences that the engine generates at the same time."""
        return self._engine.max_num_seqs

    def create_context(self) -> EngineContext:
        """A place for one sequence at a time."""
        return self._make_context(self)

    def unready_reason(self) -> str:
        """Why no sequence is taken at the moment; empty if they are."""
        return self.process.unready_reason()

    def gauges(self) -> Mapping[str, float]:
        """What is measured of the engine, by name."""
        return self.process.gauges()

    def close(self) -> None:
        """End the engine; sequences that still run fail."""
        self.process.close()
        self.checker.close()
        self._scratch.cleanup()


class EngineContext(abc.ABC):
    """One sequence at a time, whatever its prompt is made of. Used by one thread, except for ``cancel``."""

    def __init__(self, graph: EngineGraph) -> None:
        self._graph = graph
        self._sequence: Generated | None = None
        self._end: Step | None = None
        self._output: Output | None = None
        self._lock = threading.Lock()

    def set_input(self, index: int, tensor: NDArray[Any], *, borrow: bool) -> None:
        """Set an input; InvalidTensorError, or InvalidInputError for a wrong parameter."""
        inputs = self._graph.inputs
        if not 0 <= index < len(inputs):
            raise InvalidTensorError(f"input index {index} is out of range: the model has {len(inputs)} inputs")
        inputs[index].check(tensor)
        self.take(inputs[index].name, tensor, borrow=borrow)

    @abc.abstractmethod
    def take(self, name: str, tensor: NDArray[Any], *, borrow: bool) -> None:
        """Keep an input, which fits its spec: as it is until the first step, if it may be borrowed, else a copy."""

    @abc.abstractmethod
    def asked(self) -> tuple[bytes | Illustrated, EngineParameters] | None:
        """The prompt and how to go on from it; None if it is too long. InferenceError if an input is missing."""

    def compute(self) -> None:
        """Not in one piece: nobody could stop it."""
        raise UnsupportedTargetError("a generation model gives its output step by step (compute_single)")

    def compute_single(self) -> Step:
        """Wait for tokens and take all that are there, or say how the sequence ended.

        InferenceError if it was cancelled or the engine failed, UnavailableError if there is no engine at the moment,
        InvalidInputError if the model does not take it.
        """
        self._output = None
        if self._end:
            return self._end
        sequence = self._sequence or self._submitted()
        if sequence is None:
            return Step.PROMPT_TOO_LONG
        output = sequence.take()
        if output.reason is Reason.CANCELLED:
            raise InferenceError("the generation was cancelled")
        if output.reason:
            self._end = Step.CONTEXT_FULL if output.reason is Reason.CONTEXT else Step.END_OF_SEQUENCE
        if output.tokens:
            self._output = output
            return Step.OUTPUT
        if output.prompt_tokens and self._end is Step.CONTEXT_FULL:  # its pictures left no room for a single token
            self._end = Step.PROMPT_TOO_LONG
        return self._end or Step.OUTPUT

    def output(self, index: int) -> NDArray[Any]:
        """Of the last step: tokens (0), i64 [n]; the logarithms of their probabilities (1), f32 [n] or [0]; how many
        tokens the prompt has turned out to have (2), i64 [1], 0 if that has been told.
        """
        if self._output is None:
            raise InferenceError("there is no output before a step that gave one")
        outputs = self._graph.outputs
        if not 0 <= index < len(outputs):
            raise InvalidTensorError(f"output index {index} is out of range: the model has {len(outputs)} outputs")
        values = (self._output.tokens, self._output.logprobs, [self._output.prompt_tokens])
        return np.array(values[index], outputs[index].data_type.numpy)

    def finish(self) -> None:
        """Drop what is left of the sequence; the inputs stay as they are until others are set."""
        with self._lock:
            sequence, self._sequence = self._sequence, None
        if sequence and self._end is None:
            sequence.cancel()
        self._end = None
        self._output = None

    def cancel(self) -> None:
        """Make a waiting ``compute_single`` raise at once, and free the sequence's memory within a step."""
        with self._lock:
            sequence = self._sequence
        if sequence:
            sequence.cancel()

    def close(self) -> None:
        """Drop the sequence."""
        self.finish()

    def _submitted(self) -> Generated | None:
        """The sequence of these inputs, submitted; None if the prompt is too long."""
        asked = self.asked()
        if asked is None:
            return None
        prompt, parameters = asked
        process = self._graph.process
        with self._lock:  # from here on it can be cancelled
            self._sequence = sequence = process.sequence()
        try:
            self._graph.checker.check(parameters, lambda: not sequence.is_cancelled)
            process.submit(sequence, prompt, parameters)
        except BaseException:
            with self._lock:
                self._sequence = None
            raise
        return sequence


class TokensContext(EngineContext):
    """A sequence that goes on from tokens."""

    def __init__(self, graph: EngineGraph) -> None:
        super().__init__(graph)
        self._tokens: NDArray[Any] | None = None
        self._parameters: EngineParameters | None = None

    def take(self, name: str, tensor: NDArray[Any], *, borrow: bool) -> None:  # noqa: ARG002 - tokens are few
        """Keep a copy of the prompt, or the parameters."""
        if name == "parameters":
            self._parameters = read_parameters(tensor.tobytes())
        else:
            ready = self._graph.process.ready
            check_tokens(tensor, ready.vocab_size if ready else None)
            self._tokens = tensor[0].copy()

    def asked(self) -> tuple[bytes, EngineParameters] | None:
        """Both; None if the prompt is too long."""
        if self._tokens is None or self._parameters is None:
            missing = _INPUTS[0 if self._tokens is None else 1].name
            raise InferenceError(f"input {missing!r} has not been set")
        ready = self._graph.process.ready
        if ready and ready.capacity is not None and len(self._tokens) >= ready.capacity:
            return None
        return self._tokens.tobytes(), self._parameters


def _load(config: ModelConfig, place: LayOut, scratch: Path) -> Load:
    """What the engine's process is told of a model."""
    text: TextConfig = config.config
    engine = text.engine
    return Load(
        model=str(place(config.files, scratch / "model")),
        device=config.device,
        properties=dict(config.properties),
        kv_cache_mib=engine.kv_cache_mib,
        max_num_seqs=engine.max_num_seqs,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        prefix_caching=engine.prefix_caching,
        max_context=text.context_window or facts_of(config).max_positions,
        draft_model=_draft(config, engine.draft_model, scratch),
        draft_device=engine.draft_device,
        num_assistant_tokens=engine.num_assistant_tokens,
        adapters=[(_file(config, each.file), each.alpha) for each in engine.adapters],
    )


def _draft(config: ModelConfig, role: str | None, scratch: Path) -> str | None:
    if role is None:
        return None
    _file(config, role)
    return str(lay_out(config.files, scratch / "draft", role))


def _file(config: ModelConfig, role: str) -> str:
    """The path of a role; ConfigError if the entry has none."""
    if role not in config.files:
        raise ConfigError(f"model {config.name!r}, field 'config.engine': 'files' has no role {role!r}")
    return str(config.files[role])
