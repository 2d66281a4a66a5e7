"""Pre-train ConVIRT: `accelerate launch convirt/pretrain.py [paper|phantom] [--data-root D]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from common import config, training
from common.checkpoint import CheckpointError
from common.data.tables import DataError
from convirt.checkpoint import fresh_model
from convirt.config import PRESETS, OptimConfig, PretrainConfig
from convirt.losses import pretrain_losses
from convirt.model import ConVIRT
from convirt.pairs import Batch, Pairs, load_pairs


def lr_at(scores: Sequence[float], cfg: OptimConfig) -> float:
    """Learning rate after the epochs whose validation losses are `scores`.

    Halved after each `plateau` epochs without a lower loss (Appendix A).
    """
    lr, best, waited = cfg.lr, float("inf"), 0
    for score in scores:
        best, waited = (score, 0) if score < best else (best, waited + 1)
        if waited >= cfg.plateau:
            lr, waited = lr / 2, 0
    return lr


@torch.no_grad()
def validate(model: ConVIRT, pairs: Pairs, cfg: PretrainConfig, processes: int = 1) -> float:
    """Mean loss over whole validation batches; each process computes all, contrasting locally.

    A batch is as large as that of the training contrast: without `gather` one process's share.
    """
    was_training = model.training
    model.eval()
    local = replace(cfg.loss, gather=False)
    share = 1 if cfg.loss.gather else processes
    size = min(cfg.optim.batch_size // share, len(pairs))
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=size, drop_last=True, collate_fn=lambda batch: batch
    )
    losses = [
        float(pretrain_losses(model(*send_to_device(batch, model.device)), local)["contrast"])
        for batch in loader
    ]
    model.train(was_training)
    return sum(losses) / len(losses)


def train(cfg: PretrainConfig) -> None:
    """Build, then loop; whatever is not ConVIRT lives in `training.Run`."""
    with training.Run(cfg, name="convirt") as run:
        if run.finished:
            run.say(f"{run.out} is complete; nothing to do")
            return
        model = fresh_model(cfg)
        corpus = load_pairs(cfg, model.word_pieces())
        if run.is_main:
            corpus.split.save(run.out / "split.json")
            corpus.table.save_exclusions(run.out / "exclusions.json")
        run.say(f"{len(corpus.train)} training pairs, {len(corpus.valid)} for validation")
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            (p for p in model.parameters() if p.requires_grad),
            lr=cfg.optim.lr,
            weight_decay=cfg.optim.weight_decay,
            fused=True,
        )
        loader = run.loader(corpus.train, batch_size=cfg.optim.batch_size)
        wrapped, optimizer = run.prepare(model, optimizer)
        for _ in run.epochs(cfg.optim.epochs):
            wrapped.train()
            run.set_lr(optimizer, lr_at(run.progress.scores, cfg.optim))
            for _, (images, tokens) in run.steps(loader):
                losses = pretrain_losses(wrapped(images, tokens), cfg.loss)
                run.update(optimizer, losses, clip_norm=None)
            run.end_epoch(validate(model, corpus.valid, cfg, run.accelerator.num_processes))
        hashes = {"split_sha256": corpus.split.sha256, "table_sha256": corpus.table.table_sha256}
        run.finish(pairs=len(corpus.train), split=corpus.split.id, **hashes)


def main() -> None:
    """Parse, train; errors that concern the user end in one line."""
    cfg = config.parse(PRESETS)
    try:
        train(cfg)
    except (training.TrainingError, CheckpointError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
