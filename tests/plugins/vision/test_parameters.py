"""Which query parameters a task takes, and what is said of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openvino_llama import InferenceRequest, InvalidInputError, ModelConfig
from openvino_llama_vision import plugin
from openvino_llama_vision.config import VisionConfig, VisionParameters
from openvino_llama_vision.parameters import PARAMETERS, check_parameters

STATED: dict[str, Any] = {"top_k": 3, "threshold": 0.25, "max_results": 7, "mask": "png"}


def model(task: str) -> ModelConfig:
    return ModelConfig(name="shapes", type="vision", task=task, files={"model": Path("m")}, config=VisionConfig())


def test_every_task_and_every_parameter_is_known() -> None:
    """Each parameter is that of a task at least."""
    assert set(PARAMETERS) == set(plugin.model_types()[0].tasks)
    assert {each for names in PARAMETERS.values() for each in names} == set(VisionParameters.__struct_fields__)
    assert set(STATED) == set(VisionParameters.__struct_fields__)


@pytest.mark.parametrize("task", PARAMETERS)
@pytest.mark.parametrize("name", STATED)
def test_a_parameter_of_another_task_is_refused(task: str, name: str) -> None:
    """By its name, with the model's task and what this takes."""
    asked = VisionParameters(**{name: STATED[name]})
    if name in PARAMETERS[task]:
        check_parameters(model(task), asked)
        return
    with pytest.raises(InvalidInputError) as refused:
        check_parameters(model(task), asked)
    taken = ", ".join(PARAMETERS[task])
    expected = f"query parameters: model 'shapes' has the task {task}, which takes {taken}; got '{name}'"
    assert str(refused.value) == expected


@pytest.mark.parametrize("task", PARAMETERS)
def test_defaults_are_no_parameters(task: str) -> None:
    """A page that fills in what the description says by default is answered."""
    check_parameters(model(task), VisionParameters(max_results=100, mask="none"))


@pytest.mark.parametrize("produces", plugin.model_types()[0].produces)
def test_it_is_refused_before_the_picture_is_read(produces: str) -> None:
    """As JSON and as a drawing."""
    request = InferenceRequest(b"no picture", "image/png", VisionParameters(mask="png"), produces)
    with pytest.raises(InvalidInputError, match="got 'mask'"):
        plugin.preprocess(model("classification"), request)
