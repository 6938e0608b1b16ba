"""A loaded encoder-decoder and its execution contexts: from pixels and a prompt to token after token.

Each context has an infer request of both graphs; the decoder's cache lives in its request, and what the encoder makes
of a picture is read by the decoder where it is. Knows nothing of text.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import openvino as ov
from numpy.typing import NDArray

from openvino_llama import (
    DYNAMIC,
    ConfigError,
    DataType,
    InferenceError,
    InvalidInputError,
    InvalidTensorError,
    ModelLoadError,
    Step,
    TensorLayout,
    TensorSpec,
    UnsupportedTargetError,
)
from openvino_llama_multimodal.encoder_decoder.graphs import IDS, LOGITS
from openvino_llama_multimodal.encoder_decoder.sampling import Sampler
from openvino_llama_text.engine.parameters import EngineParameters, read_parameters
from openvino_llama_vision.reduction import sizes

__all__ = ["EncoderDecoderContext", "EncoderDecoderGraph", "Limits"]

_OUTPUTS = (
    TensorSpec("tokens", (DYNAMIC,), DataType.I64, TensorLayout.SEQUENCE),
    TensorSpec("logprobs", (DYNAMIC,), DataType.F32, TensorLayout.SEQUENCE),
)
_PIXELS, _PROMPT, _PARAMETERS = range(3)


class Limits(msgspec.Struct, frozen=True):
    """Where sequences of a model end."""

    positions: int
    """Tokens of a prompt and its answer together."""
    ends: frozenset[int]
    """Tokens that end an answer, where a request states none."""


class _Requests:
    """An infer request of the encoder and one of the decoder. Used by one thread, except for ``cancel``."""

    def __init__(self, encoder: ov.CompiledModel, decoder: ov.CompiledModel) -> None:
        self._encoder = encoder.create_infer_request()
        self._decoder = decoder.create_infer_request()
        self._crossed = [port.any_name for port in encoder.outputs]
        self._token = np.zeros((1, 1), np.int64)
        self._one = ov.Tensor(self._token, shared_memory=True)

    def begin(self, pixels: NDArray[np.uint8], prompt: NDArray[np.int64]) -> NDArray[np.floating]:
        """Look at a picture and read a prompt, (1, n): the logits of what follows, (vocabulary,)."""
        self._encoder.set_input_tensor(ov.Tensor(pixels, shared_memory=True))
        _infer(self._encoder)
        for index, name in enumerate(self._crossed):
            self._decoder.set_tensor(name, self._encoder.get_output_tensor(index))
        self._decoder.reset_state()
        self._decoder.set_tensor(IDS, ov.Tensor(prompt, shared_memory=True))
        logits = self._logits()
        self._decoder.set_tensor(IDS, self._one)
        return logits

    def go_on(self, token: int) -> NDArray[np.floating]:
        """Read a token more: the logits of what follows."""
        self._token[0, 0] = token
        return self._logits()

    def cancel(self) -> None:
        """Stop what runs between two of its layers; does nothing to what is idle."""
        self._encoder.cancel()
        self._decoder.cancel()

    def _logits(self) -> NDArray[np.floating]:
        _infer(self._decoder)
        logits: NDArray[np.floating] = self._decoder.get_tensor(LOGITS).data[0, -1]
        return logits


def _infer(request: ov.InferRequest) -> None:
    """Run a request. Releases the GIL."""
    try:
        request.infer()
    except RuntimeError as error:
        raise InferenceError("OpenVINO could not run the inference") from error


class EncoderDecoderGraph:
    """A compiled encoder and decoder. Infer requests are kept and used again: making one costs more than a token."""

    outputs: Sequence[TensorSpec] = _OUTPUTS
    batches = False

    def __init__(self, encoder: ov.CompiledModel, decoder: ov.CompiledModel, limits: Limits) -> None:
        """``encoder`` and ``decoder`` are as ``graphs.join`` makes them."""
        self._models: tuple[ov.CompiledModel, ov.CompiledModel] | None = (encoder, decoder)
        self.parallelism = int(decoder.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.limits = limits
        self.vocab_size = sizes(decoder.output(LOGITS))[-1]
        self.inputs: Sequence[TensorSpec] = (
            TensorSpec("pixels", sizes(encoder.input(0)), DataType.U8, TensorLayout.NHWC),
            TensorSpec("input_ids", (1, DYNAMIC), DataType.I64, TensorLayout.SEQUENCE),
            TensorSpec("parameters", (DYNAMIC,), DataType.U8),
        )
        self._idle: list[_Requests] = []

    def try_out(self, start: Sequence[int]) -> None:
        """Look at nothing and read the start of a text; ModelLoadError if that fails, ConfigError for no token of its.

        It is on one thread, as OpenVINO's first conversion of a tensor has to be.
        """
        wrong = [token for token in start if not 0 <= token < self.vocab_size]
        if wrong:
            raise ConfigError(f"a text begins with the token {wrong[0]}; the decoder knows 0 to {self.vocab_size - 1}")
        requests = self.take()
        try:
            requests.begin(np.zeros(self.inputs[_PIXELS].shape, np.uint8), np.array([start], np.int64))
        except (InferenceError, RuntimeError) as error:
            raise ModelLoadError("the encoder and the decoder do not work together") from error
        self.give(requests)

    def create_context(self) -> EncoderDecoderContext:
        """A place for one sequence at a time."""
        return EncoderDecoderContext(self)

    def take(self) -> _Requests:
        """Idle infer requests, or new ones."""
        try:
            return self._idle.pop()  # atomic: contexts come and go on several threads
        except IndexError:
            if self._models is None:
                raise InferenceError("the model has been unloaded") from None
            return _Requests(*self._models)

    def give(self, requests: _Requests) -> None:
        """Give infer requests back."""
        self._idle.append(requests)

    def close(self) -> None:
        """Free the compiled models and their requests."""
        self._idle.clear()
        self._models = None


class EncoderDecoderContext:
    """One sequence at a time. Used by one thread, except for ``cancel``."""

    def __init__(self, graph: EncoderDecoderGraph) -> None:
        self._graph = graph
        self._requests: _Requests | None = graph.take()
        self._pixels: NDArray[Any] | None = None
        self._prompt: NDArray[Any] | None = None
        self._parameters: EngineParameters | None = None
        self._sampler: Sampler | None = None
        self._ends: frozenset[int] = frozenset()
        self._end: Step | None = None
        self._chosen: tuple[int, float] | None = None
        self._lock = threading.Lock()

    def set_input(self, index: int, tensor: NDArray[Any], *, borrow: bool) -> None:  # noqa: ARG002 - always copied
        """Set the pixels (0), the prompt (1) or the parameters (2) of the next sequence.

        InvalidTensorError, or InvalidInputError for a parameter that is wrong or not for such models.
        """
        specs = self._graph.inputs
        if not 0 <= index < len(specs):
            raise InvalidTensorError(f"input index {index} is out of range: the model has {len(specs)} inputs")
        specs[index].check(tensor)
        if index == _PIXELS:
            self._pixels = tensor.copy()
        elif index == _PROMPT:
            self._prompt = self._checked(tensor.copy())
        else:
            self._parameters = _read(tensor)

    def compute(self) -> None:
        """Not in one piece: nobody could stop it."""
        raise UnsupportedTargetError("an encoder-decoder gives its output step by step (compute_single)")

    def compute_single(self) -> Step:
        """Generate a token, the first time after looking at the picture, or say how the sequence has ended.

        InferenceError if it fails, an input is missing, or it was cancelled.
        """
        self._chosen = None
        if self._end:
            return self._end
        logits = self._next_logits()
        if logits is None or self._sampler is None:
            return Step.PROMPT_TOO_LONG
        self._chosen = self._sampler.choose(logits)
        self._end = self._ended()
        return Step.OUTPUT

    def output(self, index: int) -> NDArray[Any]:
        """The token (0) of the last step, i64 [1]; the logarithm of its probability (1), f32 [1]."""
        if self._chosen is None:
            raise InferenceError("there is no output before a step that gave one")
        if not 0 <= index < len(_OUTPUTS):
            raise InvalidTensorError(f"output index {index} is out of range: the model has {len(_OUTPUTS)} outputs")
        return np.array([self._chosen[index]], _OUTPUTS[index].data_type.numpy)

    def finish(self) -> None:
        """Drop what is left of the sequence; the inputs stay as they are until others are set."""
        self._sampler = None
        self._end = None
        self._chosen = None

    def cancel(self) -> None:
        """Stop a running inference between two of its layers; does nothing to an idle one."""
        with self._lock:
            if self._requests is not None:
                self._requests.cancel()

    def close(self) -> None:
        """Drop the sequence and give the infer requests back to the graph."""
        self.finish()
        with self._lock:
            requests, self._requests = self._requests, None
        if requests is not None:
            self._graph.give(requests)

    def _next_logits(self) -> NDArray[np.floating] | None:
        """The logits of the sequence's next token; None if its prompt is too long to begin."""
        if self._requests is None:
            raise InferenceError("the context has been closed")
        if self._sampler is not None:
            return self._requests.go_on(self._sampler.tokens[-1])
        for spec, given in zip(self._graph.inputs, (self._pixels, self._prompt, self._parameters), strict=True):
            if given is None:
                raise InferenceError(f"input {spec.name!r} has not been set")
        assert self._pixels is not None  # noqa: S101 - seen above
        assert self._prompt is not None  # noqa: S101
        assert self._parameters is not None  # noqa: S101
        if self._prompt.size >= self._graph.limits.positions:
            return None
        logits = self._requests.begin(self._pixels, self._prompt)
        stated = self._parameters
        self._ends = frozenset(() if stated.ignore_eos else stated.stop_token_ids or self._graph.limits.ends)
        self._sampler = Sampler(stated, self._prompt[0].tolist(), self._ends)
        return logits

    def _ended(self) -> Step | None:
        """How the sequence ends with its last token; None if it goes on."""
        if self._sampler is None or self._parameters is None or self._prompt is None:
            return None
        tokens = self._sampler.tokens
        if tokens[-1] in self._ends or len(tokens) >= self._parameters.max_tokens:
            return Step.END_OF_SEQUENCE
        full = self._prompt.size + len(tokens) >= self._graph.limits.positions
        return Step.CONTEXT_FULL if full else None

    def _checked(self, prompt: NDArray[Any]) -> NDArray[Any]:
        """The prompt; InvalidTensorError if it is empty or has tokens that the model does not know.

        Their rows would be read from beyond the embedding table.
        """
        last = self._graph.vocab_size - 1
        if prompt.size == 0:
            raise InvalidTensorError("tensor 'input_ids': there is no token in it")
        if prompt.min() < 0 or prompt.max() > last:
            wrong = prompt[(prompt < 0) | (prompt > last)][0]
            raise InvalidTensorError(f"tensor 'input_ids': tokens are 0 to {last}, got {wrong}")
        return prompt


def _read(tensor: NDArray[Any]) -> EngineParameters:
    parameters = read_parameters(tensor.tobytes())
    if parameters.form:
        raise InvalidInputError(f"{parameters.form[0]}: this model's output cannot be given a form")
    return parameters
