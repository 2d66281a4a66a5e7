"""What rows of texts learn from masks: `python -m maco.masks runs/phantom/maco-seed0`.

The released loss scales the row of every text by what its own image showed (ledger L3b). If images
are also nearer to all texts the more of certain patches they show, these rows are easy, and nothing
has been read. This measures, on validation pairs, whether a trained model does so, and where its
position weights lie.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from common.config import from_dict
from common.data.tables import DataError
from maco.config import PretrainConfig
from maco.losses import released_terms
from maco.model import MaCo
from maco.pairs import Batch, Pairs, load_pairs


@dataclass(frozen=True)
class MaskReport:
    """What masks alone change.

    Attributes:
        correlation: Of a pair's importance score and its image's mean similarity to the batch's
            texts, both over masks of the same image.
        images: Cross entropy of rows of images, nats.
        images_scaled: The same with rows scaled by softplus of the score.
        texts: Cross entropy of rows of texts, nats.
        texts_scaled: The same, scaled.
    """

    correlation: float
    images: float
    images_scaled: float
    texts: float
    texts_scaled: float


@torch.no_grad()
def mask_report(model: MaCo, pairs: Pairs, *, batch: int, batches: int, masks: int) -> MaskReport:
    """Measure over the first whole batches of `pairs`, several random masks for each.

    Args:
        model: In any mode; evaluated.
        pairs: Validation pairs.
        batch: Pairs that are contrasted at once.
        batches: Batches at most.
        masks: Masks for each image.

    Raises:
        DataError: If there is no whole batch.
    """
    model.eval()
    loader: DataLoader[Batch] = DataLoader(
        pairs, batch_size=batch, drop_last=True, collate_fn=lambda batch: batch
    )
    generator = torch.Generator().manual_seed(0)
    nearness: list[Tensor] = []
    scores: list[Tensor] = []
    entropies: list[Tensor] = []
    count = min(batches, len(loader))
    for images, tokens, noise in tqdm(islice(loader, count), desc="masks", total=count):
        for _ in range(masks):
            out = model(images, tokens, torch.rand(noise.shape, generator=generator))
            cosines = F.normalize(out.image_emb, dim=-1) @ F.normalize(out.text_emb, dim=-1).mT
            logits = out.multiplier * cosines
            nearness.append(logits.mean(dim=1))
            scores.append(out.scores)
            entropies.append(row_entropies(logits, out.scores))
    if not entropies:
        raise DataError(f"{len(pairs)} validation pairs: not one batch of {batch}")
    near, score = (torch.stack(values).view(-1, masks, batch) for values in (nearness, scores))
    near, score = (values - values.mean(dim=1, keepdim=True) for values in (near, score))
    correlation = F.cosine_similarity(near.flatten(), score.flatten(), dim=0)
    return MaskReport(float(correlation), *torch.stack(entropies).mean(dim=0).tolist())


def row_entropies(logits: Tensor, scores: Tensor) -> Tensor:
    """(B, B) and (B,) to (4,) nats: rows of images plain and scaled, then rows of texts."""
    own = torch.arange(len(logits))
    images, texts = (F.cross_entropy(side, own) for side in (logits, logits.mT))
    images_scaled, texts_scaled = released_terms(logits, scores)[:2]
    return torch.stack([images, images_scaled, texts, texts_scaled])


def lungs(weights: Tensor) -> tuple[float, float]:
    """Mean of (grid, grid) position weights over the middle of the left half, and of the right.

    On 12 x 12: rows 4 to 10, columns 2 to 5 and 8 to 11.
    """
    grid = len(weights)
    rows = slice(round(grid / 4), round(grid * 5 / 6))
    columns = slice(round(grid / 12), round(grid * 5 / 12))
    return float(weights[rows, columns].mean()), float(weights.flip(1)[rows, columns].mean())


@dataclass(frozen=True)
class Args:
    """Runs, and how much is measured."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders of `maco/pretrain.py`, finished."""
    data_root: Path | None = None
    """Folder of the corpora; by default each run's own."""
    batches: int = 6
    """Validation batches of the run's size."""
    masks: int = 8
    """Masks for each image."""


def describe(run: Path, args: Args) -> str:
    """One line about one run.

    Raises:
        DataError: If it is no finished run, or its corpus is missing.
    """
    if not (run / "best").is_dir():
        raise DataError(f"{run} holds no best/: give run folders of maco/pretrain.py")
    try:
        cfg = from_dict(PretrainConfig, json.loads((run / "run.json").read_text()))
    except (OSError, ValueError) as error:
        raise DataError(f"{run}: no settings of maco/pretrain.py in run.json: {error}") from error
    cfg = replace(cfg, run=replace(cfg.run, data_root=args.data_root or cfg.run.data_root))
    model = MaCo.from_pretrained(run / "best", strict=True)
    pairs, batch = load_pairs(cfg, model.word_pieces()).valid, cfg.optim.batch_size
    found = mask_report(model, pairs, batch=batch, batches=args.batches, masks=args.masks)
    left, right = lungs(model.position_weights())
    return (
        f"{run.name}: weights {left:.3f} left, {right:.3f} right; score and nearness "
        f"{found.correlation:.2f}; rows of images {found.images:.3f}, scaled "
        f"{found.images_scaled:.3f}; of texts {found.texts:.3f}, scaled {found.texts_scaled:.3f}\n"
    )


def main() -> None:
    """Measure each run; errors that concern the user end in one line."""
    args = tyro.cli(Args, description=__doc__)
    try:
        if not args.runs:
            raise DataError("no run: give run folders of maco/pretrain.py")
        for run in args.runs:
            sys.stdout.write(describe(run, args))
    except DataError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
