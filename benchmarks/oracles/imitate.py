"""IMITATE's step done literally: every view encoded twice, texts each time, all queries attended.

The loss itself is the package's: its tests compare it with loops.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from imitate.config import LossConfig
from imitate.losses import pretrain_losses
from imitate.model import IMITATE, Aggregation, Output, Section, Views
from imitate.text import Tokens


def all_queries(module: Aggregation, maps: list[Tensor], drawn: list[Tensor]) -> Tensor:
    """The multi-level feature by attention of every token, of which [CLS] is read."""
    tokens = module.tokens(maps, drawn) + module.positions[:, 1:]
    first = (module.cls_token + module.positions[:, :1]).expand(len(tokens), -1, -1)
    sequence = torch.cat([first, tokens], dim=1)
    seen = module.attention(sequence, sequence, sequence, need_weights=False)[0]
    return (sequence + seen)[:, 0]


def literal_losses(
    model: IMITATE,
    views: Tensor,
    tokens: tuple[Tokens, Tokens],
    seeds: Tensor,
    cfg: LossConfig,
) -> Tensor:
    """The loss with each view encoded twice, reports encoded anew, every query attended.

    Args:
        model: In training mode; its text encoder frozen.
        views: (B, 2, 1 or 3, H, W).
        tokens: Findings and impressions.
        seeds: (4,) of the channel draws, as `IMITATE.forward` takes them.
        cfg: The loss.
    """
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for draw in (0, 1):
        for v, view in enumerate(views.unbind(dim=1)):
            maps = model.image_encoder(view)
            chosen = model.aggregation.draw(len(view), int(seeds[2 * v + draw]))
            multi = model.multi_projector(all_queries(model.aggregation, maps, chosen))
            high = model.high_projector(F.adaptive_avg_pool2d(maps[-1], 1).flatten(1))
            found[v, draw] = (high, multi)
    there = torch.ones(len(views), dtype=torch.bool)
    with torch.no_grad():
        codes = [model.text_encoder(text) for text in tokens]
    sections = [Section(model.text_projector(code), code, there) for code in codes]
    high, multi = (Views(found[0, 0][k], found[1, 0][k]) for k in (0, 1))
    multi_vv = Views(found[0, 1][1], found[1, 1][1])
    losses = pretrain_losses(Output(high, multi, multi_vv, *sections), cfg)
    return torch.stack(list(losses.values())).sum()
