"""Chat with a language model by OpenAI's own package: ``python openai_client.py "What is the capital of France?"``.

Needs ``openai``. Prints the answer as it comes; with ``--system``, the model is told something before.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from openai import OpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam


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
    parser.add_argument("--model", help="the first that generates, unless named")
    parser.add_argument("--system", help="what the model is told before")
    parser.add_argument("--max-tokens", type=int, default=256)
    arguments = parser.parse_args()
    client = OpenAI(base_url=f"{arguments.server}/v1", api_key=os.environ.get("OVLLAMA_API_KEY") or "none")
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": arguments.question}]
    if arguments.system:
        messages.insert(0, {"role": "system", "content": arguments.system})
    try:
        model = arguments.model or first_that_generates(client)
        for piece in answer(client, messages, model, arguments.max_tokens):
            print(piece, end="", flush=True)
        print()
    except OpenAIError as error:
        print(f"openai_client: {error}", file=sys.stderr)
        return 1
    return 0


def first_that_generates(client: OpenAI) -> str:
    """Its name; OpenAIError if there is none. The server says the task of each model, which OpenAI's does not."""
    for model in client.models.list():
        if (model.model_extra or {}).get("task") == "generation":
            return model.id
    raise OpenAIError("the server has no model that generates text")


if __name__ == "__main__":
    sys.exit(main())
