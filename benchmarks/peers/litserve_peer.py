"""LitServe with the same model file and the same preprocessing.

It gets a virtual environment of its own, kept between runs, with this checkout's distributions in it too: decoding,
resizing and the fused graph are the very same code.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import venv
from collections.abc import Iterator
from pathlib import Path

__all__ = ["litserve_url"]

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openvino-llama" / "litserve"


@contextlib.contextmanager
def litserve_url(registry: Path, model: str) -> Iterator[str]:
    """Serve a model with LitServe; the URL of its predictions."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [_python(), "-m", "benchmarks.peers.litserve_app", str(registry), model, str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
    )
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(2)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _python() -> str:
    python = HOME / "bin" / "python"
    if not python.exists():
        venv.create(HOME, with_pip=True)
    packages = ["litserve==0.2.19", str(ROOT), str(ROOT / "plugins" / "vision")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            if b"200 OK" in connection.recv(100):
                return
        if process.poll() is not None:
            raise RuntimeError("LitServe did not start")
        time.sleep(0.1)
    raise RuntimeError("LitServe does not answer")
