"""IMITATE: what stored codes, one encoding a view and the lone [CLS] query save."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.oracles.imitate import all_queries, literal_losses
from benchmarks.speed.timing import Jobs, Row, timed
from imitate.config import PAPER
from imitate.losses import pretrain_losses
from imitate.model import IMITATE
from imitate.text import Tokens

BATCH = 8
"""Studies, to bound time and memory."""
TOKENS = 256
"""Word pieces of a section, the most there are (ledger A12)."""
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["a"] * 28992


def training_step() -> Row:
    """Forward, losses, backward, AdamW, against the literal step; both losses agree to 1e-6."""
    model = IMITATE(PAPER.model, VOCABULARY).train()
    ids = torch.randint(4, len(VOCABULARY), (2, BATCH, TOKENS))
    find, imp = (Tokens(row, torch.ones_like(row, dtype=torch.bool)) for row in ids)
    views, seeds = torch.rand(BATCH, 2, 1, 224, 224), torch.arange(4)
    there = torch.ones(BATCH, dtype=torch.bool)
    with torch.no_grad():
        codes = (model.text_encoder(find), model.text_encoder(imp))
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=0.0)
    losses: dict[str, float] = {}

    def step(name: str, loss: torch.Tensor) -> None:
        losses[name] = float(loss.detach())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def lean() -> None:
        terms = pretrain_losses(model(views, codes, (there, there), seeds), PAPER.loss)
        step("lean", torch.stack(list(terms.values())).sum())

    def literal() -> None:
        step("literal", literal_losses(model, views, (find, imp), seeds, PAPER.loss))

    fast, slow = timed(lean, literal, repeats=2)
    gap = abs(losses["lean"] - losses["literal"]) / abs(losses["literal"])
    return f"{slow / fast:.2f}x cheaper", f"batch {BATCH}, {TOKENS} tokens, loss equal to {gap:.0e}"


def queries() -> Row:
    """Attention's forward + backward with the [CLS] query alone, and with all."""
    model = IMITATE(replace(PAPER.model, text=replace(PAPER.model.text, layers=1)), VOCABULARY)
    widths = zip(model.image_encoder.widths, (56, 28, 14, 7), strict=True)
    maps = [torch.rand(BATCH, width, side, side) for width, side in widths]
    drawn = model.aggregation.draw(BATCH, 0)
    few, every = timed(
        lambda: model.aggregation(maps, drawn).sum().backward(),
        lambda: all_queries(model.aggregation, maps, drawn).sum().backward(),
    )
    return f"{every / few:.2f}x faster", f"{sum(model.aggregation.kept)} channel tokens"


def jobs() -> Jobs:
    """What to measure."""
    return [
        ("training step against the literal one (>= 2.5x)", training_step),
        ("attention of the [CLS] query alone", queries),
    ]
