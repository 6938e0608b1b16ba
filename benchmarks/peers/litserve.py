"""LitServe with the same model file and the same preprocessing.

It gets a virtual environment of its own, kept between runs, with this checkout's distributions in it too: decoding,
resizing and the fused graph are the very same code. Lightning's defaults: one worker process per device, unbatched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

__all__ = ["litserve_url"]

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "openvino-llama" / "litserve"
WORKERS = 2
"""Worker processes: one for each core of a small machine."""


@contextlib.contextmanager
def litserve_url(registry: Path, model: str) -> Iterator[str]:
    """Serve a model with LitServe; the URL of its predictions."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [_python(), __file__, str(registry), model, str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, start_new_session=True
    )
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}/predict"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


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


def main() -> None:
    """What runs in LitServe's environment."""
    import litserve as ls
    from fastapi import Request

    sys.path.insert(0, str(ROOT))
    from benchmarks.inprocess import open_model
    from openvino_llama.hookspecs import InferenceRequest
    from openvino_llama.pipeline import read_parameters

    registry, name, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

    class Vision(ls.LitAPI):  # type: ignore[misc]
        """Decode, resize, infer, postprocess: LitServe's four steps."""

        def setup(self, device: str) -> None:  # noqa: ARG002
            self.config, graph, plugins = open_model(registry, name)
            self.hooks = plugins.hooks_for(self.config.type)
            self.infer = graph.compiled.create_infer_request()
            self.parameters = read_parameters(plugins.model_type(self.config.type), {})

        async def decode_request(self, request: Request) -> object:
            wanted = InferenceRequest(await request.body(), "image/jpeg", self.parameters)
            return self.hooks.preprocess(config=self.config, request=wanted)

        def predict(self, prepared: object) -> object:
            for index, spec in enumerate(self.config.inputs):
                self.infer.get_input_tensor(index).data[...] = prepared.tensors[spec.name]  # type: ignore[attr-defined]
            results = self.infer.infer(share_outputs=True)
            outputs = {spec.name: results[index] for index, spec in enumerate(self.config.outputs)}
            context = prepared.context  # type: ignore[attr-defined]
            return self.hooks.postprocess(config=self.config, outputs=outputs, context=context)

        def encode_response(self, output: object) -> object:
            import msgspec

            return {"results": msgspec.to_builtins(output)}

    api = Vision()
    ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS).run(
        host="127.0.0.1", port=port, generate_client_file=False
    )


if __name__ == "__main__":
    main()
