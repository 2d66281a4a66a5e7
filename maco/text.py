"""Reports to sentences, drawn and shuffled, to word pieces (released data set; ledger D2-D5)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from common.checkpoint import CheckpointError

SENTENCE_END = {
    "sentences": re.compile(r"\.(?=\s|$)|\n\s*\n"),
    "safe": re.compile(r"\.(?=\s|$)"),
    "released": re.compile(r"\."),
}
"""What ends a piece, by `DataConfig.sentence_split`."""
SILENT = ("", "None", "none")
"""Pieces that are skipped after the draw."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]")


def sentences(report: str, *, rule: str = "sentences") -> list[str]:
    """Pieces of a report, each with its full stop and a space.

    Source: released data set, which counts pieces without a word ("", "1", "___"), as `released`
    does; `safe` drops the empty ones, `sentences` all without a letter.
    """
    pieces = [piece.strip() for piece in SENTENCE_END[rule].split(report)]
    if rule == "safe":
        pieces = [piece for piece in pieces if piece]
    elif rule == "sentences":
        pieces = [piece for piece in pieces if any(map(str.isalpha, piece))]
    return [f"{piece}. " for piece in pieces]


def some_sentences(report: str, generator: np.random.Generator, *, rule: str = "sentences") -> str:
    """A random number of a report's sentences in random order, lower case.

    Source: released data set: n is uniform in 1 ... all; of the shuffled pieces the first n are
    kept, and of those the empty ones and "none" skipped.
    """
    pieces = sentences(report, rule=rule)
    if not pieces:
        return ""
    order = generator.permutation(len(pieces))
    return chosen(pieces, order.tolist(), int(generator.integers(1, len(pieces) + 1)))


def chosen(pieces: Sequence[str], order: Sequence[int], keep: int) -> str:
    """The first `keep` pieces of `order`, without silent ones; if none is left, the first."""
    shuffled = [pieces[k] for k in order]
    kept = [piece for piece in shuffled[:keep] if piece.rstrip(". ") not in SILENT]
    return "".join(kept).lower() if kept else shuffled[0]


def phrase(text: str) -> str:
    """A phrase to ground: its sentences in order, without fragments and anonymised ones.

    Source: released grounding script, which also shuffles them (ledger G9): pieces of up to five
    characters, with an underscore or starting with a comma go.
    """
    pieces = [piece.lower() for piece in sentences(text, rule="released")]
    kept = [p for p in pieces if len(p) > 5 and "_" not in p and not p.startswith(",")]
    return "".join(kept) or text


class Tokens(NamedTuple):
    """A batch of texts as word pieces; T is the longest.

    Attributes:
        ids: (B, T) int64, `[CLS] ... [PAD] ...`; there is no [SEP].
        mask: (B, T) bool, True = real piece.
    """

    ids: Tensor
    mask: Tensor


class WordPieces:
    """A WordPiece vocabulary: lower case, accents stripped, digits apart, [CLS] in front.

    Source: the released tokeniser's settings.

    Args:
        vocabulary: The pieces in order of their ids; holds `SPECIAL`.
        max_tokens: Longest text with [CLS]; the rest is cut.

    Raises:
        ValueError: If a special piece is missing.
    """

    def __init__(self, vocabulary: Sequence[str], *, max_tokens: int) -> None:
        index = {piece: i for i, piece in enumerate(vocabulary)}
        missing = [piece for piece in SPECIAL if piece not in index]
        if missing:
            raise ValueError(f"not a BERT vocabulary: {missing} missing among {len(index)} pieces")
        model = models.WordPiece(vocab=index, unk_token="[UNK]", max_input_chars_per_word=100)
        self.tokenizer = Tokenizer(model)
        self.tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Lowercase(), normalizers.NFKD(), normalizers.StripAccents()]
        )
        self.tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=False)]
        )
        self.cls, self.pad, self.max_tokens = index["[CLS]"], index["[PAD]"], max_tokens

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenise a batch; a text without a piece is [CLS] alone."""
        rows = [
            [self.cls, *encoded.ids][: self.max_tokens]
            for encoded in self.tokenizer.encode_batch(list(texts))
        ]
        length = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (length - len(row)) for row in rows])
        lengths = torch.tensor([len(row) for row in rows])
        return Tokens(ids, torch.arange(length) < lengths[:, None])


def read_vocabulary(path: Path) -> list[str]:
    """Word pieces of a `vocab.txt`, one a line, or of a `tokenizers` file (`.json`), by their ids.

    Raises:
        CheckpointError: If it is no text, a `.json` holds no vocabulary, or a special piece lacks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: not a BERT vocabulary: no UTF-8 text") from error
    pieces = _json_pieces(text, path) if path.suffix == ".json" else text.splitlines()
    missing = [piece for piece in SPECIAL if piece not in pieces]
    if missing:
        raise CheckpointError(
            f"{path}: not a BERT vocabulary: {missing} missing among {len(pieces)} pieces"
        )
    return pieces


def _json_pieces(text: str, path: Path) -> list[str]:
    try:
        ids: dict[str, int] = json.loads(text)["model"]["vocab"]
        return sorted(ids, key=ids.__getitem__)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no tokeniser with model.vocab: {error!r}") from error
