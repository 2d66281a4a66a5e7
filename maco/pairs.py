"""Images paired with sentences of their reports, for pre-training (Sec. 3.4; ledger D1-D8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.data import splits
from common.data.chexpert import join_reports, load_reports
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from maco.augment import warped
from maco.config import DataConfig, PretrainConfig
from maco.text import Tokens, WordPieces, some_sentences

T = TypeVar("T")

SPLITS = {
    ("mimic", "all"): "mimic/official-all-views",
    ("mimic", "frontal"): "mimic/official",
    ("chexpert", "frontal"): "chexpert/gloria-v1",
}
"""Split of each corpus and choice of views."""


class Batch(NamedTuple):
    """Studies on their way to the model.

    Attributes:
        images: (B, 1, S, S) 8-bit pixels, normalised on the device.
        tokens: Some sentences of each report.
        noise: (B, P) uniform, which patches are removed.
    """

    images: Tensor
    tokens: Tokens
    noise: Tensor


class Pairs(Dataset[Batch]):
    """Image-report pairs, fetched a batch at a time; one pair an image.

    Warps, sentences and masks depend only on (seed, epoch, position), so a resumed run sees the
    same data and the same masks.

    Args:
        images: Where pixels come from.
        image_ids: One image a pair.
        reports: The report of each pair.
        word_pieces: The tokeniser.
        cfg: Augmentation, sentences, grid and seed.
        train: Warp the images; else the same sentences and masks in every epoch.
    """

    def __init__(
        self,
        images: Images,
        image_ids: Sequence[str],
        reports: Sequence[str],
        *,
        word_pieces: WordPieces,
        cfg: PretrainConfig,
        train: bool,
    ) -> None:
        self.images, self.image_ids, self.reports = images, list(image_ids), list(reports)
        self.word_pieces, self.cfg, self.train, self.epoch = word_pieces, cfg, train, 0
        self.patches = (cfg.model.image.input // cfg.model.image.patch) ** 2

    def __len__(self) -> int:
        return len(self.image_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch; validation keeps those of the first."""
        self.epoch = epoch if self.train else 0

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The pairs in positions `rows`, as one batch."""
        data, seed = self.cfg.data, self.cfg.run.seed
        generators = [np.random.default_rng([seed, self.epoch, row]) for row in rows]
        pixels = self.images.read([self.image_ids[row] for row in rows])
        if self.train:
            pixels = warped(pixels, data, generators)
        texts = [
            some_sentences(self.reports[row], generator, rule=data.sentence_split)
            for row, generator in zip(rows, generators, strict=True)
        ]
        noise = np.stack([generator.random(self.patches, np.float32) for generator in generators])
        images = torch.from_numpy(pixels)[:, None]
        return Batch(images, self.word_pieces(texts), torch.from_numpy(noise))


class Corpus(NamedTuple):
    """Pairs to train and to validate on, and where they come from.

    Attributes:
        train: Training pairs.
        valid: Validation pairs.
        table: Usable records, with the account of the others.
        split: The named split.
        empty: Training pairs whose report has no text: they are kept, as empty strings.
    """

    train: Pairs
    valid: Pairs
    table: RecordTable
    split: splits.Split
    empty: int


def load_pairs(cfg: PretrainConfig, word_pieces: WordPieces) -> Corpus:
    """The corpus that the settings ask for; reports without text are kept and counted.

    Raises:
        DataError: If the corpus or its reports are missing, or nothing is left of them.
    """
    name, root, size = cfg.data.dataset, cfg.run.data_root, cfg.model.image.size
    if (name, cfg.data.views) not in SPLITS:
        raise DataError(f"{name} has reports of frontal images alone: give --data.views frontal")
    tables, table, images = open_dataset(root, name, size)
    if "section_impression" not in table.frame:
        table = join_reports(table, load_reports(root, None), keep_unmatched=True)
    split = splits.build(SPLITS[name, cfg.data.views], tables)
    reports = dict(zip(table.frame["image_id"], reports_of(table, cfg.data), strict=True))

    def pairs(part: str) -> Pairs:
        ids = [i for i in split.parts[part] if i in reports]
        if not ids:
            raise DataError(f"{split.id}: no {part} image is there; excluded: {table.exclusions}")
        texts = [reports[i] for i in ids]
        return Pairs(
            images,
            ids,
            shuffled(texts, seed=cfg.run.seed) if cfg.data.shuffle_pairs else texts,
            word_pieces=word_pieces,
            cfg=cfg,
            train=part == "train",
        )

    train, valid = pairs("train"), pairs("valid")
    empty = sum(not report.strip() for report in train.reports)
    return Corpus(train, valid, table, split, empty)


def reports_of(table: RecordTable, cfg: DataConfig) -> list[str]:
    """Every record's sections, a blank line apart, else its last paragraph, else ""."""
    names = {
        "findings_impression": ["findings", "impression"],
        "impression": ["impression"],
        "findings": ["findings"],
    }[cfg.report_sections]
    columns = [table.frame[f"section_{name}"].tolist() for name in names]
    rest = table.frame.get("section_last_paragraph", [""] * len(table))
    return [
        "\n\n".join(filter(str.strip, parts)) or last
        for parts, last in zip(zip(*columns, strict=True), rest, strict=True)
    ]


def shuffled(texts: Sequence[T], *, seed: int) -> list[T]:
    """Every text at another place: each goes to the next place of one random cycle."""
    order = np.random.default_rng(seed).permutation(len(texts))
    source = np.empty_like(order)
    source[order] = np.roll(order, 1)
    return [texts[k] for k in source]
