"""What passes between the server and an engine's process."""

from __future__ import annotations

import io
import struct

import msgspec
import pytest

from openvino_llama_text.engine.frames import (
    Add,
    Command,
    Frames,
    Illustrated,
    Output,
    Picture,
    Reason,
    joined,
    write_frame,
)
from openvino_llama_text.engine.parameters import EngineParameters

PARAMETERS = EngineParameters(max_tokens=5)


def sent(*frames: Command) -> list[Command | None]:
    """What is read at the other end, and once more."""
    pipe = io.BytesIO()
    for frame in frames:
        write_frame(pipe, frame)
    pipe.seek(0)
    reader: Frames[Command] = Frames(pipe, Command)
    return [reader.read() for _ in range(len(frames) + 1)]


@pytest.mark.parametrize(
    "prompt",
    [
        b"\1\0\0\0\0\0\0\0",
        Illustrated("hello", []),
        Illustrated(
            "<ov_genai_image_0>ä\0\ufdd0", [Picture(1, 2, bytes(range(6))), Picture(3000, 4000, b"\xff" * 36_000_000)]
        ),
    ],
    ids=["tokens", "text", "pictures"],
)
def test_prompts_arrive_as_they_were(prompt: bytes | Illustrated) -> None:
    """Tokens as bytes, a text with its pictures; told apart without a word between them."""
    add = Add(7, prompt, PARAMETERS)
    assert sent(add, add) == [add, add, None]


def test_half_a_frame_is_the_end() -> None:
    """As when the other process has died in the middle of a picture."""
    pipe = io.BytesIO()
    write_frame(pipe, Add(1, Illustrated("a", [Picture(10, 10, bytes(300))]), PARAMETERS))
    for length in (0, 3, 4, 50, len(pipe.getvalue()) - 1):
        assert Frames[Command](io.BytesIO(pipe.getvalue()[:length]), Command).read() is None


@pytest.mark.parametrize("frame", [[1], ["Add", 1, 5, {}], ["Add", 1, ["Illustrated", "a", [[1, 2]]], {}], {}])
def test_what_is_no_frame(frame: object) -> None:
    """Is refused, wherever in it the fault is."""
    body = msgspec.msgpack.encode(frame)
    with pytest.raises(ValueError):  # noqa: PT011 - of which msgspec's errors are some
        Frames[Command](io.BytesIO(struct.pack("<I", len(body)) + body), Command).read()


def test_a_length_beyond_all_sense() -> None:
    """Is not believed: nothing is read into memory."""
    with pytest.raises(ValueError, match="a frame of"):
        Frames[Command](io.BytesIO(b"\xff\xff\xff\xff"), Command).read()


def test_an_output_tells_the_prompts_length() -> None:
    """Beside the tokens; 0 if there is nothing to tell."""
    assert Output(1, [5], []).prompt_tokens == 0
    told = msgspec.msgpack.encode(Output(1, [], [], Reason.CONTEXT, 26))
    assert msgspec.msgpack.decode(told, type=Output).prompt_tokens == 26


def test_outputs_that_are_read_together() -> None:
    """Have all their tokens, the reason of the last, and the length that was told last."""
    first, second = Output(1, [5], [-0.5], None, 27), Output(1, [6, 7], [-1.0, -2.0])
    last = Output(1, [], [], Reason.STOP, 26)
    assert joined(first, second) == Output(1, [5, 6, 7], [-0.5, -1.0, -2.0], None, 27)
    assert joined(joined(first, second), last) == Output(1, [5, 6, 7], [-0.5, -1.0, -2.0], Reason.STOP, 26)
