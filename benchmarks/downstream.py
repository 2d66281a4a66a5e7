"""What a protocol evaluates on: a table, its named split, targets, and pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from benchmarks.tasks import TASKS
from common.data import chexpert, splits
from common.data.labels import apply_policy
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.interface import Encoder

BATCH = 64
"""Images encoded at once; without influence on the result, encoders being in evaluation mode."""


class Downstream:
    """One task's data, read once.

    Attributes:
        name: The task's, of `benchmarks.tasks`.
        task: What is classified.
        table: Every record of the data set that is there.
        split: Image ids by part.
        images: Where pixels come from.
    """

    def __init__(self, name: str, data_root: Path, *, size: int, split: str = "") -> None:
        self.name, self.task = name, TASKS[name]
        tables, self.table, self.images = open_dataset(data_root, self.task.dataset, size)
        self.split = splits.build(split or self.task.split, tables)

    def ids(self, part: str) -> tuple[str, ...]:
        """Images of a part that are there; `released` leaking splits lose their laterals here."""
        chosen = self.split.select(part, self.table)
        return tuple(chosen.frame["image_id"][chosen.frame["view"] != "lateral"])

    def targets(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """(n, L) in {0, 1} under the task's policy."""
        labels = self.table.select(ids).labels[list(self.task.labels)]
        return apply_policy(labels, self.task.policy).to_numpy(np.float32)

    def classes(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) index of the one positive label, for 5x200 and COVIDx."""
        return self.targets(ids).argmax(axis=1)

    def reports(self, ids: Sequence[str], data_root: Path) -> tuple[tuple[str, ...], list[str]]:
        """The ids whose impression holds a letter, and those impressions."""
        table = self.table
        if "section_impression" not in table.frame:
            table = chexpert.join_reports(
                table, chexpert.load_reports(data_root), keep_unmatched=True
            )
        text = dict(zip(table.frame["image_id"], table.frame["section_impression"], strict=True))
        kept = tuple(i for i in ids if re.search("[A-Za-z]", text[i]))
        return kept, [text[i] for i in kept]


def device_of(module: nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next(module.parameters()).device


def describe_split(split: splits.Split, table: RecordTable) -> dict[str, object]:
    """A split's hashes, sizes, and what its parts share."""
    return {
        "rule": split.rule,
        "sha256": split.sha256,
        "images": {name: len(ids) for name, ids in split.parts.items()},
        "shared": {k: v for k, v in split.overlaps(table).items() if any(v.values())},
    }


@torch.no_grad()
def pooled_features(model: Encoder, data: Downstream, ids: Sequence[str]) -> NDArray[np.float32]:
    """(n, C) features of the bare image encoder, centre crops, each image encoded once."""
    return np.concatenate(
        [
            model.image_features(model.normalise(pixels, generator=None))
            .pooled.float()
            .cpu()
            .numpy()
            for pixels in batches(data.images, ids, "encode images")
        ]
    )


def batches(images: Images, ids: Sequence[str], title: str) -> tqdm[NDArray[np.uint8]]:
    """Pixels of `ids` in batches, with a progress bar."""
    starts = range(0, len(ids), BATCH)
    return tqdm(
        (images.read(ids[i : i + BATCH]) for i in starts),
        total=len(starts),
        desc=title,
        unit="batch",
    )
