"""Pre-train MGCA: `accelerate launch mgca/pretrain.py [paper|paper-resnet50|phantom|...]`."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from common import config, training
from common.checkpoint import CheckpointError
from common.data.tables import DataError
from mgca.checkpoint import fresh_model
from mgca.config import PRESETS, OptimConfig, PretrainConfig
from mgca.losses import pretrain_losses
from mgca.model import MGCA, Output
from mgca.pairs import Batch, Pairs, load_pairs

TOPS = (1, 5)
"""Ranks of the logged retrieval inside a batch."""


def lr_at(step: int, steps: int, cfg: OptimConfig) -> float:
    """Learning rate of a step: linear from `lr_floor` to `lr`, then half a cosine back.

    Source: MGCA Sec. 4.1; released per-step schedule.

    Args:
        step: From 0.
        steps: Of the whole schedule.
        cfg: Rates and the share of warm-up.
    """
    warm = int(cfg.warmup * steps)
    rise = cfg.lr - cfg.lr_floor
    if step < warm:
        return cfg.lr_floor + rise * step / warm
    done = (step - warm) / max(1, steps - warm)
    return cfg.lr_floor + rise * (1 + math.cos(math.pi * min(done, 1.0))) / 2


def optimizer_of(model: MGCA, cfg: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over what is trained; with `decay_exclude_1d` vectors are not decayed (ledger D50)."""
    trained = [p for p in model.parameters() if p.requires_grad]
    flat = [p for p in trained if p.ndim < 2 and cfg.decay_exclude_1d]
    rest = [p for p in trained if p.ndim >= 2 or not cfg.decay_exclude_1d]
    groups: list[dict[str, Any]] = [{"params": rest}]
    if flat:
        groups.append({"params": flat, "weight_decay": 0.0})
    return torch.optim.AdamW(
        groups, lr=cfg.lr, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True
    )


def losses_of(out: Output, cfg: PretrainConfig) -> dict[str, Tensor]:
    """The weighted terms."""
    return pretrain_losses(out, cfg.loss, mask_padding=cfg.model.text.pad_words == "mask")


@torch.no_grad()
def validate(model: MGCA, pairs: Pairs, cfg: PretrainConfig, processes: int = 1) -> float:
    """Mean loss over whole validation batches; each process computes all, contrasting locally.

    A batch is as large as that of the training contrast: without `gather` one process's share.
    """
    was_training = model.training
    model.eval()
    local = replace(cfg, loss=replace(cfg.loss, gather=False))
    share = 1 if cfg.loss.gather else processes
    batch_size = min(cfg.optim.batch_size // share, len(pairs))
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=batch_size, drop_last=True, collate_fn=lambda batch: batch
    )
    losses = []
    for batch in loader:
        terms = losses_of(model(*send_to_device(batch, model.device)), local)
        losses.append(float(torch.stack(list(terms.values())).sum()))
    model.train(was_training)
    return sum(losses) / len(losses)


@torch.no_grad()
def retrieval(image_emb: Tensor, text_emb: Tensor, *, top: int) -> float:
    """How often a pair finds itself in its batch, percent: mean of both directions.

    Args:
        image_emb: (B, D) unit vectors.
        text_emb: (B, D) unit vectors; row i belongs to image i.
        top: Hits are pairs among the `top` most alike; ties count against them.
    """
    cosines = image_emb @ text_emb.mT
    better = cosines >= cosines.diagonal(), cosines.mT >= cosines.diagonal()
    hits = [(side.sum(dim=0) <= top).double().mean() for side in better]
    return 100 * float(torch.stack(hits).mean())


def note_retrieval(run: training.Run, out: Output) -> None:
    """Log this process's top-1 and top-5 retrieval inside the batch, as the released code does."""
    if run.progress.step % run.cfg.log_every or len(out.image.emb) < max(TOPS):
        return
    hits = {f"retrieval/top{k}": retrieval(out.image.emb, out.text.emb, top=k) for k in TOPS}
    run.accelerator.log(hits, step=run.progress.step)


def train(cfg: PretrainConfig) -> None:
    """Build, then loop; whatever is not MGCA lives in `training.Run`."""
    if not any((cfg.loss.ita_weight, cfg.loss.cta_weight, cfg.loss.cpa_weight)):
        raise training.TrainingError("all three losses have weight 0: nothing would be learnt")
    with training.Run(cfg, name="mgca") as run:
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
        loader = run.loader(corpus.train, batch_size=cfg.optim.batch_size)
        wrapped, optimizer = run.prepare(model, optimizer_of(model, cfg.optim))
        steps = cfg.optim.epochs * run.batches(loader)
        for epoch in run.epochs(cfg.optim.epochs, patience=cfg.optim.patience):
            frozen = (model.prototypes,) if epoch < cfg.optim.freeze_prototypes_epochs else ()
            wrapped.train()
            for step, (images, tokens) in run.steps(loader):
                run.set_lr(optimizer, lr_at(step, steps, cfg.optim))
                out = wrapped(images, tokens)
                note_retrieval(run, out)
                losses = losses_of(out, cfg)
                run.update(optimizer, losses, clip_norm=None, frozen=frozen)
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
