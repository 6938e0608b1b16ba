"""What the files beside an encoder-decoder say of its decoder: how a text begins, how long it may become.

Knows nothing of graphs. What is the same for all generative models (end of text, sampling) the text plugin reads.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from openvino_llama import ConfigError, ModelConfig, per_model
from openvino_llama_multimodal.config import text_half
from openvino_llama_text.files import facts_of, read_text

__all__ = ["DecoderFacts", "decoder_facts_of", "text_of"]

_CONFIG, _GENERATION = "config.json", "generation_config.json"
_DONUT = "donut"

Content = TypeVar("Content")


class _Half(msgspec.Struct, frozen=True):
    """``encoder`` or ``decoder`` of ``config.json``."""

    model_type: str = ""
    max_position_embeddings: int | None = None
    n_positions: int | None = None


class _Stated(msgspec.Struct, frozen=True):
    """The fields that both files may have."""

    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    do_sample: bool | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None


class _Config(_Stated, frozen=True):
    encoder: _Half = _Half()
    decoder: _Half = _Half()


class DecoderFacts(msgspec.Struct, frozen=True):
    """What is known of a decoder."""

    start: tuple[int, ...]
    """Tokens that every text begins with."""
    starts_by_itself: bool
    """Whether a text that a client sends takes the start's place (Donut's prompts are tokens of their own)."""
    positions: int
    """Tokens that a prompt and its answer may have together."""
    max_tokens: int | None
    """Of an answer where nobody says; None is not stated."""
    do_sample: bool
    """Whether the model's authors would have tokens drawn by chance."""

    def prompt(self, ids: list[int]) -> list[int]:
        """The tokens that an answer goes on from, for those of a client's text."""
        if not ids:
            return list(self.start)
        if self.starts_by_itself or tuple(ids[: len(self.start)]) == self.start:
            return ids
        return [*self.start, *ids]


@per_model
def decoder_facts_of(config: ModelConfig) -> DecoderFacts:
    """The facts of a model; ConfigError if a file cannot be read, or does not say what has to be known."""
    whole = _read(config, _CONFIG, _Config)
    generation = _read(config, _GENERATION, _Stated)
    start = _start(config, generation, whole)
    most = generation.max_new_tokens
    if most is None and generation.max_length is not None:
        most = max(1, generation.max_length - len(start))
    return DecoderFacts(
        start=start,
        starts_by_itself=_DONUT in whole.encoder.model_type,
        positions=_positions(config, whole.decoder),
        max_tokens=most,
        do_sample=generation.do_sample is True,
    )


@per_model
def text_of(config: ModelConfig) -> ModelConfig:
    """The model as the text plugin knows models, completed by the facts. What the registry states wins.

    Such a model describes and reads: where nothing is said of sampling, it takes the most probable token.
    """
    half, facts = text_half(config), decoder_facts_of(config)
    defaults = {"temperature": 0.0} if not facts.do_sample else {}
    if facts.max_tokens is not None:
        defaults["max_tokens"] = facts.max_tokens
    text = msgspec.structs.replace(
        half.config, context_window=facts.positions, generation=defaults | half.config.generation
    )
    return msgspec.structs.replace(half, config=text)


def _start(config: ModelConfig, generation: _Stated, whole: _Config) -> tuple[int, ...]:
    """The first token, as transformers finds it, and the one that is forced to follow."""
    known = (generation.decoder_start_token_id, whole.decoder_start_token_id, facts_of(text_half(config)).bos_token_id)
    first = next((each for each in known if each is not None), None)
    if first is None:
        raise ConfigError(
            f"model {config.name!r}: no file beside it says which token a text begins with; {_GENERATION} with "
            "decoder_start_token_id does"
        )
    forced = generation.forced_bos_token_id if generation.forced_bos_token_id is not None else whole.forced_bos_token_id
    return (first,) if forced is None else (first, forced)


def _positions(config: ModelConfig, decoder: _Half) -> int:
    stated: int | None = config.config.text.context_window
    known = [each for each in (stated, decoder.max_position_embeddings, decoder.n_positions) if each and each > 0]
    if not known:
        raise ConfigError(
            f"model {config.name!r}: expected max_position_embeddings or n_positions of 'decoder' in {_CONFIG}, or "
            "the field 'config.text.context_window': how many tokens a text may have"
        )
    return min(known)


def _read(config: ModelConfig, name: str, content: type[Content]) -> Content:
    try:
        return msgspec.json.decode(read_text(config, name) or "{}", type=content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigError(f"model {config.name!r}, file {name}: {error}") from error
