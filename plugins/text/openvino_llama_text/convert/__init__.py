"""Making OpenVINO models of what others publish: GGUF files and Hugging Face folders.

``choice`` says which conversions there are and whether they can be done here, ``__main__`` is the process that does
one. ``gguf_header`` reads a GGUF file that nobody vouches for, ``gguf_model`` converts it, ``byte_level`` writes its
tokenizer down for another library; ``sources`` puts a Hugging Face folder together, ``huggingface`` converts it,
``exported`` takes a folder that is converted already.
"""
