"""IRs that lie: refused before OpenVINO believes them."""

from __future__ import annotations

from pathlib import Path

import openvino as ov
import pytest
from tests.sandbox import support

from openvino_llama.backends.ir import check_ir
from openvino_llama.errors import ModelLoadError


@pytest.fixture
def xml(tmp_path: Path) -> Path:
    """A good IR: x (1, 4) times a constant (4, 3)."""
    path = tmp_path / "model.xml"
    ov.save_model(support.weighted(), path, compress_to_fp16=False)
    return path


def change(xml: Path, old: str, new: str) -> None:
    content = xml.read_text()
    assert old in content
    xml.write_text(content.replace(old, new))


def refused(xml: Path, match: str) -> None:
    with pytest.raises(ModelLoadError, match=match) as caught:
        check_ir(xml, xml.with_suffix(".bin"))
    assert str(xml.parent) not in str(caught.value)


def test_a_good_one_passes(xml: Path) -> None:
    """What OpenVINO itself wrote is fine."""
    check_ir(xml, xml.with_suffix(".bin"))


@pytest.mark.parametrize("types", [("f16",), ("i64",), ("u8",), ("f64",)])
def test_every_element_type_passes(tmp_path: Path, types: tuple[str]) -> None:
    """Constants of each size of element."""
    x = support.parameter("x", (3,), types[0])
    constant = ov.opset13.constant([1, 2, 3], dtype=support.OV_TYPES[types[0]])
    path = tmp_path / "typed.xml"
    ov.save_model(support.model([x], y=ov.opset13.add(x, constant)), path, compress_to_fp16=False)
    check_ir(path, path.with_suffix(".bin"))


def test_a_constant_of_a_trillion_elements(xml: Path) -> None:
    """Dimensions that the weights cannot hold are refused: OpenVINO would allocate them."""
    change(xml, 'shape="4, 3"', 'shape="1000000, 1000000"')
    refused(xml, "declares more elements than its 48 bytes hold")


def test_dimensions_whose_product_overflows(xml: Path) -> None:
    """A product that is small modulo 2**64 is not small."""
    change(xml, 'shape="4, 3"', 'shape="4294967296, 4294967296"')
    refused(xml, "declares more elements")


def test_a_constant_behind_the_weights(xml: Path) -> None:
    """Offset and size have to lie inside the file."""
    change(xml, 'offset="0" size="48"', 'offset="1000000000000" size="48"')
    refused(xml, "of a weights file of 48 bytes")


def test_truncated_weights(xml: Path) -> None:
    """So does every constant when the file has become shorter."""
    weights = xml.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(xml, "claims bytes 0 to 48 of a weights file of 47 bytes")


def test_missing_weights(xml: Path) -> None:
    """No file is a file of no bytes."""
    xml.with_suffix(".bin").unlink()
    refused(xml, "of 0 bytes")


def test_a_huge_input(xml: Path) -> None:
    """An input that no 32-bit guest could hold."""
    change(xml, '<data shape="1,4"', '<data shape="1000000,1000000"')
    refused(xml, "input 'x' declares 1000000000000 elements")


@pytest.mark.parametrize("size", ["-1", "x", "1e3", ""])
def test_attributes_that_are_no_sizes(xml: Path, size: str) -> None:
    """They name the layer."""
    change(xml, 'size="48"', f'size="{size}"')
    refused(xml, "constant|layer")


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE net [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE net [<!ENTITY file SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE net SYSTEM "http://example.invalid/net.dtd">',
    ],
)
def test_entities_and_document_types(xml: Path, declaration: str) -> None:
    """An IR has neither; nothing is expanded, opened or fetched."""
    change(xml, "<net ", f"{declaration}<net ")
    refused(xml, "DOCTYPE or entities")


@pytest.mark.parametrize("content", [b"", b"<net", b"<net></ner>", b"\xff\xfe\x00", b"\0" * 100])
def test_no_xml(xml: Path, content: bytes) -> None:
    """What cannot be parsed is refused."""
    xml.write_bytes(content)
    refused(xml, "not well-formed")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Is an error like the others."""
    with pytest.raises(ModelLoadError, match="cannot be read"):
        check_ir(tmp_path / "none.xml", None)
