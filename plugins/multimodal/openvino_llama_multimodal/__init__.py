"""Vision-language models, dual encoders and captioners for OpenVINO-Llama."""

__version__ = "0.1.0"
