"""MaCo: what masking saves in the encoder, what predicting removed patches alone saves."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.speed.timing import Jobs, Row, lengths, timed
from maco.config import PAPER
from maco.losses import pretrain_losses
from maco.model import MaCo, mask_of
from maco.text import Tokens

BATCH = 8
"""Studies, to bound time and memory."""
TEXTS = 32
"""Reports of the text encoder's row."""
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]"] + ["a"] * 30519


def masking() -> Row:
    """Encoder's forward + backward with half of the patches, and with all of them."""
    model = MaCo(PAPER.model, VOCABULARY)
    images, noise = torch.randn(BATCH, 1, 224, 224), torch.rand(BATCH, 196)

    def run(ratio: float) -> None:
        model.encoder.forward_visible(images, mask_of(noise, ratio).kept).mean().backward()

    half, whole = timed(lambda: run(0.5), lambda: run(0.0), repeats=2)
    return f"{whole / half:.2f}x faster", f"99 instead of 197 tokens, batch {BATCH}"


def fake_tokens(counts: Tensor) -> Tokens:
    """Texts of given word counts, padded to the longest."""
    position = torch.arange(int(counts.max()) + 1)
    mask = position <= counts[:, None]
    ids = torch.where(mask, 3, 0)
    ids[:, 0] = 2
    return Tokens(ids, mask)


def text_groups() -> Row:
    """The report encoder's forward + backward in groups by length, and padded to the longest."""
    encoder = MaCo(PAPER.model, VOCABULARY).text_encoder
    shares = torch.linspace(1 / TEXTS, 1, TEXTS)  # of a report's sentences, drawn evenly
    tokens = fake_tokens((lengths("whole reports", TEXTS) * shares).long().clamp(min=2))
    grouped, padded = timed(
        lambda: encoder(tokens).sum().backward(),
        lambda: encoder.encode(*tokens).sum().backward(),
        repeats=2,
    )
    return f"{padded / grouped:.2f}x faster", f"{TEXTS} texts, longest {tokens.ids.shape[1]} tokens"


def training_step() -> Row:
    """Forward, losses, backward, AdamW, against the bare transformers' forward + backward.

    Both start without gradients, as training steps do.
    """
    model = MaCo(PAPER.model, VOCABULARY)
    tokens = fake_tokens(lengths("single sentences", BATCH))
    images = torch.randint(0, 256, (BATCH, 1, 448, 448), dtype=torch.uint8)
    small, noise = torch.randn(BATCH, 1, 224, 224), torch.rand(BATCH, 196)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def bare() -> None:
        mask = mask_of(noise, 0.5)
        latent = model.encoder.forward_visible(small, mask.kept)
        (model.decoder(latent, mask).mean() + model.text_encoder(tokens).sum()).backward()
        optimizer.zero_grad()

    def step() -> None:
        losses = pretrain_losses(model(images, tokens, noise), PAPER.loss)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    encoders, whole = timed(bare, step, repeats=5)
    return f"{whole / encoders:.2f}x the bare networks", f"published sizes, batch {BATCH}"


def jobs() -> Jobs:
    """What to measure."""
    return [
        ("half of the patches masked (>= 1.6x)", masking),
        ("texts grouped by length", text_groups),
        ("whole training step", training_step),
    ]
