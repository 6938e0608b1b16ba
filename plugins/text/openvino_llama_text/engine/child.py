"""The engine's process: takes commands, steps the pipeline while there is work, tells what each step gave.

One thread does everything but reading the command pipe, since ``step`` holds the GIL throughout. Knows nothing of
who asks; whatever goes wrong here ends the process, and ``process`` starts another one.
"""

from __future__ import annotations

import os
import sys
import time
from typing import IO

import openvino_genai as genai

from openvino_llama_text.engine.admission import Admission
from openvino_llama_text.engine.frames import (
    Add,
    Cancel,
    Command,
    Event,
    Failed,
    Load,
    LoadFailed,
    Output,
    Ready,
    Reason,
    Stepped,
    Stop,
    write_frame,
)
from openvino_llama_text.engine.generation import (
    BLOCK_TOKENS,
    cache_blocks,
    generation_config,
    open_pipeline,
    prompt_tensor,
    read_ir,
    vocabulary,
)
from openvino_llama_text.engine.orphan import Commands, bind_to_parent, take_pipes

__all__ = ["main"]

_GAP_SECONDS, _GATHER_SECONDS = 0.003, 0.024
"""An idle engine waits for others that come with the first one, while they come at such intervals, and so long at most:
a first step for one prompt alone would keep all others waiting, and takes longer than this."""

_RUNNING = genai.GenerationStatus.RUNNING
_IGNORED = genai.GenerationStatus.IGNORED
_STOPPED = genai.GenerationFinishReason.STOP


class _Sequence:
    """A sequence that the pipeline works on."""

    __slots__ = ("handle", "length_reason", "logprobs")

    def __init__(self, handle: genai.GenerationHandle, *, logprobs: bool, length_reason: Reason) -> None:
        self.handle = handle
        self.logprobs = logprobs
        self.length_reason = length_reason
        """What it means when the pipeline says that the sequence has its length."""


class _Loop:
    """The pipeline at work."""

    def __init__(
        self,
        pipeline: genai.ContinuousBatchingPipeline,
        admission: Admission,
        most_tokens: int | None,
        assistant_tokens: int,
        events: IO[bytes],
    ) -> None:
        self._pipeline = pipeline
        self._admission = admission
        self._most_tokens = most_tokens
        self._assistant_tokens = assistant_tokens
        self._events = events
        self._sequences: dict[int, _Sequence] = {}

    def run(self, commands: Commands) -> None:
        """Work until told to stop."""
        while True:
            busy = self._pipeline.has_non_finished_requests()
            command = commands.poll() if busy else commands.wait()
            until = 0.0 if busy else time.monotonic() + _GATHER_SECONDS
            while command is not None:
                if isinstance(command, Stop):
                    return
                self._obey(command)
                command = commands.poll(min(_GAP_SECONDS, until - time.monotonic()) if until else 0.0)
            self._work()

    def _work(self) -> None:
        """Let in who fits, and do a step. What waits fits once nothing runs: nobody waits for a command in vain."""
        while add := self._admission.admit():
            self._add(add)
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            self._tell()
            self._admission.after_step()
            while add := self._admission.admit():
                self._add(add)

    def _obey(self, command: Command) -> None:
        if isinstance(command, Add):
            tokens = len(command.tokens) // 8 + self._length(command) + self._assistant_tokens
            self._admission.enter(command, tokens)
        elif isinstance(command, Cancel):
            self._admission.leave(command.id)
            sequence = self._sequences.pop(command.id, None)
            if sequence:
                sequence.handle.cancel()  # the next step gives its memory back

    def _length(self, add: Add) -> int:
        """How many tokens a sequence may get."""
        asked = add.parameters.max_tokens
        return asked if self._most_tokens is None else min(asked, self._most_tokens - len(add.tokens) // 8)

    def _add(self, add: Add) -> None:
        length = self._length(add)
        try:
            config = generation_config(add.parameters, length, self._assistant_tokens)
            handle = self._pipeline.add_request(add.id, prompt_tensor(add.tokens), config)
        except (RuntimeError, ValueError, TypeError) as error:
            print(f"sequence {add.id} was refused: {error}", file=sys.stderr)
            self._admission.leave(add.id)
            self._admission.after_step()
            self._write(Failed(add.id, "the engine does not take these parameters"))
            return
        reason = Reason.LENGTH if length == add.parameters.max_tokens else Reason.CONTEXT
        self._sequences[add.id] = _Sequence(handle, logprobs=add.parameters.logprobs, length_reason=reason)

    def _tell(self) -> None:
        """Write down what the last step gave."""
        outputs = []
        for number, sequence in list(self._sequences.items()):
            output = _read(number, sequence)
            if output:
                outputs.append(output)
                if output.reason:
                    del self._sequences[number]
                    self._admission.leave(number)
        metrics = self._pipeline.get_metrics()
        frame = Stepped(
            outputs,
            metrics.requests,
            metrics.scheduled_requests,
            metrics.cache_usage / 100,
            metrics.cache_size_in_bytes,
        )
        self._write(frame)

    def _write(self, event: Event) -> None:
        write_frame(self._events, event)


def _read(number: int, sequence: _Sequence) -> Output | None:
    """What is new of a sequence; None if nothing is."""
    handle = sequence.handle
    status = handle.get_status()
    tokens: list[int] = []
    logprobs: list[float] = []
    finish = None
    while handle.can_read():  # reading what is not there would wait for ever
        for part in handle.read().values():
            tokens += part.generated_ids
            if sequence.logprobs:
                logprobs += part.generated_log_probs
            finish = part.finish_reason
        if status == _RUNNING:
            break  # a step gives one part; asking again costs as much as reading
    if status == _RUNNING:
        return Output(number, tokens, logprobs) if tokens else None
    if status == _IGNORED:
        return Output(number, tokens, logprobs, Reason.CONTEXT)
    return Output(number, tokens, logprobs, Reason.STOP if finish == _STOPPED else sequence.length_reason)


def _loaded(load: Load, events: IO[bytes]) -> _Loop | None:
    """The pipeline; None, and told so, if the model cannot be loaded."""
    try:
        model = read_ir(load)
        blocks, vocab_size = cache_blocks(load, model), vocabulary(model)
        del model
        pipeline = open_pipeline(load, blocks)
    except Exception as error:
        print(f"the model could not be loaded: {error}", file=sys.stderr)
        write_frame(events, LoadFailed("openvino-genai could not load the model; the log has its reasons"))
        return None
    assistant_tokens = load.num_assistant_tokens if load.draft_model else 0
    sizes = (load.max_context, blocks * BLOCK_TOKENS - assistant_tokens if blocks else None)
    most_tokens = min((size for size in sizes if size), default=None)
    write_frame(events, Ready(vocab_size, most_tokens))
    admission = Admission(blocks, BLOCK_TOKENS)
    return _Loop(pipeline, admission, most_tokens, assistant_tokens, events)


def main(parent: int) -> int:
    """Serve the process ``parent``. Does not return from a normal end: there is nothing worth the time to destroy."""
    bind_to_parent(parent)
    pipe, events = take_pipes()
    commands = Commands(pipe)
    load = commands.wait()
    if not isinstance(load, Load):
        return 2
    loop = _loaded(load, events)
    if loop is None:
        return 3
    loop.run(commands)
    sys.stderr.flush()
    os._exit(0)
