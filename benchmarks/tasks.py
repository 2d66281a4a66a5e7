"""The data sets that protocols evaluate on; light to import, so that planning is quick."""

from __future__ import annotations

from dataclasses import dataclass

from common.data import covidx, nih
from common.data.labels import COMPETITION


@dataclass(frozen=True)
class Task:
    """A data set as the protocols see it.

    Attributes:
        dataset: Registry id of the loader.
        split: Split id.
        labels: Columns that are classified.
        policy: What uncertain labels become.
        exclusive: Each image has exactly one of the labels.
    """

    dataset: str
    split: str
    labels: tuple[str, ...]
    policy: str
    exclusive: bool = False


TASKS = {
    "chexpert": Task("chexpert", "chexpert/gloria-v1", COMPETITION, "chexpert_mixed"),
    "rsna": Task("rsna", "rsna/gloria-v1", ("Pneumonia",), "u_zeros"),
    "nih": Task("nih", "nih/maco-v1", nih.LABELS, "u_zeros"),
    "covidx": Task("covidx", "covidx/mgca-v1", covidx.CLASSES, "u_zeros", exclusive=True),
    "chexpert5x200": Task("chexpert", "chexpert5x200/gloria-v1", COMPETITION, "u_zeros"),
}

DENSE_SIZES = {
    "segmentation/phantom": 64,
    "segmentation/mgca": 224,
    "segmentation/gloria": 512,
    "segmentation/maco": 512,
    "segmentation/maco-released": 512,
    "segmentation/maco-phantom": 96,
    "detection/phantom": 96,
    "detection/mgca": 224,
}
"""Side of the images that a recipe of segmentation or detection works on, pixels."""


def dense_recipe(paper: str, corpus: str) -> str:
    """Recipe of segmentation and detection by the paper that judges a model.

    On phantom every paper with a ResNet shares one; MaCo segments with a ViT.
    """
    if corpus == "real":
        return paper
    return "maco-phantom" if paper == "maco" else "phantom"
