"""Which requests fit into one inference, and which rows of its outputs are whose.

Knows nothing of threads or guests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from openvino_llama.config import ModelConfig
from openvino_llama.errors import SandboxError
from openvino_llama.jobs import Job
from openvino_llama.specs import DYNAMIC

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["grouped", "largest_batch", "split"]


def largest_batch(config: ModelConfig) -> int:
    """How many rows an inference may have; 1 unless the first dimension of every input and output is dynamic."""
    specs = (*config.inputs, *config.outputs)
    if not specs or any(not spec.shape or spec.shape[0] != DYNAMIC for spec in specs):
        return 1
    return config.batching.max_batch_size or 1


def grouped(jobs: Sequence[Job], largest: int) -> Iterator[list[Job]]:
    """Groups of jobs that fit into one inference of at most so many rows; one that has more is alone."""
    if len(jobs) == 1:
        yield list(jobs)
        return
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        group = groups.setdefault(job.batch_key, [])
        if group and sum(each.rows for each in group) + job.rows > largest:
            yield groups.pop(job.batch_key)
            group = groups.setdefault(job.batch_key, [])
        group.append(job)
    yield from groups.values()


def split(outputs: Mapping[str, NDArray[Any]], jobs: Sequence[Job]) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Each job's rows of the outputs; SandboxError if they have not one row for each row of the inputs."""
    if len(jobs) == 1:
        yield outputs
        return
    ends = list(itertools.accumulate(job.rows for job in jobs))
    if any(len(array) != ends[-1] for array in outputs.values()):
        raise SandboxError("the outputs have another number of rows than the inputs: they cannot be told apart")
    for job, end in zip(jobs, ends, strict=True):
        yield {name: array[end - job.rows : end] for name, array in outputs.items()}
