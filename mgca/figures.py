"""MGCA's figures: `python -m mgca.figures words film.png "small left effusion" --model runs/...`.

Figure 3 shows which patches the words of a report correspond to, Figure 4 the images' global
embeddings in two dimensions, coloured by label and by prototype.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
import tyro
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from torch import Tensor

from common.checkpoint import CheckpointError
from common.data.images import read_grey, resize_and_pad
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from mgca.checkpoint import load_released
from mgca.config import RELEASED
from mgca.model import MGCA
from mgca.text import Tokens


class WordMaps(NamedTuple):
    """What each word of a report looks at.

    Attributes:
        words: The words, [SEP] left out.
        maps: (words, rows, columns) attention over patches; each sums to 1.
    """

    words: list[str]
    maps: NDArray[np.float32]


@torch.no_grad()
def word_maps(model: MGCA, view: Tensor, report: str, *, tau: float) -> WordMaps:
    """Attention of a report's words over one image's patches (Eq. 4), as CTA trains it.

    Source: MGCA Fig. 3. The authors' notebook shows one minus the weights of attention layers that
    their default training never updates (ledger D52); these are the weights themselves.

    Args:
        model: In any mode; evaluated.
        view: (1, 1, H, W) network input.
        report: Raw text.
        tau: Temperature of the cosine attention, for models that have no learned one.

    Raises:
        ValueError: If the text has no word left.
    """
    model.eval()
    pieces = model.word_pieces()
    tokens = pieces(model.clean([report]))
    image = model.encode_images(view.to(model.device))
    text = model.encode_texts(Tokens(*(t.to(model.device) for t in tokens)))
    if model.word_attention is None:
        weights = (text.word_emb @ image.patch_emb.mT / tau).softmax(dim=-1)
    else:
        weights = model.word_attention(text.word_emb, image.patch_emb, image.patch_emb)[1]
    words = pieces.words(tokens)[0][1:]
    words = words[:-1] if words[-1] == "[SEP]" else words  # a full report may have lost it
    maps = weights[0, : len(words)].unflatten(1, image.grid)
    return WordMaps(words, maps.float().cpu().numpy())


def word_figure(view: Tensor, found: WordMaps) -> Figure:
    """Figure 3: the image, then each word's map over it, all on one scale."""
    image = (view[0, 0].cpu().numpy() + 1) / 2
    high = float(found.maps.max())
    figure = Figure(figsize=(1.9 * (len(found.words) + 1), 2.3))
    panels = figure.subplots(1, len(found.words) + 1, squeeze=False)[0]
    for axes, title, heat in zip(panels, ["", *found.words], [None, *found.maps], strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        if heat is not None:
            smooth = cv2.resize(heat, image.shape[::-1], interpolation=cv2.INTER_CUBIC)
            axes.imshow(np.clip(smooth / high, 0, 1), cmap="jet", alpha=0.35, vmin=0, vmax=1)
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    return figure


class Embedded(NamedTuple):
    """Images with one abnormality in the joint space.

    Attributes:
        emb: (n, D) unit vectors.
        labels: (n,) index of the label.
        prototypes: (n,) index of the nearest prototype.
        names: The labels' names.
    """

    emb: NDArray[np.float32]
    labels: NDArray[np.int64]
    prototypes: NDArray[np.int64]
    names: tuple[str, ...]


NOT_COUNTED = ("No Finding", "Support Devices", "Lung Opacity", "Enlarged Cardiomediastinum")
"""Beside a finding: no abnormalities, and CheXpert's parents of others."""


@torch.no_grad()
def single_label_embeddings(
    model: MGCA,
    table: RecordTable,
    images: Images,
    *,
    names: Sequence[str],
    most: int = 200,
    seed: int = 0,
) -> Embedded:
    """Frontal images with one finding alone, of `names`; at most `most` of each by `seed`.

    Raises:
        ValueError: If the table knows another set of labels, or no image has one finding alone.
    """
    unknown = sorted({*names} - {*table.labels})
    if unknown:
        raise ValueError(f"{table.dataset} has no label {unknown}; it has {list(table.labels)}")
    labels = table.labels[list(names)].to_numpy()
    findings = table.labels.drop(columns=list(NOT_COUNTED), errors="ignore")
    alone = ((labels == 1).sum(axis=1) == 1) & ((findings == 1).sum(axis=1) == 1).to_numpy()
    alone &= (table.frame["view"] == "frontal").to_numpy()
    rows = np.flatnonzero(alone)
    generator = np.random.default_rng(seed)
    kept: list[int] = []
    for k in range(len(names)):
        found = rows[labels[rows, k] == 1]
        kept += sorted(generator.permutation(found)[:most].tolist())
    if not kept:
        raise ValueError(f"no frontal image of {table.dataset} has one of {list(names)} alone")
    ids = table.frame["image_id"].iloc[kept].tolist()
    parts = [
        model.embed_images(model.normalise(images.read(ids[i : i + 64]))).emb
        for i in range(0, len(ids), 64)
    ]
    emb = torch.cat(parts)
    return Embedded(
        emb.cpu().numpy(),
        (labels[kept] == 1).argmax(axis=1),
        model.prototypes(emb).argmax(dim=1).cpu().numpy(),
        tuple(names),
    )


def embedding_figure(found: Embedded, *, prototypes: int = 5, seed: int = 0) -> Figure:
    """Figure 4: t-SNE of the embeddings, by label and by the most frequent prototypes."""
    perplexity = min(30.0, (len(found.emb) - 1) / 3)
    flat = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(found.emb)
    figure = Figure(figsize=(10, 5))
    left, right = figure.subplots(1, 2)
    for k, name in enumerate(found.names):
        left.scatter(*flat[found.labels == k].T, s=8, label=name)
    numbers, counts = np.unique(found.prototypes, return_counts=True)
    often = numbers[counts.argsort()[::-1][:prototypes]]
    right.scatter(*flat.T, s=4, color="lightgrey")
    for number in often:
        right.scatter(*flat[found.prototypes == number].T, s=8, label=f"prototype {number}")
    for axes, title in ((left, "label"), (right, "prototype")):
        axes.set_title(title)
        axes.legend(fontsize=7)
        axes.axis("off")
    return figure


@dataclass(frozen=True)
class Args:
    """What to draw."""

    figure: tyro.conf.Positional[Literal["words", "prototypes"]]
    """Figure 3 or Figure 4."""
    image: tyro.conf.Positional[Path] = Path()
    """For `words`: PNG, JPEG or DICOM."""
    report: tyro.conf.Positional[str] = ""
    """For `words`: the text whose words are shown."""
    tau: float = RELEASED.loss.tau_cta
    """For `words`: temperature of a cosine attention; a learned one has none."""
    model: str = "runs/phantom/mgca-vit-seed0/best"
    """Model folder, hub id, or a checkpoint (.ckpt) that the authors released."""
    dataset: str = "chexpert"
    """For `prototypes`: whose images."""
    data_root: Path = Path("data/phantom-small")
    """For `prototypes`: folder of the corpora."""
    labels: tuple[str, ...] = (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Pneumothorax",
    )
    """For `prototypes`: images with one finding alone, of these."""
    out: Path = Path("figure.png")
    """Where the figure goes."""


def load(name: str) -> MGCA:
    """A model folder, a hub id, or a released checkpoint.

    Raises:
        CheckpointError: If there is no such model, here or on the hub.
    """
    if name.endswith((".ckpt", ".pth", ".pt")):
        return load_released(Path(name))[0]
    try:
        return MGCA.from_pretrained(name, strict=True).eval()
    except (OSError, HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"no model at {name!r}, neither as a folder nor on the hub; pre-train one with "
            "make reproduce-mgca-table1, or give --model"
        ) from error


def draw(args: Args) -> Figure:
    """The figure that the command line asks for."""
    model = load(args.model)
    if args.figure == "prototypes":
        _, table, images = open_dataset(args.data_root, args.dataset, model.size)
        return embedding_figure(single_label_embeddings(model, table, images, names=args.labels))
    pixels = resize_and_pad(read_grey(args.image), model.size).astype(np.uint8)
    view = model.normalise(pixels[None])
    return word_figure(view, word_maps(model, view, args.report, tau=args.tau))


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    try:
        figure = draw(args)
    except (CheckpointError, DataError, ValueError) as error:
        sys.exit(f"error: {error}")
    figure.savefig(args.out, dpi=110, bbox_inches="tight")
    sys.stdout.write(f"{args.figure}: {args.out}\n")


if __name__ == "__main__":
    main()
