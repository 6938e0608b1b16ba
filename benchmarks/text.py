"""Streams of generated text, and embeddings, over HTTP, over what the same machine can do without a server.

Server, engine and load are processes of their own, and take turns (``turns``), each time with the same prompts, which
neither has seen before; so does the least that a Litestar server of the engine can be (``bare_text``), which shows what
HTTP in Python leaves of it. ``--peers`` adds llama.cpp on the same GGUF, in a virtual environment of its own.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers.llamacpp_peer import llamacpp_rate
from benchmarks.report import best_of, median_ratio, parser, picked, print_table, write_json
from benchmarks.text_prompts import texts
from benchmarks.turns import Figures, Turn, asked, in_turns, loaded, run_json, served, started
from benchmarks.vision import limit, picture
from openvino_llama.registry import read_registry

GENERATOR, ENCODER, DETECTOR = "smollm2_135m_instruct", "all_minilm_l6_v2", "face_detection_short"
WANTED = {1: 0.95, 4: 0.95, 16: 0.90, 32: 0.90}
"""Streams -> the share of the engine's tokens per second that the server has to reach."""
WANTED_EMBEDDING = 0.85
TEXTS = 16
"""In one request for embeddings."""
CONNECTIONS = 8
SECONDS = 1.5
"""Of each measurement of embeddings."""


def pulled(folder: Path, names: Sequence[str]) -> list[str]:
    """Which of these models a registry in this folder has, after trying to pull them."""
    registry = folder / "registry.json"
    there = list(read_registry(registry).entries) if registry.exists() else []
    for name in names:
        if name in there:
            continue
        command = [sys.executable, "-m", "openvino_llama", "pull", name, "--registry", str(registry)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"without {name}: {done.stderr.strip().splitlines()[-1]}")
        else:
            there.append(name)
    return there


def streams(
    engine: Sequence[Any], servers: Mapping[str, Callable[[], AbstractContextManager[str]]], load: Any, options: Any
) -> Figures:
    """Engine and servers, of which one is ``server``, in turns; medians over all of them.

    ``engine`` and ``load`` are modules that are asked for a turn by its number, and their arguments, but for the load's
    first one, the server's address.
    """
    loads = {name: partial(_streaming, server, *load) for name, server in servers.items()}
    figures = in_turns({"engine": partial(asked, *engine)} | loads, options.rounds, options.turns)
    medians = {
        f"{name}_{unit}": statistics.median(each[unit] for each in measured)
        for unit in ("tps", "ttft_ms")
        for name, measured in figures.items()
    }
    rates = {name: [each["tps"] for each in measured] for name, measured in figures.items()}
    ratios = {f"{name}_ratio": median_ratio(rates[name], rates["engine"]) for name in servers}
    return {**medians, "ratio": ratios.pop("server_ratio"), **ratios}


@contextlib.contextmanager
def _streaming(server: Callable[[], AbstractContextManager[str]], module: str, *arguments: object) -> Iterator[Turn]:
    with server() as address, asked(module, address, *arguments) as turn:
        yield turn


def embedding(registry: Path, scratch: Path, options: Any) -> Figures:
    """Texts per second, the limit and the server in turns."""
    body, media_type = scratch / "texts.json", "application/json"
    body.write_text(json.dumps({"input": texts(TEXTS, 1)}))
    figures = in_turns(
        {
            "limit": lambda: limit(registry, ENCODER, body, media_type, SECONDS),
            "server": lambda: loaded(
                served(registry), f"/infer/text?model={ENCODER}", body, media_type, CONNECTIONS, SECONDS
            ),
        },
        2,
        2 * options.turns,
    )
    limits, rates = best_of(figures["limit"]), [each["rps"] for each in figures["server"]]
    return {
        "limit_texts_per_s": statistics.median(limits) * TEXTS,
        "server_texts_per_s": statistics.median(rates) * TEXTS,
        "ratio": median_ratio(rates, limits),
    }


def under_streams(registry: Path, scratch: Path, *, pictures: bool) -> dict[str, float]:
    """What 16 streams do to the event loop, and to pictures that come meanwhile."""
    figures = {}
    with asked("benchmarks.watched", registry) as ask:
        address = ask()["address"]
        with asked("benchmarks.text_load", address, GENERATOR, 16, 64) as stream:
            stream(0)
            ask()
            for number in range(1, 4):
                stream(number)
        figures["loop_stall_ms"] = ask()["stall_ms"]
        if pictures:
            figures |= _pictures_beside(address, scratch)
    return figures


def _pictures_beside(address: str, scratch: Path) -> dict[str, float]:
    file = scratch / "picture.jpg"
    file.write_bytes(picture())
    with asked("benchmarks.text_load", address, GENERATOR, 16, 128) as stream, ThreadPoolExecutor(1) as pool:
        streaming = pool.submit(lambda: [stream(number) for number in range(4, 8)])
        time.sleep(1)  # they have begun
        seen = run_json("benchmarks.load", f"{address}/infer/image?model={DETECTOR}", file, "image/jpeg", 1, 6)
        assert not streaming.done(), "the streams ended before the pictures"
        streaming.result()
    assert not seen["errors"], "pictures were answered with errors"
    return {"image_p50_ms": seen["p50_ms"], "image_p99_ms": seen["p99_ms"], "image_rps": seen["rps"]}


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--turns", type=int, default=3, help="in each round")
    arguments.add_argument("--tokens", type=int, default=96, help="of each stream")
    arguments.add_argument("--streams", type=int, nargs="+", default=list(WANTED))
    arguments.add_argument(
        "--registry", type=Path, help="folder with the models, which are pulled if they are not there"
    )
    arguments.add_argument("--peers", action="store_true", help="measure llama.cpp too (installs it)")
    options = arguments.parse_args()
    with TemporaryDirectory() as scratch:
        folder: Path = options.registry or Path(scratch)
        registry = folder / "registry.json"
        there = pulled(folder, (GENERATOR, ENCODER, DETECTOR))
        figures: dict[str, Any] = {"streams": {}}
        for count in options.streams:
            figures["streams"][str(count)] = streams(
                ("benchmarks.text_engine", folder / GENERATOR, count, options.tokens),
                {
                    "server": partial(served, registry),
                    "bare": partial(started, "benchmarks.bare_text", folder / GENERATOR),
                },
                ("benchmarks.text_load", GENERATOR, count, options.tokens),
                options,
            )
        if ENCODER in there:
            figures["embedding"] = embedding(registry, Path(scratch), options)
        figures |= under_streams(registry, Path(scratch), pictures=DETECTOR in there)
        if options.peers:
            figures["llamacpp_tps"] = llamacpp_rate(options.tokens, options.rounds)
    show(figures)
    write_json(options.json, figures)


def show(figures: dict[str, Any]) -> None:
    """Print the tables."""
    show_streams(figures["streams"], WANTED)
    if "embedding" in figures:
        each = figures["embedding"]
        row = (each["limit_texts_per_s"], each["server_texts_per_s"], each["ratio"], WANTED_EMBEDDING)
        print_table(("limit texts/s", "server texts/s", "ratio", "wanted"), [row])
    rest = [(name, value) for name, value in figures.items() if isinstance(value, float)]
    print_table(("under 16 streams, and peers", ""), rest)


def show_streams(figures: dict[str, Any], wanted: Mapping[int, float]) -> None:
    """Print what ``streams`` gave for each number of streams."""
    head = ("streams", "engine tok/s", "server tok/s", "ratio", "wanted", "bare", "TTFT ms: engine", "server", "bare")
    keys = (
        "engine_tps",
        "server_tps",
        "ratio",
        "wanted",
        "bare_ratio",
        "engine_ttft_ms",
        "server_ttft_ms",
        "bare_ttft_ms",
    )
    rows = {count: {"wanted": wanted.get(int(count), "-")} | each for count, each in figures.items()}
    print_table(head, picked(rows, keys))


if __name__ == "__main__":
    main()
