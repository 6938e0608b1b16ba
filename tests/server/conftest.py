"""Fixtures: a folder of tiny models, and servers of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.support import Live, live_server, write_registry

from openvino_llama.server.settings import Settings
from tests import graphs


@pytest.fixture(scope="session", autouse=True)
def _own_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is left in it is ours: test runs may go on side by side."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = before


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder: double.xml, fixed.xml (one row), triple.xml, sums.xml, boxes.xml, slow.xml."""
    folder = tmp_path_factory.mktemp("root") / "models"
    folder.mkdir()
    graphs.save(graphs.double(), folder / "double.xml")
    graphs.save(graphs.double(rows=1), folder / "fixed.xml")
    graphs.save(graphs.double(factor=3), folder / "triple.xml")
    graphs.save(graphs.sums(), folder / "sums.xml")
    graphs.save(graphs.boxes(), folder / "boxes.xml")
    graphs.save(graphs.slow(), folder / "slow.xml")
    return folder


@pytest.fixture(scope="session")
def registry(tiny_files: Path) -> Path:
    """A registry of them."""
    one_worker = {"workers": 1}
    return write_registry(
        tiny_files,
        double={"files": {"model": "double.xml"}, "limits": one_worker},
        triple={"files": {"model": "triple.xml"}, "limits": one_worker},
        sums={"files": {"model": "sums.xml"}, "limits": one_worker},
        boxes={"files": {"model": "boxes.xml"}, "limits": one_worker},
        slow={"files": {"model": "slow.xml"}, "limits": {"workers": 1, "deadline_s": 10.0}},
        hasty={"files": {"model": "slow.xml"}, "limits": {"workers": 1, "deadline_s": 0.4}},
        narrow={"files": {"model": "fixed.xml"}, "limits": {"workers": 1, "queue_size": 2, "deadline_s": 10.0}},
    )


@pytest.fixture(scope="session")
def settings(registry: Path) -> Settings:
    return Settings(registry=registry, port=0, max_body_bytes=1 << 20, max_upload_bytes=8 << 20)


@pytest.fixture(scope="session")
def live(settings: Settings) -> Iterator[Live]:
    """A server that the tests of a session share: each leaves it as it was."""
    with live_server(settings) as running:
        yield running
