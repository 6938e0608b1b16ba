"""``python -m openvino_llama_text.engine``: the engine's process, started by ``process``."""

from __future__ import annotations

import sys

from openvino_llama_text.engine.child import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
