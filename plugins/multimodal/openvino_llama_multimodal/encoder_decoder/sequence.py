"""One sequence as it grows: what is chosen next, and where it ends. Knows nothing of where the logits come from."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from openvino_llama import Step
from openvino_llama_multimodal.encoder_decoder.sampling import Sampler
from openvino_llama_text.engine.parameters import EngineParameters

__all__ = ["Limits", "Sequence"]


class Limits(msgspec.Struct, frozen=True):
    """Where sequences of a model end."""

    positions: int
    """Tokens of a prompt and its answer together."""
    ends: frozenset[int]
    """Tokens that end an answer, where a request states none."""


class Sequence:
    """The tokens that go on from a prompt. Used by one thread at a time."""

    def __init__(self, prompt: list[int], parameters: EngineParameters, limits: Limits) -> None:
        ends = () if parameters.ignore_eos else parameters.stop_token_ids or limits.ends
        self._ends = frozenset(ends)
        self._sampler = Sampler(parameters, prompt, self._ends)
        self._most = parameters.max_tokens
        self._room = limits.positions - len(prompt)

    @property
    def last(self) -> int:
        """The token that was chosen last."""
        return self._sampler.tokens[-1]

    @property
    def end(self) -> Step | None:
        """How the sequence has ended; None while it goes on."""
        count = len(self._sampler.tokens)
        if count >= self._most or (count and self.last in self._ends):
            return Step.END_OF_SEQUENCE
        return Step.CONTEXT_FULL if count >= self._room else None

    def take(self, logits: NDArray[np.floating]) -> tuple[int, float]:
        """Choose the next token from its logits, (vocabulary,): its id, and the logarithm of its probability."""
        return self._sampler.choose(logits)
