"""Encoder-decoders as a WASI-NN backend: a graph is an encoder and a decoder, an execution context is a sequence.

Nothing heavy is imported before a model is opened.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from openvino_llama import ModelConfig, ModelLoadError, UnsupportedTargetError
from openvino_llama_multimodal.config import Fusion, fusion_of
from openvino_llama_multimodal.encoder_decoder.facts import decoder_facts_of, text_of
from openvino_llama_text.files import facts_of

if TYPE_CHECKING:
    import openvino as ov

    from openvino_llama_multimodal.encoder_decoder.contexts import EncoderDecoderGraph

__all__ = ["EncoderDecoderBackend"]

_PROPERTIES: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT"}
_OF_DEVICE: dict[str, dict[str, Any]] = {"CPU": {"KV_CACHE_PRECISION": "f16"}}
"""The CPU's own choice for a cache is u8, which makes other answers of small models; captions are short."""


class EncoderDecoderBackend:
    """Image encoders with a text decoder that attends to them, token by token."""

    name = "encoder-decoder"

    def __init__(self) -> None:
        self._core: ov.Core | None = None
        self._lock = threading.Lock()

    def serves(self, config: ModelConfig) -> bool:
        """Whether a model is this backend's: multimodal ones of cross-attention."""
        return config.type == "multimodal" and fusion_of(config) is Fusion.CROSS_ATTENTION

    def open(self, config: ModelConfig, prepare: object) -> EncoderDecoderGraph:  # noqa: ARG002 - for single graphs
        """Read, join and compile a model's graphs; ModelLoadError or ConfigError if they do not fit."""
        from openvino_llama_multimodal.encoder_decoder.contexts import EncoderDecoderGraph
        from openvino_llama_multimodal.encoder_decoder.exported import read_decoder, read_encoder, read_first_decoder
        from openvino_llama_multimodal.encoder_decoder.graphs import join
        from openvino_llama_multimodal.encoder_decoder.sequence import Limits

        core = self._opened()
        facts = decoder_facts_of(config)
        limits = Limits(facts.positions, frozenset(facts_of(text_of(config)).eos_token_ids))
        graphs = read_encoder(core, config), read_decoder(core, config)
        properties = _PROPERTIES | _OF_DEVICE.get(config.device, {}) | dict(config.properties)
        try:
            encoder, decoder = join(config, *graphs, partial(read_first_decoder, core, config))
            compiled = tuple(core.compile_model(each, config.device, properties) for each in (encoder, decoder))
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            raise ModelLoadError("OpenVINO could not join and compile the encoder and the decoder") from error
        graph = EncoderDecoderGraph(compiled[0], compiled[1], limits)
        graph.try_out(facts.start)
        return graph

    def load(self, builders: object, encoding: object, target: object) -> EncoderDecoderGraph:  # noqa: ARG002
        """Not from a guest's memory: there is more to such a model than one graph."""
        raise UnsupportedTargetError("encoder-decoder models are loaded by name only")

    def _opened(self) -> ov.Core:
        import openvino as ov

        with self._lock:
            if self._core is None:
                self._core = ov.Core()
                # A mapped weights file that is replaced while it is served would take the process down with SIGBUS.
                self._core.set_property({"ENABLE_MMAP": False})
            return self._core
