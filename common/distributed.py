"""Contrast across processes; the only user of `torch.distributed`."""

from __future__ import annotations

import atexit
import gc
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Processes in the group; 1 when there is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number; 0 when there is no group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def leave_at_exit() -> None:
    """Leave the process group when the interpreter ends, after every model is gone.

    A DistributedDataParallel that is freed after the group can wait for ever: it destroys gloo's
    worker thread while holding the lock which that thread needs to free its last tensor.
    """

    def leave() -> None:
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()

    if world_size() > 1:
        atexit.register(leave)


class _Gather(torch.autograd.Function):
    """All-gather whose backward pass sums the gradients of all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """(b, ...) to (world * b, ...)."""
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(parts, tensor)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """This process's share of the summed gradient."""
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather_with_grad(tensor: Tensor) -> Tensor:
    """Concatenate `tensor` (b, ...) over processes along dimension 0, keeping gradients.

    Every process must pass the same shape and then compute the same loss from the result. The
    backward pass sums the processes' gradients; DistributedDataParallel's mean over processes
    divides that sum again, so the parameters get exactly the gradient of one process on the joined
    batch.

    Returns:
        (world * b, ...), rank 0 first; `tensor` itself with one process.
    """
    if world_size() == 1:
        return tensor
    gathered: Tensor = _Gather.apply(tensor.contiguous())
    return gathered


def largest(value: int, device: torch.device) -> int:
    """The maximum of `value` over processes."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared)


def from_main(value: float, device: torch.device) -> float:
    """Process 0's value, so that all processes decide alike."""
    if world_size() == 1:
        return value
    shared = torch.tensor(value, device=device, dtype=torch.float64)
    dist.broadcast(shared, src=0)
    return float(shared)
