"""The model: transformers' LLaVA with a CLIP vision encoder and a Llama decoder, both small and from scratch.

Only for training it also has dense heads: what each patch of the picture shows. They read the projector's output, that
is, just what the decoder reads, and are thrown away afterwards.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from grammar import COLOURS, NUMBERS, SHAPES, SIZES
from scenes import SIDE
from tokenizer import BOS, EOS, IMAGE, PAD, VOCABULARY

PATCH = 12  # pixels
PATCHES = (SIDE // PATCH) ** 2
HIDDEN = 192
MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
STD = (0.26862954, 0.26130258, 0.27577711)
IGNORED = -100


def build_model() -> LlavaForConditionalGeneration:
    """The model with random weights."""
    vision = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=SIDE,
        patch_size=PATCH,
        projection_dim=HIDDEN,
    )
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=1024,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
    )
    # Written-out attention: autocast runs it in bfloat16, where the fused one's backward pass is ten times slower.
    return LlavaForConditionalGeneration._from_config(config, attn_implementation="eager")  # noqa: SLF001


class DenseHeads(nn.Module):  # type: ignore[misc]
    """For each patch: shape, colour, size, place in the caption, count, and whether an object's centre is in it."""

    CLASSES = (1 + len(SHAPES), len(COLOURS), len(SIZES), 3, 1 + len(NUMBERS), 2)

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.Linear(HIDDEN, sum(self.CLASSES))

    def forward(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean loss over the heads; features `(batch, patches, hidden)`, targets `(batch, patches, 6)`."""
        shape_weights = torch.tensor([0.15] + [1.0] * len(SHAPES))  # most patches show the background
        losses = [
            functional.cross_entropy(
                one.flatten(0, 1),
                targets[..., i].flatten(),
                weight=shape_weights if i == 0 else None,
                ignore_index=IGNORED,
            )
            for i, one in enumerate(self.logits(features))
        ]
        return torch.stack(losses).mean()

    def logits(self, features: torch.Tensor) -> list[torch.Tensor]:
        """By head, `(batch, patches, classes)`."""
        return list(self.heads(features).float().split(self.CLASSES, dim=-1))

    def correct(self, features: torch.Tensor, targets: torch.Tensor) -> list[float]:
        """The share of right patches by head, over the patches of objects."""
        logits = self.logits(features)
        shares = []
        for i, one in enumerate(logits):
            counted = targets[..., 1] != IGNORED
            shares.append(float((one.argmax(-1) == targets[..., i])[counted].float().mean()))
        return shares


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """`(batch, side, side, 3)` uint8 to what the vision encoder reads: `(batch, 3, side, side)` float32."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def image_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """The pictures as the decoder reads them: `(batch, patches, hidden)`."""
    return torch.stack(list(model.get_image_features(pixel_values=normalised(pixels)).pooler_output))


def caption_loss(
    model: LlavaForConditionalGeneration, features: torch.Tensor, batch: dict[str, torch.Tensor]
) -> torch.Tensor:
    """The decoder's loss over the captions; see `Texts.encode` for the batch."""
    ids, labels = batch["ids"], batch["labels"]
    embedded = model.get_input_embeddings()(ids)
    embedded = embedded.masked_scatter((ids == IMAGE).unsqueeze(-1), features.to(embedded.dtype))
    hidden = model.model.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    counted = labels != IGNORED
    open_questions = torch.zeros(*ids.shape, VOCABULARY, dtype=torch.bool)
    open_questions[tuple(batch["open"].T)] = True
    logits = model.lm_head(hidden[counted]).float().masked_fill(open_questions[counted], -torch.inf)
    return functional.cross_entropy(logits, labels[counted])
