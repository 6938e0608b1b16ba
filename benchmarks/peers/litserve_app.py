"""What runs in LitServe's environment: ``python -m benchmarks.peers.litserve_app REGISTRY MODEL PORT``."""

# No `from __future__ import annotations`: LitServe reads the annotations of decode_request as they stand.

import base64
import os
import sys
from pathlib import Path
from typing import Any

import litserve
import msgspec

from benchmarks.inprocess import open_model
from openvino_llama.hookspecs import InferenceRequest, Preprocessed
from openvino_llama.pipeline import read_parameters

__all__ = ["Vision"]

WORKERS = os.cpu_count() or 1
"""Worker processes: LitServe infers in processes, one request at a time in each."""


class Vision(litserve.LitAPI):  # type: ignore[misc]
    """LitServe's four steps, each with the plugin's own code."""

    def setup(self, _device: str) -> None:
        """Open the model in a worker process."""
        self.config, graph, plugins = open_model(Path(sys.argv[1]), sys.argv[2])
        self.hooks = plugins.hooks_for(self.config.type)
        self.request = graph.compiled.create_infer_request()
        self.parameters = read_parameters(plugins.model_type(self.config.type), {})

    def decode_request(self, request: dict[str, Any]) -> bytes:
        """The picture's file. LitServe takes JSON or forms, not raw bodies; base64 in JSON is what its guides show."""
        return base64.b64decode(request["image"])

    def predict(self, body: bytes) -> Any:
        """Preprocess, infer, postprocess."""
        wanted = InferenceRequest(body, "image/jpeg", self.parameters)
        prepared = self.hooks.preprocess(config=self.config, request=wanted)
        assert isinstance(prepared, Preprocessed)
        for index, spec in enumerate(self.config.inputs):
            self.request.get_input_tensor(index).data[...] = prepared.tensors[spec.name]
        results = self.request.infer(share_outputs=True)
        outputs = {spec.name: results[index] for index, spec in enumerate(self.config.outputs)}
        return self.hooks.postprocess(config=self.config, outputs=outputs, context=prepared.context)

    def encode_response(self, output: Any) -> Any:
        """Plain JSON."""
        return {"results": msgspec.to_builtins(output)}


if __name__ == "__main__":
    server = litserve.LitServer(Vision(), accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False)
