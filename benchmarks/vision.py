"""HTTP throughput of the server over the in-process limit of the same machine, in one run.

Server, load and limit are processes of their own and take turns (``turns``); so does the least that a Litestar server
can be (``bare``), which shows how much of the limit HTTP in Python leaves. ``--peers`` adds LitServe, in a virtual
environment of its own, with the same model file and the same preprocessing.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from benchmarks.peers.litserve_peer import litserve_url
from benchmarks.report import best_of, median_ratio, parser, picked, print_table, write_json
from benchmarks.turns import ROOT, Turn, asked, in_turns, loaded, run_json, served, started

MODELS = {"mobilenet_v2": 0.90, "face_detection_short": 0.70}
"""Model -> the share of the limit that the server has to reach."""
MIRROR = ROOT.parent / "shared" / "models"
CONNECTIONS = 16
BARE_THREADS = 4


def picture() -> bytes:
    """A photograph of 450 x 300 pixels as JPEG."""
    buffer = io.BytesIO()
    Image.open(str(files("skimage") / "data" / "chelsea.png")).convert("RGB").resize((450, 300)).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def measure(name: str, registry: Path, file: Path, options: Any) -> dict[str, float]:
    """Medians over all turns. The limit is that of the best number of threads."""
    path = f"/infer/image?model={name}"
    load = (file, "image/jpeg", CONNECTIONS, options.seconds)
    figures = in_turns(
        {
            "limit": lambda: limit(registry, name, file, "image/jpeg", options.seconds),
            "server": lambda: loaded(served(registry), path, *load),
            "bare": lambda: loaded(started("benchmarks.bare", registry, name, BARE_THREADS), path, *load),
        },
        options.rounds,
        options.turns,
    )
    limits = best_of(figures["limit"])
    rates, bares = ([each["rps"] for each in figures[server]] for server in ("server", "bare"))
    with loaded(served(registry), path, file, "image/jpeg", 1, 4 * options.seconds) as alone:
        alone(0)
        latencies = {quantile: value for quantile, value in alone(1).items() if quantile in ("p50_ms", "p99_ms")}
    return {
        "limit_rps": statistics.median(limits),
        "server_rps": statistics.median(rates),
        "ratio": median_ratio(rates, limits),
        "bare_ratio": median_ratio(bares, limits),
        **latencies,
    }


@contextlib.contextmanager
def limit(registry: Path, name: str, file: Path, media_type: str, seconds: float) -> Iterator[Turn]:
    """The rates of each number of threads without a server."""
    with asked("benchmarks.inprocess", registry, name, file, media_type) as ask:
        yield lambda _: ask(seconds)


def pulled(folder: Path, name: str) -> Path:
    """A registry with this model alone, so that nothing else runs in the server."""
    command = [sys.executable, "-m", "openvino_llama", "pull", name, "--registry", str(folder / "registry.json")]
    mirror = ["--mirror", str(MIRROR)] if MIRROR.is_dir() else []
    subprocess.run([*command, *mirror], check=True, capture_output=True)
    return folder / "registry.json"


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--turns", type=int, default=4, help="in each round")
    arguments.add_argument("--seconds", type=float, default=1.5, help="length of each measurement")
    arguments.add_argument("--peers", action="store_true", help="measure LitServe too (installs it)")
    options = arguments.parse_args()
    figures: dict[str, dict[str, float]] = {}
    with TemporaryDirectory() as scratch:
        file = Path(scratch) / "picture.jpg"
        file.write_bytes(picture())
        json_file = Path(scratch) / "picture.json"
        json_file.write_text(json.dumps({"image": base64.b64encode(picture()).decode()}))
        for name in MODELS:
            registry = pulled(Path(scratch) / name, name)
            figures[name] = measure(name, registry, file, options)
            if options.peers:
                with litserve_url(registry, name) as url:
                    run_json("benchmarks.load", url, json_file, "application/json", CONNECTIONS, 1)
                    peer = run_json("benchmarks.load", url, json_file, "application/json", CONNECTIONS, 4)
                    assert not peer["errors"], "LitServe answered with errors"
                    figures[name]["litserve_rps"] = peer["rps"]
    head = ("model", "limit/s", "server/s", "ratio", "wanted", "bare ratio", "p50 ms", "p99 ms", "LitServe/s")
    keys = ("limit_rps", "server_rps", "ratio", "wanted", "bare_ratio", "p50_ms", "p99_ms", "litserve_rps")
    rows = {name: {"wanted": MODELS[name]} | each for name, each in figures.items()}
    print_table(head, picked(rows, keys))
    write_json(options.json, {"models": figures})


if __name__ == "__main__":
    main()
