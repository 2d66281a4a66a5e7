"""Train CheXzero with or without LRCLR: `accelerate launch lrclr/pretrain.py [paper|phantom]`."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from common import config, training
from common.checkpoint import CheckpointError
from common.data.tables import DataError
from lrclr.checkpoint import fresh_model
from lrclr.config import PRESETS, OptimConfig, PretrainConfig
from lrclr.hosts import TextTokens
from lrclr.losses import clamp_scales, local_loss, pretrain_losses
from lrclr.model import LRCLR
from lrclr.pairs import Batch, Pairs, load_pairs
from lrclr.text import NO_IMPRESSION


def optimizer_of(model: LRCLR, cfg: OptimConfig) -> torch.optim.Optimizer:
    """SGD or AdamW of what is trained; LRCLR's own parameters at `new_lr_mult` times the rate."""
    host = {id(p) for p in model.clip.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) in host], "base": cfg.lr},
        {"params": [p for p in trained if id(p) not in host], "base": cfg.lr * cfg.new_lr_mult},
    ]
    groups = [group for group in groups if group["params"]]
    if cfg.optimizer == "sgd":
        return torch.optim.SGD(
            groups, lr=cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay, fused=True
        )
    return torch.optim.AdamW(groups, lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)


def lr_factor(step: int, steps: int, cfg: OptimConfig) -> float:
    """Factor of the learning rates at a step, counted from 0."""
    warm = int(cfg.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if cfg.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


def joint_passes(cfg: PretrainConfig) -> str:
    """Which joint passes the loss needs."""
    return cfg.loss.pairs if cfg.loss.weight else "none"


def contrasted(cfg: PretrainConfig, processes: int) -> int:
    """Pairs of one contrast: the batch, or one process's share of it."""
    return cfg.optim.batch_size // (1 if cfg.loss.gather else processes)


@torch.no_grad()
def validate(model: LRCLR, pairs: Pairs, cfg: PretrainConfig, processes: int = 1) -> float:
    """Mean global loss over whole validation batches, as large as those of the training contrast.

    Without the local term, which can fall without any alignment: with and without LRCLR the best
    epoch is chosen alike.
    """
    was_training = model.training
    model.eval()
    plain = replace(cfg.loss, gather=False, weight=0.0)
    size = min(contrasted(cfg, processes), len(pairs))
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=size, drop_last=True, collate_fn=lambda batch: batch
    )
    losses = []
    for batch in loader:
        out = model(*send_to_device(batch, model.device))
        losses.append(float(pretrain_losses(out, plain)["global"]))
    model.train(was_training)
    return sum(losses) / len(losses)


@torch.no_grad()
def noise_loss(model: LRCLR, cfg: PretrainConfig, *, size: int, seed: int = 0) -> Tensor:
    """The local term of matched pairs on Gaussian tokens, which hold nothing (ledger L11).

    In the unit of the logged `local`. Near its chance (lambda log(size), times size for a sum) the
    module cannot pair noise; below it, it recognises its own passes, and the local loss of real
    pairs says that much less.
    """
    generator = torch.Generator().manual_seed(seed)
    count, words = 1 + model.config.image.heads, 16
    regions = torch.randn(size, count, model.config.image.width, generator=generator)
    tokens = torch.randn(size, words, model.config.text.width, generator=generator)
    last = torch.full((size,), words - 1)
    text = TextTokens(tokens, last, torch.ones(size, words, dtype=torch.bool))
    device = model.device
    v, t, _ = model.lrclr(regions.to(device), TextTokens(*(part.to(device) for part in text)))
    own = model.lrclr.logit_scale
    scale = {
        "own": own.exp(),
        "shared": model.clip.logit_scale.exp(),
        "one": torch.ones_like(own),
    }[cfg.loss.scale]
    return cfg.loss.weight * local_loss(v.float(), t.float(), scale, cfg.loss)


def train(cfg: PretrainConfig) -> None:
    """Build, then loop; whatever is not LRCLR lives in `training.Run`."""
    with training.Run(cfg, name="lrclr") as run:
        if run.finished:
            run.say(f"{run.out} is complete; nothing to do")
            return
        model = fresh_model(cfg)
        model.freeze(cfg.loss, cfg.freeze)
        corpus = load_pairs(cfg)
        if run.is_main:
            corpus.split.save(run.out / "split.json")
            corpus.table.save_exclusions(run.out / "exclusions.json")
        processes = run.accelerator.num_processes
        empty = sum(text in ("", " ", NO_IMPRESSION) for text in corpus.train.texts)
        run.say(
            f"{len(corpus.train)} training pairs ({empty} without words of their own) with "
            f"{len(set(corpus.train.texts))} distinct texts, {len(corpus.valid)} for validation; "
            f"chance of the global loss is {math.log(contrasted(cfg, processes)):.2f}"
        )
        optimizer = optimizer_of(model, cfg.optim)
        loader = run.loader(corpus.train, batch_size=cfg.optim.batch_size)
        wrapped, optimizer = run.prepare(model, optimizer)
        steps = cfg.optim.epochs * run.batches(loader)
        for _ in run.epochs(cfg.optim.epochs):
            wrapped.train()
            for step, (images, ids) in run.steps(loader):
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * lr_factor(step, steps, cfg.optim)
                out = wrapped(images, ids, joint_passes(cfg), cfg.loss.normalize)
                losses = pretrain_losses(out, cfg.loss)
                run.update(optimizer, losses, clip_norm=None)
                if cfg.loss.clamp:
                    clamp_scales(model.clip.logit_scale, model.lrclr.logit_scale)
            if cfg.loss.weight and cfg.loss.pairs == "matched":
                value = float(noise_loss(model, cfg, size=contrasted(cfg, processes)))
                run.accelerator.log({"local_on_noise": value}, step=run.progress.step)
            run.end_epoch(validate(model, corpus.valid, cfg, processes))
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
