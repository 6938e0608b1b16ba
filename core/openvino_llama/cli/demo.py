"""What ``ovllama demo`` shows once the starter models are served: one real request to each, over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import httpx

from openvino_llama.sources import IndexedModel, Sample, read_sample

__all__ = ["show"]

_WIDTH = 600


def show(address: str, models: Mapping[str, IndexedModel], echo: Callable[[str], None]) -> None:
    """Send each model its sample and print what came back."""
    echo(f"\nOpenVINO-Llama serves on {address}; its API is described at {address}/schema\n")
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        for name, model in models.items():
            if model.sample:
                _ask(client, name, model.sample, echo)


def _ask(client: httpx.Client, name: str, sample: Sample, echo: Callable[[str], None]) -> None:
    info = client.get(f"/models/{name}").json()
    route = f"{info.get('route', '')}?model={name}"
    body, headers = read_sample(sample), {"Content-Type": sample.media_type}
    client.post(route, content=body, headers=headers)  # the first inference is slower than those that follow
    started = time.perf_counter()
    answer = client.post(route, content=body, headers=headers)
    spent = (time.perf_counter() - started) * 1000
    echo(f"$ curl -H 'Content-Type: {sample.media_type}' --data-binary @{sample.source} '{client.base_url}{route}'")
    text = answer.text if len(answer.text) <= _WIDTH else answer.text[:_WIDTH] + "..."
    echo(f"{answer.status_code} in {spent:.1f} ms: {text}\n")
