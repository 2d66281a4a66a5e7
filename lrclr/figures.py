"""LRCLR's figures: `python -m lrclr.figures regions --images film.png --model runs/...`.

Figure 3 shows every finding's AUROC with intervals, Figure 4 the regions of two heads that a prompt
attends to most, Figure 5 those beside the regions of plain CheXzero.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
import tyro
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from common.checkpoint import CheckpointError
from common.data.images import read_grey
from common.data.tables import DataError
from lrclr.config import ImageConfig
from lrclr.images import padded
from lrclr.model import LRCLR
from lrclr.regions import by_score

CAUTION = (
    "a product of {} layers is close to rank one, so what is selected is mostly where attention "
    "ends, not what [CLS] looked at"
)
"""Printed under drawings of regions that such a product selects."""


def findings_figure(results: Sequence[dict[str, Any]]) -> Figure:
    """Figure 3: AUROC of every finding as bars with bootstrap intervals, one colour a model.

    Args:
        results: Records of `benchmarks.evaluate zero_shot --dataset chexpert14`.

    Raises:
        DataError: If one is no such record.
    """
    rows = []
    for record in results:
        cells = {
            cell["metric"].partition(":")[2]: cell
            for cell in record.get("cells", [])
            if cell["metric"].startswith("auroc:")
        }
        if not cells:
            raise DataError(f"{record.get('model')}: no AUROC of single findings in this result")
        rows.append((record["model"], record["details"]["positives"], cells))
    names = list(rows[0][2])
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(rows)
    for k, (model, _, cells) in enumerate(rows):
        values = np.array([cells[name]["value"] for name in names])
        ends = np.array([cells[name]["interval"] for name in names]).T
        place = np.arange(len(names)) + (k - (len(rows) - 1) / 2) * width
        axes.bar(place, values, width, label=model, yerr=np.abs(ends - values), capsize=1)
    labels = [f"{name}\n{rows[0][1][name]}" for name in names]
    axes.set_xticks(np.arange(len(names)), labels, rotation=60, ha="right", fontsize=7)
    axes.set_ylabel("AUROC")
    axes.axhline(0.5, color="grey", lw=0.5)
    axes.legend(fontsize=7)
    return figure


def boxes_of(patches: NDArray[np.int64], image: ImageConfig) -> list[tuple[float, float, float]]:
    """Left, top and side of patches, pixels of the stored square; patch p is row p // grid."""
    grid, cut = image.input // image.patch, image.fit == "crop"
    step = image.patch if cut else image.size / grid
    edge = (image.size - image.input) // 2 if cut else 0
    return [(p % grid * step + edge, p // grid * step + edge, step) for p in patches.tolist()]


def regions_figure(
    model: LRCLR,
    images: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str],
    *,
    host: LRCLR | None = None,
    most: int = 2,
) -> Figure:
    """Figures 4 and 5: right the regions that the prompt attends to most.

    Left the best regions by attention alone: of plain CheXzero if it is given (Fig. 5), else of the
    model itself.

    Heads are drawn, not distinct patches: one box means that heads agree. Dark blue is a low score,
    dark red a high one.

    Args:
        model: In any mode; evaluated.
        images: (H, W) each, as read.
        prompts: One an image.
        host: A CheXzero of the same input.
        most: Heads drawn of each image.
    """
    squares = np.stack([padded(image, model.size) for image in images])
    view = model.normalise(squares)
    image = model.config.image
    found = model.explain(view, prompts)
    alone = (host or model).eval().select(view)
    where = "plain CheXzero" if host else "by attention alone"
    chosen = {
        where: (alone, by_score(alone), alone.score),
        "by prompt": (
            found.regions,
            found.scores.argsort(dim=1, descending=True, stable=True),
            found.scores,
        ),
    }
    figure = Figure(figsize=(6.4, 3.2 * len(images) + 0.4), layout="constrained")
    panels = figure.subplots(len(images), 2, squeeze=False)
    colours = matplotlib.colormaps["jet"]
    for k, (row, prompt) in enumerate(zip(panels, prompts, strict=True)):
        for axis, (title, (regions, order, scores)) in zip(row, chosen.items(), strict=True):
            heads = order[k, :most]
            patches = regions.patch[k, heads].cpu().numpy()
            low, high = float(scores[k].min()), float(scores[k].max())
            axis.imshow(squares[k], cmap="gray")
            for head, (left, top, side) in zip(
                heads.tolist(), boxes_of(patches, image), strict=True
            ):
                share = (float(scores[k, head]) - low) / ((high - low) or 1.0)
                axis.add_patch(
                    Rectangle((left, top), side, side, fill=False, color=colours(share), lw=2)
                )
            axis.set_title(f"{title}: {prompt}" if title == "by prompt" else title, fontsize=8)
            axis.axis("off")
    if model.config.regions.rollout == "product":
        figure.supxlabel(CAUTION.format(image.layers), fontsize=6)
    return figure


@dataclass(frozen=True)
class Args:
    """A figure, and what it is made from."""

    figure: tyro.conf.Positional[Literal["findings", "regions"]]
    """Figure 3, or Figures 4 and 5."""
    model: str = "runs/phantom/lrclr-seed0/best"
    """Model folder; for `regions`."""
    host: str = ""
    """Model folder of plain CheXzero, for the left half of `regions` (Fig. 5)."""
    images: tuple[Path, ...] = ()
    """Pictures; for `regions`."""
    prompts: tuple[str, ...] = ()
    """One an image; for `regions`."""
    results: tuple[Path, ...] = ()
    """Results of zero-shot evaluations; for `findings`."""
    out: Path = Path("lrclr-figure.png")
    """Where the picture goes."""


def drawn(args: Args) -> Figure:
    """The figure that is asked for."""
    if args.figure == "findings":
        if not args.results:
            raise DataError("findings needs --results <zero_shot__chexpert14__seed0.json> ...")
        return findings_figure([json.loads(path.read_text()) for path in args.results])
    if not args.images or len(args.images) != len(args.prompts):
        raise DataError("regions needs --images <picture> ... and as many --prompts <text> ...")
    model = LRCLR.from_pretrained(args.model, strict=True)
    torch.set_grad_enabled(False)
    host = LRCLR.from_pretrained(args.host, strict=True) if args.host else None
    films = [read_grey(path) for path in args.images]
    return regions_figure(model, films, args.prompts, host=host)


def main() -> None:
    """Draw one figure; errors that concern the user end in one line."""
    args = tyro.cli(Args, description=__doc__)
    try:
        figure = drawn(args)
    except (CheckpointError, DataError, OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        sys.exit(f"error: {args.model} is no model folder: {error}")
    figure.savefig(args.out, dpi=150)
    sys.stderr.write(f"{args.out}\n")


if __name__ == "__main__":
    main()
