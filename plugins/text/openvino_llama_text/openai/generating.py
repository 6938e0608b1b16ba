"""``POST /v1/chat/completions`` and ``POST /v1/completions``: several texts for one request, whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from openvino_llama import InferenceRequest
from openvino_llama.web import Exchange, Gateway, event, open_events, operation
from openvino_llama_text.answers import Generated, Piece, Usage
from openvino_llama_text.openai.bodies import ChatBody, CompletionBody, read
from openvino_llama_text.openai.choosing import choose
from openvino_llama_text.openai.errors import OPTIONS, ErrorBody, error_body, refuse
from openvino_llama_text.openai.shapes import (
    Chat,
    ChatShape,
    Completion,
    CompletionShape,
    Envelope,
    Shape,
    new_id,
    now,
    total,
)
from openvino_llama_text.requests import JSON, GenerationRequest
from openvino_llama_text.tokenizers import find_tokenizer

__all__ = ["chat_completions", "completions"]

_DONE = event(b"[DONE]")


_CHAT = Annotated[
    ChatBody, msgspec.Meta(examples=[{"messages": [{"role": "user", "content": "What is the capital of France?"}]}])
]
_CONTINUE = Annotated[CompletionBody, msgspec.Meta(examples=[{"prompt": "The capital of France is", "max_tokens": 8}])]


@post("/v1/chat/completions", operation_class=operation(_CHAT, Chat, ErrorBody, events=True), **OPTIONS)
async def chat_completions(request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]) -> ASGIApp:
    """Answer a chat."""
    return gateway.exchange(request, "v1/chat/completions", _chat, refuse)


@post("/v1/completions", operation_class=operation(_CONTINUE, Completion, ErrorBody, events=True), **OPTIONS)
async def completions(request: Request[Any, Any, Any], gateway: NamedDependency[Gateway]) -> ASGIApp:
    """Continue texts."""
    return gateway.exchange(request, "v1/completions", _complete, refuse)


async def _chat(exchange: Exchange) -> ASGIApp:
    body = await read(exchange, ChatBody)
    asked = body.asked()
    config = choose(exchange, body.model, type(asked))
    shape = ChatShape(find_tokenizer(config), logprobs=asked.logprobs)
    return await _Texts(exchange, [asked], body.n or 1, shape, config.name).answer(body)


async def _complete(exchange: Exchange) -> ASGIApp:
    body = await read(exchange, CompletionBody)
    asked = body.asked()
    config = choose(exchange, body.model, GenerationRequest)
    echoed = [str(each.prompt) if each.echo else "" for each in asked for _ in range(body.n or 1)]
    shape = CompletionShape(find_tokenizer(config), logprobs=body.logprobs is not None, echoed=echoed)
    return await _Texts(exchange, asked, body.n or 1, shape, config.name).answer(body)


class _Texts:
    """The texts of one request: ``n`` for each prompt."""

    def __init__(
        self, exchange: Exchange, prompts: Sequence[GenerationRequest], n: int, shape: Shape, model: str
    ) -> None:
        self._exchange = exchange
        self._asked = [_seeded(prompt, number) for prompt in prompts for number in range(n)]
        self._n = n
        self._shape = shape
        self._model = model
        self._id, self._created = new_id(shape), now()
        self._no_usage: msgspec.UnsetType | None = msgspec.UNSET

    async def answer(self, body: ChatBody | CompletionBody) -> ASGIApp:
        """The response."""
        if not body.stream:
            return await self._whole()
        options = body.stream_options
        include_usage = options is not None and options.include_usage
        if include_usage:
            self._no_usage = None  # as OpenAI does: every chunk has the member, the last one with figures
        events = self._events(include_usage=include_usage)
        return open_events(events, lambda error: event(error_body(error)))

    async def _whole(self) -> ASGIApp:
        texts: list[Generated] = await _all([self._exchange.infer(self._request(each)) for each in self._asked])
        choices = [self._shape.whole(index, text) for index, text in enumerate(texts)]
        usage = self._usage([text.usage for text in texts])
        envelope = Envelope(self._id, self._shape.object, self._created, self._model, choices, usage)
        return ASGIResponse(body=msgspec.json.encode(envelope), media_type=JSON)

    async def _events(self, *, include_usage: bool) -> AsyncGenerator[list[bytes]]:
        usages: list[Usage] = []
        begun: set[int] = set()
        streams = [self._stream(index, asked) for index, asked in enumerate(self._asked)]
        async with aclosing(_merged(streams) if len(streams) > 1 else _only(streams[0])) as merged:
            async for index, news in merged:
                events = [] if index in begun else self._beginning(index)
                begun.add(index)
                usages += [each for each in news if isinstance(each, Usage)]
                yield events + [each for each in news if isinstance(each, bytes)]
        if include_usage:
            yield [event(msgspec.json.encode(self._envelope([], self._usage(usages))))]
        yield [_DONE]

    def _stream(self, index: int, asked: GenerationRequest) -> AsyncGenerator[list[Any]]:
        shown = 0

        def encode(piece: Piece) -> bytes:
            nonlocal shown
            shown += len(piece.text)
            return self._event(self._shape.piece(index, piece))

        def finish(text: Generated) -> tuple[bytes, Usage]:
            return self._event(self._shape.end(index, text, text.generated_text[shown:])), text.usage

        return self._exchange.stream(self._request(asked, stream=True), encode, finish)

    def _beginning(self, index: int) -> list[bytes]:
        choice = self._shape.begin(index)
        return [] if choice is None else [self._event(choice)]

    def _event(self, choice: Any) -> bytes:
        return event(msgspec.json.encode(self._envelope([choice], self._no_usage)))

    def _envelope(self, choices: list[Any], usage: Usage | msgspec.UnsetType | None) -> Envelope[Any]:
        return Envelope(self._id, self._shape.piece_object, self._created, self._model, choices, usage)

    def _usage(self, usages: Sequence[Usage]) -> Usage:
        """A prompt counts once, however many texts there are for it."""
        whole = total(usages)
        prompt = whole.prompt_tokens // self._n
        return Usage(prompt, whole.completion_tokens, prompt + whole.completion_tokens)

    def _request(self, asked: GenerationRequest, *, stream: bool = False) -> InferenceRequest:
        return InferenceRequest(b"", JSON, asked, stream=stream)


def _seeded(asked: GenerationRequest, number: int) -> GenerationRequest:
    """Texts of one seed differ from each other, and are the same each time."""
    return asked if asked.seed is None else msgspec.structs.replace(asked, seed=asked.seed + number)


async def _all(works: Sequence[Any]) -> list[Any]:
    """What all of them give; if one fails, the others are cancelled."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _ended(tasks)


async def _only(stream: Any) -> AsyncGenerator[tuple[int, list[Any]]]:
    """As ``_merged`` of one stream, without a task of its own."""
    async with aclosing(stream):
        async for news in stream:
            yield 0, _flat(news)


async def _merged(streams: Sequence[AsyncGenerator[list[Any]]]) -> AsyncGenerator[tuple[int, list[Any]]]:
    """(index, news) of several streams, as they come; if one fails, all end."""
    arrived: asyncio.Queue[tuple[int, list[Any] | None]] = asyncio.Queue()

    async def read_out(index: int, stream: Any) -> None:
        async with aclosing(stream):
            async for news in stream:
                arrived.put_nowait((index, _flat(news)))

    def ended(index: int) -> Callable[[object], None]:
        return lambda _: arrived.put_nowait((index, None))

    tasks = [asyncio.ensure_future(read_out(index, stream)) for index, stream in enumerate(streams)]
    for index, task in enumerate(tasks):
        task.add_done_callback(ended(index))
    try:
        left = len(tasks)
        while left:
            index, news = await arrived.get()
            if news is None:
                left -= 1
                tasks[index].result()
            else:
                yield index, news
    finally:
        await _ended(tasks)


async def _ended(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """End them all; what became of them does not matter any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _flat(news: Sequence[Any]) -> list[Any]:
    """The last one of a stream is an event and the usage."""
    return [part for each in news for part in (each if isinstance(each, tuple) else (each,))]
