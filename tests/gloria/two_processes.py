"""Run by test_distributed under torchrun: loss and gradients of the joined batch or its parts."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.nn.parallel import DistributedDataParallel

from common import distributed
from gloria.config import LossConfig, ModelConfig
from gloria.losses import pretrain_losses
from gloria.model import ImageOutput, Output, TextOutput


class Towers(torch.nn.Module):
    """Two linear maps in place of the encoders: the loss sees what it sees in training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = torch.nn.Linear(5, 6, dtype=torch.float64)
        self.text = torch.nn.Linear(5, 6, dtype=torch.float64)

    def forward(self, regions: torch.Tensor, words: torch.Tensor, n: torch.Tensor) -> Output:
        """Regions (B, R, 5), words (B, T, 5), word counts (B,)."""
        words = words[:, : int(n.max())]  # each process pads to its own longest text
        region_emb, word_emb = self.image(regions), self.text(words)
        mask = torch.arange(words.shape[1]) < n[:, None]
        image = ImageOutput(region_emb.mean(1), region_emb, (1, regions.shape[1]))
        return Output(image, TextOutput((word_emb * mask[..., None]).sum(1), word_emb, mask, n))


def studies() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Six made-up studies."""
    generator = torch.Generator().manual_seed(1)
    regions = torch.randn(6, 4, 5, generator=generator, dtype=torch.float64)
    words = torch.randn(6, 5, 5, generator=generator, dtype=torch.float64)
    return regions, words, torch.tensor([2, 5, 1, 3, 2, 4])


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """A copy of the gradient, which must be there."""
    assert parameter.grad is not None
    return parameter.grad.clone()


def loss_and_gradients(
    model: torch.nn.Module, negatives: str, rows: slice
) -> dict[str, torch.Tensor]:
    """The summed loss terms and every parameter's gradient, averaged over processes by DDP."""
    cfg = LossConfig(negatives=negatives)  # type: ignore[arg-type]
    losses = pretrain_losses(model(*(t[rows] for t in studies())), cfg, ModelConfig())
    total = torch.stack(list(losses.values())).sum()
    model.zero_grad()
    total.backward()
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    return {"loss": total.detach(), **{k: gradient(p) for k, p in plain.named_parameters()}}


def main(out: Path) -> None:
    """Each process takes half of the studies."""
    accelerator = Accelerator(cpu=True)
    distributed.leave_at_exit()
    model = accelerator.prepare(Towers())
    rank, world = distributed.rank(), distributed.world_size()
    rows = slice(rank * 6 // world, (rank + 1) * 6 // world)
    found = {name: loss_and_gradients(model, name, rows) for name in ("global", "local")}
    for values in found.values():
        dist.all_reduce(values["loss"])
        values["loss"] /= world
    if rank == 0:
        torch.save(found, out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
