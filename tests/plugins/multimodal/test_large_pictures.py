"""Large pictures leave nothing behind: neither with the workers, which are many, nor in cycles of garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from tests.conftest import mirrored

from openvino_llama import RegistryEntry
from openvino_llama.jobs import Job
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama.sandbox.guest import Guest
from openvino_llama_multimodal import plugin
from openvino_llama_multimodal.engine import VisionLanguageBackend

from .llava import EXACT, file_of, form

WORKERS = 2


@pytest.fixture
def model() -> Iterator[Model]:
    """The tiny LLaVA as a server would run it, by a few workers."""
    plugins = Plugins()
    plugins.add(plugin, name="multimodal")
    sandbox = Sandbox()
    models = Models(plugins, sandbox, [VisionLanguageBackend()], SilentObserver())
    entry = RegistryEntry(
        type="multimodal",
        task="vision_language",
        files={"model": "openvino_language_model.xml"},
        properties=dict(EXACT),
        config={"text": {"engine": {"max_num_seqs": WORKERS}}},
    )
    yield models.load("llava", entry, mirrored("tiny-llava").joinpath)
    models.close()
    sandbox.close()


def guests() -> int:
    return sum(isinstance(each, Guest) for each in gc.get_objects())


def test_guests_that_have_grown_go_at_once(model: Model) -> None:
    """Each would keep tens of megabytes until cycles are collected, which may be long after there is no memory."""
    picture = file_of(np.zeros((1280, 1280, 3), np.uint8))
    request = form("hi", *[picture] * 6, max_tokens="60")
    gc.collect()
    gc.disable()
    try:
        before = guests()
        for _ in range(8):
            model.serving.runner.submit(Job(request, Deadline(60))).future.result(60)
        assert guests() <= before, (before, guests())
    finally:
        gc.enable()
