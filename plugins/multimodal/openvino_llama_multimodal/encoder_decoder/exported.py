"""The files of an encoder-decoder, as optimum exports them, read into OpenVINO models.

``openvino_encoder_model.xml`` is the entry's ``model``. ``openvino_decoder_with_past_model.xml`` generates; it is the
role ``decoder_with_past``, or stands beside the encoder. ``openvino_decoder_model.xml`` (the role ``decoder``) is only
wanted for what it makes of the encoder's output, where the other one leaves this to it. Knows nothing of what becomes
of the models.
"""

from __future__ import annotations

from pathlib import Path

import openvino as ov

from openvino_llama import ConfigError, ModelConfig, ModelLoadError
from openvino_llama_text.files import located

__all__ = ["read_decoder", "read_encoder", "read_first_decoder"]

_TASK = "optimum-cli export openvino --task image-to-text-with-past"
_NAMES = {
    "decoder": "openvino_decoder_model.xml",
    "decoder_with_past": "openvino_decoder_with_past_model.xml",
}


def read_encoder(core: ov.Core, config: ModelConfig) -> ov.Model:
    """The image encoder; ModelLoadError if it cannot be read."""
    return _read(core, config, config.files["model"], config.files.get("weights"))


def read_decoder(core: ov.Core, config: ModelConfig) -> ov.Model:
    """The decoder that goes on from its cache; ConfigError if there is none, ModelLoadError if it cannot be read."""
    return _read(core, config, _file(config, "decoder_with_past"))


def read_first_decoder(core: ov.Core, config: ModelConfig) -> ov.Model:
    """The decoder without a cache; errors as for ``read_decoder``."""
    return _read(core, config, _file(config, "decoder"))


def _file(config: ModelConfig, role: str) -> Path:
    path = config.files.get(role) or located(config, _NAMES[role])
    if path is None:
        raise ConfigError(
            f"model {config.name!r}: expected {_NAMES[role]} beside the encoder, or the role {role!r} among 'files'; "
            f"{_TASK!r} writes it"
        )
    return path


def _read(core: ov.Core, config: ModelConfig, path: Path, weights: Path | None = None) -> ov.Model:
    weights = weights or path.with_suffix(".bin")
    for each in (path, weights):
        if not each.is_file():
            raise ConfigError(f"model {config.name!r}: there is no file {each.name}")
    try:
        return core.read_model(path, weights)
    except RuntimeError as error:
        raise ModelLoadError(f"OpenVINO could not read {path.name}") from error
