"""Fixed two-dimensional sine-cosine tables of positions (MAE; ledger A3)."""

from __future__ import annotations

import torch
from torch import Tensor


def position_table(width: int, grid: int, *, rule: str) -> Tensor:
    r"""Positions of a class token and of a square grid, row by row.

    .. math:: [\sin(x \omega_k), \cos(x \omega_k), \sin(y \omega_k), \cos(y \omega_k)],\quad
              \omega_k = 10000^{-k / (d / 2)}

    Source: MAE; the released code has :math:`10000^{-k / 2d}` (`stretched`). x counts columns, y
    rows, d is half the width.

    Args:
        width: Of the transformer, divisible by 4.
        grid: Patches along a side.
        rule: `mae` or `stretched`.

    Returns:
        (1, 1 + grid^2, width) float32; the class token's row is zero.
    """
    half = width // 2
    k = torch.arange(half // 2, dtype=torch.float64)
    omega = 10000.0 ** -(k / (half / 2 if rule == "mae" else 2 * half))
    step = torch.arange(grid, dtype=torch.float64)
    angles = step[:, None] * omega  # (grid, half / 2)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, half)
    columns, rows = line.repeat(grid, 1), line.repeat_interleave(grid, dim=0)
    table = torch.cat([columns, rows], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=table.dtype), table])[None].float()
