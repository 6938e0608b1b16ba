"""Names of classes."""

from __future__ import annotations

from pathlib import Path

from openvino_llama import ConfigError, ModelConfig, per_model

__all__ = ["Labels", "class_count", "labels_of"]


class Labels:
    """Names by class id; an id without a name is named by its number."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self._names = names

    def __getitem__(self, class_id: int) -> str:
        return self._names[class_id] if 0 <= class_id < len(self._names) else str(class_id)

    def __len__(self) -> int:
        return len(self._names)


@per_model
def labels_of(config: ModelConfig) -> Labels:
    """The labels of a model; ConfigError if they cannot be read, or are fewer than its classes."""
    names = config.config.labels
    if names is None and "labels" in config.files:
        names = _read(config, config.files["labels"])
    if names is None:
        return Labels()
    classes = config.config.output_classes or len(names)
    if len(names) < classes:
        raise ConfigError(f"model {config.name!r}: {len(names)} labels for {classes} classes")
    return Labels(names)


def class_count(config: ModelConfig) -> int | None:
    """How many classes the registry states or names; None if it does neither."""
    stated: int | None = config.config.output_classes
    return stated or len(labels_of(config)) or None


def _read(config: ModelConfig, path: Path) -> tuple[str, ...]:
    """One label a line; lines after those of the last class are no label of anything."""
    try:
        return tuple(line.strip() for line in path.read_text("utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"model {config.name!r}: the file of the role 'labels' is not a readable UTF-8 text"
        ) from error
