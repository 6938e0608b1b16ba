"""The plugin as the host sees it: hooks, model type, index; and what it imports."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from openvino_llama import InferenceRequest, Reply
from openvino_llama.plugins import Plugins, load_plugins
from openvino_llama.sources import read_index
from openvino_llama_vision import plugin

from .conftest import INDEX, Encode
from .pictures import astronaut
from .served import Served

SOURCES = Path(plugin.__file__).parent


def test_the_host_takes_it() -> None:
    plugins = Plugins()
    plugins.add(plugin, name="vision")
    vision = plugins.model_type("vision")
    assert (vision.endpoint, vision.streaming) == ("image", ())
    assert vision.tasks == ("classification", "detection", "segmentation")
    assert set(vision.accepts) == {f"image/{each}" for each in ("jpeg", "png", "webp", "bmp", "tiff")}
    assert vision.produces == ("application/json", "image/png")


def test_it_is_found_by_its_entry_point() -> None:
    (report,) = [each for each in load_plugins().reports if each.name == "vision"]
    assert (report.status, report.distribution) == ("loaded", "openvino-llama-vision")


def test_the_index_can_be_read_and_has_the_starters() -> None:
    models = read_index([plugin.model_index()])
    starters = {name for name, model in models.items() if model.starter}
    assert starters == {"document_orientation", "face_detection", "face_detection_short", "text_regions"}
    assert set(models) - starters == {"mobilenet_v2", "deeplabv3"}
    for name, model in models.items():
        assert model.sample is not None
        assert {Path(file.path).parts[0] for file in model.files.values()} == {name}


@pytest.mark.parametrize("name", sorted(INDEX))
def test_files_of_the_index_are_the_ones_that_are_tested(name: str, request: pytest.FixtureRequest) -> None:
    import hashlib

    fixture = {"mobilenet_v2": "mobilenet_dir", "deeplabv3": "deeplab_dir"}.get(name, "starter_files")
    folder: Path = request.getfixturevalue(fixture)
    for file in INDEX[name]["files"].values():
        content = next(folder.rglob(Path(file["path"]).name)).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (file["sha256"], file["size"])


def test_only_public_names_of_the_host_are_imported() -> None:
    for path in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("openvino_llama."):
                pytest.fail(f"{path.name} imports {node.module}")


def test_loading_the_plugin_loads_neither_openvino_nor_scikit_image() -> None:
    program = "import sys, openvino_llama_vision.plugin; print({'openvino', 'skimage', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_request_without_parameters_has_the_defaults(colours: Served, encode: Encode) -> None:
    body = encode(Image.new("RGB", (8, 8), "red"))
    prepared = plugin.preprocess(colours.config, InferenceRequest(body, "image/png"))
    outputs = colours.infer(dict(prepared.tensors))
    assert plugin.postprocess(colours.config, outputs, prepared.context)[0].label == "red"


def test_a_drawing_shows_the_picture_as_it_is_displayed(colours: Served, encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    reply = colours.request(encode(Image.new("RGB", (640, 400), "red"), "JPEG", exif=exif), "image/jpeg", "image/png")
    assert isinstance(reply, Reply)
    assert Image.open(io.BytesIO(reply.body)).size == (400, 640)


def test_boxes_are_in_pixels_of_the_picture_as_it_is_displayed(faces: Served, encode: Encode) -> None:
    """A picture stored lying down, with the note to turn it, has its face where the upright one has it."""
    upright = Image.fromarray(astronaut()).resize((500, 700))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    (expected,), (found,) = faces.request(encode(upright)), faces.request(lying, "image/jpeg")
    for side in ("x", "y", "width", "height"):
        assert found["box"][side] == pytest.approx(expected["box"][side], abs=4)


def test_many_threads_get_their_own_answers(colours: Served, encode: Encode) -> None:
    bodies = {name: encode(Image.new("RGB", (200, 100), name), "JPEG") for name in ("red", "lime", "blue")}
    expected = {"red": "red", "lime": "green", "blue": "blue"}
    lock = threading.Lock()  # one compiled model of the test, called directly, runs one request at a time

    def ask(name: str) -> bool:
        prepared = plugin.preprocess(colours.config, InferenceRequest(bodies[name], "image/jpeg"))
        with lock:
            outputs = {key: np.copy(value) for key, value in colours.infer(dict(prepared.tensors)).items()}
        return bool(plugin.postprocess(colours.config, outputs, prepared.context)[0].label == expected[name])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, [*bodies] * 60))
