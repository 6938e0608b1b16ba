"""What an OpenVINO IR declares, checked before OpenVINO allocates it.

``read_model`` believes the sizes in the XML: a constant that claims 10^12 elements is allocated. So each constant is
held against its weights file first. Knows nothing of the other formats: they carry their data with them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from openvino_llama.errors import ModelLoadError

__all__ = ["MAX_TENSOR_BYTES", "check_ir"]

MAX_TENSOR_BYTES = 1 << 32
"""An input of more bytes cannot be in a 32-bit guest's memory."""

_BITS = {"boolean": 8, "u1": 1, "u4": 4, "i4": 4, "nf4": 4, "f4e2m1": 4, "u2": 2, "u3": 3, "u6": 6}


def check_ir(xml: Path, weights: Path | None) -> None:
    """Raise ModelLoadError unless every constant lies inside the weights file and no input is absurdly large."""
    import defusedxml.ElementTree
    from defusedxml.common import DefusedXmlException

    available = weights.stat().st_size if weights and weights.exists() else 0
    try:
        for _, element in defusedxml.ElementTree.iterparse(xml, forbid_dtd=True):
            if element.tag == "layer":
                _check_layer(element, available)
                element.clear()
    except DefusedXmlException as error:
        raise ModelLoadError("the model's XML has a DOCTYPE or entities, which an IR never has") from error
    except OSError as error:
        raise ModelLoadError("the model's XML cannot be read") from error
    except (defusedxml.ElementTree.ParseError, UnicodeError) as error:
        raise ModelLoadError("the model's XML is not well-formed") from error


def _check_layer(layer: Any, available: int) -> None:
    kind, data = layer.get("type"), layer.find("data")
    if kind not in ("Const", "Parameter") or data is None:
        return
    name = layer.get("name", "?")
    try:
        if kind == "Const":
            _check_constant(name, data, available)
        else:
            _check_parameter(name, data)
    except (KeyError, ValueError) as error:
        raise ModelLoadError(f"layer {name!r} of the model's XML has attributes that are not numbers") from error


def _check_constant(name: str, data: Any, available: int) -> None:
    offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
    if offset < 0 or size < 0 or offset + size > available:
        raise ModelLoadError(
            f"constant {name!r} claims bytes {offset} to {offset + size} of a weights file of {available} bytes"
        )
    kind = data.get("element_type", "")
    if kind != "string" and math.prod(_shape(data)) * _bits(kind) > (size + 1) * 8:
        raise ModelLoadError(f"constant {name!r} declares more elements than its {size} bytes hold")


def _check_parameter(name: str, data: Any) -> None:
    sizes = [size for size in _shape(data) if size > 0]
    if math.prod(sizes) * _bits(data.get("element_type", "")) > MAX_TENSOR_BYTES * 8:
        raise ModelLoadError(f"input {name!r} declares {math.prod(sizes)} elements, more than a guest can hold")


def _shape(data: Any) -> list[int]:
    """Sizes; a dynamic dimension (``?`` or a range ``1..8``) counts as -1."""
    text = data.get("shape", "")
    sizes = (part.strip() for part in text.split(","))
    return [-1 if "?" in size or ".." in size else int(size) for size in sizes if size]


def _bits(element_type: str) -> int:
    digits = "".join(letter for letter in element_type if letter.isdigit())
    return _BITS.get(element_type) or int(digits or 8)
