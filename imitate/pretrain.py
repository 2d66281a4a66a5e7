"""Pre-train IMITATE: `accelerate launch imitate/pretrain.py [paper|released|phantom]`."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from common import config, training
from common.checkpoint import CheckpointError
from common.data.tables import DataError
from imitate.checkpoint import fresh_model
from imitate.config import PRESETS, OptimConfig, PretrainConfig
from imitate.losses import pretrain_losses, sections, soft_targets, softness
from imitate.model import IMITATE, Output
from imitate.pairs import Batch, Pairs, load_pairs


def lr_at(step: int, steps: int, cfg: OptimConfig) -> float:
    """Learning rate of a step: warm-up and half a cosine, or cosines that start anew (ledger D4).

    Args:
        step: From 0.
        steps: Of the whole schedule.
        cfg: Rates, shape and lengths.
    """
    rise = cfg.lr - cfg.lr_floor
    if cfg.schedule == "restarts":
        start, length = 0, cfg.restart_steps
        while step >= start + length:
            start, length = start + length, 2 * length
        return cfg.lr_floor + rise * (1 + math.cos(math.pi * (step - start) / length)) / 2
    warm = int(cfg.warmup * steps)
    if step < warm:
        return cfg.lr_floor + rise * step / warm
    done = (step - warm) / max(1, steps - warm)
    return cfg.lr_floor + rise * (1 + math.cos(math.pi * min(done, 1.0))) / 2


@torch.no_grad()
def validate(model: IMITATE, pairs: Pairs, cfg: PretrainConfig) -> float:
    """Mean loss over whole validation batches; both views are the centre crop."""
    was_training = model.training
    model.eval()
    local = replace(cfg.loss, gather=False)
    size = min(cfg.optim.batch_size_per_process, len(pairs))
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=size, drop_last=True, collate_fn=lambda batch: batch
    )
    losses = []
    for batch in loader:
        terms = pretrain_losses(model(*send_to_device(batch, model.device)), local)
        losses.append(float(torch.stack(list(terms.values())).sum()))
    model.train(was_training)
    return sum(losses) / len(losses)


def note_softness(run: training.Run, out: Output, cfg: PretrainConfig) -> None:
    """Log how soft the targets are: mean row sum and the diagonal's share of it."""
    if run.progress.step % cfg.run.log_every:
        return
    for name, section in zip(("high", "multi"), sections(out, cfg.loss), strict=True):
        codes = section.code[section.present]
        if len(codes) > 1:
            targets = soft_targets(codes, cfg.loss, tau=cfg.loss.tau_vl, size=len(codes))
            mass, share = softness(targets)
            values = {f"target_mass/{name}": float(mass), f"diagonal_share/{name}": float(share)}
            run.accelerator.log(values, step=run.progress.step)


def train(cfg: PretrainConfig) -> None:
    """Build, then loop; whatever is not IMITATE lives in `training.Run`."""
    if cfg.loss.similarity == "dot" and cfg.loss.negative_corr == "keep":
        raise training.TrainingError(
            "inner products with negative targets have no lower bound (ledger B2); add "
            "--loss.negative-corr clip to --loss.similarity dot"
        )
    with training.Run(cfg, name="imitate") as run:
        if run.finished:
            run.say(f"{run.out} is complete; nothing to do")
            return
        model = fresh_model(cfg).to(run.device)  # where it encodes the texts, too
        model.freeze_unused(cfg.loss)
        corpus = load_pairs(cfg, model)
        if run.is_main:
            corpus.split.save(run.out / "split.json")
            corpus.table.save_exclusions(run.out / "exclusions.json")
        run.say(
            f"{len(corpus.train)} training pairs ({corpus.without[0]} without findings, "
            f"{corpus.without[1]} without impression), {len(corpus.valid)} for validation"
        )
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            (p for p in model.parameters() if p.requires_grad),
            lr=cfg.optim.lr,
            betas=cfg.optim.betas,
            weight_decay=cfg.optim.weight_decay,
            fused=True,
        )
        world = run.accelerator.num_processes
        loader = run.loader(corpus.train, batch_size=cfg.optim.batch_size_per_process * world)
        wrapped, optimizer = run.prepare(model, optimizer)
        steps = cfg.optim.epochs * run.batches(loader)
        for epoch in run.epochs(cfg.optim.epochs, patience=cfg.optim.patience):
            wrapped.train()
            for step, batch in run.steps(loader):
                run.set_lr(optimizer, lr_at(step, steps, cfg.optim))
                out = wrapped(*batch)
                note_softness(run, out, cfg)
                losses = pretrain_losses(out, cfg.loss, epoch=epoch)
                run.update(optimizer, losses, clip_norm=None)
            run.end_epoch(validate(model, corpus.valid, cfg))
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
