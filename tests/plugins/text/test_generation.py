"""From requests to the tensors of a generation graph: prompts, chats, lengths, and what the engine is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from openvino_llama import (
    Chunk,
    ConfigError,
    ContextLengthError,
    InferenceRequest,
    InvalidInputError,
    Limits,
    ModelConfig,
)
from openvino_llama_text.engine.parameters import read_parameters
from openvino_llama_text.generation import context_window, max_prompt, postprocess, preprocess, validate
from openvino_llama_text.requests import JSON, GenerationRequest

from .models import model, tokenizer
from .trained import byte_level

WINDOW = 64
TEMPLATE = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"

Make = Callable[..., ModelConfig]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes a model with a tokenizer, an end of text and a window."""
    (tmp_path / "tokenizer.json").write_text(byte_level())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "temperature": 0.7}))

    def make(**config: Any) -> ModelConfig:
        return model(tmp_path, **({"context_window": WINDOW} | config))

    return make


def asked(config: ModelConfig, **body: Any) -> tuple[list[int], dict[str, Any]]:
    """The prompt's ids, and the engine's parameters, which it takes."""
    request = InferenceRequest(b"", JSON, msgspec.convert({"prompt": "the fox"} | body, GenerationRequest))
    prepared = preprocess(config, request)
    tensors = prepared.tensors
    assert tensors["input_ids"].dtype == np.int64
    assert tensors["input_ids"].shape[0] == 1
    content = tensors["parameters"].tobytes()
    read_parameters(content)
    return tensors["input_ids"][0].tolist(), json.loads(content)


def test_prompts(make: Make) -> None:
    """A text is tokenized, tokens are taken as they are."""
    ids = tokenizer("byte_level").encode("the fox")
    assert asked(make())[0] == ids
    assert asked(make(), prompt=ids)[0] == ids


def test_chats(make: Make) -> None:
    """A chat becomes what the model's template makes of it; without one it is refused."""
    chat = [{"role": "user", "content": "hello"}]
    ids, _ = asked(make(chat_template=TEMPLATE), prompt=None, messages=chat)
    assert tokenizer("byte_level").decode(ids) == "[user] hello\n"
    with pytest.raises(InvalidInputError, match="template"):
        asked(make(), prompt=None, messages=chat)


def test_defaults(make: Make) -> None:
    """The request's, then the registry's, then those of generation_config.json."""
    assert asked(make())[1]["temperature"] == 0.7
    assert asked(make(generation={"temperature": 0.5}))[1]["temperature"] == 0.5
    assert asked(make(generation={"temperature": 0.5}), temperature=0)[1]["temperature"] == 0


def test_lengths(make: Make) -> None:
    """Unasked, a chat has 2048 tokens and a text 256, or what the window leaves; what is asked must fit."""
    prompt = len(asked(make())[0])
    assert asked(make())[1]["max_tokens"] == WINDOW - prompt
    assert asked(make(context_window=4096))[1]["max_tokens"] == 256
    chat = {"prompt": None, "messages": [{"role": "user", "content": "hello"}]}
    ids, stated = asked(make(context_window=4096, chat_template=TEMPLATE), **chat)
    assert stated["max_tokens"] == min(2048, 4096 - len(ids))
    assert asked(make(), max_tokens=WINDOW - prompt)[1]["max_tokens"] == WINDOW - prompt
    with pytest.raises(ContextLengthError, match=rf"max_tokens: the prompt has {prompt} tokens.*{WINDOW}"):
        asked(make(), max_tokens=WINDOW - prompt + 1)
    assert asked(make(generation={"max_tokens": 1000}))[1]["max_tokens"] == WINDOW - prompt
    with pytest.raises(InvalidInputError, match="min_tokens: expected at most max_tokens, which is 5, got 6"):
        asked(make(), max_tokens=5, min_tokens=6)


def test_long_prompts(make: Make) -> None:
    """A prompt leaves room for one token at least, or is refused."""
    config = make()
    assert (context_window(config), max_prompt(config)) == (WINDOW, WINDOW - 1)
    assert asked(config, prompt=[1] * (WINDOW - 1))[1]["max_tokens"] == 1
    for prompt in ([1] * WINDOW, "the fox " * 50):
        with pytest.raises(ContextLengthError, match=f"at most {WINDOW - 1}|{WINDOW - 1} tokens"):
            asked(config, prompt=prompt)
    assert max_prompt(make(max_sequence_length=10)) == 10


@pytest.mark.parametrize("prompt", ["the fox " * 50, [1] * 64])
def test_which_limit_it_is(make: Make, prompt: str | list[int]) -> None:
    """Is told with what is set where, since the context may have room for more."""
    with pytest.raises(ContextLengthError, match=f"{WINDOW - 1}: its context has {WINDOW}, one of them"):
        asked(make(), prompt=prompt)
    with pytest.raises(ContextLengthError, match="at most 10: max_sequence_length in the config of its registry entry"):
        asked(make(max_sequence_length=10), prompt=prompt)
    limited = msgspec.structs.replace(make(), limits=Limits(max_sequence_length=20))
    with pytest.raises(ContextLengthError, match=r"at most 20: .* the server .*MAX_SEQUENCE_LENGTH.* limits"):
        asked(limited, prompt=prompt)


def test_unknown_tokens(make: Make) -> None:
    """Would be read from beyond the model's table."""
    size = tokenizer("byte_level").vocab_size
    with pytest.raises(InvalidInputError, match=f"below {size}, got {size}"):
        asked(make(), prompt=[1, size])


def test_what_the_engine_is_told(make: Make) -> None:
    """Every parameter but stop strings; schemas as texts; all tokens that end the text."""
    stated = {"top_k": 3, "seed": 7, "logprobs": True, "stop_token_ids": [5]}
    _, told = asked(make(), stop="x", json_schema={"type": "object"}, **stated)
    assert told == stated | {
        "temperature": 0.7,
        "max_tokens": told["max_tokens"],
        "stop_token_ids": [0, 5],
        "json_schema": '{"type":"object"}',
    }
    assert asked(make(), ignore_eos=True)[1]["stop_token_ids"] == []


def test_outputs(make: Make) -> None:
    """Become pieces; the last one says that no more is wanted; at the end there is the whole."""
    request = InferenceRequest(b'{"prompt": "a", "stop": "fox"}', JSON)
    answer = preprocess(make(), request).context
    nothing = np.zeros(0, np.float32)
    ids = tokenizer("byte_level").encode("the fox runs", add_special_tokens=False)
    chunks: list[Any] = []
    for each in ids:
        chunks.append(postprocess({"tokens": np.array([each]), "logprobs": nothing}, answer))
        assert isinstance(chunks[-1], Chunk)
        if chunks[-1].last:
            break
    assert "".join(each.data.text for each in chunks if each.data) == "the "
    assert len(chunks) < len(ids)
    whole: Any = postprocess({}, answer)
    assert (whole.generated_text, whole.finish_reason) == ("the ", "stop")
    assert sum(each.tokens for each in chunks) == whole.tokens_generated


def test_models_that_cannot_generate(make: Make, tmp_path: Path) -> None:
    """Are refused when they are loaded: without an end of text, or with defaults that are wrong."""
    validate(make())
    with pytest.raises(ConfigError, match="surprise"):
        validate(make(generation={"surprise": 1}))
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(ConfigError, match="eos_token_id"):
        validate(make())
