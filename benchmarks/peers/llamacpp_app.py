"""llama.cpp on the same GGUF, in an environment of its own: ``python llamacpp_app.py GGUF TOKENS ROUNDS``.

Prints a line of JSON with the tokens per second of one stream. Knows nothing of this project.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from itertools import islice

from llama_cpp import Llama

PROMPT = "time people water light house river music paper stone green winter city train garden window mountain"


def main() -> None:
    """Read the arguments, measure, print."""
    tokens, rounds = int(sys.argv[2]), int(sys.argv[3])
    model = Llama(sys.argv[1], n_ctx=1024, n_threads=os.cpu_count(), verbose=False)
    rates = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        ids = model.tokenize(f"{number} {PROMPT}".encode())
        for _ in islice(model.generate(ids, temp=0.0), tokens):
            pass
        if number:
            rates.append(tokens / (time.perf_counter() - started))
    print(json.dumps({"tps": statistics.median(rates)}))


if __name__ == "__main__":
    main()
