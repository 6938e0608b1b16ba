"""HTTP throughput of the server over the in-process limit of the same machine, in one run.

Server, load and limit are processes of their own and take turns; so does the least that a Litestar server can be
(``bare``), which shows how much of the limit HTTP in Python leaves. ``--peers`` adds LitServe, in a virtual environment
of its own, with the same model file and the same preprocessing.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import signal
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
from benchmarks.report import best_of, parser, print_table, write_json

MODELS = {"mobilenet_v2": 0.90, "face_detection_short": 0.70}
"""Model -> the share of the limit that the server has to reach."""
ROOT = Path(__file__).resolve().parent.parent
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


@contextlib.contextmanager
def served(registry: Path) -> Iterator[str]:
    """A server of its own; its address."""
    with _started("openvino_llama", "serve", "--registry", registry, "--port", "0") as address:
        yield address


@contextlib.contextmanager
def _started(module: str, *arguments: object) -> Iterator[str]:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout
        yield process.stdout.readline().split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def run_json(module: str, *arguments: object) -> dict[str, Any]:
    """Run a benchmark's part in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def measure(name: str, registry: Path, file: Path, options: Any) -> dict[str, float]:
    """Limit and server in turns; medians over the rounds. The limit is that of the best number of threads."""
    tried, servers, bares = [], [], []
    for _ in range(options.rounds):
        tried.append(run_json("benchmarks.inprocess", registry, name, file, "image/jpeg", options.seconds))
        with served(registry) as address:
            url = f"{address}/infer/image?model={name}"
            run_json("benchmarks.load", url, file, "image/jpeg", CONNECTIONS, 1)
            servers.append(run_json("benchmarks.load", url, file, "image/jpeg", CONNECTIONS, options.seconds))
            alone = run_json("benchmarks.load", url, file, "image/jpeg", 1, options.seconds)
        with _started("benchmarks.bare", registry, name, BARE_THREADS) as address:
            url = f"{address}/infer/image"
            run_json("benchmarks.load", url, file, "image/jpeg", CONNECTIONS, 1)
            bares.append(run_json("benchmarks.load", url, file, "image/jpeg", CONNECTIONS, options.seconds))
    assert not any(each["errors"] for each in (*servers, *bares)), "a server answered with errors"
    limits = best_of(tried)
    limit, rate = statistics.median(limits), statistics.median(each["rps"] for each in servers)
    ratio = statistics.median(each["rps"] / limit for each, limit in zip(servers, limits, strict=True))
    bare = statistics.median(each["rps"] / limit for each, limit in zip(bares, limits, strict=True))
    latencies = {"p50_ms": alone["p50_ms"], "p99_ms": alone["p99_ms"]}
    return {"limit_rps": limit, "server_rps": rate, "ratio": ratio, "bare_ratio": bare} | latencies


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
    arguments.add_argument("--seconds", type=float, default=4.0, help="length of each measurement")
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
                    peer = run_json("benchmarks.load", url, json_file, "application/json", CONNECTIONS, options.seconds)
                    assert not peer["errors"], "LitServe answered with errors"
                    figures[name]["litserve_rps"] = peer["rps"]
    head = ("model", "limit/s", "server/s", "ratio", "wanted", "bare ratio", "p50 ms", "p99 ms", "LitServe/s")
    rows = [
        (
            name,
            each["limit_rps"],
            each["server_rps"],
            each["ratio"],
            MODELS[name],
            each["bare_ratio"],
            each["p50_ms"],
            each["p99_ms"],
            each.get("litserve_rps", "-"),
        )
        for name, each in figures.items()
    ]
    print_table(head, rows)
    write_json(options.json, {"models": figures})


if __name__ == "__main__":
    main()
