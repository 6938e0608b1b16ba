"""The hooks: everything that a plugin may do.

A plugin is a module (or an object) with functions marked ``@hookimpl``, named by an entry point in the group
``openvino_llama``, and with ``OPENVINO_LLAMA_API = 1`` beside them. It imports only the public names of
``openvino_llama``.

Hooks of four kinds:

* *Contributions* (``model_types``, ``backends``, ``model_index``, ``route_handlers``, ``commands``): called once when
  the plugins are loaded; what all plugins give is put together.
* *The pipeline* (``prepare_model``, ``validate_model``, ``preprocess``, ``postprocess``, ``inferencer_module``):
  called for one model, and only on the plugin that registered its model type, so that no plugin can answer for
  another's models. A hook *wrapper* (``@hookimpl(wrapper=True)``) of any plugin sees every such call: for
  redaction, audit, caching.
* *Conversion* (``model_converter``): asked by ``ovllama pull`` for a model whose files have to be made of others; the
  first plugin that knows the conversion answers.
* *The life cycle* (``model_loaded``, ``model_activated``, ``model_unloaded``): told to every plugin, the answer is
  not used; an exception is logged and goes no further.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pluggy

from openvino_llama.config import ModelConfig, ModelType

if TYPE_CHECKING:
    import click
    import openvino as ov
    from numpy.typing import NDArray

    from openvino_llama.backends.base import Backend

__all__ = [
    "API_VERSION",
    "PROJECT",
    "Chunk",
    "InferenceRequest",
    "Part",
    "Preprocessed",
    "Reply",
    "hookimpl",
    "hookspec",
]

PROJECT = "openvino_llama"
"""Name of pluggy's project and of the entry-point group."""

API_VERSION = 1
"""Version of what this module declares; a plugin states it as ``OPENVINO_LLAMA_API``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Part(msgspec.Struct, frozen=True):
    """One part of a multipart body."""

    name: str
    body: bytes
    media_type: str = "text/plain"
    filename: str | None = None


class InferenceRequest(msgspec.Struct, frozen=True):
    """One request as ``preprocess`` sees it."""

    body: bytes
    """The raw body, its content coding already undone; empty if it was multipart."""
    media_type: str
    """Without parameters and in lower case: ``image/jpeg``. One of the model type's ``accepts``."""
    parameters: Any = None
    """The model type's ``parameters`` Struct, already validated; None if it declares none."""
    produces: str = "application/json"
    """The one of the model type's ``produces`` that the client's Accept prefers."""
    parts: tuple[Part, ...] = ()
    """The parts of a multipart body, in their order."""
    stream: bool = False
    """Whether the client wants each output of a streaming model as it comes."""


class Preprocessed(msgspec.Struct, frozen=True):
    """What ``preprocess`` gives."""

    tensors: Mapping[str, NDArray[Any]]
    """Input name -> C-contiguous array; exactly one for each of ``config.input_specs()``, batch dimension included."""
    context: Any = None
    """Whatever ``postprocess`` will need to know of this request: it is handed over untouched."""


class Chunk(msgspec.Struct, frozen=True):
    """What ``postprocess`` gives for one output of a streaming model."""

    data: Any = None
    """What a client that wants a stream is sent at once; None is nothing."""
    tokens: int = 1
    """How many tokens came with this output, for the metrics."""
    last: bool = False
    """Whether the rest of the stream is not wanted (a stop string was found): the model is stopped."""


class Reply(msgspec.Struct, frozen=True):
    """An answer that is not JSON."""

    body: bytes
    media_type: str


@hookspec
def model_types() -> Sequence[ModelType]:  # type: ignore[empty-body]
    """Model types that this plugin serves.

    Called once, when plugins are loaded, before there is a server. A model type whose name or endpoint another plugin
    has already taken leaves this plugin out, with an error.
    """


@hookspec
def backends() -> Sequence[Backend]:  # type: ignore[empty-body]
    """Further WASI-NN backends, beside OpenVINO's.

    Called once, when plugins are loaded. The first one whose ``serves`` says yes to a model opens its graph in
    OpenVINO's place.
    """


@hookspec
def model_index() -> Path:  # type: ignore[empty-body]
    """A JSON file of models that ``ovllama pull`` shall know (its format: ``docs/models.md``).

    Called when ``ovllama pull`` or ``ovllama demo`` runs. A name that another plugin's index already has is left out.
    """


@hookspec(firstresult=True)
def model_converter(by: str, options: Mapping[str, Any]) -> str | None:
    """The Python module that makes a model's files of those that were fetched.

    Called for one model whose index says ``convert``, when ``ovllama pull`` or ``ovllama demo`` wants it and before
    anything is fetched, on the thread that pulls. ``by`` names the conversion, ``options`` is what the index and the
    command line say beside it. None means that this plugin knows no such conversion; of several that do, the one that
    was loaded first is taken. Raise ConfigError if an option is wrong or a package is not installed that the conversion
    needs: the message should then end with the command that installs it.

    The module is run as ``python -m MODULE``, in a process of its own that may be as heavy as it likes and may crash:
    what it is told, what it writes and how it says what is wrong are in ``docs/models.md`` ("Conversions").
    """


@hookspec
def route_handlers() -> Sequence[Any]:  # type: ignore[empty-body]
    """Further Litestar route handlers, controllers or routers for the server.

    Called once, when the app is made. A handler that needs the pipeline takes it by the dependency name ``pipeline``.
    """


@hookspec
def commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """Further commands of ``ovllama``, made with click.

    Called when ``ovllama`` is asked for a command that is not its own, or for its help. A command whose name is taken
    is left out.
    """


@hookspec(firstresult=True)
def prepare_model(config: ModelConfig, model: ov.Model) -> ov.Model | None:
    """Change the OpenVINO graph before it is compiled: fuse resize, mean and scale, layout, NMS or argmax into it.

    Called once for each load, on the loading thread, after the model has been read and before it is compiled.
    ``config.input_specs()`` are those of ``model`` as it was read (or as the registry states them). The model may be
    changed in place or a new one returned; None means the one passed. The specs are read anew afterwards. Raise
    ConfigError if the configuration does not fit the model.
    """


@hookspec(firstresult=True)
def validate_model(config: ModelConfig) -> None:
    """Say no to a model before it is served.

    Called once for each load, on the loading thread, when the model has been compiled and ``config`` has its final
    specs. Raise ConfigError if anything that a request would need (labels, anchors, a tokenizer) is missing or does
    not fit: the load then fails with that message. The place to fill what ``per_model`` functions keep.
    """


@hookspec(firstresult=True)
def inferencer_module(config: ModelConfig) -> Path | bytes | None:
    """The WebAssembly module that runs this model's inferences, if not the built-in one.

    Called once for each load, on the loading thread. It is a path to, or the bytes of, a core module that exports the
    FFI of ``docs/guests.md``; None means the built-in guest. It runs in a fresh instance for each request, unless the
    registry says ``"isolation": "pooled"``.
    """


@hookspec(firstresult=True)
def preprocess(config: ModelConfig, request: InferenceRequest) -> Preprocessed | Sequence[Preprocessed]:  # type: ignore[empty-body]
    """Turn a request into the model's input tensors.

    Called once for each request on one of the model's worker threads, several at the same time: it must be
    thread-safe and may block. The tensors are checked against ``config.input_specs()`` and copied into the guest's
    memory; they are not kept. Raise InvalidInputError (or another RequestError) for a body or a parameter that is
    wrong.

    A list is a request of several inferences (texts of different lengths): all workers share in them, and put them
    together with those of other requests whose shapes agree. A model that streams takes one only.
    """


@hookspec(firstresult=True)
def postprocess(config: ModelConfig, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
    """Turn the model's output tensors into the answer.

    Called on the worker thread that ran the inference. ``outputs`` maps each of ``config.output_specs()`` to an array
    with that request's batch dimension; the arrays are views of the guest's memory, valid until this call returns:
    copy what is to be kept. ``context`` is what ``preprocess`` gave with the tensors. The result is what msgspec can
    encode, and becomes ``results`` of the answer; a ``Reply`` is sent as it is.

    Where a request has several outputs, the answer is what one further call gives, after the last of them, with
    ``outputs`` empty:

    * of a model that streams, each output's call gives a ``Chunk``; ``context`` is the same object every time;
    * of a request of several inferences, each output's call gets its own context (several calls at the same time, in
      any order) and its result is not used; the further call gets the context of the first one.
    """


@hookspec
def model_loaded(config: ModelConfig) -> None:
    """A model serves from now on. Called on the loading thread, in registration order."""


@hookspec
def model_activated(config: ModelConfig, endpoint: str) -> None:
    """A model has become the active one of an endpoint. Called on the thread that activated it."""


@hookspec
def model_unloaded(config: ModelConfig) -> None:
    """A model serves no more and its memory has been given back. Called on the unloading thread."""
