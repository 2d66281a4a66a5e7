"""Reports to word pieces to words, as MGCA does it (paper Sec. 4.1; released data set, encoder)."""

from __future__ import annotations

import re
from collections.abc import Sequence
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


def caption(impression: str, findings: str, *, min_words: int = 3, rule: str = "released") -> str:
    """One study's text: impression, then findings, cleaned; "" if fewer than `min_words` are left.

    Lower case, words only, ASCII. List numbers ("2.") and full stops end a sentence; an impression
    without full stop runs into the findings. With `rule="released"` sentences of one word are
    dropped and "2.5 cm" becomes "5 cm" (ledger D26).
    """
    text = f"{impression} {findings}".replace("\n", " ")
    words: list[str] = []
    parts = [s for item in LIST_NUMBER[rule].split(text) for s in FULL_STOP[rule].split(item)]
    for part in parts:
        tokens = re.findall(r"\w+", part.replace("\ufffd\ufffd", " ").lower())
        if len(tokens) <= (1 if rule == "released" else 0):
            continue
        words += [t for t in (t.encode("ascii", "ignore").decode() for t in tokens) if t]
    return " ".join(words) if len(words) >= min_words else ""


class Tokens(NamedTuple):
    """A batch of texts as word pieces; T is the padded length.

    Attributes:
        ids: (B, T) int64 word pieces, `[CLS] ... [SEP] [PAD] ...`.
        mask: (B, T) bool, True = real piece.
        word_index: (B, T) int64, the word each piece belongs to: 0 for [CLS], then the words, then
            [SEP]; -1 for pieces that belong to none.
    """

    ids: Tensor
    mask: Tensor
    word_index: Tensor


class WordPieces:
    """A WordPiece vocabulary fed with cleaned, lower-case text.

    Args:
        vocabulary: The pieces in order of their ids; holds `SPECIAL`.
        max_tokens: Longest text with [CLS] and [SEP]; the rest is cut.
        pad_to_max: Pad to `max_tokens` instead of the longest text of the batch.
        drop_last_word_if_full: A text of `max_tokens` pieces loses its last word and [SEP].

    Raises:
        ValueError: If a special piece is missing.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        max_tokens: int,
        pad_to_max: bool = False,
        drop_last_word_if_full: bool = False,
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
        self.max_tokens, self.drop_last = max_tokens, drop_last_word_if_full

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenise a batch."""
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([e.ids for e in encoded])
        return self.group(ids, torch.tensor([e.attention_mask for e in encoded]).bool())

    def group(self, ids: Tensor, mask: Tensor) -> Tokens:
        """Assign word pieces to words: a piece that starts with `##` joins the word before."""
        starts = ~self.continues[ids]
        starts[:, 0] = True
        word = starts.cumsum(dim=1) - 1  # (B, T)
        outside = ~mask
        if self.drop_last:
            full = mask.sum(dim=1, keepdim=True) == self.max_tokens
            outside = outside | (full & (word >= word[:, -1:] - 1))
        return Tokens(ids, mask, word.masked_fill(outside, -1))

    def words(self, tokens: Tokens) -> list[list[str]]:
        """The words of each text as strings, [CLS] first."""
        texts: list[list[str]] = []
        for ids, index in zip(tokens.ids.tolist(), tokens.word_index.tolist(), strict=True):
            words = [""] * (max(index) + 1)
            for piece, position in zip(ids, index, strict=True):
                if position >= 0:
                    words[position] += self.vocabulary[piece].removeprefix("##")
            texts.append(words)
        return texts


class WordFeatures(NamedTuple):
    """A text encoder's words; W leaves [CLS] out.

    Attributes:
        report: (B, C) feature of [CLS].
        words: (B, W, C) sums of the pieces' features, zero where a text has no word.
        weights: (B, W) attention of [CLS] to the word's pieces, summed; 0 where there is none.
        mask: (B, W) bool, True = real word ([SEP] is the last one).
    """

    report: Tensor
    words: Tensor
    weights: Tensor
    mask: Tensor


def aggregate_words(
    feat: Tensor, attention: Tensor, tokens: Tokens, *, slots: int, shift: int = 0
) -> WordFeatures:
    """Word-piece features to word features, one scatter for the whole batch.

    Source: released `aggregate_tokens`, which pairs position i with the attention of i + 1
    (`shift=1`, ledger D09).

    Args:
        feat: (B, T, C) features of the pieces.
        attention: (B, T) attention of [CLS] to each piece.
        tokens: Which word each piece belongs to.
        slots: Words of the result with [CLS]: W + 1.
        shift: Pieces by which the attention is taken too late.
    """
    batch, length, width = feat.shape
    index = tokens.word_index
    used = index >= 0
    flat = (torch.arange(batch, device=index.device)[:, None] * slots + index)[used]
    words = feat.new_zeros(batch * slots, width).index_add(0, flat, feat[used])
    late = torch.nn.functional.pad(attention, (0, shift))[:, shift : shift + length]
    weights = attention.new_zeros(batch * slots).index_add(0, flat, late[used])
    mask = torch.zeros(batch * slots, dtype=torch.bool, device=index.device)
    mask[flat] = True
    words, weights = words.view(batch, slots, width), weights.view(batch, slots)
    return WordFeatures(words[:, 0], words[:, 1:], weights[:, 1:], mask.view(batch, slots)[:, 1:])
