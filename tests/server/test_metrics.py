"""What is measured is all there when somebody asks, whichever threads have measured it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from prometheus_client.parser import text_string_to_metric_families

from openvino_llama.server.metrics import Metrics

THREADS, TURNS = 8, 500


def samples(metrics: Metrics) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def test_nothing_is_lost() -> None:
    """Measurements are counted some at a time, on any thread, and those that are left when they are shown."""
    metrics = Metrics()

    def measure(number: int) -> None:
        for _ in range(TURNS):
            metrics.stage("m", "compute", 0.5)
            metrics.batch("m", 2)
            metrics.request("tiny", "m", 200 if number % 2 else 400, 0.25)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(measure, range(THREADS)))
    found = {(name, labels.get("status")): value for name, labels, value in samples(metrics) if "le" not in labels}
    total = THREADS * TURNS
    assert found["ovllama_stage_seconds_count", None] == found["ovllama_batch_size_count", None] == total
    assert (found["ovllama_stage_seconds_sum", None], found["ovllama_batch_size_sum", None]) == (total / 2, total * 2)
    assert found["ovllama_requests_total", "200"] == found["ovllama_requests_total", "400"] == total / 2
    assert found["ovllama_request_seconds_count", None] == total


def test_one_is_shown_at_once() -> None:
    """It does not wait for others to come."""
    metrics = Metrics()
    metrics.stage("m", "queue", 0.001)
    assert ("ovllama_stage_seconds_count", {"model": "m", "stage": "queue"}, 1.0) in list(samples(metrics))
