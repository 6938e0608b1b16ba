"""What tests ask of a server with the tiny LLaVA."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from tests.conftest import mirrored
from tests.end_to_end.text.support import Served
from tests.plugins.multimodal.llava import cat_file, golden

__all__ = ["GOLDEN", "ROUTE", "Parts", "ask", "cat", "check_golden", "llava_entry"]

ROUTE = "/infer/multimodal"
GOLDEN = {"max_tokens": "20", "temperature": "0", "return_token_ids": "true"}
"""Parts of the request whose tokens are known."""

Parts = list[tuple[str, Any]]
"""As httpx takes files: (name, (filename, body, media type)), or (name, (None, text))."""


def llava_entry(folder: Path, **stated: Any) -> dict[str, Any]:
    """A registry's entry of the tiny LLaVA, whose files are put into a models folder."""
    if not (folder / "llava").exists():
        shutil.copytree(mirrored("tiny-llava"), folder / "llava", copy_function=shutil.copyfile)
    files = {"model": "llava/openvino_language_model.xml"}
    return {"type": "multimodal", "task": "vision_language", "files": files, **stated}


def cat(body: bytes | None = None, media_type: str = "image/jpeg") -> tuple[str, Any]:
    """The part with a picture; the cat if no other one is given."""
    return "image", ("cat.jpg", cat_file() if body is None else body, media_type)


def ask(
    served: Served, text: str | None = None, *pictures: tuple[str, Any], route: str = ROUTE, **fields: str
) -> httpx.Response:
    """A multipart request; with the golden one's text and parameters if no others are stated."""
    parts: Parts = list(pictures or [cat()])
    parts += [("text", (None, golden().prompt if text is None else text))]
    parts += [(name, (None, value)) for name, value in (GOLDEN | fields).items()]
    return served.http.post(route, files=parts)


def check_golden(results: Mapping[str, Any]) -> None:
    """The tokens are those of transformers in float32, and the prompt has as many."""
    expected = golden()
    assert results["token_ids"] == expected.tokens
    assert results["usage"]["prompt_tokens"] == expected.prompt_tokens
    assert (results["tokens_generated"], results["finish_reason"]) == (len(expected.tokens), "length")
