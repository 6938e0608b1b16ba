"""Chat with a language model by OpenAI's own package: ``python openai_client.py "What is the capital of France?"``.

Needs ``openai``. Prints the answer as it comes; with ``--system``, the model is told something before, with
``--picture FILE`` it is shown a picture.
"""

from __future__ import annotations

import argparse
import base64
import mimetypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from openai import OpenAI, OpenAIError
from openai.types.chat import (
    ChatCompletionContentPartImageParam,
    ChatCompletionContentPartParam,
    ChatCompletionMessageParam,
)


def answer(client: OpenAI, messages: list[ChatCompletionMessageParam], model: str, max_tokens: int) -> Iterator[str]:
    """The pieces of an answer."""
    stream = client.chat.completions.create(
        model=model, messages=messages, max_tokens=max_tokens, temperature=0, stream=True
    )
    for chunk in stream:
        yield chunk.choices[0].delta.content or ""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Ask a language model and print its answer.")
    parser.add_argument("question")
    parser.add_argument("--server", default="http://127.0.0.1:3000")
    parser.add_argument("--model", help="the first that answers such a question, unless named")
    parser.add_argument("--picture", type=Path, help="a file that the question is about")
    parser.add_argument("--system", help="what the model is told before")
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    client = OpenAI(base_url=f"{arguments.server}/v1", api_key=os.environ.get("OVLLAMA_API_KEY") or "none")
    try:
        messages = conversation(arguments.question, arguments.picture, arguments.system)
        model = arguments.model or first(client, "vision_language" if arguments.picture else "generation")
        for piece in answer(client, messages, model, arguments.max_tokens):
            print(piece, end="", flush=True)
        print()
    except OpenAIError as error:
        print(f"openai_client: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of the picture
        print(f"openai_client: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def conversation(question: str, picture: Path | None, system: str | None) -> list[ChatCompletionMessageParam]:
    """What the model is told; OSError if the picture cannot be read."""
    content: list[ChatCompletionContentPartParam] = [{"type": "text", "text": question}]
    if picture:
        content.insert(0, shown(picture))
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": content}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return messages


def shown(picture: Path) -> ChatCompletionContentPartImageParam:
    """A picture as a part of a message. It is sent along: the server fetches nothing."""
    media_type = mimetypes.guess_type(picture.name)[0] or "application/octet-stream"
    data = base64.b64encode(picture.read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{data}"}}


def first(client: OpenAI, task: str) -> str:
    """The first model of a task; OpenAIError if there is none. The server says the tasks, which OpenAI's does not."""
    for model in client.models.list():
        if (model.model_extra or {}).get("task") == task:
            return model.id
    raise OpenAIError(f"the server has no model of the task {task}")


if __name__ == "__main__":
    sys.exit(main())
