"""The generation engine: openvino-genai's continuous batching in a process of its own, as a WASI-NN backend.

``backend`` is what the core sees, ``process`` looks after the child process, ``child`` is what runs in it, and
``frames`` is all that passes between the two. Knows nothing of text: tokens go in and tokens come out.
"""
