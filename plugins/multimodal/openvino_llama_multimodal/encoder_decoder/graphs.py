"""Two graphs from what optimum exports: an encoder that gives all that is made of the picture, a decoder with a memory.

The exported decoders take and give their whole cache at each step, and compute keys and values of the encoder's output
(the cross-attention's) anew for each token, or leave that to a further copy of the decoder. Here the decoder's cache
becomes its state, and whatever depends on the picture alone is moved behind the encoder, where it is computed once.
Knows nothing of files and of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.passes import MakeStateful, Manager

from openvino_llama import ConfigError, ModelConfig
from openvino_llama_multimodal.encoder_decoder.attention import name_attention
from openvino_llama_multimodal.processor import vision_of
from openvino_llama_vision.graph import fix_size, take_pixels
from openvino_llama_vision.reduction import sizes

__all__ = ["IDS", "LOGITS", "join"]

IDS, LOGITS = "input_ids", "logits"
_HIDDEN, _PAST, _PRESENT, _OF_ENCODER = "encoder_hidden_states", "past_key_values", "present", ".encoder."
_LAST = "last_hidden_state"


def join(
    config: ModelConfig, encoder: ov.Model, decoder: ov.Model, read_first: Callable[[], ov.Model]
) -> tuple[ov.Model, ov.Model]:
    """The encoder and the decoder of one sequence; ConfigError if they are none, or do not fit each other.

    The encoder takes u8 pixels, (1, height, width, channels). Its outputs are the decoder's inputs of the same names;
    beside these the decoder takes ``input_ids``, (1, n) i64, and it gives ``logits``, (1, n, vocabulary). Its state is
    the cache. ``read_first`` gives the decoder without a cache, which is wanted only for some decoders.
    """
    _check_names(config, decoder)
    encoder, hidden = _with_pixels(config, encoder)
    _fix_shapes(config, decoder, hidden)
    caches = _names(decoder, _PAST)
    of_picture = _moved(decoder, hidden)
    crossed = [name for name in caches if _OF_ENCODER in name]
    if crossed:
        of_picture |= _first_outputs(config, read_first(), crossed, hidden)
    _stateful(decoder, [name for name in caches if name not in crossed])
    return _giving(encoder, of_picture), decoder


def _check_names(config: ModelConfig, decoder: ov.Model) -> None:
    taken = {port.any_name for port in decoder.inputs}
    unknown = [name for name in taken - {IDS, _HIDDEN} if not name.startswith(_PAST)]
    if unknown or IDS not in taken or not _names(decoder, _PAST) or not _gives(decoder, LOGITS):
        raise ConfigError(
            f"model {config.name!r}: expected a decoder with the inputs {IDS}, {_HIDDEN} and {_PAST}, and the output "
            f"{LOGITS}; got the inputs {', '.join(sorted(taken))}"
        )
    for name in _names(decoder, _PAST):
        if _OF_ENCODER not in name and not _gives(decoder, name.replace(_PAST, _PRESENT)):
            raise ConfigError(f"model {config.name!r}: the decoder takes the cache {name}, but gives none for it")


def _with_pixels(config: ModelConfig, encoder: ov.Model) -> tuple[ov.Model, Any]:
    """The encoder of one picture in u8, and what comes out of it: (1, patches, width)."""
    half = vision_of(config)
    if len(encoder.inputs) != 1:
        taken = ", ".join(port.any_name for port in encoder.inputs)
        raise ConfigError(f"model {config.name!r}: expected an encoder that takes one picture, got the inputs {taken}")
    try:
        encoder = take_pixels(half, encoder, fix_size(half, encoder, one=True))
    except RuntimeError as error:
        size = list((half.config.input_shape or ())[2:])
        raise ConfigError(f"model {config.name!r}: the encoder does not take pictures of the size {size}") from error
    hidden = encoder.output(_LAST if _gives(encoder, _LAST) else 0).get_node().input_value(0)
    if -1 in sizes(encoder.input(0)) or len(sizes(hidden)) != 3:
        raise ConfigError(
            f"model {config.name!r}: expected an encoder of pictures of one size, which gives (1, patches, width); it "
            f"takes {list(sizes(encoder.input(0)))} and gives {list(sizes(hidden))}"
        )
    return encoder, hidden


def _fix_shapes(config: ModelConfig, decoder: ov.Model, hidden: Any) -> None:
    """Make the decoder one of one sequence, for this encoder."""
    patches = sizes(hidden)[1]
    shapes = {}
    for port in decoder.inputs:
        shape = list(sizes(port))
        shape[0] = 1
        if port.any_name == _HIDDEN:
            _check_width(config, shape[2], hidden)
            shape = list(sizes(hidden))
        elif _OF_ENCODER in port.any_name:
            shape[2] = patches
        shapes[port] = ov.PartialShape(shape)
    try:
        decoder.reshape(shapes)
    except RuntimeError as error:
        raise ConfigError(f"model {config.name!r}: the decoder does not take what the encoder gives") from error
    _settle_shapes(decoder)
    name_attention(decoder)


def _check_width(config: ModelConfig, wanted: int, hidden: Any) -> None:
    given = sizes(hidden)[2]
    if -1 not in (wanted, given) and wanted != given:
        raise ConfigError(
            f"model {config.name!r}: the decoder attends to vectors of {wanted} numbers, the encoder gives {given}"
        )


def _moved(decoder: ov.Model, hidden: Any) -> dict[str, Any]:
    """Cut off what depends on the encoder's output alone: name of the decoder's new input -> what it is to be given."""
    parameter = next((each for each in decoder.get_parameters() if _HIDDEN in each.output(0).get_names()), None)
    if parameter is None:
        return {}
    alone = _of_it_alone(decoder, parameter)
    moved: dict[str, Any] = {}
    for output in [each for node in decoder.get_ordered_ops() if node.get_name() in alone for each in node.outputs()]:
        targets = [each for each in output.get_target_inputs() if each.get_node().get_name() not in alone]
        if targets:
            name = f"picture.{len(moved)}"
            decoder.add_parameters([_taken(name, output, targets)])
            moved[name] = hidden if output.get_node().get_name() == parameter.get_name() else output
    decoder.remove_parameter(parameter)
    parameter.output(0).replace(hidden)
    return moved


def _of_it_alone(model: ov.Model, parameter: Any) -> set[str]:
    """Names of the nodes that depend on a parameter, and beside it on nothing but constants."""
    alone: set[str] = {parameter.get_name()}
    constant: set[str] = set()
    for node in model.get_ordered_ops():
        name, sources = node.get_name(), {each.get_node().get_name() for each in node.input_values()}
        if sources <= constant and node.get_type_name() not in ("Parameter", "ReadValue"):
            constant.add(name)
        elif sources & alone and sources <= alone | constant:
            alone.add(name)
    return alone


def _taken(name: str, output: Any, targets: Iterable[Any]) -> Any:
    """A parameter for what these targets have taken from that output."""
    parameter = ops.parameter(output.get_partial_shape(), output.get_element_type())
    parameter.output(0).set_names({name})
    for each in targets:
        each.replace_source_output(parameter.output(0))
    return parameter


def _first_outputs(config: ModelConfig, first: ov.Model, caches: list[str], hidden: Any) -> dict[str, Any]:
    """What the decoder without a cache makes of the encoder's output, for caches that the other one only reads."""
    given = {name: name.replace(_PAST, _PRESENT) for name in caches}
    if not {IDS, _HIDDEN} <= {port.any_name for port in first.inputs} or not all(
        _gives(first, name) for name in given.values()
    ):
        raise ConfigError(
            f"model {config.name!r}: the decoder takes {caches[0]}, which the decoder without a cache does not give"
        )
    _check_width(config, sizes(first.input(_HIDDEN))[2], hidden)
    first.reshape({IDS: ov.PartialShape([1, 1]), _HIDDEN: hidden.get_partial_shape()})
    # Only the shape of the tokens plays a part in these outputs, and that has been settled.
    _replace(first, IDS, ops.constant(np.zeros((1, 1), np.int64)).output(0))
    _replace(first, _HIDDEN, hidden)
    return {name: first.output(other).get_node().input_value(0) for name, other in given.items()}


def _replace(model: ov.Model, name: str, output: Any) -> None:
    model.input(name).get_node().output(0).replace(output)


def _stateful(decoder: ov.Model, caches: Iterable[str]) -> None:
    """Have the decoder keep its cache; it is empty after a reset.

    The state begins with something of no length, and is read through a choice of rows that all share, as for beams
    (there is one here). So OpenVINO's attention knows it, and appends to the cache in place. Else it is copied for each
    token, by code that is compiled for each length, and kept.
    """
    manager = Manager()
    manager.register_pass(MakeStateful({name: name.replace(_PAST, _PRESENT) for name in caches}))
    manager.run_passes(decoder)
    only = ops.constant(np.array([0], np.int32))
    for state in [node for node in decoder.get_ordered_ops() if node.get_type_name() == "ReadValue"]:
        shape = [max(size, 0) for size in sizes(state.output(0))]
        targets = list(state.output(0).get_target_inputs())
        state.set_arguments([ops.broadcast(np.float32(0), np.array(shape)).output(0)])
        rows = ops.gather(state, only, np.int64(0))
        for each in targets:
            each.replace_source_output(rows.output(0))


def _giving(encoder: ov.Model, outputs: dict[str, Any]) -> ov.Model:
    """The encoder with these outputs in place of its own."""
    results = []
    for name, output in outputs.items():
        results.append(ops.result(output))
        results[-1].output(0).set_names({name})
    return ov.Model(results, encoder.get_parameters(), encoder.get_friendly_name())


def _settle_shapes(model: ov.Model) -> None:
    """Write down the shapes that are known by now: what is made of one does not depend on the tensor.

    Folding all constants would do so too, and would unpack compressed weights.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ShapeOf" and -1 not in sizes(node.input_value(0)):
            known = np.array(sizes(node.input_value(0)), node.get_output_element_type(0).to_dtype())
            node.output(0).replace(ops.constant(known).output(0))


def _names(model: ov.Model, beginning: str) -> list[str]:
    return [port.any_name for port in model.inputs if port.any_name.startswith(beginning)]


def _gives(model: ov.Model, name: str) -> bool:
    return any(name in port.get_names() for port in model.outputs)
