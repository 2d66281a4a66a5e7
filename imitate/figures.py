"""IMITATE's figures: `python -m imitate.figures sections --model runs/phantom/imitate-seed0/best`.

Figure 3 shows the codes of findings and impressions in two dimensions with the boundary of two
clusters, Figure 4 downstream results against the smoothing lambda, Figure 5 Grad-CAM of a finding.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import tyro
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.manifold import TSNE
from torch.nn import functional as F

from common.checkpoint import CheckpointError
from common.data import DATASETS
from common.data.images import read_grey, resize_and_pad
from common.data.tables import DataError
from imitate.augment import stretched
from imitate.model import IMITATE
from imitate.pairs import Report, sections_of

TITLES = {
    "chexpert/linear": "CheXpert AUROC",
    "siim/segmentation": "SIIM Dice",
    "rsna/detection": "RSNA mAP",
}


def section_figure(model: IMITATE, reports: Sequence[Report], *, seed: int = 0) -> Figure:
    """Figure 3: t-SNE of both sections' frozen codes, and where 2-means separates them.

    Args:
        model: Whose text encoder is used.
        reports: Those with both sections are drawn.
        seed: Of t-SNE and of the clusters.

    Raises:
        DataError: If fewer than three reports have both sections.
    """
    both = [report for report in reports if all(report)]
    if len(both) < 3:
        raise DataError(f"{len(both)} of {len(reports)} reports have both sections; 3 are needed")
    texts = [report.findings for report in both] + [report.impression for report in both]
    codes = model.codes(texts).float().cpu().numpy()
    perplexity = min(30.0, (len(codes) - 1) / 3)
    flat = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(codes)
    clusters = KMeans(2, n_init=10, random_state=seed).fit(flat)
    figure = Figure(figsize=(5, 5))
    axes = figure.subplots()
    low, high = flat.min(axis=0), flat.max(axis=0)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 200).T), axis=-1).astype(flat.dtype)
    regions = clusters.predict(grid.reshape(-1, 2)).reshape(200, 200)
    axes.contour(grid[..., 0], grid[..., 1], regions, levels=[0.5], colors="black")
    for name, part in (("findings", flat[: len(both)]), ("impression", flat[len(both) :])):
        axes.scatter(part[:, 0], part[:, 1], s=6, label=name)
    axes.legend()
    axes.axis("off")
    return figure


def smoothing_figure(points: Mapping[float, Mapping[str, float]]) -> Figure:
    """Figure 4: one panel a downstream result, against lambda.

    Args:
        points: Lambda to `TITLES` key to value in [0, 1].
    """
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axis, (key, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        there = {rate: values[key] for rate, values in points.items() if key in values}
        axis.plot(list(there), [100 * value for value in there.values()], marker="o")
        axis.set_xlabel("lambda")
        axis.set_title(title, fontsize=9)
    return figure


def smoothing_points(results: Path, *, seed: int) -> dict[float, dict[str, float]]:
    """Results at 1 % of the labels by lambda, from evaluations below `results`.

    Raises:
        DataError: If there is none.
    """
    points: dict[float, dict[str, float]] = {}
    metrics = {"chexpert/linear": "auroc", "siim/segmentation": "dice", "rsna/detection": "map"}
    for key, metric in metrics.items():
        dataset, task = key.split("/")
        for path in sorted(results.glob(f"imitate*/{task}__{dataset}__seed{seed}.json")):
            name = path.parent.name.removeprefix("imitate").removeprefix("-lambda-")
            record = json.loads(path.read_text())
            if name and not name.isdigit():
                continue
            rate = float(f"{name[0]}.{name[1:]}") if name else 0.2
            for cell in record.get("cells", []):
                if cell["metric"] == metric and cell["label_fraction"] == 0.01:
                    points.setdefault(rate, {})[key] = cell["value"]
    if not points:
        raise DataError(f"{results} holds no result of imitate; run make reproduce-imitate-figure4")
    return dict(sorted(points.items()))


def grad_cam(model: IMITATE, image: NDArray[np.uint8], text: str) -> NDArray[np.float32]:
    """(size, size) Grad-CAM of the cosine between image and text, in [0, 1].

    Source: Fig. 5 leaves scalar and layer open: ours is the cosine of the projected image and the
    projected name of the finding, with gradients at the last stage.

    Args:
        model: In any mode; evaluated.
        image: (size, size) prepared pixels.
        text: Name of the finding.
    """
    words = model.embed_texts([text]).emb
    maps = model.image_encoder(model.normalise(image[None]))[-1].detach().requires_grad_()
    cosine = F.cosine_similarity(model.high_projector(maps.mean(dim=(2, 3))), words)
    (gradient,) = torch.autograd.grad(cosine.sum(), maps)
    heat = (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1)[0].relu().detach()
    heat = heat / heat.max().clamp(min=1e-12)
    side = model.config.image.crop
    large = cv2.resize(heat.float().cpu().numpy(), (side, side), interpolation=cv2.INTER_LINEAR)
    room = model.size - side
    return np.pad(large, ((round(room / 2), room - round(room / 2)),) * 2)


def cam_figure(model: IMITATE, images: Sequence[Path], texts: Sequence[str]) -> Figure:
    """Figure 5: one row an image, one column a finding."""
    figure = Figure(figsize=(2.4 * (1 + len(texts)), 2.6 * len(images)), layout="constrained")
    panels = figure.subplots(len(images), 1 + len(texts), squeeze=False)
    for row, path in zip(panels, images, strict=True):
        image = resize_and_pad(read_grey(path), model.size)
        stretch = model.config.image.resize_mode == "stretch"
        shown = stretched(image, model.size) if stretch else image  # what the network sees
        for axis, text in zip(row, ["", *texts], strict=True):
            axis.imshow(shown, cmap="gray")
            if text:
                axis.imshow(grad_cam(model, image, text), cmap="jet", alpha=0.4, vmin=0, vmax=1)
            axis.set_title(text or path.name, fontsize=8)
            axis.axis("off")
    return figure


@dataclass(frozen=True)
class Args:
    """A figure, and what it is made from."""

    figure: tyro.conf.Positional[Literal["sections", "smoothing", "cam"]]
    """Figure 3, 4 or 5."""
    model: str = "runs/phantom/imitate-seed0/best"
    """Model folder; for `sections` and `cam`."""
    data_root: Path = Path("data/phantom-small")
    """Folder of the corpora; for `sections`."""
    reports: int = 2000
    """Reports drawn; for `sections` (the paper: 40,000)."""
    results: Path = Path("runs/phantom/results")
    """Folder of evaluations; for `smoothing`."""
    images: tuple[Path, ...] = ()
    """Pictures; for `cam`."""
    texts: tuple[str, ...] = ("edema", "lung opacity")
    """Findings; for `cam` (Fig. 5)."""
    seed: int = 0
    """Of the draw, t-SNE and results."""
    out: Path = Path("imitate-figure.png")
    """Where the picture goes."""


def drawn(args: Args) -> Figure:
    """The figure that is asked for."""
    if args.figure == "smoothing":
        return smoothing_figure(smoothing_points(args.results, seed=args.seed))
    model = IMITATE.from_pretrained(args.model, strict=True)
    if args.figure == "cam":
        if not args.images:
            raise DataError("cam needs --images <picture> ...")
        return cam_figure(model, args.images, args.texts)
    table = DATASETS["mimic"].load(args.data_root, check_files=False)
    found = zip(table.frame["study_id"], sections_of(table), strict=True)
    reports = list({study: report for study, report in found if all(report)}.values())
    order = np.random.default_rng(args.seed).permutation(len(reports))[: args.reports]
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    return section_figure(model.to(device), [reports[k] for k in order], seed=args.seed)


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
