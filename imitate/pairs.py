"""Two views of an image with both sections of its report, for pre-training (Sec. IV-A)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import Dataset

from common.config import to_dict
from common.data import splits
from common.data.chexpert import join_reports, load_reports
from common.data.prepare import Images, open_dataset
from common.data.records import RecordTable
from common.data.tables import DataError
from imitate.augment import cropped, stretched, to_input, view
from imitate.config import PretrainConfig
from imitate.model import IMITATE
from imitate.text import Tokens, WordPieces, cleaned, store_key, store_path, word_count

T = TypeVar("T")

SPLITS = {"mimic": "mimic/official", "chexpert": "chexpert/gloria-v1"}
"""Split of each corpus; frontal images alone."""


class Report(NamedTuple):
    """Cleaned sections; "" where there is none."""

    findings: str
    impression: str


class Batch(NamedTuple):
    """Studies on their way to the model.

    Attributes:
        views: (B, 2, 1 or 3, H, W).
        texts: Findings and impressions: stored codes (B, C), or tokens.
        present: (B,) bool each, which reports have the section.
        seeds: (4,) int64, of the channel draws.
    """

    views: Tensor
    texts: tuple[Tensor | Tokens, Tensor | Tokens]
    present: tuple[Tensor, Tensor]
    seeds: Tensor


class Codes(NamedTuple):
    """Frozen codes of every pair's sections, (n, C) each."""

    findings: Tensor
    impression: Tensor


class Pairs(Dataset[Batch]):
    """Image-report pairs, fetched a batch at a time; one pair an image.

    Views and channel draws depend only on (seed, epoch, position), so a resumed run sees the same.

    Args:
        images: Where pixels come from.
        image_ids: One image a pair.
        reports: Each pair's sections.
        words: Frozen codes, or the tokeniser where the text encoder is trained.
        cfg: Views and seed.
        train: Random views; else the same centre crop twice.
    """

    def __init__(
        self,
        images: Images,
        image_ids: Sequence[str],
        reports: Sequence[Report],
        *,
        words: Codes | WordPieces,
        cfg: PretrainConfig,
        train: bool,
    ) -> None:
        self.images, self.image_ids, self.reports = images, list(image_ids), list(reports)
        self.words, self.cfg, self.train, self.epoch = words, cfg, train, 0

    def __len__(self) -> int:
        return len(self.image_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the views and draws of an epoch; validation keeps those of the first."""
        self.epoch = epoch if self.train else 0

    def __getitems__(self, rows: Sequence[int]) -> Batch:
        """The pairs in positions `rows`, as one batch."""
        image, seed = self.cfg.model.image, self.cfg.run.seed
        pixels = self.images.read([self.image_ids[row] for row in rows])
        if image.resize_mode == "stretch":
            pixels = np.stack([stretched(one, image.size) for one in pixels])
        if self.train:
            generators = [np.random.default_rng([seed, self.epoch, row]) for row in rows]
            views = np.stack(
                [
                    [view(one, image.crop, self.cfg.data, generator) for _ in range(2)]
                    for one, generator in zip(pixels, generators, strict=True)
                ]
            )
        else:
            views = np.repeat(cropped(pixels, image.crop)[:, None], 2, axis=1)
        draws = np.random.default_rng([seed, self.epoch, rows[0], 1]).integers(2**31, size=4)
        reports = [self.reports[row] for row in rows]
        present = tuple(
            torch.tensor([bool(part) for part in p]) for p in zip(*reports, strict=True)
        )
        return Batch(
            to_input(views, image.pixel_norm),
            self._texts(rows, reports),
            present,  # type: ignore[arg-type]
            torch.from_numpy(draws),
        )

    def _texts(
        self, rows: Sequence[int], reports: Sequence[Report]
    ) -> tuple[Tensor | Tokens, Tensor | Tokens]:
        if isinstance(self.words, Codes):
            index = torch.tensor(list(rows))
            return self.words.findings[index], self.words.impression[index]
        findings, impressions = zip(*reports, strict=True)
        return self.words(findings), self.words(impressions)


class Corpus(NamedTuple):
    """Pairs to train and to validate on, and where they come from.

    Attributes:
        train: Training pairs.
        valid: Validation pairs.
        table: Usable records, with the account of the others.
        split: The named split.
        without: Training pairs that lack findings, and that lack an impression.
    """

    train: Pairs
    valid: Pairs
    table: RecordTable
    split: splits.Split
    without: tuple[int, int]


def load_pairs(cfg: PretrainConfig, model: IMITATE) -> Corpus:
    """The corpus that the settings ask for: frontal images with a report of a few words.

    Raises:
        DataError: If the corpus or its reports are missing, or nothing is left of them.
    """
    name, root, size = cfg.data.dataset, cfg.run.data_root, cfg.model.image.size
    tables, table, images = open_dataset(root, name, size)
    if "section_impression" not in table.frame:
        table = join_reports(table, load_reports(root, None), keep_unmatched=True)
    split = splits.build(SPLITS[name], tables)
    sections = dict(zip(table.frame["image_id"], sections_of(table), strict=True))
    frontal = table.where(table.frame["view"] == "frontal", "not_frontal")
    enough = [word_count(*sections[i]) >= cfg.data.min_words for i in frontal.frame["image_id"]]
    usable = frontal.where(enough, "empty_text")
    known = set(usable.frame["image_id"])

    def pairs(part: str) -> Pairs:
        ids = [i for i in split.parts[part] if i in known]
        if not ids:
            raise DataError(
                f"{split.id}: no {part} image has a usable report; excluded: {usable.exclusions}"
            )
        found = [arranged(sections[i], cfg) for i in ids]
        if cfg.data.shuffle_pairs:
            found = shuffled(found, seed=cfg.run.seed)
        words = model.word_pieces() if cfg.model.text.unfreeze_last else codes_of(model, found, cfg)
        return Pairs(images, ids, found, words=words, cfg=cfg, train=part == "train")

    train, valid = pairs("train"), pairs("valid")
    lacking = [sum(not part for part in column) for column in zip(*train.reports, strict=True)]
    return Corpus(train, valid, usable, split, (lacking[0], lacking[1]))


def sections_of(table: RecordTable) -> list[Report]:
    """Findings and impression of every record, "" where one is missing."""
    columns = (table.frame["section_findings"], table.frame["section_impression"])
    return [Report(*map(cleaned, parts)) for parts in zip(*columns, strict=True)]


def arranged(report: Report, cfg: PretrainConfig) -> Report:
    """The sections, or with `find_imp` the whole text in both places (Table IX)."""
    text = " ".join(filter(None, report))
    return Report(text, text) if cfg.loss.report_mode == "find_imp" else report


def codes_of(model: IMITATE, reports: Sequence[Report], cfg: PretrainConfig) -> Codes:
    """Frozen codes of all sections, computed once and kept below the data root.

    The store's key hashes the encoder's weights, the tokeniser's settings and every text.
    """
    texts = sorted({text for report in reports for text in report})
    settings = json.dumps(to_dict(cfg.model.text)) + "\n".join(model.vocabulary)
    key = store_key(model.text_encoder.state_dict(), settings, texts)
    path = store_path(cfg.run.data_root, key)
    if path.is_file():
        table = load_file(path)["codes"]
    else:
        table = model.codes(texts).cpu().contiguous()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{np.random.default_rng().integers(2**31)}.part")
        save_file({"codes": table}, part)
        part.replace(path)
    row = {text: k for k, text in enumerate(texts)}
    index = [torch.tensor([row[text] for text in column]) for column in zip(*reports, strict=True)]
    return Codes(table[index[0]], table[index[1]])


def shuffled(texts: Sequence[T], *, seed: int) -> list[T]:
    """Every text at another place: each goes to the next place of one random cycle."""
    order = np.random.default_rng(seed).permutation(len(texts))
    source = np.empty_like(order)
    source[order] = np.roll(order, 1)
    return [texts[k] for k in source]
