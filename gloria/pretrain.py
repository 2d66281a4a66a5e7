"""Pre-train: `accelerate launch gloria/pretrain.py [paper|released|phantom] [--data-root D]`."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from common import config, training
from common.checkpoint import CheckpointError
from common.data.tables import DataError
from gloria.checkpoint import fresh_model
from gloria.config import PRESETS, PretrainConfig
from gloria.losses import pretrain_losses
from gloria.model import GLoRIA
from gloria.pairs import Batch, Pairs, load_pairs


def lr_at(scores: list[float], cfg: PretrainConfig) -> float:
    """Learning rate after the epochs whose validation losses are `scores` (ledger G56).

    Constant, as the released scheduler never steps; with `plateau=epoch` halved after each
    `plateau_patience` + 1 epochs without a lower loss.
    """
    lr, best, waited = cfg.optim.lr, float("inf"), 0
    for score in scores if cfg.optim.plateau == "epoch" else []:
        best, waited = (score, 0) if score < best else (best, waited + 1)
        if waited > cfg.optim.plateau_patience:
            lr, waited = lr / 2, 0
    return lr


@torch.no_grad()
def validate(model: GLoRIA, pairs: Pairs, cfg: PretrainConfig, processes: int = 1) -> float:
    """Mean loss over whole validation batches; each process computes all, contrasting locally.

    A batch is as large as that of the training contrast: with local negatives one process's share.
    """
    was_training = model.training
    model.eval()
    loss_cfg = replace(cfg.loss, negatives="local")
    share = processes if cfg.loss.negatives == "local" else 1
    batch_size = min(cfg.optim.batch_size // share, len(pairs))
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=batch_size, drop_last=True, collate_fn=lambda batch: batch
    )
    losses = []
    for batch in loader:
        images, tokens = send_to_device(batch, model.device)
        terms = pretrain_losses(model(images, tokens), loss_cfg, cfg.model)
        losses.append(float(torch.stack(list(terms.values())).sum()))
    model.train(was_training)
    return sum(losses) / len(losses)


def train(cfg: PretrainConfig) -> None:
    """Build, then loop; whatever is not GLoRIA lives in `training.Run`."""
    with training.Run(cfg, name="gloria") as run:
        if run.finished:
            run.say(f"{run.out} is complete; nothing to do")
            return
        model = fresh_model(cfg)
        model.freeze_unused(cfg.loss)
        corpus = load_pairs(cfg, model.word_pieces())
        if run.is_main:
            corpus.split.save(run.out / "split.json")
            corpus.table.save_exclusions(run.out / "exclusions.json")
        run.say(f"{len(corpus.train)} training pairs, {len(corpus.valid)} for validation")
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            (p for p in model.parameters() if p.requires_grad),
            lr=cfg.optim.lr,
            betas=cfg.optim.betas,
            weight_decay=cfg.optim.weight_decay,
            fused=True,
        )
        loader = run.loader(corpus.train, batch_size=cfg.optim.batch_size)
        wrapped, optimizer = run.prepare(model, optimizer)
        for _ in run.epochs(cfg.optim.epochs, patience=cfg.optim.patience):
            wrapped.train()
            run.set_lr(optimizer, lr_at(run.progress.scores, cfg))
            for _, (images, tokens) in run.steps(loader):
                out = wrapped(images, tokens)
                losses = pretrain_losses(out, cfg.loss, cfg.model)
                run.update(optimizer, losses, clip_norm=cfg.optim.clip_norm)
            corpus.valid.set_epoch(run.progress.epoch)
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
