"""A loaded encoder-decoder and its execution contexts: from pixels and a prompt to token after token.

Each context has an infer request of both graphs; the decoder's cache lives in its request, and what the encoder makes
of a picture is read by the decoder where it is. Knows nothing of text.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence as Several
from typing import Any

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
from openvino_llama_multimodal.encoder_decoder.sequence import Limits, Sequence
from openvino_llama_text.engine.parameters import EngineParameters, check_tokens, read_parameters
from openvino_llama_vision.reduction import sizes

__all__ = ["EncoderDecoderContext", "EncoderDecoderGraph"]

_OUTPUTS = (
    TensorSpec("tokens", (DYNAMIC,), DataType.I64, TensorLayout.SEQUENCE),
    TensorSpec("logprobs", (DYNAMIC,), DataType.F32, TensorLayout.SEQUENCE),
)
_PIXELS, _PROMPT, _PARAMETERS = range(3)


class _Requests:
    """An infer request of the encoder and one of the decoder. Used by one thread, except for ``cancel``."""

    def __init__(self, encoder: ov.CompiledModel, decoder: ov.CompiledModel) -> None:
        self._encoder = encoder.create_infer_request()
        self._decoder = decoder.create_infer_request()
        self._of_picture = [port.any_name for port in encoder.outputs]
        self._token = np.zeros((1, 1), np.int64)
        self._one = ov.Tensor(self._token, shared_memory=True)

    def begin(self, pixels: NDArray[Any], prompt: NDArray[Any]) -> None:
        """Look at a picture, and read a prompt of (1, n) tokens."""
        self._encoder.set_input_tensor(ov.Tensor(pixels, shared_memory=True))
        _run(self._encoder)
        for index, name in enumerate(self._of_picture):
            self._decoder.set_tensor(name, self._encoder.get_output_tensor(index))
        self._decoder.reset_state()
        self._decoder.set_tensor(IDS, ov.Tensor(prompt, shared_memory=True))
        _run(self._decoder)
        self._decoder.set_tensor(IDS, self._one)

    def read(self, token: int) -> None:
        """Read a token more."""
        self._token[0, 0] = token
        _run(self._decoder)

    @property
    def logits(self) -> NDArray[Any]:
        """Of what follows the last token that was read, (vocabulary,); valid until the next is read."""
        logits: NDArray[Any] = self._decoder.get_tensor(LOGITS).data[0, -1]
        return logits

    def cancel(self) -> None:
        """Stop what runs between two of its layers; does nothing to what is idle."""
        self._encoder.cancel()
        self._decoder.cancel()


def _run(request: ov.InferRequest) -> None:
    """Run a request. Releases the GIL."""
    try:
        request.infer()
    except RuntimeError as error:
        raise InferenceError("OpenVINO could not run the inference") from error


class EncoderDecoderGraph:
    """A compiled encoder and decoder. Infer requests are kept and used again: making one costs more than a token."""

    outputs: Several[TensorSpec] = _OUTPUTS
    batches = False

    def __init__(self, encoder: ov.CompiledModel, decoder: ov.CompiledModel, limits: Limits) -> None:
        """``encoder`` and ``decoder`` are as ``graphs.join`` makes them."""
        self._models: tuple[ov.CompiledModel, ov.CompiledModel] | None = (encoder, decoder)
        self._parallelism = int(decoder.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.limits = limits
        self.vocab_size = sizes(decoder.output(LOGITS))[-1]
        self.inputs: Several[TensorSpec] = (
            TensorSpec("pixels", sizes(encoder.input(0)), DataType.U8, TensorLayout.NHWC),
            TensorSpec("input_ids", (1, DYNAMIC), DataType.I64, TensorLayout.SEQUENCE),
            TensorSpec("parameters", (DYNAMIC,), DataType.U8),
        )
        self._idle: list[_Requests] = []

    @property
    def parallelism(self) -> int:
        """What OpenVINO finds optimal for the decoder's number of streams."""
        return self._parallelism

    def try_out(self, start: Several[int]) -> None:
        """Look at a black picture and read the start of a text; ModelLoadError or ConfigError if that is not possible.

        It is on one thread, as OpenVINO's first conversion of a tensor has to be.
        """
        wrong = [token for token in start if not 0 <= token < self.vocab_size]
        if wrong:
            raise ConfigError(f"a text begins with the token {wrong[0]}; the decoder knows 0 to {self.vocab_size - 1}")
        requests = self.take()
        try:
            requests.begin(np.zeros(self.inputs[_PIXELS].shape, np.uint8), np.array([start], np.int64))
            _ = requests.logits
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
        self._tensors: dict[int, NDArray[Any]] = {}
        self._parameters: EngineParameters | None = None
        self._sequence: Sequence | None = None
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
        if index == _PROMPT:
            check_tokens(tensor, self._graph.vocab_size)
        if index == _PARAMETERS:
            self._parameters = _read(tensor)
        self._tensors[index] = tensor.copy()

    def compute(self) -> None:
        """Not in one piece: nobody could stop it."""
        raise UnsupportedTargetError("an encoder-decoder gives its output step by step (compute_single)")

    def compute_single(self) -> Step:
        """Generate a token, the first one after a look at the picture, or say how the sequence has ended.

        InferenceError if that fails, an input is missing, or it was cancelled; the sequence is dropped then.
        """
        self._chosen = None
        sequence, requests = self._sequence, self._opened()
        try:
            if sequence is None:
                sequence = self._begun(requests)
            elif sequence.end:
                return sequence.end
            else:
                requests.read(sequence.last)
            if sequence is None:
                return Step.PROMPT_TOO_LONG
            self._chosen = sequence.take(requests.logits)
        except BaseException:
            self.finish()
            raise
        self._sequence = sequence
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
        self._sequence = None
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

    def _opened(self) -> _Requests:
        if self._requests is None:
            raise InferenceError("the context has been closed")
        return self._requests

    def _begun(self, requests: _Requests) -> Sequence | None:
        """The sequence of these inputs, its prompt read; None if that is too long."""
        for index, spec in enumerate(self._graph.inputs):
            if index not in self._tensors:
                raise InferenceError(f"input {spec.name!r} has not been set")
        assert self._parameters is not None  # noqa: S101 - set with its tensor
        prompt, limits = self._tensors[_PROMPT], self._graph.limits
        if prompt.size >= limits.positions:
            return None
        requests.begin(self._tensors[_PIXELS], prompt)
        return Sequence(prompt[0].tolist(), self._parameters, limits)


def _read(tensor: NDArray[Any]) -> EngineParameters:
    parameters = read_parameters(tensor.tobytes())
    if parameters.form:
        raise InvalidInputError(f"{parameters.form[0]}: this model's output cannot be given a form")
    return parameters
