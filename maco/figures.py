"""MaCo's figures: `python -m maco.figures positions --run runs/phantom/maco-seed0`.

Figure 2 lays a phrase's heat map over the image with its boxes, Figure 4 shows the position weights
over training, Figure 5 mIoU and CNR against tau, from a grounding result.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import tyro
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from common.checkpoint import CheckpointError
from common.data import ms_cxr
from common.data.images import read_grey, resize_and_pad
from common.data.tables import DataError
from maco.model import MaCo

SMOOTH = 1.5 / 14
"""Deviation of the Gaussian, shares of the grid: 1.5 of 14 patches (released grounding script)."""


def phrase_map(
    model: MaCo, image: NDArray[np.uint8], text: str, *, tau: float
) -> NDArray[np.float32]:
    """(size, size) similarity of a phrase with an image, weighted by position, in [0, 1].

    Args:
        model: In any mode; evaluated.
        image: (size, size) prepared pixels.
        text: The phrase.
        tau: Softmax temperature of the position weights.
    """
    plain = model.ground(image[None], [text])[0].numpy()
    shares = (model.position_weights() / tau).flatten().softmax(dim=0).view(plain.shape).numpy()
    smooth = gaussian_filter(plain * shares, sigma=SMOOTH * len(plain), mode="reflect")
    large = cv2.resize(smooth, image.shape[::-1], interpolation=cv2.INTER_LINEAR)
    span = float(large.max() - large.min())
    return np.asarray((large - large.min()) / span if span else 0 * large, np.float32)


def grounding_figure(model: MaCo, data_root: Path, *, count: int, tau: float) -> Figure:
    """Figure 2: heat maps of the first phrase of each category, with the boxes."""
    table = ms_cxr.load(data_root)
    paths = dict(zip(table.frame["image_id"], table.frame["path"], strict=True))
    first: dict[str, Any] = {}
    for phrase in ms_cxr.phrases(data_root):
        if phrase.image_id in paths:
            first.setdefault(phrase.category, phrase)
    chosen = list(first.values())[:count]
    if not chosen:
        raise DataError(f"no image that MS-CXR annotates lies below {data_root}")
    figure = Figure(figsize=(3 * len(chosen), 3.4), layout="constrained")
    for axis, phrase in zip(np.atleast_1d(figure.subplots(1, len(chosen))), chosen, strict=True):
        image = resize_and_pad(read_grey(table.root / paths[phrase.image_id]), model.size)
        axis.imshow(image, cmap="gray")
        axis.imshow(phrase_map(model, image, phrase.text, tau=tau), cmap="jet", alpha=0.4)
        scale = model.size / max(phrase.width, phrase.height)
        left, top = ((model.size - side * scale) / 2 for side in (phrase.width, phrase.height))
        for box in phrase.boxes:
            place = (left + box.x * scale, top + box.y * scale)
            size = (box.width * scale, box.height * scale)
            axis.add_patch(Rectangle(place, *size, fill=False, color="white"))
        axis.set_title(phrase.text[:40], fontsize=8)
        axis.axis("off")
    return figure


def position_figure(run: Path, *, count: int) -> Figure:
    """Figure 4: the position weights as maps, over training.

    Raises:
        DataError: If the run has logged none.
    """
    path = run / "positions.jsonl"
    text = path.read_text() if path.is_file() else ""
    lines = list({line["epoch"]: line for line in map(json.loads, text.splitlines())}.values())
    if not lines:
        raise DataError(f"{path} is missing or empty: give --run a folder of maco/pretrain.py")
    chosen = sorted({round(x) for x in np.linspace(0, len(lines) - 1, count)})
    picked = [lines[k] for k in chosen]
    maps = [np.reshape(line["weights"], (int(len(line["weights"]) ** 0.5), -1)) for line in picked]
    most = max(float(np.abs(m).max()) for m in maps) or 1.0
    figure = Figure(figsize=(2.2 * len(maps), 2.6), layout="constrained")
    for axis, line, weights in zip(
        np.atleast_1d(figure.subplots(1, len(maps))), picked, maps, strict=True
    ):
        image = axis.imshow(weights, cmap="coolwarm", vmin=-most, vmax=most)
        axis.set_title(f"epoch {line['epoch']}", fontsize=8)
        axis.axis("off")
    figure.colorbar(image)
    return figure


def tau_figure(result: Path) -> Figure:
    """Figure 5: mIoU and CNR against tau, from a result of `benchmarks.evaluate grounding`.

    Raises:
        DataError: If it is no such result.
    """
    try:
        grid = json.loads(result.read_text())["details"]["tau"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{result}: not a grounding result of a MaCo model") from error
    taus = [float(tau) for tau in grid]
    figure = Figure(figsize=(6, 2.6), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("miou", "cnr"), strict=True):
        axis.semilogx(taus, [row[metric] for row in grid.values()], marker="o")
        axis.set_xlabel("tau")
        axis.set_ylabel(metric)
    return figure


@dataclass(frozen=True)
class Args:
    """A figure, and what it is made from."""

    figure: tyro.conf.Positional[Literal["grounding", "positions", "tau"]]
    """Figure 2, 4 or 5."""
    model: str = "runs/phantom/maco-seed0/best"
    """Model folder; for `grounding`."""
    data_root: Path = Path("data/phantom-small")
    """Folder of the corpora; for `grounding`."""
    run: Path = Path("runs/phantom/maco-seed0")
    """Run folder; for `positions`."""
    result: Path = Path("runs/phantom/results/maco/grounding__ms_cxr__seed0.json")
    """For `tau`."""
    count: int = 6
    """Maps shown."""
    tau: float = 0.1
    """Softmax temperature of the position weights (Fig. 5)."""
    out: Path = Path("maco-figure.png")
    """Where the picture goes."""


def main() -> None:
    """Draw one figure; errors that concern the user end in one line."""
    args = tyro.cli(Args, description=__doc__)
    try:
        if args.figure == "grounding":
            model = MaCo.from_pretrained(args.model, strict=True)
            figure = grounding_figure(model, args.data_root, count=args.count, tau=args.tau)
        elif args.figure == "positions":
            figure = position_figure(args.run, count=args.count)
        else:
            figure = tau_figure(args.result)
    except (CheckpointError, DataError, OSError) as error:
        sys.exit(f"error: {error}")
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        sys.exit(f"error: {args.model} is no model folder: {error}")
    figure.savefig(args.out, dpi=150)
    sys.stderr.write(f"{args.out}\n")


if __name__ == "__main__":
    main()
