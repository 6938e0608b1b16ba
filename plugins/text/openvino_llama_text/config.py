"""What a registry says of a text model. What it does not state is read from the files beside the model.

Knows nothing of tokenizers, engines or requests.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

import msgspec

__all__ = ["Adapter", "EngineConfig", "Pooling", "TextConfig"]

Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class Pooling(Enum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"
    CLS = "cls"
    LAST = "last"


class Adapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A LoRA adapter that is always applied."""

    file: str
    """Role of its safetensors file among the entry's ``files``."""
    alpha: Annotated[float, msgspec.Meta(ge=-100, le=100)] = 1.0


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The generation engine of one model."""

    kv_cache_mib: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0
    """Memory for keys and values, in MiB; 0 lets it grow with what is needed."""
    max_num_seqs: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    """Sequences that are generated at the same time; further ones wait."""
    max_num_batched_tokens: Positive = 256
    """Tokens that go through the model in one step, prompts included: small steps keep running streams fluent."""
    prefix_caching: bool = True
    """Whether prompts that begin alike share what was computed for the beginning."""
    draft_model: str | None = None
    """Role of a smaller model among ``files``, which proposes tokens (speculative decoding)."""
    draft_device: str = "CPU"
    num_assistant_tokens: Annotated[int, msgspec.Meta(ge=1, le=64)] = 5
    """Tokens that the draft model proposes at a time."""
    adapters: tuple[Adapter, ...] = ()


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``config`` of a registry entry of type ``text``."""

    vocab_size: Positive | None = None
    """Tokens that the tokenizer knows."""
    max_sequence_length: Positive | None = None
    """Most tokens of an input."""
    context_window: Positive | None = None
    """Most tokens of an input and what is generated after it."""
    output_type: str | None = None
    """The same as the entry's ``task``."""
    pooling: Pooling | None = None
    """Embedding: None is what ``1_Pooling/config.json`` says, else the mean."""
    normalize: bool | None = None
    """Embedding: whether vectors have length 1; None is what ``modules.json`` says, else yes."""
    labels: tuple[str, ...] = ()
    """Classification: names of the classes; empty is what ``config.json`` says."""
    chat_template: str | None = None
    """Jinja source; None is what the files beside the model say."""
    engine: EngineConfig = EngineConfig()
    """Generation."""
    generation: dict[str, Any] = {}
    """Generation: defaults for requests that state nothing, over those of ``generation_config.json``."""
