"""Pictures over HTTP, through plugin, sandbox and OpenVINO, against what is known of them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.plugins.vision.pictures import astronaut, page

FACE = (178, 76, 270, 186)
"""Left, top, right, bottom of the face in skimage's astronaut, drawn by hand: forehead to chin, ear to ear."""


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def infer(client: httpx.Client, model: str, body: bytes, kind: str = "png", **parameters: Any) -> Any:
    """The ``results`` of a model."""
    answer = client.post(
        "/infer/image", content=body, params={"model": model} | parameters, headers={"Content-Type": f"image/{kind}"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "bmp", "tiff"])
def test_cat(client: httpx.Client, mobilenet_dir: Path, kind: str) -> None:
    """MobileNetV2 calls the cat an Egyptian cat, whatever the file format."""
    body = encoded(Image.open(mobilenet_dir / "cat.bmp"), kind)
    results = infer(client, "mobilenet_v2", body, kind, top_k=3)
    assert (results[0]["class_id"], results[0]["label"]) == (286, "Egyptian cat")
    assert [each["class_id"] for each in results[1:]] == [282, 283]
    assert 0.6 < results[0]["confidence"] < 0.9


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_orientation(client: httpx.Client, degrees: int) -> None:
    """A page that is turned clockwise by so many degrees is seen to be."""
    turned = Image.fromarray(page()).rotate(-degrees, expand=True)
    assert infer(client, "document_orientation", encoded(turned))[0]["label"] == str(degrees)


@pytest.mark.parametrize("model", ["face_detection", "face_detection_short"])
def test_face(client: httpx.Client, model: str) -> None:
    """One astronaut has one face, where the eye sees it."""
    (face,) = infer(client, model, encoded(Image.fromarray(astronaut())))
    box = face["box"]
    found = (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
    assert overlap(found, FACE) > 0.5


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def test_bird(client: httpx.Client, deeplab_dir: Path) -> None:
    """DeepLabV3's bird covers the reference mask's."""
    body = (deeplab_dir / "bird_segmentation.bmp").read_bytes()
    mask = infer(client, "deeplabv3", body, "bmp", mask="rle")["mask"]
    (bird,) = (each for each in mask["classes"] if each["label"] == "bird")
    found = decoded(bird["counts"], *mask["size"])
    reference = np.asarray(Image.open(deeplab_dir / "bird_segmentation_mask.bmp")) == 3
    assert found.shape == reference.shape
    assert (found & reference).sum() / (found | reference).sum() >= 0.85


def decoded(counts: list[int], height: int, width: int) -> NDArray[np.bool_]:
    """A mask from its run lengths: column after column, beginning with the background."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def test_text_regions(client: httpx.Client) -> None:
    """Every line of the page is a region of text, and the picture that is drawn has the page's size."""
    body = encoded(Image.fromarray(page()))
    regions = infer(client, "text_regions", body)["regions"]
    assert len(regions) == 7
    assert {each["label"] for each in regions} == {"text"}
    assert regions[0]["box"]["width"] > 250
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    answer = client.post("/infer/image?model=text_regions", content=body, headers=headers)
    assert answer.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), np.int16)
    assert drawn.shape[:2] == page().shape
    assert (drawn[..., 0] - drawn[..., 1] > 60).sum() > 1000, "nothing red is drawn over the grey page"
