"""Pre-train MaCo: `accelerate launch maco/pretrain.py [paper|released|phantom] [--data-root D]`."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from common import config, training
from common.checkpoint import CheckpointError
from common.data.tables import DataError
from maco.checkpoint import fresh_model
from maco.config import PRESETS, OptimConfig, PretrainConfig
from maco.losses import pretrain_losses
from maco.model import MaCo
from maco.pairs import Batch, Pairs, load_pairs

TOKENS = ("cls_token", "mask_token", "temperature")
"""Parameters that `decay=strict` leaves undecayed beside vectors."""


def lr_at(epoch: float, cfg: OptimConfig) -> float:
    """Learning rate at a fractional epoch: linear from 0, then half a cosine to 0.

    Source: MaCo Sec. 3.5 (as MAE's); released schedule, warm-up of 2 epochs (ledger O4).
    """
    if epoch < cfg.warmup_epochs:
        return cfg.lr * epoch / cfg.warmup_epochs
    done = (epoch - cfg.warmup_epochs) / max(cfg.epochs - cfg.warmup_epochs, 1e-9)
    return cfg.lr * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def optimizer_of(model: MaCo, cfg: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over what is trained; vectors and biases undecayed, with `strict` tokens too (O6)."""
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            token = cfg.decay == "strict" and any(word in name for word in TOKENS)
            groups[not (parameter.ndim == 1 or name.endswith(".bias") or token)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": cfg.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=cfg.lr,
        betas=cfg.betas,
        fused=True,
    )


@torch.no_grad()
def validate(model: MaCo, pairs: Pairs, cfg: PretrainConfig) -> float:
    """Mean loss over whole validation batches, the same masks and sentences in every epoch.

    Each process computes all of them, contrasting locally.
    """
    was_training = model.training
    model.eval()
    size = min(cfg.optim.batch_size, len(pairs))
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=size, drop_last=True, collate_fn=lambda batch: batch
    )
    losses = []
    for batch in loader:
        out = model(*send_to_device(batch, model.device))
        terms = pretrain_losses(out, cfg.loss, gather=False)
        losses.append(float(torch.stack(list(terms.values())).sum()))
    model.train(was_training)
    return sum(losses) / len(losses)


def train(cfg: PretrainConfig) -> None:
    """Build, then loop; whatever is not MaCo lives in `training.Run`."""
    if not any((cfg.loss.mae_weight, cfg.loss.align_weight)):
        raise training.TrainingError("both losses have weight 0: nothing would be learnt")
    with training.Run(cfg, name="maco") as run:
        if run.finished:
            run.say(f"{run.out} is complete; nothing to do")
            return
        model = fresh_model(cfg)
        model.freeze_unused(cfg.loss)
        corpus = load_pairs(cfg, model.word_pieces())
        if run.is_main:
            corpus.split.save(run.out / "split.json")
            corpus.table.save_exclusions(run.out / "exclusions.json")
        start = cfg.model.image.weights or "random weights"
        run.say(
            f"{len(corpus.train)} training pairs ({corpus.empty} without text), "
            f"{len(corpus.valid)} for validation; the image encoder starts from {start}"
        )
        loader = run.loader(corpus.train, batch_size=cfg.optim.batch_size)
        wrapped, optimizer = run.prepare(model, optimizer_of(model, cfg.optim))
        for _ in run.epochs(cfg.optim.epochs):
            wrapped.train()
            for step, batch in run.steps(loader):
                run.set_lr(optimizer, lr_at(step / run.batches(loader), cfg.optim))
                losses = pretrain_losses(wrapped(*batch), cfg.loss)
                run.update(optimizer, losses, clip_norm=None)
                model.clamp_temperature()
            note_positions(model, run)
            run.end_epoch(validate(model, corpus.valid, cfg))
        hashes = {"split_sha256": corpus.split.sha256, "table_sha256": corpus.table.table_sha256}
        run.finish(
            pairs=len(corpus.train), without_text=corpus.empty, split=corpus.split.id, **hashes
        )


def note_positions(model: MaCo, run: training.Run) -> None:
    """Append the importance weights and 1 / tau3 after an epoch, one JSON line (Fig. 4).

    An epoch that a kill keeps from being saved writes again after resuming: its last line counts.
    """
    if run.is_main:
        weights = model.position_weights().flatten().tolist()
        line = {"epoch": run.progress.epoch + 1, "multiplier": model.multiplier.item()}
        with (run.out / "positions.jsonl").open("a") as file:
            file.write(json.dumps({**line, "weights": weights}) + "\n")


def main() -> None:
    """Parse, train; errors that concern the user end in one line."""
    cfg = config.parse(PRESETS)
    try:
        train(cfg)
    except (training.TrainingError, CheckpointError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
