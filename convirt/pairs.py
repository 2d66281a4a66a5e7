"""Images paired with sentences of their reports, for pre-training (ConVIRT Sec. 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from common.data import splits
from common.data.chexpert import join_reports, load_reports
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from convirt.augment import augmented, cropped
from convirt.config import DataConfig, PretrainConfig
from convirt.text import Tokens, WordPieces, sentences

SPLITS = {"mimic": "mimic/official", "chexpert": "chexpert/gloria-v1"}
"""Split of each corpus."""


class Batch(NamedTuple):
    """Studies on their way to the model: (B, 1, H, W) in [-1, 1], and word pieces."""

    images: Tensor
    tokens: Tokens


class Pairs(Dataset[Batch]):
    """Image-report pairs, fetched a batch at a time.

    Views and sentences depend only on (seed, epoch, position), so a resumed run sees the same data.

    Args:
        images: Where pixels come from.
        image_ids: One image a pair.
        reports: Each pair's sentences, at least one.
        word_pieces: The tokeniser.
        cfg: Crop, augmentation, text and seed.
        train: Augmented images instead of centre crops.
    """

    def __init__(
        self,
        images: Images,
        image_ids: Sequence[str],
        reports: Sequence[Sequence[str]],
        *,
        word_pieces: WordPieces,
        cfg: PretrainConfig,
        train: bool,
    ) -> None:
        self.images, self.image_ids, self.reports = images, list(image_ids), list(reports)
        self.word_pieces, self.cfg, self.train, self.epoch = word_pieces, cfg, train, 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the views and sentences of an epoch; validation keeps those of the first."""
        self.epoch = epoch if self.train else 0

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The pairs in positions `rows`, as one batch."""
        seed, crop = self.cfg.run.seed, self.cfg.model.image.crop
        generators = [np.random.default_rng([seed, self.epoch, row]) for row in rows]
        texts = [self._text(*pair) for pair in zip(rows, generators, strict=True)]
        pixels = self.images.read([self.image_ids[row] for row in rows])
        images = (
            augmented(pixels, crop, self.cfg.augment, generators)
            if self.train
            else cropped(pixels, crop)
        )
        return Batch(images, self.word_pieces(texts))

    def _text(self, row: int, generator: np.random.Generator) -> str:
        report = self.reports[row]
        if self.cfg.data.text == "report":
            return " ".join(report)
        return report[int(generator.integers(len(report)))]


class Corpus(NamedTuple):
    """Pairs to train and to validate on, the usable records, and the named split."""

    train: Pairs
    valid: Pairs
    table: RecordTable
    split: splits.Split


def load_pairs(cfg: PretrainConfig, word_pieces: WordPieces) -> Corpus:
    """The corpus that the settings ask for: frontal images with a usable report.

    Raises:
        DataError: If the corpus or its reports are missing, or nothing is left of them.
    """
    name, root, size = cfg.data.dataset, cfg.run.data_root, cfg.model.image.size
    tables, table, images = open_dataset(root, name, size)
    if "section_impression" not in table.frame:
        table = join_reports(table, load_reports(root, None), keep_unmatched=True)
    split = splits.build(SPLITS[name], tables)
    reports = dict(zip(table.frame["image_id"], reports_of(table, cfg.data), strict=True))
    frontal = table.where(table.frame["view"] == "frontal", "not_frontal")
    usable = frontal.where([bool(reports[i]) for i in frontal.frame["image_id"]], "empty_text")
    known = set(usable.frame["image_id"])

    def pairs(part: str) -> Pairs:
        ids = [i for i in split.parts[part] if i in known]
        if not ids:
            raise DataError(
                f"{split.id}: no {part} image has a usable report; excluded: {usable.exclusions}"
            )
        texts = [reports[i] for i in ids]
        train = part == "train"
        return Pairs(images, ids, texts, word_pieces=word_pieces, cfg=cfg, train=train)

    return Corpus(pairs("train"), pairs("valid"), usable, split)


def reports_of(table: RecordTable, cfg: DataConfig) -> list[list[str]]:
    """The sentences of every record's report, in order of the table."""
    names = ["findings", "impression"] if cfg.section == "both" else [cfg.section]
    columns = [table.frame[f"section_{name}"] for name in names]
    return [
        sentences("\n\n".join(parts), min_words=cfg.min_words)
        for parts in zip(*columns, strict=True)
    ]
