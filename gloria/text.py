"""Reports to sentences to word pieces to words, as GLoRIA does it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LIST_NUMBER = {
    "released": re.compile(r"[0-9]+\."),
    "decimal_safe": re.compile(r"(?<![0-9.])[0-9]+\.(?![0-9])"),
}
FULL_STOP = {"released": re.compile(r"\."), "decimal_safe": re.compile(r"\.(?![0-9])")}


def sentences(
    report: str | None,
    *,
    min_tokens: int = 2,
    word_budget: int | None = None,
    split: str = "released",
    keep_empty: bool = False,
) -> list[str]:
    r"""The cleaned sentences of a report: lower case, words only, ASCII.

    Source: the released pre-training data set and `process_text`; numbered steps of the
    README. List numbers ("2.") and full stops end a sentence; with `split="released"` that also
    cuts "1.8 cm" into "8 cm".

    Args:
        report: Raw text; None and "" have no sentence.
        min_tokens: Shorter sentences are dropped.
        word_budget: Stop when the words so far are exactly this many (a slip of the released code).
        split: `released` or `decimal_safe`.
        keep_empty: Keep a sentence whose tokens are all outside ASCII, as "".
    """
    kept: list[str] = []
    words = 0
    text = (report or "").replace("\n", " ")
    parts = [s for item in LIST_NUMBER[split].split(text) for s in FULL_STOP[split].split(item)]
    for part in parts:
        tokens = re.findall(r"\w+", part.replace("\ufffd\ufffd", " ").lower())
        if len(tokens) < max(min_tokens, 1):
            continue
        ascii_tokens = [t for t in (t.encode("ascii", "ignore").decode() for t in tokens) if t]
        if ascii_tokens or keep_empty:
            kept.append(" ".join(ascii_tokens))
            words += len(ascii_tokens)
        if words == word_budget:
            break
    return kept


class Tokens(NamedTuple):
    """A batch of texts as word pieces; T is the padded length.

    Attributes:
        ids: (B, T) int64 word pieces, `[CLS] ... [SEP] [PAD] ...`.
        mask: (B, T) bool, True = real piece.
        word_index: (B, T) int64, position of the word each piece belongs to: 0 for [CLS], then the
            words, then [SEP]; -1 for pieces that belong to none.
        n_words: (B,) int64, words without [CLS] and [SEP].
    """

    ids: Tensor
    mask: Tensor
    word_index: Tensor
    n_words: Tensor


class WordPieces:
    """A WordPiece vocabulary fed with cleaned, lower-case text.

    Args:
        vocabulary: The pieces in order of their ids; holds `SPECIAL`.
        max_tokens: Longest text with [CLS] and [SEP]; the rest is cut.
        pad_to_max: Pad to `max_tokens` instead of the longest text of the batch.
        unk_shortens: Count a text's words as the released loss does, one less for each [UNK].
        units: `words`, or `pieces`: every piece stands for itself, [SEP] and padding included.

    Raises:
        ValueError: If a special piece is missing.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        max_tokens: int,
        pad_to_max: bool = False,
        unk_shortens: bool = False,
        units: str = "words",
    ) -> None:
        missing = [piece for piece in SPECIAL if piece not in vocabulary]
        if missing:
            raise ValueError(
                f"not a BERT vocabulary: {missing} missing among {len(vocabulary)} pieces"
            )
        self.vocabulary = tuple(vocabulary)
        index = {piece: i for i, piece in enumerate(self.vocabulary)}
        self.tokenizer = BertWordPieceTokenizer(index, lowercase=False, strip_accents=False)
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(
            pad_id=index["[PAD]"], pad_token="[PAD]", length=max_tokens if pad_to_max else None
        )
        self.continues = torch.tensor([piece.startswith("##") for piece in self.vocabulary])
        self.sep, self.pad, self.unk = index["[SEP]"], index["[PAD]"], index["[UNK]"]
        self.outside = torch.tensor([index[p] for p in SPECIAL if p != "[UNK]"])
        self.unk_shortens, self.units = unk_shortens, units

    @classmethod
    def from_file(cls, path: Path, *, max_tokens: int) -> WordPieces:
        """Read a `vocab.txt`, one piece a line."""
        return cls(path.read_text(encoding="utf-8").splitlines(), max_tokens=max_tokens)

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenise a batch."""
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([e.ids for e in encoded])
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)
        return self.group(ids, mask)

    def group(self, ids: Tensor, mask: Tensor) -> Tokens:
        """Assign word pieces to words.

        A piece that starts with `##` joins the open word, any other opens one; the first [SEP] is a
        word of its own and ends the text. Without [SEP] the last open word is lost. Source:
        released `aggregate_tokens`.
        """
        starts = ~self.continues[ids]
        starts[:, 0] = True
        word = starts.cumsum(dim=1) - 1  # (B, T)
        is_sep = ids == self.sep
        inside = is_sep.cumsum(dim=1) - is_sep.long() == 0
        open_end = ~is_sep.any(dim=1, keepdim=True) & (word == word[:, -1:])
        word_index = word.masked_fill(~inside | open_end, -1)
        counted = starts & mask & (word_index >= 0)
        if self.units == "pieces":
            word_index = torch.arange(ids.shape[1]).expand_as(ids)
            counted = mask.clone()
        counted &= ~torch.isin(ids, self.outside)
        if self.unk_shortens:
            counted &= ids != self.unk
        return Tokens(ids, mask, word_index, counted.sum(dim=1))

    def words(self, tokens: Tokens) -> list[list[str]]:
        """The words of each text as strings, without [CLS] and [SEP]."""
        texts: list[list[str]] = []
        for ids, index, n in zip(
            tokens.ids.tolist(), tokens.word_index.tolist(), tokens.n_words.tolist(), strict=True
        ):
            words = [""] * (max(index) + 1)
            for piece, position in zip(ids, index, strict=True):
                if position >= 0:
                    words[position] += self.vocabulary[piece].removeprefix("##")
            texts.append(words[1 : n + 1])
        return texts


def word_mask(n_words: Tensor, positions: int, *, words: str = "words") -> Tensor:
    """Which aggregated positions take part in matching.

    Args:
        n_words: (B,) words of each text.
        positions: Aggregated positions W; 0 is [CLS].
        words: `words` = positions 1 to n (GLoRIA Sec. 3.2.3), `cls_words` = 0 to n (released loss).

    Returns:
        (B, W) bool.
    """
    position = torch.arange(positions, device=n_words.device)
    mask = position <= n_words[:, None]
    return mask & (position > 0) if words == "words" else mask


def aggregate_words(feat: Tensor, tokens: Tokens, *, pool: str = "mean") -> Tensor:
    """Word-piece features to word features, one scatter for the whole batch.

    Source: GLoRIA Sec. 3.2.1 ("averaging"); the released code sums (ledger G01).

    Args:
        feat: (B, T, D) features of the pieces.
        tokens: Which word each piece belongs to.
        pool: `mean` or `sum` over the pieces of a word.

    Returns:
        (B, W, D) with W the most words of any text, [CLS] first; zero where a text has no word.
    """
    batch, _, width = feat.shape
    index = tokens.word_index
    positions = int(index.max()) + 1
    used = index >= 0
    flat = (torch.arange(batch, device=index.device)[:, None] * positions + index)[used]
    words = feat.new_zeros(batch * positions, width).index_add(0, flat, feat[used])
    if pool == "mean":
        pieces = feat.new_zeros(batch * positions).index_add(0, flat, feat.new_ones(len(flat)))
        words = words / pieces.clamp(min=1)[:, None]
    return words.view(batch, positions, width)
