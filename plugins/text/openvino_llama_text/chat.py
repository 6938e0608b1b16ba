"""Messages of a chat to the one text that a model continues, by the template that came with the model.

What a template writes is a special token where it looks like one; what clients write never is: where a message holds
the text of a special token, a BREAK goes into it, at which tokenizers cut. Nobody can end his own turn that way and
speak as the system.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Template, TemplateSyntaxError

from openvino_llama import ConfigError, InvalidInputError, ModelConfig, per_model
from openvino_llama_text.chat_bounds import TooMuchError, sandboxed
from openvino_llama_text.chat_sandbox import LimitedEnvironment, RefusedError
from openvino_llama_text.files import NamedTemplate, read_text, tokenizer_facts_of, tokenizer_info_of
from openvino_llama_text.tokenizers.base import BREAK
from openvino_llama_text.tokenizers.find import find_tokenizer

__all__ = ["ChatTemplate", "chat_template_of", "read_chat_template"]

_MOST_MESSAGE = 200
_DEEPEST = 64


class ChatTemplate:
    """A compiled template; may be used by several threads."""

    def __init__(
        self,
        source: str,
        *,
        tool_use: str | None = None,
        tokens: Mapping[str, str] | None = None,
        special_texts: Sequence[str] = (),
    ) -> None:
        """``tool_use`` takes the place of ``source`` for requests with tools.

        ``tokens`` are what templates know by ``bos_token``, ``eos_token``...; ``special_texts`` what clients cannot
        say. ConfigError if a source is no template.
        """
        environment = LimitedEnvironment()
        self._default = _compiled(environment, source)
        self._tool_use = _compiled(environment, tool_use) if tool_use else self._default
        self._tokens = dict(tokens or {})
        self._special = _beginnings(special_texts)
        self._wants_parts = False
        self._wants_parts = not self._shows("probe") and self._shows([{"type": "text", "text": "probe"}])

    def render(
        self, messages: Sequence[Mapping[str, Any]], /, *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a chat, for a tokenizer that adds no special tokens.

        ``variables`` are for the template: ``tools``, ``documents``, ``enable_thinking``... They come from clients and
        may have any name; ``messages`` stay what they are. Raises InvalidInputError if the template refuses the
        messages, or cannot cope with them.
        """
        messages = [_in_parts(each) for each in messages] if self._wants_parts else list(messages)
        said = {"tools": None, "documents": None} | self._defused(variables | {"messages": messages}, 0)
        template = self._tool_use if said["tools"] else self._default
        try:
            with sandboxed():
                return template.render(self._tokens | said, add_generation_prompt=add_generation_prompt)
        except RefusedError as error:
            raise InvalidInputError(f"the model's chat template refuses this: {_shortened(error)}") from error
        except TooMuchError as error:
            raise InvalidInputError("the model's chat template takes too much time or memory for this") from error
        except (Exception, RecursionError) as error:
            raise InvalidInputError("the model's chat template cannot cope with these messages") from error

    def _shows(self, content: Any) -> bool:
        """Whether a message's content comes out, if it has that form: some templates want parts."""
        try:
            return "probe" in self.render([{"role": "user", "content": content}])
        except InvalidInputError:
            return False

    def _defused(self, value: Any, depth: int) -> Any:
        """The same value with a break in each special token."""
        if depth > _DEEPEST:
            raise InvalidInputError(f"a chat's messages are nested at most {_DEEPEST} deep")
        if isinstance(value, str):
            return self._special.sub(_broken, value.replace(BREAK, "\ufffd"))
        if isinstance(value, Mapping):
            return {self._defused(key, depth): self._defused(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self._defused(each, depth + 1) for each in value]
        return value


@per_model
def chat_template_of(config: ModelConfig) -> ChatTemplate:
    """The chat template of a model; InvalidInputError if it has none, ConfigError if it is no template."""
    return read_chat_template(config)


def read_chat_template(config: ModelConfig, also_special: Sequence[str] = ()) -> ChatTemplate:
    """The same, read anew; ``also_special`` are texts that clients cannot say beside the tokenizer's own.

    In this order: what the registry states, ``chat_template.jinja``, ``tokenizer_config.json``, the tokenizer's
    OpenVINO graph.
    """
    sources = _sources(config)
    if "default" not in sources:
        raise InvalidInputError(f"model {config.name!r} has no chat template: it continues texts, but does not chat")
    facts = tokenizer_facts_of(config)
    roles = ("bos", "eos", "pad", "unk", "cls", "sep")
    tokens = {f"{role}_token": text for role in roles if (text := facts.token(role))}
    tokenizer = find_tokenizer(config)
    for role in ("bos", "eos", "pad", "unk"):
        text = tokenizer.text_of(getattr(tokenizer.special, role))
        if text is not None:
            tokens.setdefault(f"{role}_token", text)
    try:
        return ChatTemplate(
            sources["default"],
            tool_use=sources.get("tool_use"),
            tokens=tokens,
            special_texts=(*tokenizer.special_texts, *also_special),
        )
    except ConfigError as error:
        raise ConfigError(f"model {config.name!r}: {error}") from error


def _sources(config: ModelConfig) -> dict[str, str]:
    """The templates of a model, by name."""
    stated = config.config.chat_template or read_text(config, "chat_template.jinja")
    stated = stated or tokenizer_facts_of(config).chat_template or tokenizer_info_of(config).get("chat_template")
    if isinstance(stated, list):
        return {each.name: each.template for each in stated if isinstance(each, NamedTemplate)}
    return {"default": stated} if stated else {}


def _compiled(environment: LimitedEnvironment, source: str) -> Template:
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise ConfigError(f"the chat template is no Jinja template: line {error.lineno}") from error
    except (Exception, RecursionError) as error:
        raise ConfigError("the chat template is no Jinja template") from error


def _in_parts(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _beginnings(texts: Sequence[str]) -> re.Pattern[str]:
    """The first character of each of the texts, wherever it begins: they may overlap.

    What it is stands first in the expression: so all other characters are passed over without a try.
    """
    rests: dict[str, list[str]] = {}
    for text in texts:
        if len(text) > 1:
            rests.setdefault(text[0], []).append(re.escape(text[1:]))
    return re.compile("|".join(f"{re.escape(first)}(?={'|'.join(rest)})" for first, rest in rests.items()) or "(?!)")


def _broken(match: re.Match[str]) -> str:
    return match[0] + BREAK


def _shortened(error: RefusedError) -> str:
    text = " ".join(str(error).replace(BREAK, "").split())
    return text if len(text) <= _MOST_MESSAGE else f"{text[:_MOST_MESSAGE]}..."
