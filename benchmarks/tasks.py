"""The data sets that protocols evaluate on; light to import, so that planning is quick."""

from __future__ import annotations

from dataclasses import dataclass

from common.data.labels import COMPETITION


@dataclass(frozen=True)
class Task:
    """A data set as the protocols see it.

    Attributes:
        dataset: Registry id of the loader.
        split: Split id.
        labels: Columns that are classified.
        policy: What uncertain labels become.
        lr: Learning rate of the linear classifier (GLoRIA released configs, ledger G55).
        clip_norm: Its gradient clipping (released configs, ledger G65).
    """

    dataset: str
    split: str
    labels: tuple[str, ...]
    policy: str
    lr: float
    clip_norm: float | None


TASKS = {
    "chexpert": Task("chexpert", "chexpert/gloria-v1", COMPETITION, "chexpert_mixed", 1e-4, 0.25),
    "rsna": Task("rsna", "rsna/gloria-v1", ("Pneumonia",), "u_zeros", 5e-4, None),
    "chexpert5x200": Task(
        "chexpert", "chexpert5x200/gloria-v1", COMPETITION, "u_zeros", 1e-4, 0.25
    ),
}
