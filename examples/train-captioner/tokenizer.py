r"""The tokenizer and the chat template: a byte-level BPE over the grammar's words that can spell any other text.

The template renders what the served model gets, `USER: <image>\n{prompt} ASSISTANT:`; the answer follows without a
space and ends with `</s>`.
"""

from __future__ import annotations

from itertools import product

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from grammar import COLOURS, HORIZONTAL, NUMBERS, SHAPES, SIZES, VERTICAL, Content, Thing, caption

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
UNKNOWN, BOS, EOS, PAD, IMAGE = range(5)
VOCABULARY = 512
TEMPLATE = """{% for m in messages %}{{m['role']|upper}}: {% for c in m['content'] %}{% if c['type']=='image' %}<image>
{% else %}{{c['text']}}{% endif %}{% endfor %} {% endfor %}ASSISTANT:"""
PROMPTS = (
    "Describe the scene.",
    "describe the image",
    "Describe the image.",
    "What is in the picture?",
    "What is in this image?",
    "What do you see?",
    "Describe this picture in one sentence.",
    "Write a caption",
    "",
)


def rendered(prompt: str) -> str:
    """One user turn with one picture, as the chat template renders it."""
    return f"USER: <image>\n{prompt} ASSISTANT:"


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Trains the tokenizer on the grammar; the same at every call."""
    bpe = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL, strict=False))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, extra_special_tokens=[SPECIAL[IMAGE]], **names)


def _corpus() -> list[str]:
    """Every word of the captions at every place where it occurs, and the prompts."""
    things = [Thing(*thing) for thing in product(SIZES, COLOURS, SHAPES)]
    contents = [Content(thing, count) for thing in things for count in (1, *NUMBERS)]
    contents += [Content(thing, related=((r, thing),)) for thing in things for r in (*VERTICAL, *HORIZONTAL)]
    contents += [Content(thing, related=((VERTICAL[0], thing), (HORIZONTAL[0], thing))) for thing in things]
    return [caption(content) for content in contents] + [rendered(prompt) for prompt in PROMPTS] * 20
