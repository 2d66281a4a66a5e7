"""Timing in turns, what a backward pass keeps, made-up text lengths."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

LENGTHS = {"single sentences": (12, 5), "whole reports": (46, 20)}
"""Words a text: mean and deviation."""
Row = tuple[str, str]
"""A ratio in words, and a note."""
Jobs = list[tuple[str, Callable[[], Row]]]
"""Measurements by title."""


def timed(*functions: Callable[[], object], repeats: int = 3) -> list[float]:
    """Seconds of each function, best of `repeats`, alternating so that noise hits all alike."""
    best = [float("inf")] * len(functions)
    for _ in range(repeats):
        for k, function in enumerate(functions):
            started = time.perf_counter()
            function()
            best[k] = min(best[k], time.perf_counter() - started)
    return best


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes that `function` keeps for its backward pass, each storage once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(sizes.values())


def lengths(kind: str, count: int) -> Tensor:
    """Made-up word counts of `count` texts."""
    mean, deviation = LENGTHS[kind]
    drawn = np.random.default_rng(0).normal(mean, deviation, count)
    return torch.from_numpy(np.clip(drawn, 2, 95).astype(np.int64))
