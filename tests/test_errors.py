"""The error tree: drawn as it is, known to the table of statuses, free of HTTP."""

from __future__ import annotations

import inspect
import re
from http import HTTPStatus

import pytest
from litestar.exceptions import HTTPException

from openvino_llama import errors
from openvino_llama.server.problems import STATUSES, status_of

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_the_drawing_is_the_tree() -> None:
    """Every class stands in the module's docstring, below its base."""
    drawn: dict[str, str] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^ {4}((?:│   |    )*)(?:├── |└── )?([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4 + ("──" in line)
            above[depth:] = [found[2]]
            drawn[found[2]] = above[depth - 1] if depth else "Exception"
    assert drawn == {each.__name__: each.__base__.__name__ for each in CLASSES}


def test_every_class_is_exported_and_documented() -> None:
    """None is hidden, and the tree is at most three levels deep."""
    defined = {name for name, each in vars(errors).items() if inspect.isclass(each)}
    assert defined == set(errors.__all__)
    for each in CLASSES:
        assert inspect.getdoc(each)
        assert len([base for base in each.__mro__ if base in CLASSES]) <= 3


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_a_status(kind: type[Exception]) -> None:
    """4xx or 5xx; only what is the server's own fault is 500."""
    status = status_of(kind("x"))
    assert status == 499 or HTTPStatus(status) >= 400
    own_fault = (errors.SandboxError, errors.HookError, errors.SourceError)
    assert (status == 500) == (kind in (errors.OpenVINOLlamaError, errors.ModelError) or issubclass(kind, own_fault))


def test_the_nearest_class_counts() -> None:
    """Along the MRO; what is no error of ours is 500; Litestar's keep their status."""

    class Special(errors.QueueFullError):
        pass

    assert status_of(Special("x")) == STATUSES[errors.UnavailableError] == 503
    assert status_of(errors.InvalidTensorError("x")) == 422
    assert status_of(KeyError("x")) == 500
    assert status_of(HTTPException(status_code=418)) == 418


def test_errors_know_nothing_of_http() -> None:
    """No status in the core's errors."""
    source = inspect.getsource(errors)
    assert "import" not in source.replace("from __future__ import annotations", "")
    assert not re.search(r"\b[45]\d\d\b", source)
