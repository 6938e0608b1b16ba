"""What a model is: the entry that a registry holds, and the ModelConfig that is made of it.

A ``RegistryEntry`` is what somebody wrote down; a ``ModelConfig`` is what everything else works with: its
``config`` member has the type that the plugin of this model type declared, its files are absolute, and its specs
are known. Knows nothing of vision, text or any other model type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from openvino_llama.errors import ConfigError
from openvino_llama.reading import field_error
from openvino_llama.specs import TensorSpec, check_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "Batching",
    "Defaults",
    "Isolation",
    "Limits",
    "ModelConfig",
    "ModelType",
    "RegistryEntry",
    "locate_files",
    "typed_config",
]


class Isolation(Enum):
    """How long a guest instance lives."""

    POOLED = "pooled"
    """One instance per worker thread: for the built-in guest, whose code is known."""
    PER_REQUEST = "per_request"
    """A fresh Store and instance for each request: nothing of one request is left for the next."""


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests are put together into one inference; only where the model's batch dimension is dynamic."""

    max_batch_size: int | None = None
    """None is the server's default; 1 switches batching off."""

    def __post_init__(self) -> None:
        if self.max_batch_size is not None and not 1 <= self.max_batch_size <= 65_536:
            raise ValueError(f"max_batch_size must be at least 1 and at most 65536, not {self.max_batch_size}")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one model, one request of it and one guest instance of it may use."""

    memory_mib: int = 512
    """Linear memory of a guest instance, in MiB."""
    table_elements: int = 10_000
    """Elements in a guest's tables."""
    handles: int = 64
    """Graphs, and execution contexts, that a guest may hold at a time."""
    deadline_s: float = 30.0
    """Time that a request may take from arrival to answer, in seconds; of a stream, from output to output."""
    queue_size: int = 64
    """Requests that may wait."""
    max_sequence_length: int | None = None
    """Tokens of an input, for model types whose inputs are sequences: their plugins see to it; None is the server's."""
    workers: int | None = None
    """Worker threads; None is two more than OpenVINO finds optimal to infer at a time, or one for streams."""

    def __post_init__(self) -> None:
        for field, most in _CEILINGS.items():
            value = getattr(self, field)
            if value is not None and not 0 < value <= most:  # nor is NaN
                raise ValueError(f"{field} must be positive and at most {most}, not {value}")


_CEILINGS = {
    "memory_mib": 4096,  # what 32-bit guests can address
    "table_elements": 10_000_000,
    "handles": 65_536,
    "deadline_s": 86_400,
    "queue_size": 1_000_000,
    "max_sequence_length": 10_000_000,
    "workers": 1024,
}


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an entry and the ModelConfig made of it have in common."""

    type: str
    """Name of the model type, which a plugin registers: ``vision``, ``text``..."""
    task: str
    """One of the model type's tasks."""
    files: Any
    config: Any  # both are of another type in each, and stand here for the order in which an entry is written
    device: str = "CPU"
    """An OpenVINO device: CPU, GPU, NPU, AUTO..."""
    properties: dict[str, str | int | float | bool] = {}
    """OpenVINO properties for this model, for example ``{"PERFORMANCE_HINT": "LATENCY"}``."""
    inputs: tuple[TensorSpec, ...] = ()
    """Specs of the model's inputs; read from the model where the registry states none."""
    outputs: tuple[TensorSpec, ...] = ()
    """Specs of the model's outputs; read from the model where the registry states none."""
    batching: Batching = Batching()
    limits: Limits = Limits()
    isolation: Isolation | None = None
    """None is ``pooled`` for the built-in guest and ``per_request`` for a plugin's own."""


class RegistryEntry(_Stated, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One model as a registry states it."""

    files: dict[str, str]
    """Role -> path. ``model`` is the graph; ``weights`` its second file where the format has one."""
    config: dict[str, Any] = {}
    """What the plugin of this model type declares: read into its own Struct."""


class ModelConfig(_Stated, frozen=True, forbid_unknown_fields=True, kw_only=True, eq=False, weakref=True):
    """One model as everything in this process sees it. Compared by identity, so that it can be a cache's key."""

    name: str
    files: dict[str, Path]
    """Role -> absolute path, checked to lie in the models folder."""
    config: Any
    """The plugin's own Struct: VisionConfig, TextConfig..."""

    def input_specs(self) -> tuple[TensorSpec, ...]:
        """The tensors that the compiled model takes, in its order; empty before the model has been read."""
        return self.inputs

    def output_specs(self) -> tuple[TensorSpec, ...]:
        """The tensors that the compiled model gives, in its order; empty before the model has been read."""
        return self.outputs

    def validate_input(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Raise InvalidTensorError unless there is exactly one fitting tensor for each input."""
        check_tensors(self.inputs, tensors)


class Defaults(msgspec.Struct, frozen=True):
    """What holds where a registry entry states nothing."""

    max_batch_size: int = 8
    max_sequence_length: int = 2048
    active: Mapping[str, str] = {}
    """Model type -> name of the model that is to be active."""


class ModelType(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin registers. Registering it makes ``POST /infer/<endpoint>`` appear."""

    name: str
    """``type`` of the registry's entries: ``vision``."""
    config: type[msgspec.Struct]
    """Struct that an entry's ``config`` is read into; unknown fields should be errors in it."""
    tasks: tuple[str, ...]
    """``task`` of the registry's entries: ``classification``, ``detection``..."""
    endpoint: str
    """Last part of the route: ``image`` for ``POST /infer/image``."""
    accepts: tuple[str, ...]
    """Media types of the request's body: ``image/png``; ``multipart/form-data`` gives the parts one by one."""
    parts: Mapping[str, Literal["file", "text"]] = {}
    """Where ``multipart/form-data`` is accepted: its parts that are no parameters, and what each is. The first file is
    the one that a file on the command line is."""
    produces: tuple[str, ...] = ("application/json",)
    """Media types that a client may ask for in Accept, the default one first."""
    parameters: type[msgspec.Struct] | None = None
    """Struct that the query parameters are read into; None takes none. ``model`` is the server's own."""
    bodies: Mapping[str, Any] = {}
    """Task -> Struct that a body of JSON or form fields is read into, for the API's description only: ``preprocess``
    reads it. ``Annotated[Struct, msgspec.Meta(examples=[...])]`` gives a first request to try."""
    streaming: tuple[str, ...] = ()
    """Those of the tasks whose models yield output after output (generation): they are served as a stream of events
    too, by ``POST /infer/<endpoint>/stream``."""
    answers: Mapping[type[msgspec.Struct], tuple[str, ...]] = {}
    """Requests that routes of any plugin may hand over as an InferenceRequest's ``parameters``, and the tasks whose
    models answer them: ``{GenerationRequest: ("generation",)}``."""


def typed_config(name: str, entry: RegistryEntry, model_type: ModelType, locate: Callable[[str], Path]) -> ModelConfig:
    """Make the ModelConfig of an entry.

    ``locate`` turns a file's path as written into an absolute one and raises ConfigError for one that is not allowed.
    Raises ConfigError naming the field that is wrong.
    """
    if entry.task not in model_type.tasks:
        expected = ", ".join(model_type.tasks)
        raise ConfigError(
            f"model {name!r}, field 'task': a {entry.type} model has one of the tasks {expected}; got {entry.task!r}"
        )
    try:
        config = msgspec.convert(entry.config, model_type.config)
    except msgspec.ValidationError as error:
        told = field_error(error, entry.config, model_type.config, within="config")
        raise ConfigError(f"model {name!r}, {told}") from error
    files = locate_files(name, entry, locate)
    stated = {field: getattr(entry, field) for field in _Stated.__struct_fields__}
    return ModelConfig(name=name, **(stated | {"files": files, "config": config}))


def locate_files(name: str, entry: RegistryEntry, locate: Callable[[str], Path]) -> dict[str, Path]:
    """Role -> absolute path of an entry's files; an error of ``locate`` is raised again with model and field."""
    return {role: _located(name, role, path, locate) for role, path in entry.files.items()}


def _located(name: str, role: str, path: str, locate: Callable[[str], Path]) -> Path:
    try:
        return locate(path)
    except ConfigError as error:
        raise type(error)(f"model {name!r}, field 'files.{role}': {error}") from error
