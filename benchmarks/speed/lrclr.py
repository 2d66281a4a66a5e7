"""LRCLR: what selecting regions costs beside the encoder."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.speed.timing import Jobs, Row, timed
from lrclr.config import PAPER, ModelConfig
from lrclr.hosts import ClipHost, clip_image_tokens
from lrclr.losses import pretrain_losses
from lrclr.model import LRCLR
from lrclr.regions import class_row, select

BATCH = 8
"""Studies, to bound time and memory."""


def vit_b16() -> ModelConfig:
    """The encoder at 197 tokens, the paper's other reading."""
    return replace(PAPER.model, image=replace(PAPER.model.image, patch=16))


def selection() -> Row:
    """The attention product and the argmax, against the encoder's forward pass."""
    visual = LRCLR(vit_b16()).clip.visual
    images = torch.randn(BATCH, 3, 224, 224)
    with torch.no_grad():
        attention = clip_image_tokens(visual, images, attention=True).attention
        assert attention is not None
        picked, forward = timed(lambda: select(class_row(attention)), lambda: visual(images))
    return f"{picked / forward:.1%} of a forward pass", f"197 tokens, batch {BATCH}"


def product() -> Row:
    """The row of the product by vectors, and by multiplying all matrices."""
    attention = [torch.rand(BATCH, 12, 197, 197).softmax(dim=-1) for _ in range(12)]

    def matrices() -> torch.Tensor:
        whole = attention[0]
        for layer in attention[1:]:
            whole = layer @ whole
        return whole[:, :, 0]

    vectors, full = timed(lambda: class_row(attention), matrices)
    return f"{full / vectors:.1f}x faster", "12 layers, 12 heads, 197 tokens"


def probabilities() -> Row:
    """A forward pass that also keeps every layer's attention, against the plain one."""
    clip = LRCLR(vit_b16()).clip
    host, images = ClipHost(clip), torch.randn(BATCH, 3, 224, 224)
    with torch.no_grad():
        with_map, without = timed(
            lambda: host.image_tokens(images, attention=True),
            lambda: host.image_tokens(images, attention=False),
        )
    return f"{with_map / without:.2f}x the plain pass", f"197 tokens, batch {BATCH}"


def training_step() -> Row:
    """Forward, losses and backward with the local loss, against CheXzero's."""
    model = LRCLR(PAPER.model)
    images = torch.randn(BATCH, 1, 224, 224)
    ids = torch.zeros(BATCH, 77, dtype=torch.long)
    ids[:, 0], ids[:, 1:30], ids[:, 30] = 49406, 320, 49407

    def step(pairs: str) -> None:
        cfg = replace(PAPER.loss, weight=0.5 if pairs == "matched" else 0.0)
        losses = pretrain_losses(model(images, ids, pairs), cfg)
        torch.stack(list(losses.values())).sum().backward()

    local, plain = timed(lambda: step("matched"), lambda: step("none"), repeats=2)
    return f"{local / plain:.2f}x CheXzero's step", f"ViT-B/32, batch {BATCH}"


def jobs() -> Jobs:
    """What to measure."""
    return [
        ("selection against the encoder (<= 10 %)", selection),
        ("row of the product by vectors", product),
        ("attention kept in every layer", probabilities),
        ("training step with the local loss", training_step),
    ]
