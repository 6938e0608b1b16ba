"""Generation through the backend's contexts."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import openvino
import pytest
from openvino import opset13 as opset
from tests.plugins.text.engine.runs import PROMPT, config, context, generate, prompts, pull, together, wait_until

from openvino_llama import (
    ConfigError,
    InferenceError,
    InvalidInputError,
    InvalidTensorError,
    ModelConfig,
    ModelLoadError,
    Step,
    UnsupportedTargetError,
)
from openvino_llama_text.config import Adapter, TextConfig
from openvino_llama_text.engine.backend import EngineBackend, EngineGraph

_DIRECT = """
import json, sys, numpy as np, openvino as ov, openvino_genai as genai
folder, properties, prompts, length = json.load(sys.stdin)
scheduler = genai.SchedulerConfig()
scheduler.num_kv_blocks, scheduler.max_num_batched_tokens = 500, 256
pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)
answers = []
for number, prompt in enumerate(prompts):
    config = genai.GenerationConfig(max_new_tokens=length, ignore_eos=True)
    handle = pipeline.add_request(number, ov.Tensor(np.array([prompt], np.int64)), config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    answers.append(handle.read_all()[0].generated_ids)
print(json.dumps(answers))
"""


def test_it_serves_generation_only(smollm2: Path) -> None:
    """Embedding and classification are ordinary graphs, which OpenVINO opens."""
    text = config(smollm2)
    other = ModelConfig(name="e", type="text", task="embedding", files=text.files, config=text.config)
    assert EngineBackend().serves(text)
    assert not EngineBackend().serves(other)


def test_a_sequence_ends_at_its_stop_token(graph: EngineGraph) -> None:
    """The end-of-sequence token of the model's files is the last one, and every token has its log-probability."""
    made = context(graph, PROMPT, max_tokens=60, logprobs=True)
    tokens, logprobs = [], []
    while (step := made.compute_single()) is Step.OUTPUT:
        tokens += made.output(0).tolist()
        logprobs += made.output(1).tolist()
    assert step is Step.END_OF_SEQUENCE
    assert made.compute_single() is Step.END_OF_SEQUENCE
    assert tokens[-1] == 2
    assert len(tokens) < 60
    assert len(logprobs) == len(tokens)
    assert all(value < 0 for value in logprobs)


def test_a_context_serves_sequence_after_sequence(graph: EngineGraph) -> None:
    """Finish leaves nothing of the one before."""
    made = context(graph, PROMPT, max_tokens=60)
    first = pull(made)
    assert made.compute_single() is Step.OUTPUT
    made.finish()
    assert pull(made) == first
    with pytest.raises(InferenceError, match="no output"):
        made.output(0)


def test_it_gives_what_genai_gives(graph: EngineGraph, smollm2: Path) -> None:
    """Sixteen at once, and each alone, give the greedy tokens of openvino-genai called directly."""
    asked = prompts(16)
    told = json.dumps([str(smollm2), config(smollm2).properties, asked, 8])
    command = [sys.executable, "-c", _DIRECT]
    direct = json.loads(subprocess.run(command, input=told, capture_output=True, text=True, check=True).stdout)
    alone = [generate(graph, prompt, max_tokens=8, ignore_eos=True) for prompt in asked]
    at_once = together([partial(generate, graph, prompt, max_tokens=8, ignore_eos=True) for prompt in asked])
    assert alone == [(tokens, Step.END_OF_SEQUENCE) for tokens in direct]
    assert at_once == alone


def test_a_seed_repeats_a_sample(graph: EngineGraph) -> None:
    """The same seed gives the same tokens, another one others, and none is different each time."""
    draw = {"temperature": 1.5, "ignore_eos": True, "max_tokens": 20}
    assert generate(graph, PROMPT, **draw, seed=7) == generate(graph, PROMPT, **draw, seed=7)
    assert generate(graph, PROMPT, **draw, seed=7) != generate(graph, PROMPT, **draw, seed=8)
    assert generate(graph, PROMPT, **draw) != generate(graph, PROMPT, **draw)


def test_the_context_window_ends_a_sequence(smollm2: Path) -> None:
    """Prompt and tokens together are at most the window; a prompt that fills it is not begun."""
    graph = EngineBackend().open(config(smollm2, context=64), None)
    try:
        tokens, step = generate(graph, prompts(1, 50)[0], max_tokens=1000, ignore_eos=True)
        assert (len(tokens), step) == (14, Step.CONTEXT_FULL)
        assert generate(graph, prompts(1, 64)[0], max_tokens=1) == ([], Step.PROMPT_TOO_LONG)
    finally:
        graph.close()


def test_the_context_window_that_the_models_files_state(smollm2: Path, tmp_path: Path) -> None:
    """It is the same for the engine as for whoever counts the tokens of prompts, whatever the field's name."""
    for path in smollm2.glob("openvino_model.*"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "config.json").write_text('{"text_config": {"n_positions": 64}}')
    text = config(tmp_path)
    graph = EngineBackend().open(msgspec.structs.replace(text, config=TextConfig()), None)
    try:
        assert generate(graph, prompts(1, 64)[0], max_tokens=1) == ([], Step.PROMPT_TOO_LONG)
    finally:
        graph.close()


def test_a_small_cache_is_shared(smollm2: Path) -> None:
    """Sequences that fit one by one, but not together, all come to their end, with the tokens that they have alone."""
    graph = EngineBackend().open(config(smollm2, context=4096, kv_cache_mib=13, max_num_batched_tokens=64), None)
    try:
        ready = graph.process.ready
        assert ready
        assert ready.capacity
        assert 200 < ready.capacity < 400
        assert generate(graph, prompts(1, 500)[0]) == ([], Step.PROMPT_TOO_LONG)
        chance = random.Random(3)
        asked = [prompt[: chance.randrange(10, 200)] for prompt in prompts(6, 200)]
        results = together([partial(generate, graph, each, max_tokens=20, ignore_eos=True) for each in asked])
        alone = [generate(graph, each, max_tokens=20, ignore_eos=True) for each in asked]
        assert [len(tokens) for tokens, _ in alone] == [20] * 6
        assert results == alone
    finally:
        graph.close()


@pytest.mark.parametrize("tokens", [[-1], [49_152], [1, 2, 1 << 40], [-(1 << 63)]])
def test_unknown_tokens_are_refused(graph: EngineGraph, tokens: list[int]) -> None:
    """The engine would look them up beyond its table."""
    with pytest.raises(InvalidTensorError, match="tokens are 0 to 49151"):
        context(graph, tokens)


def test_inputs_are_checked(graph: EngineGraph) -> None:
    """Shape, type, emptiness, index, and that both are there."""
    made = graph.create_context()
    for wrong in (np.zeros((2, 3), np.int64), np.zeros((1, 3), np.int32), np.zeros((1, 0), np.int64)):
        with pytest.raises(InvalidTensorError):
            made.set_input(0, wrong, borrow=False)
    with pytest.raises(InvalidTensorError):
        made.set_input(2, np.zeros(1, np.uint8), borrow=False)
    with pytest.raises(InferenceError, match="input_ids"):
        made.compute_single()
    made.set_input(0, np.ones((1, 1), np.int64), borrow=False)
    with pytest.raises(InferenceError, match="parameters"):
        made.compute_single()
    with pytest.raises(UnsupportedTargetError):
        made.compute()


def test_cancel_wakes_who_waits(graph: EngineGraph) -> None:
    """From another thread, in the middle of a sequence, and the engine forgets the sequence."""
    made = context(graph, PROMPT, max_tokens=900, ignore_eos=True)
    assert made.compute_single() is Step.OUTPUT
    threading.Timer(0.1, made.cancel).start()
    with pytest.raises(InferenceError, match="cancelled"):
        pull(made)
    made.finish()
    wait_until(lambda: graph.gauges()["running_sequences"] == 0)
    assert generate(graph, PROMPT, max_tokens=60)[0][-1] == 2


def test_cancelling_a_hundred_leaves_nothing(graph: EngineGraph) -> None:
    """Sequences that are cancelled at random moments give their memory back: the same tokens come after as before."""
    before = generate(graph, PROMPT, max_tokens=60)
    chance = random.Random(5)

    def cancelled(prompt: list[int]) -> None:
        made = context(graph, prompt, max_tokens=900, ignore_eos=True)
        timer = threading.Timer(chance.random(), made.cancel)
        timer.start()
        try:
            pull(made)
        except InferenceError:
            made.close()
        timer.cancel()

    for _ in range(2):  # the first round takes what memory there is to take
        together([partial(cancelled, prompt) for prompt in prompts(50)])
        wait_until(lambda: graph.gauges()["running_sequences"] + graph.gauges()["waiting_sequences"] == 0)
    assert generate(graph, PROMPT, max_tokens=60) == before
    assert graph.gauges()["restarts"] == 0


def test_who_does_not_read_holds_nobody_up(graph: EngineGraph) -> None:
    """Tokens wait for a slow reader; others get theirs."""
    slow = context(graph, PROMPT, max_tokens=100, ignore_eos=True)
    assert slow.compute_single() is Step.OUTPUT
    first = slow.output(0).tolist()
    assert generate(graph, PROMPT, max_tokens=60)[0][-1] == 2
    tokens, _ = pull(slow)
    assert len(first + tokens) == 100


@pytest.mark.parametrize(
    ("form", "wrong"),
    [
        ({"regex": "[0-9]{3}"}, {"regex": "("}),
        ({"grammar": 'root ::= "yes" | "no"'}, {"grammar": "root ::= missing"}),
        ({"json_schema": '{"enum": [17]}'}, {"json_schema": '{"type": "foo"}'}),
    ],
)
def test_the_output_takes_a_form(graph: EngineGraph, form: dict[str, str], wrong: dict[str, str]) -> None:
    """A form binds the tokens; one that does not compile is the request's fault, and the engine never sees it."""
    import openvino_genai

    folder = graph.process.load.model
    tokens, _ = generate(graph, PROMPT, max_tokens=20, **form)
    text = openvino_genai.Tokenizer(folder).decode(tokens)
    assert text in ("yes", "no", "17") or (len(text) == 3 and text.isdigit())
    with pytest.raises(InvalidInputError, match=next(iter(wrong))):
        generate(graph, PROMPT, **wrong)
    assert not graph.unready_reason()


def test_a_form_without_end_is_too_complex(graph: EngineGraph) -> None:
    """The checker is killed, and a new one checks the next form."""
    with pytest.raises(InvalidInputError, match="too complex"):
        generate(graph, PROMPT, regex="(.{0,1000}){0,1000}x")
    assert len(generate(graph, PROMPT, regex="[0-9]", max_tokens=4)[0]) == 2


def test_other_names_and_no_tokenizer(smollm2: Path, tmp_path: Path) -> None:
    """The files may be called as they like; tokens are generated without a tokenizer, forms are not."""
    for suffix in ("xml", "bin"):
        shutil.copyfile(smollm2 / f"openvino_model.{suffix}", tmp_path / f"mine.{suffix}")
    text = config(smollm2)
    text.files["model"] = tmp_path / "mine.xml"
    graph = EngineBackend().open(text, None)
    try:
        assert generate(graph, PROMPT, max_tokens=60, stop_token_ids=[2])[0][-1] == 2
        with pytest.raises(InvalidInputError, match="no tokenizer"):
            generate(graph, PROMPT, regex="a")
    finally:
        graph.close()


def test_a_draft_model_changes_no_token(graph: EngineGraph, smollm2: Path) -> None:
    """Speculative decoding gives the tokens of the model alone."""
    text = config(smollm2, draft_model="draft", num_assistant_tokens=3)
    text.files["draft"] = smollm2 / "openvino_model.xml"
    quick = EngineBackend().open(text, None)
    try:
        assert generate(quick, PROMPT, max_tokens=60) == generate(graph, PROMPT, max_tokens=60)
    finally:
        quick.close()


def test_a_model_that_is_none(smollm2: Path, tmp_path: Path) -> None:
    """The load fails, with no path in what it says."""
    text = config(smollm2)
    text.files["model"] = tmp_path / "openvino_model.xml"
    text.files["model"].write_text("<net/>")
    with pytest.raises(ModelLoadError, match="could not load") as failure:
        EngineBackend().open(text, None)
    assert str(tmp_path) not in str(failure.value)


def test_a_model_that_gives_no_token(smollm2: Path, tmp_path: Path) -> None:
    """It can be compiled, and fails when it is to compute: its load fails, rather than every request."""
    model = openvino.Core().read_model(smollm2 / "openvino_model.xml")
    result = model.get_results()[0]
    for shape in ([7, 13, -1], [1, -1, 49152]):  # a token's logits are no multiple of 7 * 13
        changed = opset.reshape(result.input_value(0), opset.constant(np.array(shape)), special_zero=False)
        result.input(0).replace_source_output(changed.output(0))
    changed.output(0).get_tensor().set_names({"logits"})
    openvino.save_model(model, tmp_path / "openvino_model.xml")
    text = config(smollm2)
    text.files["model"] = tmp_path / "openvino_model.xml"
    with pytest.raises(ModelLoadError, match="could not load"):
        EngineBackend().open(text, None)


def test_roles_must_be_there(smollm2: Path) -> None:
    """A draft model or an adapter is one of the entry's files."""
    for engine in ({"draft_model": "draft"}, {"adapters": (Adapter("lora"),)}):
        with pytest.raises(ConfigError, match="has no role"):
            EngineBackend().open(config(smollm2, **engine), None)
