"""Prototypes and the Sinkhorn codes that share samples out among them (MGCA Sec. 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Prototypes(nn.Module):
    """K unit vectors in the joint space.

    The rows are renormalised in place at every forward pass, as released, so the gradient is that
    of the normalised rows (ledger D16).
    """

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Linear(dim, count, bias=False).weight

    def forward(self, emb: Tensor) -> Tensor:
        """Cosines of unit embeddings (B, D) with the prototypes: (B, K), in float32 or better.

        The codes divide them by a small eps, which would magnify the steps of half precision.
        """
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight, dim=1))
        with torch.autocast(emb.device.type, enabled=False):
            return emb.to(self.weight.dtype) @ self.weight.mT


@torch.no_grad()
def sinkhorn(scores: Tensor, *, eps: float, iterations: int) -> Tensor:
    r"""Codes: soft assignments that use all prototypes equally.

    .. math:: Q = \mathrm{diag}(a)\,\exp(s / \epsilon)\,\mathrm{diag}(b),\quad
              \sum_i Q_{ik} = B / K,\ \sum_k Q_{ik} = 1

    Source: MGCA Sec. 3.2 (after SwAV); released `sinkhorn`. Alternating normalisation, a constant
    number of rounds, the samples' sums last. The codes of several processes are those of the joined
    batch: gather the scores first.

    Args:
        scores: (B, K) cosines.
        eps: Entropy weight; small means hard codes.
        iterations: Rounds.

    Returns:
        (B, K) float32, rows sum to 1; 1 / K where all scores are equal.
    """
    log_codes = scores.float() / eps
    codes = (log_codes - log_codes.max()).exp().mT  # (K, B)
    codes /= codes.sum()
    for _ in range(iterations):
        codes /= codes.sum(dim=1, keepdim=True) * len(codes)
        codes /= codes.sum(dim=0, keepdim=True) * codes.shape[1]
    return (codes * codes.shape[1]).mT
