"""Image classification, object detection and segmentation for OpenVINO-Llama."""

__version__ = "0.1.0"
