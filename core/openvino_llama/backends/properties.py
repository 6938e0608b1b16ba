"""The OpenVINO properties that a model's entry may set: those that only say how fast, and how exactly, it computes.

The others choose files (``CACHE_DIR`` writes where it is told), switch off what protects this process
(``ENABLE_MMAP``) or bring libraries of their own. An entry may come over HTTP, so nobody's may set them. Knows nothing
of which device understands which property: OpenVINO says so when it compiles.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from openvino_llama.errors import ConfigError

__all__ = ["MAX_COUNT", "PROPERTIES", "check_properties"]

MAX_COUNT = 1024
"""The largest number of threads, streams or requests that a property may ask for."""

_COUNTS = frozenset(
    {"COMPILATION_NUM_THREADS", "INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT_NUM_REQUESTS"}
)

PROPERTIES = _COUNTS | {
    "ACTIVATIONS_SCALE_FACTOR",
    "AFFINITY",
    "ALLOW_AUTO_BATCHING",
    "AUTO_BATCH_TIMEOUT",
    "CPU_DENORMALS_OPTIMIZATION",
    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "ENABLE_CPU_PINNING",
    "ENABLE_CPU_RESERVATION",
    "ENABLE_HYPER_THREADING",
    "ENABLE_RUNTIME_FALLBACK",
    "ENABLE_STARTUP_FALLBACK",
    "EXECUTION_MODE_HINT",
    "GPU_DISABLE_WINOGRAD_CONVOLUTION",
    "GPU_ENABLE_LOOP_UNROLLING",
    "GPU_HOST_TASK_PRIORITY",
    "GPU_QUEUE_PRIORITY",
    "GPU_QUEUE_THROTTLE",
    "INFERENCE_PRECISION_HINT",
    "KEY_CACHE_GROUP_SIZE",
    "KEY_CACHE_PRECISION",
    "KV_CACHE_PRECISION",
    "MODEL_DISTRIBUTION_POLICY",
    "MODEL_PRIORITY",
    "MULTI_DEVICE_PRIORITIES",
    "NPU_TILES",
    "NPU_TURBO",
    "PERFORMANCE_HINT",
    "SCHEDULE_POLICY",
    "SCHEDULING_CORE_TYPE",
    "VALUE_CACHE_GROUP_SIZE",
    "VALUE_CACHE_PRECISION",
}
"""Names that ``properties`` of an entry may have."""


def check_properties(properties: Mapping[str, object]) -> None:
    """Raise ConfigError for a property that is not to be set, or that asks for too many of something."""
    for name, value in properties.items():
        if name not in PROPERTIES:
            close = difflib.get_close_matches(name, PROPERTIES, n=1)
            hint = f"; is {close[0]} meant?" if close else ""
            raise ConfigError(f"field 'properties': {name!r} is not a property that a model may set{hint}")
        if name in _COUNTS and not _is_count(value):
            raise ConfigError(f"field 'properties.{name}': expected a number up to {MAX_COUNT}, got {value!r:.40}")


def _is_count(value: object) -> bool:
    """OpenVINO takes numbers as text too, and words (``AUTO``, ``NUMA``) for a number of streams."""
    if isinstance(value, str) and value in ("AUTO", "NUMA"):
        return True
    try:
        return not isinstance(value, bool | float) and -1 <= int(str(value)) <= MAX_COUNT
    except ValueError:
        return False
