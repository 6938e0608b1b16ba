"""Small models that read whole texts, made on the spot, and a place where they are served as a server would.

The models are of random numbers, and each token's vector depends on all tokens that the mask lets through: padding
that is heeded as if it were text changes every answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import tokenizers
from numpy.typing import NDArray
from openvino import opset13 as ops

from openvino_llama import InferenceRequest, ModelConfig, ModelType, Preprocessed, RegistryEntry, hookimpl
from openvino_llama.backends.openvino import OpenVINOBackend
from openvino_llama.jobs import Job
from openvino_llama.models import Model, Models
from openvino_llama.observer import SilentObserver
from openvino_llama.plugins import Plugins
from openvino_llama.runner import Runner
from openvino_llama.sandbox.deadline import Deadline
from openvino_llama.sandbox.engine import Sandbox
from openvino_llama_text import encoders
from openvino_llama_text.config import TextConfig

__all__ = ["WORDS", "Bench", "EncoderPlugin", "encoder", "reference", "save_tokenizer"]

WORDS = [
    "a",
    "apple",
    "bird",
    "boat",
    "car",
    "cat",
    "dog",
    "eats",
    "flies",
    "green",
    "house",
    "is",
    "on",
    "red",
    "runs",
    "the",
    "tree",
]
HIDDEN = 12
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3} | {word: 4 + place for place, word in enumerate(WORDS)}


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of words, with special tokens around a text as BERT has them."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(_VOCABULARY, unk_token="[UNK]"))
    made.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.save(str(folder / "tokenizer.json"))


def _numbers(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def encoder(
    *outputs: str,
    inputs: Sequence[str] = INPUTS,
    classes: int = 3,
    shape: Sequence[int] = (-1, -1),
    kind: Any = np.int64,
) -> ov.Model:
    """A model with these outputs: last_hidden_state, pooler_output, sentence_embedding, logits."""
    given = {name: ops.parameter(list(shape), kind, name=name) for name in inputs}
    for name, node in given.items():
        node.output(0).set_names({name})
    hidden = _attended(given)
    first = ops.gather(hidden, np.int64(0), np.int64(1))
    made = {
        "last_hidden_state": lambda: hidden,
        "pooler_output": lambda: ops.tanh(first),
        "sentence_embedding": lambda: ops.multiply(first, np.float32(3)),
        "logits": lambda: ops.matmul(first, _numbers(HIDDEN, classes), False, False),
    }
    results = [made[name]() for name in outputs]
    for name, node in zip(outputs, results, strict=True):
        node.output(0).set_names({name})
    return ov.Model(results, list(given.values()))


def _attended(given: Mapping[str, Any]) -> Any:
    """One layer of attention over embedded tokens, types and positions: (texts, tokens, HIDDEN)."""
    rows = {"input_ids": len(_VOCABULARY), "token_type_ids": 2, "position_ids": 512}
    tables = {name: _numbers(size, HIDDEN) for name, size in rows.items()}
    embedded = [ops.gather(tables[name], given[name], np.int64(0)) for name in rows if name in given]
    tokens = embedded[0]
    for each in embedded[1:]:
        tokens = ops.add(tokens, each)
    if "attention_mask" not in given:
        return tokens
    mask = ops.unsqueeze(ops.convert(given["attention_mask"], "f32"), np.array([1]))
    away = ops.multiply(ops.subtract(mask, np.float32(1)), np.float32(1e4))
    scores = ops.add(ops.multiply(ops.matmul(tokens, tokens, False, True), np.float32(0.1)), away)
    return ops.add(tokens, ops.matmul(ops.softmax(scores, 2), tokens, False, False))


def reference(model: ov.Model, texts: Sequence[Sequence[int]], output: int = 0) -> list[NDArray[np.float32]]:
    """What the model gives for each text's ids alone, without any padding."""
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [port.any_name for port in compiled.inputs]
    found = []
    for ids in texts:
        row = {
            "input_ids": list(ids),
            "attention_mask": [1] * len(ids),
            "token_type_ids": [0] * len(ids),
            "position_ids": list(range(len(ids))),
        }
        result = compiled({name: np.array([row[name]], np.int64) for name in names})
        found.append(result[output][0].copy())
    return found


class EncoderPlugin:
    """The hooks of the encoders alone."""

    OPENVINO_LLAMA_API = 1

    @hookimpl
    def model_types(self) -> Sequence[ModelType]:
        """``text``, without generation."""
        tasks = ("embedding", "classification", "rerank")
        accepts = ("application/json", "application/x-www-form-urlencoded")
        return [ModelType(name="text", config=TextConfig, tasks=tasks, endpoint="text", accepts=accepts)]

    @hookimpl
    def prepare_model(self, config: ModelConfig, model: ov.Model) -> ov.Model:
        """The encoders'."""
        return encoders.prepare(config, model)

    @hookimpl
    def validate_model(self, config: ModelConfig) -> None:
        """The encoders'."""
        encoders.validate(config)

    @hookimpl
    def preprocess(self, config: ModelConfig, request: InferenceRequest) -> Preprocessed | list[Preprocessed]:
        """The encoders'."""
        return encoders.preprocess(config, request)

    @hookimpl
    def postprocess(self, outputs: Mapping[str, NDArray[Any]], context: Any) -> Any:
        """The encoders'."""
        return encoders.gather(outputs, context)


class Recorder(SilentObserver):
    """Remembers how many parts each inference had."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def batch(self, model: str, size: int) -> None:
        self.batches.append(size)


class Bench:
    """Loads models from a folder and asks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.observer = Recorder()
        self._sandbox = Sandbox()
        plugins = Plugins()
        plugins.add(EncoderPlugin(), name="encoders")
        self.models = Models(plugins, self._sandbox, [OpenVINOBackend()], self.observer)

    def write(self, name: str, content: Any) -> None:
        """A JSON file beside the model."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")

    def load(self, model: ov.Model, task: str = "embedding", **entry: Any) -> Model:
        """Save a model with its tokenizer, and load it; computing in f32 unless ``properties`` says otherwise."""
        ov.save_model(model, self.folder / "model.xml", compress_to_fp16=False)
        save_tokenizer(self.folder)
        return self.open("model.xml", task, **entry)

    def open(self, file: str, task: str = "embedding", **entry: Any) -> Model:
        """Load a model that lies in the folder."""
        stated = RegistryEntry(
            type="text",
            task=task,
            files={"model": file},
            **({"properties": {"INFERENCE_PRECISION_HINT": "f32"}} | entry),
        )
        return self.models.load(f"model-{len(self.models.all())}", stated, self.folder.joinpath)

    def config(self, model: Model) -> ModelConfig:
        """What the hooks see."""
        return model.serving.config

    def submit(self, model: Model, asked: Any) -> Job:
        """Send a body (a dict), or a request that has been read already."""
        if isinstance(asked, dict):
            request = InferenceRequest(json.dumps(asked).encode(), "application/json")
        else:
            request = InferenceRequest(b"", "application/json", asked)
        runner: Runner = model.serving.runner
        return runner.submit(Job(request, Deadline(60)))

    def ask(self, model: Model, asked: Any) -> Any:
        """The answer, or what went wrong."""
        return self.submit(model, asked).future.result(60)

    def close(self) -> None:
        """Unload everything."""
        self.models.close()
        self._sandbox.close()
