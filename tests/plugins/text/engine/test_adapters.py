"""LoRA adapters, on a small model that optimum converts: only where optimum is installed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from openvino_llama import ModelConfig, Step
from openvino_llama_text.config import Adapter, EngineConfig, TextConfig
from openvino_llama_text.engine.backend import EngineBackend

pytest.importorskip("optimum.intel")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights as optimum lays it out, and an adapter for it."""
    import torch
    from optimum.exporters.openvino import main_export
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=320, num_key_value_heads=2, max_position_embeddings=256, **sizes)
    LlamaForCausalLM(config).save_pretrained(made / "source")
    main_export(made / "source", output=made / "model", task="text-generation-with-past")
    _write_adapter(made / "model" / "adapter.safetensors")
    return made / "model"


def _write_adapter(path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {}
    for layer in range(2):
        for name, outputs in (("q_proj", 64), ("v_proj", 32)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(0, 0.5, (4, 64)).astype("<f4")
            tensors[f"{prefix}.lora_B.weight"] = random.normal(0, 0.5, (outputs, 4)).astype("<f4")
    header, offset = {}, 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(each.tobytes() for each in tensors.values()))


def generated(folder: Path, *adapters: Adapter) -> list[int]:
    """Twelve greedy tokens."""
    files = {"model": folder / "openvino_model.xml", "adapter": folder / "adapter.safetensors"}
    config = TextConfig(engine=EngineConfig(adapters=adapters))
    graph = EngineBackend().open(
        ModelConfig(name="llama", type="text", task="generation", files=files, config=config), None
    )
    try:
        context = graph.create_context()
        parameters = json.dumps({"max_tokens": 12, "temperature": 0, "stop_token_ids": [2], "ignore_eos": True})
        context.set_input(0, np.array([[5, 35, 28, 46, 31]], np.int64), borrow=False)
        context.set_input(1, np.frombuffer(parameters.encode(), np.uint8), borrow=False)
        tokens: list[int] = []
        while context.compute_single() is Step.OUTPUT:
            tokens += context.output(0).tolist()
        return tokens
    finally:
        graph.close()


def test_an_adapter_changes_what_is_generated(folder: Path) -> None:
    """It does by its alpha, and one of alpha 0 does not."""
    plain = generated(folder)
    assert generated(folder, Adapter("adapter", 0.0)) == plain
    changed = generated(folder, Adapter("adapter", 4.0))
    assert len(changed) == len(plain) == 12
    assert changed != plain
