"""``ovllama serve`` as a process: its one line, its signals, its errors."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.distributions import write_tiny
from tests.server.support import GOOD, numbers, write_registry

START_SECONDS = 30


class Process:
    """A server in a process of its own."""

    def __init__(self, child: subprocess.Popen[str], address: str) -> None:
        self.child = child
        self.address = address
        self.pool = ThreadPoolExecutor(32)

    def infer(self, body: dict[str, Any] = GOOD, model: str = "double") -> httpx.Response:
        with httpx.Client(base_url=self.address, timeout=30, trust_env=False) as client:
            return client.post("/infer/tiny", params={"model": model}, json=body)

    def infer_later(self, body: dict[str, Any] = GOOD, model: str = "double") -> Future[httpx.Response]:
        return self.pool.submit(self.infer, body, model)

    def running(self, model: str) -> int:
        """Requests of a model that have begun."""
        text = httpx.get(f"{self.address}/metrics", trust_env=False).text
        found = re.search(rf'ovllama_stage_seconds_count{{model="{model}",stage="queue"}} (\d+)', text)
        return int(found[1]) if found else 0

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> None:
        self.child.send_signal(sent)


@pytest.fixture(scope="module")
def plugin_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_tiny(folder)
    return folder


def environment(plugin_path: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OVLLAMA", "DEFAULT_", "MODEL_"))}
    return kept | {"PYTHONPATH": str(plugin_path), "OVLLAMA_CACHE_DIR": "", "OVLLAMA_DISABLED_PLUGINS": "vision"} | more


def command(*arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, "-m", "openvino_llama", *options, "serve", *arguments]


@contextmanager
def process(registry: Path, plugin_path: Path, *options: str, **more: str) -> Iterator[Process]:
    child = subprocess.Popen(
        command("--registry", str(registry), "--port", "0", options=options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(plugin_path, **more),
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        line = child.stdout.readline()
        matched = re.fullmatch(r"OpenVINO-Llama serves on (http://127\.0\.0\.1:\d+)\n", line)
        assert matched, (line, child.stderr.read() if child.poll() is not None else "")
        yield Process(child, matched[1])
    finally:
        if child.poll() is None:
            child.kill()
        child.communicate()


def test_one_line_then_requests_then_a_clean_end(registry: Path, plugin_path: Path) -> None:
    """The address is printed when the models are loaded; SIGTERM ends an idle server at once with 0."""
    with process(registry, plugin_path) as server:
        assert numbers(server.infer()) == [[2.0, 4.0, 6.0, 8.0]]
        server.stop()
        out, err = server.child.communicate(timeout=10)
        assert (out, err, server.child.returncode) == ("", "", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has SCHED_BATCH")
def test_its_threads_do_not_interrupt_each_other(registry: Path, plugin_path: Path) -> None:
    """Nor the models' threads, which it has started."""
    with process(registry, plugin_path) as served:
        threads = [int(each.name) for each in Path(f"/proc/{served.child.pid}/task").iterdir()]
        assert len(threads) > 3
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


@pytest.mark.parametrize(("sent", "again"), [(signal.SIGTERM, "a second signal"), (signal.SIGINT, "Ctrl-C again")])
def test_accepted_requests_are_finished(registry: Path, plugin_path: Path, sent: signal.Signals, again: str) -> None:
    """After the signal what runs and what waits is answered, new connections are refused, the exit code is 0."""
    with process(registry, plugin_path) as server:
        accepted = [server.infer_later(GOOD | {"sleep": 0.4}) for _ in range(3)]
        while server.running("double") < 1:
            time.sleep(0.01)
        with httpx.Client(base_url=server.address, trust_env=False) as idle:
            assert idle.get("/health/ready").status_code == 200
            time.sleep(0.2)
            server.stop(sent)
            time.sleep(0.3)
            with pytest.raises(httpx.TransportError):
                server.infer()
            assert [numbers(each.result()) for each in accepted] == [[[2.0, 4.0, 6.0, 8.0]]] * 3
        _, err = server.child.communicate(timeout=10)
        assert err == f"WARNING openvino_llama.server.serving: finishing 3 requests; {again} ends at once\n"
        assert server.child.returncode == 0


def test_a_second_signal_ends_at_once(registry: Path, plugin_path: Path) -> None:
    """Whoever cannot wait need not."""
    with process(registry, plugin_path) as server:
        accepted = server.infer_later(GOOD | {"sleep": 8})
        while server.running("double") < 1:
            time.sleep(0.01)
        server.stop()
        time.sleep(0.3)
        assert server.child.poll() is None
        server.stop()
        assert server.child.wait(timeout=2) == 128 + signal.SIGTERM
        with pytest.raises(httpx.TransportError):
            accepted.result()


def test_a_client_that_never_ends_cannot_prevent_the_stop(registry: Path, plugin_path: Path) -> None:
    """A body that is never finished is waited for as long as OVLLAMA_STOP_SECONDS says."""
    with process(registry, plugin_path, OVLLAMA_STOP_SECONDS="1") as server:
        host, port = server.address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"POST /models/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            connection.sendall(b"Content-Length: 100\r\n\r\n{")
            time.sleep(0.3)
            server.stop()
            server.child.communicate(timeout=10)
            assert server.child.returncode == 0


def test_a_plugin_that_never_returns_cannot_prevent_the_stop(registry: Path, plugin_path: Path) -> None:
    """Some seconds after what requests have left, the process leaves all the same, and says so by its exit code."""
    with process(registry, plugin_path, OVLLAMA_STOP_SECONDS="1") as server:
        held = server.infer_later(GOOD | {"sleep": 60})
        while server.running("double") < 1:
            time.sleep(0.01)
        server.stop()
        assert server.child.wait(timeout=15) == 1
        held.exception()  # an answer that it was given up, or none: the client does not wait for ever


def test_a_signal_while_models_are_loading(tmp_path: Path, tiny_files: Path, plugin_path: Path) -> None:
    """The model that is being loaded is finished, the others are not begun; no address is printed."""
    for suffix in ("xml", "bin"):
        (tmp_path / f"double.{suffix}").write_bytes((tiny_files / f"double.{suffix}").read_bytes())
    entry = {"files": {"model": "double.xml"}, "config": {"prepare_seconds": 1.0}}
    registry = write_registry(tmp_path, **{f"model-{number}": entry for number in range(20)})
    child = subprocess.Popen(
        command("--registry", str(registry), "--port", "0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(plugin_path),
    )
    time.sleep(2.5)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=10)
    assert (out, err, child.returncode) == ("", "", 0)


def run(plugin_path: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env=environment(plugin_path, **more),
    )


def test_a_port_that_is_taken(registry: Path, plugin_path: Path) -> None:
    """One line says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(plugin_path, "--registry", str(registry), "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; --port chooses another port, 0 a free one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (["--host", "192.0.2.1"], {}, "cannot listen on 192.0.2.1"),
        (["--host", "no.such.host.invalid"], {}, "cannot listen on no.such.host.invalid"),
        (["--host", ""], {}, "setting --host: "),
        (["--port", "70000"], {}, "setting --port: Expected `int` <= 65535"),
        (["--port", "-1"], {"OVLLAMA_PORT": "many"}, "setting --port: "),
        (["--max-batch-size", "0"], {}, "setting --max-batch-size: "),
        ([], {"OVLLAMA_PORT": "many"}, "OVLLAMA_PORT"),
        ([], {"OVLLAMA_PORT": ""}, "OVLLAMA_PORT"),
        ([], {"MAX_BATCH_SIZE": "1.5"}, "MAX_BATCH_SIZE"),
        ([], {"OVLLAMA_MAX_BODY_BYTES": "-5"}, "OVLLAMA_MAX_BODY_BYTES"),
        ([], {"OVLLAMA_API_KEY": ""}, "OVLLAMA_API_KEY"),
        ([], {"MODEL_REGISTRY_PATH": ""}, "MODEL_REGISTRY_PATH"),
        (["--default-model", "tiny"], {}, "--default-model is TYPE=NAME, not 'tiny'"),
    ],
)
def test_wrong_settings(plugin_path: Path, arguments: list[str], variables: dict[str, str], said: str) -> None:
    """A line that names the setting, and no traceback."""
    done = run(plugin_path, *arguments, **variables)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_registry_that_is_missing(tmp_path: Path, plugin_path: Path) -> None:
    """The server starts without models, and says so."""
    with process(tmp_path / "none.json", plugin_path) as server:
        assert httpx.get(f"{server.address}/models", trust_env=False).json() == {"models": [], "problems": {}}
        server.stop()
        _, err = server.child.communicate(timeout=10)
    assert "there is no registry" in err
    assert server.child.returncode == 0


@pytest.mark.parametrize("verbose", [False, True])
def test_models_that_cannot_be_loaded(tmp_path: Path, plugin_path: Path, verbose: bool) -> None:
    """Each is a line; the causes come with -v."""
    (tmp_path / "broken.onnx").write_text("no model")
    broken, missing = ({"files": {"model": name}} for name in ("broken.onnx", "missing.xml"))
    registry = write_registry(tmp_path, broken=broken, missing=missing)
    with process(registry, plugin_path, *(["-v"] if verbose else [])) as server:
        server.stop()
        _, err = server.child.communicate(timeout=10)
    errors = [line for line in err.splitlines() if line.startswith("ERROR openvino_llama")]
    assert len(errors) == 2
    assert errors[0].endswith("OpenVINO could not read the model; ovllama -v serve logs the cause")
    assert errors[1].endswith("file 'missing.xml': there is no such file in the models folder")
    assert ("Traceback" in err) == verbose


def resident(process_id: int) -> int:
    """Resident memory of a process in KiB."""
    status = Path(f"/proc/{process_id}/status")
    if not status.exists():
        pytest.skip("no /proc on this system")
    return int(re.findall(r"VmRSS:\s+(\d+)", status.read_text())[0])


@pytest.mark.slow
@pytest.mark.parametrize(("cached", "turns"), [(True, 200), (False, 100)])
def test_loading_and_unloading_leaks_nothing(
    tmp_path: Path, plugin_path: Path, starter_files: Path, cached: bool, turns: int
) -> None:
    """With the cache of compiled models and without: after twenty times, memory grows by less than 5 %."""
    shutil.copy(next(starter_files.rglob("face_detection_short_range.tflite")), tmp_path / "model.tflite")
    entry = {"name": "m", "type": "tiny", "task": "double", "files": {"model": "model.tflite"}}
    variables = {"OVLLAMA_CACHE_DIR": str(tmp_path / "cache")} if cached else {}
    (tmp_path / "registry.json").write_text('{"models": {}}')
    with (
        process(tmp_path / "registry.json", plugin_path, **variables) as server,
        httpx.Client(base_url=server.address, trust_env=False, timeout=30) as client,
    ):
        first = 0
        for turn in range(turns):
            assert client.post("/models/load", json=entry).status_code == 201
            assert client.delete("/models/m").status_code == 204
            if turn == 20:
                first = resident(server.child.pid)
        assert resident(server.child.pid) < 1.05 * first
