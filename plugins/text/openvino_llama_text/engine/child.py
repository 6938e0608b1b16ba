"""The engine's process: takes commands, steps the pipeline while there is work, tells what each step gave.

One thread does everything, since ``step`` holds the GIL throughout. Knows nothing of who asks; whatever goes wrong here
ends the process, and ``process`` starts another one.
"""

from __future__ import annotations

import os
import sys
import time
from typing import IO, NamedTuple

import openvino_genai as genai

from openvino_llama_text.engine.admission import Admission
from openvino_llama_text.engine.commands import Commands, open_commands
from openvino_llama_text.engine.frames import (
    Add,
    Cancel,
    Command,
    Event,
    Failed,
    Illustrated,
    Load,
    LoadFailed,
    Output,
    Picture,
    Ready,
    Reason,
    Stepped,
    Stop,
    joined,
    write_frame,
)
from openvino_llama_text.engine.gathering import Gathering
from openvino_llama_text.engine.generation import (
    BLOCK_TOKENS,
    cache_blocks,
    generation_config,
    load_failure,
    open_pipeline,
    picture_tensor,
    prompt_tensor,
    read_ir,
    takes_pictures,
    vocabulary,
)
from openvino_llama_text.engine.lengths import PromptLength, PromptLengths
from openvino_llama_text.engine.orphan import bind_to_parent, take_pipes
from openvino_llama_text.engine.parameters import EngineParameters

__all__ = ["main"]

_TELL_SECONDS = 0.050
"""A small model has a token in a fraction of this. Whoever reads sees no difference, and the server, which would wake
up for each of them, leaves the processor to the model."""

_REFUSALS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError)
"""What the exceptions of C++ become in Python: ``std::out_of_range`` is an IndexError, and so on."""

_TOKEN = bytes(8)
_PICTURE = Illustrated("<ov_genai_image_0>", [Picture(64, 64, bytes(64 * 64 * 3))])
"""Prompts to warm up with."""

_RUNNING = genai.GenerationStatus.RUNNING
_IGNORED = genai.GenerationStatus.IGNORED
_STOPPED = genai.GenerationFinishReason.STOP


class _Asked(NamedTuple):
    """A sequence that is to be generated."""

    add: Add
    prompt: PromptLength
    length: int
    """How many tokens it may get; 0 if there is no room for any."""

    @property
    def id(self) -> int:
        """Its number."""
        return self.add.id


class _Sequence(NamedTuple):
    """A sequence that the pipeline works on."""

    handle: genai.GenerationHandle
    asked: _Asked

    @property
    def length_reason(self) -> Reason:
        """What it means when it has as many tokens as it may."""
        return Reason.LENGTH if self.asked.length == self.asked.add.parameters.max_tokens else Reason.CONTEXT


class _Loop:
    """The pipeline at work."""

    def __init__(
        self,
        pipeline: genai.ContinuousBatchingPipeline,
        admission: Admission[_Asked],
        most_tokens: int | None,
        assistant_tokens: int,
        step_tokens: int,
        events: IO[bytes],
    ) -> None:
        self._pipeline = pipeline
        self._admission = admission
        self._most_tokens = most_tokens
        self._assistant_tokens = assistant_tokens
        self._step_tokens = step_tokens
        self._events = events
        tokenizer = pipeline.get_tokenizer()
        self._lengths = PromptLengths(lambda text: int(tokenizer.encode(text).input_ids.shape[1]) if text else 0)
        self._sequences: dict[int, _Sequence] = {}
        self._begun: set[int] = set()
        """Sequences that have given something."""
        self._untold: dict[int, Output] = {}
        self._told = 0.0

    def warm_up(self, prompt: bytes | Illustrated) -> None:
        """Generate two tokens: what has to be compiled and read for the first ones, no request waits for.

        RuntimeError if the model cannot compute them.
        """
        # Some models do not say what ends a sequence, which genai must be told even where nothing does.
        add = Add(0, prompt, EngineParameters(max_tokens=2, stop_token_ids=(0,), ignore_eos=True))
        try:
            handle = self._begin(add, generation_config(add.parameters, 2, self._assistant_tokens))
        except _REFUSALS as error:  # of so small a picture, for example
            print(f"the model is not warmed up: {error}", file=sys.stderr)
            return
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        del handle  # without it, the pipeline would not have gone on

    def run(self, commands: Commands) -> None:
        """Work until told to stop."""
        gathering = Gathering(commands)
        while True:
            busy = self._is_busy()
            for command in gathering.before_step(busy=busy, is_full=self._is_step_full):
                if isinstance(command, Stop):
                    return
                self._obey(command)
                if not busy:  # pictures are encoded while others are awaited
                    self._let_in()
            self._work()

    def _is_busy(self) -> bool:
        return self._pipeline.has_non_finished_requests() or self._admission.waiting > 0

    def _is_step_full(self) -> bool:
        """Whether the prompts of those that have been let in, none of which has been read yet, fill a step."""
        return sum(each.asked.prompt.least for each in self._sequences.values()) >= self._step_tokens

    def _work(self) -> None:
        """Let in who fits, and do a step. What waits fits once nothing runs."""
        if not self._pipeline.has_non_finished_requests():
            self._admission.after_step()
        self._let_in()
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            self._tell()
            self._admission.after_step()

    def _let_in(self) -> None:
        """Begin what fits; of prompts with pictures, which take their time, one for each step of those that run."""
        is_busy = self._pipeline.has_non_finished_requests()
        while asked := self._admission.admit():
            self._add(asked)
            if is_busy and isinstance(asked.add.prompt, Illustrated):
                return

    def _obey(self, command: Command) -> None:
        if isinstance(command, Add):
            self._enter(command)
        elif isinstance(command, Cancel):
            self._untold.pop(command.id, None)
            if sequence := self._leave(command.id):
                sequence.handle.cancel()  # the next step gives its memory back

    def _enter(self, add: Add) -> None:
        prompt = self._lengths.of(add.prompt)
        asked = _Asked(add, prompt, self._length(add, prompt))
        if not asked.length:
            self._write(Stepped([Output(add.id, [], [], Reason.CONTEXT, prompt.least)], *self._gauges()))
            return
        most = prompt.most + asked.length + self._assistant_tokens
        self._admission.enter(asked, most if prompt.is_known else min(most, self._most_tokens or most))

    def _length(self, add: Add, prompt: PromptLength) -> int:
        """How many tokens a sequence may get."""
        wanted = add.parameters.max_tokens
        return wanted if self._most_tokens is None else max(0, min(wanted, self._most_tokens - prompt.least))

    def _add(self, asked: _Asked) -> None:
        add = asked.add
        try:
            config = generation_config(add.parameters, asked.length, self._assistant_tokens)
            self._sequences[add.id] = _Sequence(self._begin(add, config), asked)
        except _REFUSALS as error:
            print(f"sequence {add.id} was refused: {error}", file=sys.stderr)
            self._admission.refuse(add.id)
            what = "" if isinstance(add.prompt, bytes) else "the pictures, the text or "
            self._write(Failed(add.id, f"the model does not take {what}the parameters"))

    def _begin(self, add: Add, config: genai.GenerationConfig) -> genai.GenerationHandle:
        """Have the pipeline begin; pictures are encoded meanwhile."""
        prompt = add.prompt
        if isinstance(prompt, bytes):
            return self._pipeline.add_request(add.id, prompt_tensor(prompt), config)
        pictures = [picture_tensor(each) for each in prompt.pictures]
        return self._pipeline.add_request(add.id, prompt.text, pictures, config)

    def _tell(self) -> None:
        """Write down what the last steps gave: at once if a sequence begins or ends, else not too often."""
        is_urgent = time.monotonic() >= self._told + _TELL_SECONDS
        for number, sequence in list(self._sequences.items()):
            output = self._read(number, sequence)
            if output:
                before = self._untold.pop(number, None)
                self._untold[number] = joined(before, output) if before else output
                is_urgent = is_urgent or output.reason is not None or number not in self._begun
                self._begun.add(number)
                if output.reason:
                    self._leave(number)
        if is_urgent:
            self._write(Stepped(list(self._untold.values()), *self._gauges()))
            self._untold.clear()
            self._told = time.monotonic()

    def _leave(self, number: int) -> _Sequence | None:
        """A sequence has ended, or nobody waits for it any more."""
        self._admission.leave(number)
        self._begun.discard(number)
        return self._sequences.pop(number, None)

    def _read(self, number: int, sequence: _Sequence) -> Output | None:
        """What is new of a sequence; None if nothing is."""
        status = sequence.handle.get_status()
        tokens, logprobs, finish = _news(sequence, status)
        if status == _RUNNING:
            return Output(number, tokens, logprobs, None, _known_length(sequence.asked)) if tokens else None
        prompt_tokens = self._told_length(sequence)
        if status == _IGNORED:
            return Output(number, tokens, logprobs, Reason.CONTEXT, prompt_tokens)
        reason = Reason.STOP if finish == _STOPPED else sequence.length_reason
        return Output(number, tokens, logprobs, reason, prompt_tokens)

    def _told_length(self, sequence: _Sequence) -> int:
        """How long the prompt of a sequence that has ended turned out to be; 0 if that was known."""
        prompt = sequence.asked.add.prompt
        if isinstance(prompt, bytes):
            return 0
        try:
            length = int(sequence.handle.get_vlm_perf_metrics().get_num_input_tokens())
        except RuntimeError:  # it was never begun
            return sequence.asked.prompt.most
        self._lengths.learn(prompt, length)
        return length

    def _gauges(self) -> tuple[int, int, float, int]:
        metrics = self._pipeline.get_metrics()
        return metrics.requests, metrics.scheduled_requests, metrics.cache_usage / 100, metrics.cache_size_in_bytes

    def _write(self, event: Event) -> None:
        write_frame(self._events, event)


def _known_length(asked: _Asked) -> int:
    """Of a prompt with pictures whose sizes have been seen before; 0 if it is not known yet, or always was.

    It is told with the first tokens: a sequence that a stop string ends is cancelled, and has no end to tell it at.
    """
    return asked.prompt.least if asked.prompt.is_known and isinstance(asked.add.prompt, Illustrated) else 0


def _news(
    sequence: _Sequence, status: genai.GenerationStatus
) -> tuple[list[int], list[float], genai.GenerationFinishReason | None]:
    """Tokens since the last time, with the logarithms of their probabilities, and why it has ended."""
    handle = sequence.handle
    tokens: list[int] = []
    logprobs: list[float] = []
    finish = None
    while handle.can_read():  # reading what is not there would wait for ever
        for part in handle.read().values():
            tokens += part.generated_ids
            if sequence.asked.add.parameters.logprobs:
                logprobs += part.generated_log_probs
            finish = part.finish_reason
        if status == _RUNNING:
            break  # a step gives one part; asking again costs as much as reading
    return tokens, logprobs, finish


def _loaded(load: Load, events: IO[bytes]) -> _Loop | None:
    """The pipeline; None, and told so, if the model cannot be loaded."""
    try:
        model = read_ir(load)
        blocks, vocab_size = cache_blocks(load, model), vocabulary(model)
        del model
        pipeline = open_pipeline(load, blocks)
        assistant_tokens = load.num_assistant_tokens if load.draft_model else 0
        sizes = (load.max_context, blocks * BLOCK_TOKENS - assistant_tokens if blocks else None)
        most_tokens = min((size for size in sizes if size), default=None)
        admission: Admission[_Asked] = Admission(blocks, BLOCK_TOKENS)
        loop = _Loop(pipeline, admission, most_tokens, assistant_tokens, load.max_num_batched_tokens, events)
        loop.warm_up(_PICTURE if takes_pictures(load.model) else _TOKEN)
    except Exception as error:
        print(f"the model could not be loaded: {error}", file=sys.stderr)
        write_frame(events, LoadFailed(load_failure(error)))
        return None
    write_frame(events, Ready(vocab_size, most_tokens))
    return loop


def main(parent: int) -> int:
    """Serve the process ``parent``. Does not return from a normal end: there is nothing worth the time to destroy."""
    bind_to_parent(parent)
    pipe, events = take_pipes()
    commands = open_commands(pipe)
    load = commands.wait()
    if not isinstance(load, Load):
        return 2
    loop = _loaded(load, events)
    if loop is None:
        return 3
    loop.run(commands)
    sys.stderr.flush()
    os._exit(0)
