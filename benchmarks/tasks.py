"""The data sets that protocols evaluate on; light to import, so that planning is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.data import covidx, nih
from common.data.labels import CHEXPERT_14, COMPETITION


@dataclass(frozen=True)
class Task:
    """A data set as the protocols see it.

    Attributes:
        dataset: Registry id of the loader.
        split: Split id.
        labels: Columns that are classified.
        policy: What uncertain labels become.
        exclusive: Each image has exactly one of the labels.
        prompts: How zero-shot prompts are made: drawn for each class as GLoRIA does, or a pair of
            presence and absence a label, judged as IMITATE's or LRCLR's tables do.
    """

    dataset: str
    split: str
    labels: tuple[str, ...]
    policy: str
    exclusive: bool = False
    prompts: Literal["drawn", "pair", "findings"] = "drawn"


TASKS = {
    "chexpert": Task("chexpert", "chexpert/gloria-v1", COMPETITION, "chexpert_mixed"),
    "rsna": Task("rsna", "rsna/gloria-v1", ("Pneumonia",), "u_zeros"),
    "nih": Task("nih", "nih/maco-v1", nih.LABELS, "u_zeros"),
    "covidx": Task("covidx", "covidx/mgca-v1", covidx.CLASSES, "u_zeros", exclusive=True),
    "chexpert5x200": Task("chexpert", "chexpert5x200/gloria-v1", COMPETITION, "u_zeros"),
    "rsna_dense": Task("rsna", "rsna/mgca-dense-v1", ("Pneumonia",), "u_zeros", prompts="pair"),
    "covidx_80": Task("covidx", "covidx/mgca-released", covidx.CLASSES, "u_zeros", exclusive=True),
    "nih_kad": Task("nih", "nih/kad-v1", nih.LABELS, "u_zeros"),
    "chexpert14": Task(
        "chexpert_test", "chexpert_test/view1-v1", CHEXPERT_14, "u_zeros", prompts="findings"
    ),
    "siim": Task("siim", "siim/gloria-v1", ("Pneumothorax",), "u_zeros", prompts="pair"),
}
"""Those after 5x200 are in the parts of IMITATE and LRCLR."""

DENSE_SIZES = {
    "segmentation/phantom": 96,
    "segmentation/mgca": 224,
    "segmentation/mgca-released": 224,
    "segmentation/gloria": 512,
    "segmentation/maco": 512,
    "segmentation/maco-released": 512,
    "segmentation/maco-phantom": 96,
    "segmentation/imitate": 512,
    "segmentation/imitate-phantom": 96,
    "detection/phantom": 192,
    "detection/mgca": 224,
    "detection/mgca-released": 224,
    "detection/imitate": 224,
    "detection/imitate-phantom": 192,
}
"""Side of the images that a recipe of segmentation or detection works on, pixels."""


def linear_recipe(paper: str) -> str:
    """Protocol of linear classification on real data: the paper's, or cached features."""
    return f"linear/{paper if paper in LINEAR else 'cached-features'}"


LINEAR = ("gloria", "mgca", "imitate")
"""Papers with a linear protocol of their own."""


def dense_recipe(task: str, paper: str, corpus: str) -> str:
    """Recipe of segmentation or detection by the paper that judges a model, MGCA's if it has none.

    On phantom those of one input range share one; MaCo segments with a ViT.
    """
    if corpus == "real":
        return paper if f"{task}/{paper}" in DENSE_SIZES else "mgca"
    return f"{paper}-phantom" if paper in ("maco", "imitate") else "phantom"


def finetune_recipe(paper: str, corpus: str) -> str:
    """Recipe of fine-tuning by the paper that judges a model: MaCo's for itself, else IMITATE's."""
    if corpus == "real":
        return "maco" if paper == "maco" else "imitate"
    return "phantom" if paper == "maco" else "imitate-phantom"
