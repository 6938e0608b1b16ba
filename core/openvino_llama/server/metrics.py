"""Prometheus metrics. Knows nothing of HTTP but the statuses that it counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from openvino_llama.models import Model

__all__ = ["Metrics"]

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_AT_ONCE = 128
"""How much is noted before it is counted. A request is measured eight times: counted one by one, between inferences,
which fill the caches with something else, that takes several times as long."""


class Metrics:
    """The metrics of one server; an Observer of its runners."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "ovllama_requests", "Inference requests.", ["endpoint", "model", "status"], registry=self._registry
        )
        self._latency = Histogram(
            "ovllama_request_seconds",
            "Time from the request's headers to its answer.",
            ["endpoint", "model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._stages = Histogram(
            "ovllama_stage_seconds",
            "Time in a stage: queue, preprocess, sandbox, compute, postprocess.",
            ["model", "stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "ovllama_batch_size", "Requests in one inference.", ["model"], buckets=_SIZES, registry=self._registry
        )
        self._traps = Counter("ovllama_guest_traps", "Guests that trapped.", ["model"], registry=self._registry)

        self._first = Histogram(
            "ovllama_time_to_first_token_seconds",
            "Time from a streaming model's request to its first output.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._each = Histogram(
            "ovllama_time_per_output_token_seconds",
            "Time between the tokens of a stream, on average over the stream.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "ovllama_generated_tokens", "Tokens of streaming models.", ["model"], registry=self._registry
        )

        # Looking a child up by its labels costs as much as observing: cached for the life of the metrics.
        self._count = cache(self._requests.labels)
        self._measure = cache(self._latency.labels)
        self._stage = cache(self._stages.labels)
        self._size = cache(self._batches.labels)
        self._noted: deque[tuple[Callable[[float], None], float]] = deque()

    def request(self, endpoint: str, model: str, status: int, seconds: float) -> None:
        """An inference request was answered."""
        self._note(self._count(endpoint, model, status).inc, 1)
        self._note(self._measure(endpoint, model).observe, seconds)

    def stage(self, model: str, stage: str, seconds: float) -> None:
        """See Observer."""
        self._note(self._stage(model, stage).observe, seconds)

    def batch(self, model: str, size: int) -> None:
        """See Observer."""
        self._note(self._size(model).observe, size)

    def trap(self, model: str) -> None:
        """See Observer."""
        self._traps.labels(model).inc()

    def stream(self, model: str, first: float, rest: float, tokens: int) -> None:
        """See Observer."""
        self._first.labels(model).observe(first)
        self._tokens.labels(model).inc(tokens)
        if tokens > 1:
            self._each.labels(model).observe(rest / (tokens - 1))

    def watch(self, models: Callable[[], Sequence[Model]]) -> None:
        """Show the models' queues and states as they are when somebody asks."""
        self._registry.register(_ModelGauges(models))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        self._count_noted()
        return generate_latest(self._registry)

    def _note(self, count: Callable[[float], None], value: float) -> None:
        self._noted.append((count, value))
        if len(self._noted) >= _AT_ONCE:
            self._count_noted()

    def _count_noted(self) -> None:
        with suppress(IndexError):  # until it is empty: several threads may be here
            while True:
                count, value = self._noted.popleft()
                count(value)


class _ModelGauges(Collector):
    def __init__(self, models: Callable[[], Sequence[Model]]) -> None:
        self._models = models

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        queue = GaugeMetricFamily("ovllama_queue_length", "Requests that wait.", labels=["model"])
        ready = GaugeMetricFamily("ovllama_model_ready", "1 if the model serves.", labels=["model"])
        graph = GaugeMetricFamily("ovllama_graph", "What a model's graph shows of itself.", labels=["model", "gauge"])
        for model in self._models():
            for name, value in model.gauges().items():
                graph.add_metric([model.name, name], value)
            queue.add_metric([model.name], model.queue_length)
            ready.add_metric([model.name], float(model.config is not None and not model.unready_reason()))
        yield from (queue, ready, graph)
