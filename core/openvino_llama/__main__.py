"""``python -m openvino_llama`` is ``ovllama``."""

from openvino_llama.cli.commands import main

__all__: list[str] = []

if __name__ == "__main__":
    main(prog_name="ovllama")
