"""Small tokenizers of every kind, trained here: real ones, whose vocabularies fit a few sentences."""

from __future__ import annotations

import functools
import io

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "Hello world, this is a test of tokens. The quick brown fox jumps over the lazy dog!",
    "Grüße aus Zürich: café, naïve, façade; «Ça va?» — Ünïcödé",
    "日本語の文章と中文的句子。한국어 문장도 있습니다。",
    "def f(x):\n    return x + 1\n\n\tprint(f(2))\n",
    "Family 👩‍👩‍👧‍👦, flag 🇩🇪, thumbs 👍🏽 and a heart ❤️",
] * 20
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MIXED = "Zoë said: 👩‍👩‍👧‍👦 日本語 e\u0301 क्षि ❤️\n\n\tनमस्ते 🇩🇪 \x00 end  "


@functools.cache
def byte_level() -> str:
    """Byte-level BPE as GPT-2 and its successors have it, as ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return str(tokenizer.to_str())


@functools.cache
def byte_fallback(strip: bool = True) -> str:
    """BPE with byte fallback as Llama has it, or Gemma (not ``strip``), as ``tokenizer.json``."""
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if strip else replace
    tokenizer.decoder = decoders.Sequence([*pieces, decoders.Strip(" ", 1, 0)] if strip else pieces)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, show_progress=False, limit_alphabet=60, max_token_length=8
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?=▁)"), "isolated")
    tokenizer.train_from_iterator(CORPUS, trainer)
    description = tokenizer.to_str()
    # The trainer makes the bytes special tokens, which they are in no published tokenizer.
    return str(_without_added(description, keep={"<unk>", "<s>", "</s>"}))


def _without_added(description: str, keep: set[str]) -> str:
    import json

    content = json.loads(description)
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] in keep]
    content["pre_tokenizer"] = None
    template = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = template
    return str(tokenizer.to_str())


@functools.cache
def word_piece() -> str:
    """WordPiece as BERT has it, saved with the truncation and padding of its training."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return str(tokenizer.to_str())


@functools.cache
def sentence_piece(kind: str = "bpe") -> bytes:
    """A SentencePiece model with byte fallback, as Llama's; ``bpe`` or ``unigram``."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=400,
        model_type=kind,
        byte_fallback=True,
        character_coverage=0.98,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()
