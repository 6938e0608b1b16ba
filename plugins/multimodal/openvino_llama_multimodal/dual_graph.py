"""The graph of a dual encoder (CLIP and its kin), as it is served: pixels and tokens in, a vector for each out.

Optimum's export takes pictures and texts together and compares all with all. Served, each half computes on its own:
what has no rows costs nothing. The comparison is put off until the vectors of all pictures and texts are there, so
the two numbers that turn a cosine into a logit come along with each of them. Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from openvino_llama import DYNAMIC, ConfigError, ModelConfig
from openvino_llama_multimodal.dual_vectors import IDS, MASK, PIXELS, text_of
from openvino_llama_multimodal.processor import vision_of
from openvino_llama_text.files import facts_of
from openvino_llama_vision.graph import fix_size, take_pixels

__all__ = ["prepare"]

_PICTURES, _TEXTS, _LOGITS = "image_embeds", "text_embeds", "logits_per_image"


def prepare(config: ModelConfig, model: ov.Model) -> ov.Model:
    """The model with u8 pixels as one input, and the outputs ``pictures`` and ``texts``, (rows, dimensions + 2) f32.

    The last two numbers of a row are the model's scale and bias: scale * cosine + bias is the logit of a picture and a
    text. ConfigError if it is no dual encoder, or the files beside it do not fit.
    """
    _check_names(config, model)
    numbers = _scale_and_bias(config, model)
    _free_rows(config, model)
    index = next(place for place, port in enumerate(model.inputs) if PIXELS in port.get_names())
    half = vision_of(config)
    layout = fix_size(half, model, index)
    outputs = [
        _followed(_source(model, output), numbers, model.input(given), name)
        for output, given, name in ((_PICTURES, PIXELS, "pictures"), (_TEXTS, IDS, "texts"))
    ]
    served = ov.Model([ops.result(each) for each in outputs], model.get_parameters(), model.get_friendly_name())
    return take_pixels(half, served, layout, index)


def _check_names(config: ModelConfig, model: ov.Model) -> None:
    inputs, outputs = ({name for port in ports for name in port.get_names()} for ports in (model.inputs, model.outputs))
    if not {PIXELS, IDS} <= inputs <= {PIXELS, IDS, MASK} or not {_PICTURES, _TEXTS, _LOGITS} <= outputs:
        raise ConfigError(
            f"model {config.name!r}: expected a dual encoder, with the inputs {PIXELS}, {IDS} and at most {MASK}, and "
            f"the outputs {_PICTURES}, {_TEXTS} and {_LOGITS}; got the inputs {', '.join(sorted(inputs))} and the "
            f"outputs {', '.join(sorted(outputs))}"
        )


def _source(model: ov.Model, output: str) -> Any:
    """What an output is made of."""
    return model.output(output).get_node().input_value(0)


def _scale_and_bias(config: ModelConfig, model: ov.Model) -> tuple[float, float]:
    """What the model makes of a cosine: the end of its graph, cut off behind the vectors, is asked."""
    end, given = model.clone(), []
    for name in (_PICTURES, _TEXTS):
        source = _source(end, name)
        given.append(ops.parameter([1, source.get_partial_shape()[1].get_length()], np.float32))
        source.replace(given[-1].output(0))
    try:
        asked = ov.Model([end.output(_LOGITS).get_node()], given)
        compiled = ov.Core().compile_model(asked, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        unit = np.eye(1, given[0].get_output_shape(0)[1], dtype=np.float32)
        one, none = (compiled([unit, cosine * unit])[0].item() for cosine in (1, 0))
    except RuntimeError as error:
        raise ConfigError(
            f"model {config.name!r}: its {_LOGITS} cannot be computed from {_PICTURES} and {_TEXTS} alone"
        ) from error
    return one - none, none


def _free_rows(config: ModelConfig, model: ov.Model) -> None:
    """Let pictures and texts be of any number, and fix the length of texts where no mask says what is padding."""
    shapes = {port: port.get_partial_shape() for port in model.inputs}
    masked = any(MASK in port.get_names() for port in model.inputs)
    for port, shape in shapes.items():
        shape[0] = DYNAMIC
        if IDS in port.get_names() and not masked:
            shape[1] = _trained_length(config)
    try:
        model.reshape(shapes)
    except RuntimeError as error:
        raise ConfigError(f"model {config.name!r}: its graph is for a fixed number of pictures or texts") from error


def _trained_length(config: ModelConfig) -> int:
    """Positions of a text; a model without a mask has never seen texts that were not padded to it."""
    positions = facts_of(text_of(config)).max_positions
    if positions is None:
        raise ConfigError(
            f"model {config.name!r}, file config.json, field 'text_config.max_position_embeddings': expected the "
            f"length that texts are padded to, since the model has no {MASK}"
        )
    return positions


def _followed(rows: Any, numbers: tuple[float, ...], given: Any, name: str) -> Any:
    """The rows, each followed by the numbers. They are as many as the input has, which the graph itself may not say."""
    count = ops.gather(ops.shape_of(given), np.array([0]), np.int64(0))
    columns = ops.broadcast(np.array([numbers], np.float32), ops.concat([count, np.array([len(numbers)])], 0))
    output = ops.concat([rows, columns], 1).output(0)
    output.set_names({name})
    return output
