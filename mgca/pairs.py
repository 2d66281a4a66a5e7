"""Images paired with captions, for pre-training (MGCA Sec. 4.1; ledger D13, D25, D26, D54)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from common.data import splits
from common.data.chexpert import join_reports, load_reports
from common.data.mimic_sections import MAINTAINERS
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from mgca.augment import crop_and_normalise
from mgca.config import PretrainConfig
from mgca.text import Tokens, WordPieces, caption

T = TypeVar("T")

SPLITS = {"mimic": "mimic/official", "chexpert": "chexpert/gloria-v1"}
"""Split of each corpus."""


class Batch(NamedTuple):
    """Studies on their way to the model.

    Attributes:
        images: (B, 1, H, W) in [-1, 1].
        tokens: The captions' word pieces.
    """

    images: Tensor
    tokens: Tokens


class Pairs(Dataset[Batch]):
    """Image-caption pairs, fetched a batch at a time; one pair an image (Sec. 4.1).

    Crops depend only on (seed, epoch, position), so a resumed run sees the same data.

    Args:
        images: Where pixels come from.
        image_ids: One image a pair.
        captions: The cleaned report of each pair.
        word_pieces: The tokeniser.
        crop: Side of the network input, pixels.
        seed: Of the crops.
        train: Random crops instead of centre crops.
    """

    def __init__(
        self,
        images: Images,
        image_ids: Sequence[str],
        captions: Sequence[str],
        *,
        word_pieces: WordPieces,
        crop: int,
        seed: int,
        train: bool,
    ) -> None:
        self.images, self.image_ids, self.captions = images, list(image_ids), list(captions)
        self.word_pieces, self.crop = word_pieces, crop
        self.seed, self.train, self.epoch = seed, train, 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the crops of an epoch."""
        self.epoch = epoch

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The pairs in positions `rows`, as one batch."""
        generators = [np.random.default_rng([self.seed, self.epoch, row]) for row in rows]
        pixels = self.images.read([self.image_ids[row] for row in rows])
        images = crop_and_normalise(pixels, self.crop, generators if self.train else None)
        return Batch(images, self.word_pieces([self.captions[row] for row in rows]))


class Corpus(NamedTuple):
    """Pairs to train and to validate on, and where they come from.

    Attributes:
        train: Training pairs.
        valid: Validation pairs.
        table: Usable records, with the account of the others.
        split: The named split.
    """

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
    captions = dict(zip(table.frame["image_id"], captions_of(table, cfg), strict=True))
    if name == "mimic" and cfg.data.hand_picked_sections == "drop":
        by_hand = {*MAINTAINERS.names, *MAINTAINERS.offsets}
        table = table.where(~table.frame["study_id"].isin(by_hand), "sections_picked_by_hand")
    frontal = table.where(table.frame["view"] == "frontal", "not_frontal")
    usable = frontal.where([bool(captions[i]) for i in frontal.frame["image_id"]], "empty_text")
    known = set(usable.frame["image_id"])

    def pairs(part: str, wanted: Sequence[str]) -> Pairs:
        ids = [i for i in wanted if i in known]
        if not ids:
            raise DataError(
                f"{split.id}: no {part} image has a usable report; excluded: {usable.exclusions}"
            )
        texts = [captions[i] for i in ids]
        return Pairs(
            images,
            ids,
            shuffled(texts, seed=cfg.run.seed) if cfg.data.shuffle_pairs else texts,
            word_pieces=word_pieces,
            crop=cfg.model.image.crop,
            seed=cfg.run.seed,
            train=part == "train",
        )

    if cfg.data.valid_split == "merged" and name != "mimic":
        raise DataError(
            f"--data.valid-split merged joins MIMIC's parts; the test part of {split.id} is what "
            "tables are judged on: use --data.valid-split official"
        )
    if not 0 < cfg.data.pretrain_fraction <= 1:
        raise DataError(
            f"--data.pretrain-fraction {cfg.data.pretrain_fraction:g} is no share between 0 and 1"
        )
    held = split.parts["valid"]
    if cfg.data.valid_split == "merged":
        held += split.parts["test"]
    train: Sequence[str] = split.parts["train"]
    if cfg.data.pretrain_fraction < 1:
        there = [image_id for image_id in train if image_id in known]
        train = splits.fraction(there, usable, cfg.data.pretrain_fraction, seed=cfg.run.seed)
    return Corpus(pairs("train", train), pairs("valid", held), usable, split)


def captions_of(table: RecordTable, cfg: PretrainConfig) -> list[str]:
    """The caption of every record, in order of the table; "" where there is none."""
    columns = (table.frame["section_impression"], table.frame["section_findings"])
    rule, least = cfg.model.text.sentence_rule, cfg.data.min_words
    return [caption(*parts, min_words=least, rule=rule) for parts in zip(*columns, strict=True)]


def shuffled(texts: Sequence[T], *, seed: int) -> list[T]:
    """Every text at another place: each goes to the next place of one random cycle."""
    order = np.random.default_rng(seed).permutation(len(texts))
    source = np.empty_like(order)
    source[order] = np.roll(order, 1)
    return [texts[k] for k in source]
