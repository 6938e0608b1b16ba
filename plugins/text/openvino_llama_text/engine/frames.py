"""What passes between the server and an engine's process: frames of MessagePack behind their length.

Nothing is pickled: a process that was taken over can lie in these fields and do no more. Tensors travel as bytes
of a stated type. Knows nothing of pipes' other ends.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import IO, Any, Generic, Protocol, TypeVar

import msgspec

from openvino_llama_text.engine.parameters import EngineParameters

__all__ = [
    "Add",
    "Cancel",
    "Check",
    "Checked",
    "Command",
    "Event",
    "Failed",
    "Frames",
    "Illustrated",
    "Load",
    "LoadFailed",
    "Output",
    "Picture",
    "Ready",
    "Reason",
    "Stepped",
    "Stop",
    "framed",
    "joined",
    "write_frame",
]

_LENGTH = struct.Struct("<I")
_MAX_FRAME = 1 << 30


class Reason(Enum):
    """Why a sequence has ended."""

    STOP = "stop"
    """A stop token was generated; it is the last of the tokens."""
    LENGTH = "length"
    """As many tokens as asked for."""
    CONTEXT = "context"
    """The context window, or the cache of keys and values, is full."""
    CANCELLED = "cancelled"


class _Frame(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """An array, so that no field's name travels."""


# ---- to the engine --------------------------------------------------------------------------------------------------


class Load(_Frame, frozen=True):
    """The first command: the model and how to run it. Paths are absolute."""

    model: str
    """A folder as openvino-genai wants it, or a GGUF file."""
    device: str
    properties: dict[str, str | int | float | bool]
    kv_cache_mib: int
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool
    max_context: int | None
    draft_model: str | None = None
    draft_device: str = "CPU"
    num_assistant_tokens: int = 5
    adapters: list[tuple[str, float]] = []


class Picture(_Frame, frozen=True):
    """A picture beside a prompt."""

    height: int
    width: int
    pixels: bytes
    """u8 [height, width, 3], RGB."""


class Illustrated(_Frame, frozen=True):
    """A prompt for a model that takes pictures, whose files say how many tokens a picture becomes."""

    text: str
    """With ``<ov_genai_image_0>`` where the first picture stands, and so on."""
    pictures: list[Picture]


class Add(_Frame, frozen=True):
    """A sequence to generate."""

    id: int
    prompt: bytes | Illustrated
    """Tokens, i64 and little-endian, or a text with pictures."""
    parameters: EngineParameters


class Cancel(_Frame, frozen=True):
    """A sequence that nobody waits for any more."""

    id: int


class Check(_Frame, frozen=True):
    """A form of the output to try: one of json_schema, regex, grammar."""

    kind: str
    source: str


class Stop(_Frame, frozen=True):
    """End the process."""


Command = Load | Add | Cancel | Check | Stop


# ---- from the engine ------------------------------------------------------------------------------------------------


class Ready(_Frame, frozen=True):
    """The model is loaded."""

    vocab_size: int | None
    """Tokens that the model knows; None if its files do not tell."""
    capacity: int | None
    """Most tokens of one sequence, prompt included; None if only memory ends it."""


class LoadFailed(_Frame, frozen=True):
    """The model could not be loaded; the process ends."""

    message: str


class Output(_Frame, frozen=True):
    """What a step, or several quick ones, gave one sequence."""

    id: int
    tokens: list[int]
    logprobs: list[float]
    """As many as tokens, or none if they were not asked for."""
    reason: Reason | None = None
    """Why it has ended; None if it goes on."""
    prompt_tokens: int = 0
    """How many tokens the prompt has turned out to have; 0 if that was known all along, or is not known yet."""


def joined(first: Output, second: Output) -> Output:
    """Two outputs of one sequence as one."""
    prompt_tokens = second.prompt_tokens or first.prompt_tokens  # what is told at the end is not rounded
    return Output(
        second.id, first.tokens + second.tokens, first.logprobs + second.logprobs, second.reason, prompt_tokens
    )


class Stepped(_Frame, frozen=True):
    """What one step gave all sequences, or several quick ones."""

    outputs: list[Output]
    requests: int
    """Sequences that the engine holds."""
    scheduled: int
    """Sequences that took part in the step."""
    cache_usage: float
    """Part of the allocated cache that is in use, 0 to 1."""
    cache_bytes: int
    """Memory that is allocated for keys and values."""


class Failed(_Frame, frozen=True):
    """A sequence that was refused: its prompt or its parameters are nothing for this model."""

    id: int
    message: str


class Checked(_Frame, frozen=True):
    """Answer to Check: empty if all is well."""

    message: str


Event = Ready | LoadFailed | Stepped | Failed | Checked

T = TypeVar("T")


class Readable(Protocol):
    """What frames are read from."""

    def read(self, count: int, /) -> bytes:
        """So many bytes; less at the end."""


class Frames(Generic[T]):
    """Reads the frames of a pipe."""

    def __init__(self, pipe: Readable, kind: Any) -> None:
        self._pipe = pipe
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)

    def read(self) -> T | None:
        """The next frame; None at the end of the pipe, also if that is in the middle of a frame.

        Raises ValueError (msgspec.ValidationError is one) for what is no frame.
        """
        head = self._pipe.read(_LENGTH.size)
        if len(head) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > _MAX_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        body = self._pipe.read(length)
        return self._decoder.decode(body) if len(body) == length else None


_encoder = msgspec.msgpack.Encoder()


def framed(frame: Command | Event) -> bytearray:
    """A frame as it travels, in one piece: who has seen the first byte waits for the last."""
    content = bytearray(_LENGTH.size)
    _encoder.encode_into(frame, content, _LENGTH.size)
    _LENGTH.pack_into(content, 0, len(content) - _LENGTH.size)
    return content


def write_frame(pipe: IO[bytes], frame: Command | Event) -> None:
    """Write and flush one frame; OSError if the other end is gone."""
    pipe.write(framed(frame))
    pipe.flush()
