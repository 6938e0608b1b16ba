"""Names of classes come from the entry, from a file, or are numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_vision.config import VisionConfig
from openvino_llama_vision.labels import labels_of


def model(file: Path | None = None, **config: Any) -> ModelConfig:
    files = {"model": Path("m")} | ({"labels": file} if file else {})
    return ModelConfig(name="birds", type="vision", task="detection", files=files, config=VisionConfig(**config))


def test_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("finch\r\n Zaunkönig \n\ntit\n\n", "utf-8")
    labels = labels_of(model(file))
    assert [labels[each] for each in range(5)] == ["finch", "Zaunkönig", "", "tit", "4"]
    assert labels[-1] == "-1"


def test_the_entrys_own_labels_come_first(tmp_path: Path) -> None:
    assert labels_of(model(tmp_path / "missing", labels=("a",)))[0] == "a"


def test_without_labels_classes_are_numbers() -> None:
    assert labels_of(model())[17] == "17"


def test_errors_name_the_model_and_no_path(tmp_path: Path) -> None:
    (tmp_path / "latin1.txt").write_bytes(b"Zaunk\xf6nig")
    for file in (tmp_path / "missing.txt", tmp_path / "latin1.txt"):
        with pytest.raises(ConfigError, match="model 'birds': the file of the role 'labels'") as raised:
            labels_of(model(file))
        assert str(tmp_path) not in str(raised.value)
    with pytest.raises(ConfigError, match="1 labels for 3 classes"):
        labels_of(model(labels=("a",), output_classes=3))
