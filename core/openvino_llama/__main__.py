"""``python -m openvino_llama`` is ``ovllama``."""

from openvino_llama.cli.commands import main

main(prog_name="ovllama")
