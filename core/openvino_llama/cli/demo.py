"""What ``ovllama demo`` shows once the starter models are served: one real request to each, over HTTP."""

from __future__ import annotations

import mimetypes
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from openvino_llama.sources import IndexedModel, Sample, read_sample

__all__ = ["show"]

_WIDTH = 600


def show(address: str, models: Mapping[str, IndexedModel], samples: Path, echo: Callable[[str], None]) -> None:
    """Send each model its sample and print what came back, as a command that can be typed again.

    The samples are written to a folder, for that command and for whoever wants to look at them.
    """
    echo(f"\nOpenVINO-Llama serves on {address}; its API is described at {address}/schema\n")
    samples.mkdir(exist_ok=True)
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        for name, model in models.items():
            if model.sample:
                _ask(client, name, model.sample, samples, echo)


def _ask(client: httpx.Client, name: str, sample: Sample, samples: Path, echo: Callable[[str], None]) -> None:
    body = read_sample(sample)
    file = samples / (name + (mimetypes.guess_extension(sample.media_type) or ""))
    file.write_bytes(body)
    sent, options = _request(sample, body, file)
    route = f"{client.get(f'/models/{name}').json().get('route', '')}?model={name}"
    client.post(route, **sent)  # the first inference is slower than those that follow
    started = time.perf_counter()
    answer = client.post(route, **sent)
    spent = (time.perf_counter() - started) * 1000
    echo(f"$ curl {options} '{client.base_url}{route}'")
    text = answer.text if len(answer.text) <= _WIDTH else answer.text[:_WIDTH] + "..."
    echo(f"{text}\n[{answer.status_code} in {spent:.1f} ms]\n")


def _request(sample: Sample, body: bytes, file: Path) -> tuple[dict[str, Any], str]:
    """What httpx is told of a sample's body, and what curl is."""
    if not sample.part:
        headers = {"Content-Type": sample.media_type}
        return {"content": body, "headers": headers}, f"-H 'Content-Type: {sample.media_type}' --data-binary @{file}"
    files = {sample.part: (file.name, body, sample.media_type)}
    stated = "".join(f" -F {shlex.quote(f'{name}={value}')}" for name, value in sample.fields.items())
    return {"files": files, "data": sample.fields}, f"-F {sample.part}=@{file}{stated}"
