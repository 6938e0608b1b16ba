"""What plugins with routes of their own may use, beside the public names of ``openvino_llama``.

A route takes the dependency ``gateway`` (a Gateway) and returns ``gateway.exchange(request, name, work)``; ``work``
gets an Exchange. Unlike the package itself, this imports Litestar.
"""

from openvino_llama.reading import decode_object
from openvino_llama.server.events import event, open_events
from openvino_llama.server.exchange import Exchange, Gateway
from openvino_llama.server.openapi import operation
from openvino_llama.server.problems import headers_of, problem_of

__all__ = ["Exchange", "Gateway", "decode_object", "event", "headers_of", "open_events", "operation", "problem_of"]
