"""Real models give the right answers on real pictures, from a request's bytes to its results."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from openvino_llama import Reply

from .conftest import Encode
from .pictures import astronaut, page
from .runs import runs_to_mask
from .served import Served, read

FACE = (178, 76, 270, 186)  # left, top, right, bottom: forehead to chin and ear to ear, drawn by hand


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Intersection over union of two boxes of left, top, right, bottom."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    common = max(width, 0) * max(height, 0)
    return common / (sum(areas) - common)


def corners(box: dict[str, float]) -> tuple[float, float, float, float]:
    return box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_cat_is_a_cat_in_every_format(form: str, mobilenet: Served, mobilenet_dir: Path, encode: Encode) -> None:
    cat = Image.open(mobilenet_dir / "cat.bmp")
    results = mobilenet.request(encode(cat, form), f"image/{form.lower()}")
    assert len(results) == 5
    assert (results[0]["class_id"], results[0]["label"]) == (286, "Egyptian cat")
    assert results[0]["confidence"] > 0.6
    assert {each["class_id"] for each in results[1:3]} == {282, 283}


def test_the_specifications_entry_serves_the_quantised_model(
    mobilenet_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mean and std are for float models; one that takes u8 pixels is not harmed by them."""
    normalize = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    config = {
        "input_shape": [1, 3, 224, 224],
        "output_classes": 1001,
        "preprocessing": {"resize": [224, 224], "normalize": normalize},
    }
    model = read(mobilenet_dir / "mobilenet_v2_1.0_224_quant.tflite")
    served = Served(model, "classification", config)
    assert "normalize is not applied" in caplog.text
    results = served.request((mobilenet_dir / "cat.bmp").read_bytes(), "image/bmp", top_k=1)
    assert results == [{"label": "286", "confidence": pytest.approx(0.76, abs=0.02), "class_id": 286}]


def test_a_large_jpeg_decoded_smaller_is_the_same_cat(mobilenet: Served, mobilenet_dir: Path, encode: Encode) -> None:
    cat = Image.open(mobilenet_dir / "cat.bmp").resize((2048, 1364))
    whole, scaled = mobilenet.request(encode(cat)), mobilenet.request(encode(cat, "JPEG", quality=92), "image/jpeg")
    assert whole[0]["class_id"] == scaled[0]["class_id"] == 286
    assert scaled[0]["confidence"] == pytest.approx(whole[0]["confidence"], abs=0.1)


@pytest.mark.parametrize("quarter_turns", range(4))
def test_a_page_turned_clockwise_is_recognised(quarter_turns: int, orientation: Served, encode: Encode) -> None:
    turned = np.rot90(page(), -quarter_turns)
    (best,) = orientation.request(encode(turned), top_k=1)
    assert best["label"] == str(quarter_turns * 90)
    assert best["confidence"] > 0.8


@pytest.mark.parametrize("name", ["faces", "faces_short"])
@pytest.mark.parametrize("size", [(512, 512), (1200, 900), (500, 700)])
def test_there_is_one_face_where_a_human_sees_it(
    name: str, size: tuple[int, int], encode: Encode, request: pytest.FixtureRequest
) -> None:
    """Also when the picture is enlarged and lies in the corner of a wider or higher one."""
    model: Served = request.getfixturevalue(name)
    side = min(size)
    picture = Image.new("RGB", size, "grey")
    picture.paste(Image.fromarray(astronaut()).resize((side, side)), (size[0] - side, size[1] - side))
    (found,) = model.request(encode(picture))
    expected = tuple(each * side / 512 + size[axis % 2] - side for axis, each in enumerate(FACE))
    assert overlap(corners(found["box"]), expected) > 0.5
    assert found["label"] == "face"
    eyes = {each["label"]: (each["x"], each["y"]) for each in found["keypoints"]}
    assert eyes["right_eye"][0] < eyes["nose_tip"][0] < eyes["left_eye"][0]
    assert eyes["nose_tip"][1] < eyes["mouth_center"][1]


def test_no_face_in_a_picture_without_one(faces_short: Served, encode: Encode) -> None:
    assert faces_short.request(encode(page())) == []


def bird_mask(results: dict[str, Any]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(results["mask"]["data"]))))


def test_a_bird_is_cut_out(deeplab: Served, deeplab_dir: Path, encode: Encode) -> None:
    reference = np.asarray(Image.open(deeplab_dir / "bird_segmentation_mask.bmp"))
    results = deeplab.request((deeplab_dir / "bird_segmentation.bmp").read_bytes(), "image/bmp", mask="png")
    mask = bird_mask(results)
    assert mask.shape == reference.shape
    assert mask_iou(mask == 3, reference == 3) >= 0.85
    assert mask_iou(mask == 0, reference == 0) >= 0.95
    (bird,) = results["regions"]
    assert (bird["label"], bird["class_id"]) == ("bird", 3)
    assert bird["area"] == pytest.approx((mask == 3).sum(), rel=0.01)
    rows, columns = np.nonzero(reference == 3)
    box = (columns.min(), rows.min(), columns.max(), rows.max())
    assert overlap(corners(bird["box"]), box) > 0.9


def test_both_masks_and_the_polygon_say_the_same(deeplab: Served, deeplab_dir: Path) -> None:
    body = (deeplab_dir / "bird_segmentation.bmp").read_bytes()
    as_png = bird_mask(deeplab.request(body, "image/bmp", mask="png")) == 3
    results = deeplab.request(body, "image/bmp", mask="rle")
    height, width = results["mask"]["size"]
    (runs,) = [each for each in results["mask"]["classes"] if each["class_id"] == 3]
    assert np.array_equal(runs_to_mask(runs["counts"], (height, width)), as_png)
    drawn = Image.new("1", (width, height))
    ImageDraw.Draw(drawn).polygon([tuple(each) for each in results["regions"][0]["polygon"]], fill=1)
    assert mask_iou(np.asarray(drawn), as_png) > 0.98


def test_the_mask_has_the_size_of_the_picture(deeplab: Served, deeplab_dir: Path, encode: Encode) -> None:
    bird = Image.open(deeplab_dir / "bird_segmentation.bmp").resize((900, 600))
    reference = Image.open(deeplab_dir / "bird_segmentation_mask.bmp").resize((900, 600), Image.Resampling.NEAREST)
    results = deeplab.request(encode(bird), mask="png")
    assert results["mask"]["size"] == (600, 900)
    assert mask_iou(bird_mask(results) == 3, np.asarray(reference) == 3) > 0.85


def test_lines_of_text_are_regions(text_regions: Served, encode: Encode) -> None:
    """The page has a heading, five lines of prose and one of code, which is cut off below."""
    results = text_regions.request(encode(page()), mask="png")
    lines = sorted((corners(each["box"]) for each in results["regions"]), key=lambda box: box[1])
    assert 6 <= len(lines) <= 9
    assert {each["label"] for each in results["regions"]} == {"text"}
    assert all(each["confidence"] > 0.5 for each in results["regions"])
    assert lines[0][2] - lines[0][0] > 250  # the heading
    assert sum(right - left > 300 for left, _, right, _ in lines) >= 3  # full lines
    assert bird_mask(results).max() == 1


@pytest.mark.parametrize(
    ("name", "picture"),
    [("faces", astronaut), ("text_regions", page), ("orientation", page)],
)
def test_answers_can_be_drawn(name: str, picture: Any, encode: Encode, request: pytest.FixtureRequest) -> None:
    model: Served = request.getfixturevalue(name)
    reply = model.request(encode(picture()), produces="image/png")
    assert isinstance(reply, Reply)
    assert reply.media_type == "image/png"
    drawn = Image.open(io.BytesIO(reply.body))
    assert drawn.size == picture().shape[1::-1]
    assert not np.array_equal(np.asarray(drawn), np.asarray(Image.fromarray(picture()).convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 2)])
@pytest.mark.parametrize("name", ["mobilenet", "deeplab", "orientation", "faces", "text_regions"])
def test_tiny_and_thin_pictures_are_answered(
    name: str, size: tuple[int, int], encode: Encode, request: pytest.FixtureRequest
) -> None:
    model: Served = request.getfixturevalue(name)
    for form in ("PNG", "JPEG"):
        body = encode(Image.new("RGB", size, "white"), form)
        asked = {"mask": "rle"} if model.config.task == "segmentation" else {}
        assert model.request(body, f"image/{form.lower()}", **asked) is not None
        assert isinstance(model.request(body, f"image/{form.lower()}", "image/png"), Reply)
