"""Streams of generated text, and embeddings, over HTTP, over what the same machine can do without a server.

Server, engine and load are processes of their own. Engine and server take turns, each started anew and with no other
beside it: where two lived at the same time, the one that had been started first was slower, by up to a tenth.
``--peers`` adds llama.cpp on the same GGUF, in a virtual environment of its own.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.peers.llamacpp_peer import llamacpp_rate
from benchmarks.report import best_of, parser, print_table, write_json
from benchmarks.text_prompts import texts
from benchmarks.vision import picture, run_json, served
from openvino_llama.registry import read_registry

GENERATOR, ENCODER, DETECTOR = "smollm2_135m_instruct", "all_minilm_l6_v2", "face_detection_short"
WANTED = {1: 0.95, 4: 0.95, 16: 0.90, 32: 0.90}
"""Streams -> the share of the engine's tokens per second that the server has to reach."""
WANTED_EMBEDDING = 0.85
TEXTS = 16
"""In one request for embeddings."""
CONNECTIONS = 8
REPEATS = 3


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


def in_turns(engine: Sequence[object], registry: Path, load: Sequence[object], rounds: int) -> dict[str, float]:
    """Engine and server in turns; medians over the rounds.

    ``engine`` and ``load`` are modules and their arguments, but for the load's first one, the server's address, and
    the last one of both, how often each repeats its measurement.
    """
    engines, servers = [], []
    module, *arguments = map(str, load)
    for _ in range(rounds):
        engines.append(run_json(*map(str, engine), REPEATS))
        with served(registry) as address:
            servers.append(run_json(module, address, *arguments, REPEATS))
    ratios = [server["tps"] / engine["tps"] for engine, server in zip(engines, servers, strict=True)]
    return {
        "engine_tps": statistics.median(each["tps"] for each in engines),
        "server_tps": statistics.median(each["tps"] for each in servers),
        "ratio": statistics.median(ratios),
        "engine_ttft_ms": statistics.median(each["ttft_ms"] for each in engines),
        "server_ttft_ms": statistics.median(each["ttft_ms"] for each in servers),
    }


def embedding(registry: Path, scratch: Path, options: Any) -> dict[str, float]:
    """Texts per second, the limit and the server in turns."""
    body = scratch / "texts.json"
    body.write_text(json.dumps({"input": texts(TEXTS, 1)}))
    tried, servers = [], []
    for _ in range(options.rounds):
        tried.append(run_json("benchmarks.inprocess", registry, ENCODER, body, "application/json", 4))
        with served(registry) as address:
            url = f"{address}/infer/text?model={ENCODER}"
            run_json("benchmarks.load", url, body, "application/json", CONNECTIONS, 1)
            servers.append(run_json("benchmarks.load", url, body, "application/json", CONNECTIONS, 4))
    assert not any(each["errors"] for each in servers), "the server answered with errors"
    limits, rates = best_of(tried), [each["rps"] for each in servers]
    return {
        "limit_texts_per_s": statistics.median(limits) * TEXTS,
        "server_texts_per_s": statistics.median(rates) * TEXTS,
        "ratio": statistics.median(rate / limit for rate, limit in zip(rates, limits, strict=True)),
    }


@contextlib.contextmanager
def watched(registry: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server that tells how long its event loop has stalled."""
    command = [sys.executable, "-m", "benchmarks.watched", str(registry)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout
    try:
        yield process.stdout.readline().split()[-1], process
    finally:
        process.stdin.close()
        process.wait(60)


def stall(process: subprocess.Popen[str]) -> float:
    """The longest one since the last time, in milliseconds."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline())["stall_ms"])


def under_streams(registry: Path, scratch: Path, *, pictures: bool) -> dict[str, float]:
    """What 16 streams do to the event loop, and to pictures that come meanwhile."""
    figures = {}
    with watched(registry) as (address, process):
        run_json("benchmarks.text_load", address, GENERATOR, 16, 16, 1)
        stall(process)
        run_json("benchmarks.text_load", address, GENERATOR, 16, 64, 2)
        figures["loop_stall_ms"] = stall(process)
        if pictures:
            file = scratch / "picture.jpg"
            file.write_bytes(picture())
            arguments = ("benchmarks.text_load", address, GENERATOR, 16, 128, 2)
            loading = threading.Thread(target=run_json, args=arguments)
            loading.start()
            seen = run_json("benchmarks.load", f"{address}/infer/image?model={DETECTOR}", file, "image/jpeg", 1, 6)
            loading.join()
            assert not seen["errors"], "pictures were answered with errors"
            figures |= {"image_p50_ms": seen["p50_ms"], "image_p99_ms": seen["p99_ms"], "image_rps": seen["rps"]}
    return figures


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
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
            figures["streams"][str(count)] = in_turns(
                ("benchmarks.text_engine", folder / GENERATOR, count, options.tokens),
                registry,
                ("benchmarks.text_load", GENERATOR, count, options.tokens),
                options.rounds,
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
    """Print what ``in_turns`` gave for each number of streams."""
    head = ("streams", "engine tok/s", "server tok/s", "ratio", "wanted", "engine TTFT ms", "server TTFT ms")
    rows = []
    for count, each in figures.items():
        times = (each["engine_ttft_ms"], each["server_ttft_ms"])
        rows.append((count, each["engine_tps"], each["server_tps"], each["ratio"], wanted.get(int(count), "-"), *times))
    print_table(head, rows)


if __name__ == "__main__":
    main()
