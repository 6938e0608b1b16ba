"""The registry: which models there are, by name, and where their files lie.

``documents`` reads and writes JSON and YAML strictly, ``names`` and ``paths`` say which names and files are taken,
``durable`` writes files whole or not at all, ``entries`` puts them together. Nothing here knows what a model is
good for, how it is loaded, or where its files came from.
"""

from openvino_llama.registry.entries import Registry, read_entry, read_registry, remove_entry, save_entry
from openvino_llama.registry.names import check_name, check_unique
from openvino_llama.registry.paths import check_relative, locate

__all__ = [
    "Registry",
    "check_name",
    "check_relative",
    "check_unique",
    "locate",
    "read_entry",
    "read_registry",
    "remove_entry",
    "save_entry",
]
