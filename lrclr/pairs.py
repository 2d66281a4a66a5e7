"""Images with impressions, for CheXzero's and LRCLR's training (Sec. 3, Datasets)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from common.data import splits
from common.data.chexpert import join_reports, load_reports
from common.data.mimic_cxr import raw_reports
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from lrclr.config import PretrainConfig
from lrclr.images import to_input
from lrclr.text import chexzero_impression, some_sentences, tokenised

T = TypeVar("T")

SPLITS = {"mimic": "mimic/official-all-views", "chexpert": "chexpert/gloria-v1"}
"""Split of each corpus; MIMIC with every view, as CheXzero's code trains (ledger L30)."""


class Batch(NamedTuple):
    """Pairs on their way to the model: (B, 1, H, W) input, and (B, T) ids."""

    images: Tensor
    ids: Tensor


class Pairs(Dataset[Batch]):
    """Image-impression pairs, fetched a batch at a time.

    Random cuts and sentences, if any, depend only on (seed, epoch, position), so a resumed run sees
    the same.

    Args:
        images: Where pixels come from.
        image_ids: One image a pair.
        texts: Each pair's impression.
        cfg: Sizes and seed.
        train: Random cuts and sentences; else central ones and whole texts.
    """

    def __init__(
        self,
        images: Images,
        image_ids: Sequence[str],
        texts: Sequence[str],
        *,
        cfg: PretrainConfig,
        train: bool,
    ) -> None:
        self.images, self.image_ids, self.texts = images, list(image_ids), list(texts)
        self.cfg, self.train, self.epoch = cfg, train, 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the draws of an epoch; validation has none."""
        self.epoch = epoch

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The pairs in positions `rows`, as one batch."""
        pixels = self.images.read([self.image_ids[row] for row in rows])
        texts, seed, generators = [self.texts[row] for row in rows], self.cfg.run.seed, None
        if self.train:
            generators = [np.random.default_rng([seed, self.epoch, row]) for row in rows]
            share, drawn = self.cfg.data.sentence_dropout, zip(texts, generators, strict=True)
            texts = [some_sentences(text, share, generator) for text, generator in drawn]
        return Batch(
            to_input(pixels, self.cfg.model.image, generators),
            tokenised(texts, self.cfg.model.text.context),
        )


class Corpus(NamedTuple):
    """Pairs to train and to validate on, the usable records, and the named split."""

    train: Pairs
    valid: Pairs
    table: RecordTable
    split: splits.Split


def load_pairs(cfg: PretrainConfig) -> Corpus:
    """The corpus that the settings ask for.

    Raises:
        DataError: If the corpus or its reports are missing, nothing is left of them, or no such
            share of sentences can be dropped.
    """
    if not 0 <= cfg.data.sentence_dropout < 1:
        raise DataError(f"--data.sentence-dropout: 0 to below 1, not {cfg.data.sentence_dropout}")
    name, root, size = cfg.data.dataset, cfg.run.data_root, cfg.model.image.size
    tables, table, images = open_dataset(root, name, size)
    split = splits.build(SPLITS[name], tables)
    texts = dict(zip(table.frame["image_id"], impressions(table, cfg), strict=True))
    usable = table.where([bool(texts[i]) for i in table.frame["image_id"]], "empty_text")
    known = set(usable.frame["image_id"])

    def pairs(part: str) -> Pairs:
        ids = [i for i in split.parts[part] if i in known]
        if not ids:
            raise DataError(
                f"{split.id}: no {part} image has an impression; excluded: {usable.exclusions}"
            )
        found = [texts[i] for i in ids]
        if cfg.data.shuffle_pairs:
            found = shuffled(found, seed=cfg.run.seed)
        return Pairs(images, ids, found, cfg=cfg, train=part == "train")

    return Corpus(pairs("train"), pairs("valid"), usable, split)


def impressions(table: RecordTable, cfg: PretrainConfig) -> list[str]:
    """The text of every record, "" where there is none (`strict`); else CheXzero's impression.

    CheXzero's rule (`chexzero`) needs whole reports, so MIMIC's; it leaves no text empty.
    """
    if cfg.data.sections == "chexzero":
        if cfg.data.dataset != "mimic":
            raise DataError("--data.sections chexzero reads whole reports, which only mimic has")
        if cfg.data.section != "impression":
            raise DataError(
                "--data.sections chexzero finds impressions alone: add --data.section impression"
            )
        reports = raw_reports(cfg.run.data_root)
        return [chexzero_impression(reports[s]) or " " for s in table.frame["study_id"]]
    if "section_impression" not in table.frame:
        table = join_reports(table, load_reports(cfg.run.data_root, None), keep_unmatched=True)
    names = {"both": ("findings", "impression")}.get(cfg.data.section, (cfg.data.section,))
    columns = [table.frame[f"section_{name}"] for name in names]
    joined = [" ".join(" ".join(parts).split()) for parts in zip(*columns, strict=True)]
    return [text if re.search("[A-Za-z]", text) else "" for text in joined]


def shuffled(texts: Sequence[T], *, seed: int) -> list[T]:
    """Every text at another place: each goes to the next place of one random cycle."""
    order = np.random.default_rng(seed).permutation(len(texts))
    source = np.empty_like(order)
    source[order] = np.roll(order, 1)
    return [texts[k] for k in source]
