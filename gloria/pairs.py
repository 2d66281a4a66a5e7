"""Images paired with report text, for pre-training (GLoRIA Sec. 4.1; ledger G07-G13, G42-G45)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from common.data import splits
from common.data.chexpert import join_reports, load_reports
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from gloria.augment import crop_and_normalise
from gloria.config import DataConfig, PretrainConfig
from gloria.text import Tokens, WordPieces, sentences

T = TypeVar("T")


class Batch(NamedTuple):
    """Studies on their way to the model.

    Attributes:
        images: (B, 1, H, W) in [-1, 1].
        tokens: The reports' word pieces.
    """

    images: Tensor
    tokens: Tokens


class Pairs(Dataset[Batch]):
    """Image-report pairs, fetched a batch at a time.

    Crops and sentence draws depend only on (seed, epoch, position), never on workers or on what was
    drawn before, so a resumed run sees the same data.

    Args:
        images: Where pixels come from.
        image_ids: One image a pair.
        reports: The cleaned sentences of each pair's report, at least one.
        word_pieces: The tokeniser.
        crop: Side of the network input, pixels.
        caption: `report` joins the sentences, `random_sentence` draws one each time.
        seed: Of crops and draws.
        train: Random crops instead of centre crops.
    """

    def __init__(
        self,
        images: Images,
        image_ids: Sequence[str],
        reports: Sequence[Sequence[str]],
        *,
        word_pieces: WordPieces,
        crop: int,
        caption: str,
        seed: int,
        train: bool,
    ) -> None:
        self.images, self.image_ids, self.reports = images, list(image_ids), list(reports)
        self.word_pieces, self.crop, self.caption = word_pieces, crop, caption
        self.seed, self.train, self.epoch = seed, train, 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the crops and sentences of an epoch."""
        self.epoch = epoch

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The pairs in positions `rows`, as one batch."""
        generators = [np.random.default_rng([self.seed, self.epoch, row]) for row in rows]
        pixels = self.images.read([self.image_ids[row] for row in rows])
        images = crop_and_normalise(pixels, self.crop, generators if self.train else None)
        texts = [self._text(row, g) for row, g in zip(rows, generators, strict=True)]
        return Batch(images, self.word_pieces(texts))

    def _text(self, row: int, generator: np.random.Generator) -> str:
        if self.caption == "report":
            return " ".join(self.reports[row])
        return self.reports[row][int(generator.integers(len(self.reports[row])))]


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
    if cfg.data.keep_empty_sentences and cfg.loss.words == "words":
        raise DataError(
            "an empty sentence has no word to match: with --data.keep-empty-sentences give "
            "--loss.words cls_words"
        )
    root, size = cfg.run.data_root, cfg.model.image.size
    tables, table, images = open_dataset(root, cfg.data.dataset, size)
    table = with_reports(table, cfg.data, root)
    split = splits.build(cfg.data.split, tables)
    reports = dict(zip(table.frame["image_id"], cleaned_reports(table, cfg), strict=True))
    frontal = table.where(table.frame["view"] == "frontal", "not_frontal")
    usable = frontal.where([bool(reports[i]) for i in frontal.frame["image_id"]], "empty_text")
    known = set(usable.frame["image_id"])

    def pairs(part: str, caption: str) -> Pairs:
        ids = [i for i in split.parts[part] if i in known]
        if not ids:
            raise DataError(
                f"{split.id}: no {part} image has a usable report; excluded: {usable.exclusions}"
            )
        texts = [reports[i] for i in ids]
        if cfg.data.shuffle_pairs:
            texts = shuffled(texts, seed=cfg.run.seed)
        return Pairs(
            images,
            ids,
            texts,
            word_pieces=word_pieces,
            crop=cfg.model.image.crop,
            caption=caption,
            seed=cfg.run.seed,
            train=part == "train",
        )

    train, valid = pairs("train", cfg.data.caption), pairs("valid", cfg.data.valid_caption)
    return Corpus(train, valid, usable, split)


def shuffled(texts: Sequence[T], *, seed: int) -> list[T]:
    """Every text at another place: each goes to the next place of one random cycle."""
    order = np.random.default_rng(seed).permutation(len(texts))
    source = np.empty_like(order)
    source[order] = np.roll(order, 1)
    return [texts[k] for k in source]


def with_reports(table: RecordTable, cfg: DataConfig, data_root: Path) -> RecordTable:
    """`table` with report sections; CheXpert's come from another table, MIMIC's are there."""
    if "section_impression" in table.frame and cfg.reports is None:
        return table
    reports = load_reports(data_root, Path(cfg.reports) if cfg.reports else None)
    return join_reports(table, reports, keep_unmatched=True)


def cleaned_reports(table: RecordTable, cfg: PretrainConfig) -> list[list[str]]:
    """The sentences of every record's report, in order of the table."""
    data = cfg.data
    names = ["findings", "impression"] if data.report_section == "both" else [data.report_section]
    columns = [table.frame[f"section_{name}"] for name in names]
    return [
        sentences(
            "\n".join(parts),
            min_tokens=data.min_tokens,
            word_budget=data.word_budget,
            split=cfg.model.text.sentence_split,
            keep_empty=data.keep_empty_sentences,
        )
        for parts in zip(*columns, strict=True)
    ]
