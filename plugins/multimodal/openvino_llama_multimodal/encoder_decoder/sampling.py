"""Choosing the next token: a model's logits, the parameters of a sequence, and what it has so far.

Names and meaning of the parameters are vLLM's, and so is their order: ends of the text that may not come yet,
penalties, temperature, min_p, top_k, top_p. Knows nothing of where the logits come from.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from openvino_llama import InferenceError
from openvino_llama_multimodal.probabilities import softmax
from openvino_llama_text.engine.parameters import EngineParameters

__all__ = ["Sampler"]

_GREEDY = 1e-5
"""Lower temperatures take the most probable token: divided by them, logits would overflow."""

Floats = NDArray[np.float64]


class Sampler:
    """The choices of one sequence."""

    def __init__(self, parameters: EngineParameters, prompt: Sequence[int], ends: Collection[int]) -> None:
        """``ends`` are the tokens that end the sequence."""
        self._parameters = parameters
        self._prompt = np.unique(np.asarray(prompt, np.int64))
        self._ends = np.asarray(sorted(ends), np.int64)
        self._generator = np.random.default_rng(parameters.seed)
        self.tokens: list[int] = []
        """What has been chosen."""

    def choose(self, logits: NDArray[np.floating]) -> tuple[int, float]:
        """The next token, and the logarithm of the probability that the model itself gives it.

        ``logits`` are (vocabulary,). InferenceError if they are no numbers.
        """
        given = logits.astype(np.float64)
        total = _log_sum(given)
        if not np.isfinite(total):
            raise InferenceError("the model's logits are not finite")
        token = self._draw(self._adjusted(given))
        self.tokens.append(token)
        return token, float(given[token] - total)

    def _adjusted(self, given: Floats) -> Floats:
        """The logits after the penalties, without the ends that may not come yet."""
        logits, options = given.copy(), self._parameters
        if len(self.tokens) < options.min_tokens:
            logits[self._ends[self._ends < len(logits)]] = -np.inf
        chosen, counts = np.unique(np.asarray(self.tokens, np.int64), return_counts=True)
        if options.repetition_penalty != 1:
            seen = np.union1d(self._prompt, chosen)
            penalty = options.repetition_penalty
            logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
        logits[chosen] -= options.frequency_penalty * counts + options.presence_penalty
        return logits

    def _draw(self, logits: Floats) -> int:
        temperature = self._parameters.temperature
        if temperature < _GREEDY:
            return int(logits.argmax())
        probabilities = softmax(logits / temperature)
        tokens = self._candidates(probabilities)
        heights = probabilities[tokens].cumsum()
        place = int(heights.searchsorted(self._generator.random() * heights[-1], side="right"))
        return int(tokens[min(place, len(tokens) - 1)])

    def _candidates(self, probabilities: Floats) -> NDArray[np.int64]:
        """The tokens that may be drawn."""
        options = self._parameters
        least = max(options.min_p * probabilities.max(), np.finfo(np.float64).tiny)
        tokens = np.flatnonzero(probabilities >= least)
        if not options.top_k and options.top_p == 1:
            return tokens
        order = np.argsort(-probabilities[tokens], kind="stable")  # of equal ones, the lower id comes first
        tokens = tokens[order][: options.top_k or None]
        left = probabilities[tokens]
        in_nucleus = left.cumsum() - left < options.top_p * left.sum()
        in_nucleus[0] = True  # also if top_p is so small that the product is 0
        nucleus: NDArray[np.int64] = tokens[in_nucleus]
        return nucleus


def _log_sum(logits: Floats) -> float:
    """The logarithm of the sum of the exponentials."""
    highest = logits.max()
    return float(highest + np.log(np.exp(logits - highest).sum())) if np.isfinite(highest) else float("nan")
