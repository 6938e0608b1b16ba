"""What the files beside a model say: the ones that Hugging Face, Sentence Transformers and OpenVINO write.

Fields that are not used here are ignored, and every file may be missing. Knows nothing of what the facts are for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar
from xml.etree.ElementTree import ParseError

import msgspec
from defusedxml import DefusedXmlException, ElementTree

from openvino_llama import ConfigError, ModelConfig, per_model

__all__ = [
    "GenerationDefaults",
    "ModelFacts",
    "NamedTemplate",
    "TokenizerFacts",
    "facts_of",
    "generation_defaults_of",
    "located",
    "read_text",
    "tokenizer_facts_of",
    "tokenizer_info_of",
]

_MOST_BYTES = 64 << 20
_MOST_POSITIONS = 1 << 31
"""What says more is written for "no limit": 1e30 in many a tokenizer_config.json."""

Content = TypeVar("Content")


class _TextConfig(msgspec.Struct, frozen=True):
    """``config.json``, or ``text_config`` in it: each field under all the names that it goes by."""

    model_type: str | None = None
    vocab_size: int | None = None
    max_position_embeddings: int | None = None
    n_positions: int | None = None
    n_ctx: int | None = None
    max_seq_len: int | None = None
    max_sequence_length: int | None = None
    seq_length: int | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    @property
    def positions(self) -> int | None:
        """How many positions the model has."""
        names = (
            self.max_position_embeddings,
            self.n_positions,
            self.n_ctx,
            self.max_seq_len,
            self.max_sequence_length,
            self.seq_length,
        )
        return next((value for value in map(_limit, names) if value), None)


class _Config(_TextConfig, frozen=True):
    text_config: _TextConfig | None = None
    id2label: dict[int, str] | None = None


class GenerationDefaults(msgspec.Struct, frozen=True):
    """``generation_config.json``: how the model's authors would have it generate; None is not stated."""

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None


class NamedTemplate(msgspec.Struct, frozen=True):
    """One of several chat templates."""

    name: str
    template: str


class _AddedToken(msgspec.Struct, frozen=True):
    content: str


class TokenizerFacts(msgspec.Struct, frozen=True):
    """``tokenizer_config.json``, its special tokens completed by ``special_tokens_map.json``; None is not stated."""

    bos_token: str | _AddedToken | None = None
    eos_token: str | _AddedToken | None = None
    pad_token: str | _AddedToken | None = None
    unk_token: str | _AddedToken | None = None
    cls_token: str | _AddedToken | None = None
    sep_token: str | _AddedToken | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    model_max_length: float | None = None
    chat_template: str | list[NamedTemplate] | None = None

    def token(self, role: str) -> str | None:
        """Text of the token of a role: ``bos``, ``eos``, ``pad``, ``unk``, ``cls`` or ``sep``."""
        stated: str | _AddedToken | None = getattr(self, f"{role}_token")
        return stated.content if isinstance(stated, _AddedToken) else stated


class _Pooling(msgspec.Struct, frozen=True):
    """``1_Pooling/config.json``."""

    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False


class _Module(msgspec.Struct, frozen=True):
    type: str


class _SentenceBert(msgspec.Struct, frozen=True):
    max_seq_length: int | None = None


class ModelFacts(msgspec.Struct, frozen=True):
    """What is known of a model beside its graph; None is not known."""

    model_type: str | None = None
    """``llama``, ``bert``..."""
    vocab_size: int | None = None
    max_positions: int | None = None
    """Tokens that the model has positions for, an answer included."""
    max_sequence_length: int | None = None
    """Tokens of an input that it was trained for."""
    labels: tuple[str, ...] = ()
    """Names by class id; empty is not known."""
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    """Tokens that end an answer; empty is not known."""
    pad_token_id: int | None = None
    pooling: str | None = None
    """``mean``, ``cls``, ``last``, ``max``, ``mean_sqrt_len`` or ``weighted_mean``."""
    normalize: bool | None = None
    """Whether a Normalize module follows."""


@per_model
def facts_of(config: ModelConfig) -> ModelFacts:
    """The facts of a model; ConfigError naming file and field for a file that cannot be read."""
    whole = _read_json(config, "config.json", _Config) or _Config()
    inner = whole.text_config or _TextConfig()
    generation = generation_defaults_of(config)
    info = tokenizer_info_of(config)
    eos = (generation.eos_token_id, whole.eos_token_id, inner.eos_token_id, _number(info, "eos_token_id"))
    return ModelFacts(
        model_type=whole.model_type or inner.model_type,
        vocab_size=whole.vocab_size or inner.vocab_size,
        max_positions=whole.positions or inner.positions,
        max_sequence_length=_trained_length(config),
        labels=_labels(config, whole.id2label or {}),
        bos_token_id=_first(
            generation.bos_token_id, whole.bos_token_id, inner.bos_token_id, _number(info, "bos_token_id")
        ),
        eos_token_ids=next((_tuple(ids) for ids in eos if ids is not None), ()),
        pad_token_id=_first(
            generation.pad_token_id, whole.pad_token_id, inner.pad_token_id, _number(info, "pad_token_id")
        ),
        pooling=_pooling(config),
        normalize=_normalize(config),
    )


@per_model
def generation_defaults_of(config: ModelConfig) -> GenerationDefaults:
    """What ``generation_config.json`` says; nothing if there is none."""
    return _read_json(config, "generation_config.json", GenerationDefaults) or GenerationDefaults()


@per_model
def tokenizer_facts_of(config: ModelConfig) -> TokenizerFacts:
    """What ``tokenizer_config.json`` and ``special_tokens_map.json`` say; nothing if there are none."""
    facts = _read_json(config, "tokenizer_config.json", TokenizerFacts) or TokenizerFacts()
    tokens = _read_json(config, "special_tokens_map.json", TokenizerFacts) or TokenizerFacts()
    roles = ("bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token")
    return msgspec.structs.replace(facts, **{role: getattr(facts, role) or getattr(tokens, role) for role in roles})


@per_model
def tokenizer_info_of(config: ModelConfig) -> dict[str, str]:
    """What ``openvino_tokenizer.xml`` states of its model under ``rt_info``: name -> value; empty if nothing."""
    path = located(config, "openvino_tokenizer.xml")
    if path is None:
        return {}
    try:
        info = ElementTree.fromstring(_bytes(config, path)).find("rt_info")
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise ConfigError(f"model {config.name!r}: openvino_tokenizer.xml is not well-formed") from error
    return {each.tag: each.attrib["value"] for each in info if "value" in each.attrib} if info is not None else {}


def located(config: ModelConfig, name: str) -> Path | None:
    """The file of that name beside the model; None if there is none.

    Raises ConfigError for a link out of the model's folder: what lies there is none of a model's business.
    """
    folder = config.files["model"].parent
    path = folder / name
    if not path.is_file():
        return None
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"model {config.name!r}: {name} is a link out of the model's folder")
    return path


def read_text(config: ModelConfig, name: str) -> str | None:
    """A UTF-8 text beside the model; None if there is none."""
    path = located(config, name)
    if path is None:
        return None
    try:
        return _bytes(config, path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"model {config.name!r}: {name} is not a UTF-8 text") from error


def _read_json(config: ModelConfig, name: str, content: type[Content]) -> Content | None:
    path = located(config, name)
    if path is None:
        return None
    try:
        return msgspec.json.decode(_bytes(config, path), type=content, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"model {config.name!r}, file {name}: {error}") from error


def _bytes(config: ModelConfig, path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ConfigError(f"model {config.name!r}: {path.name} has more than {_MOST_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"model {config.name!r}: {path.name} cannot be read") from error


def _labels(config: ModelConfig, names: dict[int, str]) -> tuple[str, ...]:
    if sorted(names) != list(range(len(names))):
        raise ConfigError(f"model {config.name!r}, file config.json, field 'id2label': expected the ids 0, 1, 2...")
    return tuple(names[each] for each in range(len(names)))


def _trained_length(config: ModelConfig) -> int | None:
    trained = _read_json(config, "sentence_bert_config.json", _SentenceBert) or _SentenceBert()
    return _limit(trained.max_seq_length) or _limit(tokenizer_facts_of(config).model_max_length)


def _pooling(config: ModelConfig) -> str | None:
    modes = _read_json(config, "1_Pooling/config.json", _Pooling)
    if modes is None:
        return None
    names = {
        "mean": modes.pooling_mode_mean_tokens,
        "cls": modes.pooling_mode_cls_token,
        "last": modes.pooling_mode_lasttoken,
        "max": modes.pooling_mode_max_tokens,
        "mean_sqrt_len": modes.pooling_mode_mean_sqrt_len_tokens,
        "weighted_mean": modes.pooling_mode_weightedmean_tokens,
    }
    return next((name for name, on in names.items() if on), None)


def _normalize(config: ModelConfig) -> bool | None:
    modules = _read_json(config, "modules.json", list[_Module])
    return None if modules is None else any(module.type.endswith(".Normalize") for module in modules)


def _limit(value: float | None) -> int | None:
    return int(value) if value is not None and 0 < value < _MOST_POSITIONS else None


def _number(info: dict[str, str], name: str) -> int | None:
    value = info.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else None


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _tuple(ids: Any) -> tuple[int, ...]:
    return tuple(ids) if isinstance(ids, list) else (ids,)
