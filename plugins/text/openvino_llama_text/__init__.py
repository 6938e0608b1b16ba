"""Text models for OpenVINO-Llama: generation, embedding, classification."""

__version__ = "0.1.0"
