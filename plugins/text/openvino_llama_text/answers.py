"""One generated text as it grows: where it ends, what of it may be shown already, and what it is as a whole.

Knows nothing of tensors, nor of where the tokens come from.
"""

from __future__ import annotations

import math

import msgspec

from openvino_llama_text.detokenizer import Detokenizer
from openvino_llama_text.requests import GenerationRequest
from openvino_llama_text.sampling import Sampling
from openvino_llama_text.stops import StopStrings
from openvino_llama_text.tokenizers import Tokenizer

__all__ = ["Answer", "Generated", "Piece", "Usage"]


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """What has come of a text since the last piece."""

    text: str
    token_ids: list[int] = []
    logprobs: list[float] = []


class Usage(msgspec.Struct, frozen=True):
    """Numbers of tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Generated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A generated text."""

    generated_text: str
    tokens_generated: int
    finish_reason: str
    """``stop``: the model, a stop string or a stop token ended it; ``length``: it has as many tokens as it may."""
    usage: Usage
    prompt_token_ids: list[int] = []
    token_ids: list[int] = []
    logprobs: list[float] = []


class Answer:
    """One text as it grows. Used by one thread at a time."""

    def __init__(self, asked: GenerationRequest, sampling: Sampling, tokenizer: Tokenizer, prompt: list[int]) -> None:
        """``sampling`` is complete: ``max_tokens`` and all tokens that end the text are stated."""
        self.ended = False
        self.prompt_tokens = len(prompt)
        """To be set if there is more to the prompt than its tokens."""
        self._asked = asked
        self._prompt = prompt
        self._most = sampling.max_tokens
        self._least = sampling.min_tokens or 0
        self._ends = frozenset(sampling.stop_token_ids or ())
        # The engine knows nothing of stop strings, and ignores all tokens that end a text if it is to ignore one.
        self._ends_here = bool(sampling.stops or sampling.ignore_eos)
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopStrings(sampling.stops)
        self._stopped = False
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._text = asked.prompt if asked.echo and isinstance(asked.prompt, str) else ""
        self._sent = 0, 0  # characters, tokens

    def add(self, ids: list[int], logprobs: list[float]) -> int:
        """Some tokens more: how many of them are of this text. At its last one, what was held back comes too."""
        before = len(self._ids)
        for group in [[each] for each in ids] if self._ends_here else [ids]:
            self._take(group)
            if self.ended:
                break
        taken = len(self._ids) - before
        self._logprobs += logprobs[:taken]
        return taken

    def end(self) -> None:
        """There will be no further token: half a character, or the beginning of a stop string, is what it is."""
        if not self.ended:
            self._push(self._detokenizer.flush())
            self._text += self._stops.flush()
            self.ended = True

    def news(self) -> Piece | None:
        """What has not been asked for yet; None if there is nothing to show."""
        characters, tokens = self._sent
        text = self._text[characters:]
        ids = self._ids[tokens:] if self._asked.return_token_ids or self._asked.logprobs else []
        if not text and not ids:
            return None
        self._sent = len(self._text), len(self._ids)
        return Piece(text, ids, self._logprobs[tokens:] if self._asked.logprobs else [])

    @property
    def confidence(self) -> float:
        """The geometric mean of the tokens' probabilities; 0 without any, or if they are not known."""
        return math.exp(sum(self._logprobs) / len(self._logprobs)) if self._logprobs else 0.0

    def whole(self) -> Generated:
        """The answer."""
        prompt, count = self.prompt_tokens, len(self._ids)
        shown = self._asked.return_token_ids
        return Generated(
            generated_text=self._text,
            tokens_generated=count,
            finish_reason="stop" if self._stopped else "length",
            usage=Usage(prompt, count, prompt + count),
            prompt_token_ids=self._prompt if shown else [],
            token_ids=self._ids if shown or self._asked.logprobs else [],
            logprobs=self._logprobs if self._asked.logprobs else [],
        )

    def _take(self, ids: list[int]) -> None:
        self._ids += ids
        by_token = ids[-1] in self._ends and len(self._ids) > self._least
        self._push(self._detokenizer.push(ids[:-1] if by_token else ids))
        if by_token or self._stopped or len(self._ids) == self._most:
            self.end()
            self._stopped = self._stopped or by_token

    def _push(self, piece: str) -> None:
        text, self._stopped = self._stops.push(piece)
        self._text += text
