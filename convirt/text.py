"""Reports to sentences to word pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor

LIST_NUMBER = r"(?<=[.?!:])\s+\d+\.\s+|(?:^|\n)\s*\d+\.\s+"
SENTENCE_END = re.compile(rf"{LIST_NUMBER}|(?<=[.?!])\s+(?=[A-Z0-9_])|\n\s*\n")
"""A list number where a sentence or a line begins, a full stop before a capital, an empty line."""
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def sentences(text: str, *, min_words: int) -> list[str]:
    """Sentences of at least `min_words` words, in lower case with single spaces."""
    found = (" ".join(part.lower().split()) for part in SENTENCE_END.split(text))
    return [part for part in found if len(re.findall(r"\w+", part)) >= min_words]


class Tokens(NamedTuple):
    """A batch of texts as word pieces; T is the longest.

    Attributes:
        ids: (B, T) int64, `[CLS] ... [SEP] [PAD] ...`.
        mask: (B, T) bool, True = real piece.
    """

    ids: Tensor
    mask: Tensor


class WordPieces:
    """A WordPiece vocabulary.

    Args:
        vocabulary: The pieces in order of their ids; holds `SPECIAL`.
        max_tokens: Longest text with [CLS] and [SEP]; the rest is cut.

    Raises:
        ValueError: If a special piece is missing.
    """

    def __init__(self, vocabulary: Sequence[str], *, max_tokens: int) -> None:
        index = {piece: i for i, piece in enumerate(vocabulary)}
        missing = [piece for piece in SPECIAL if piece not in index]
        if missing:
            raise ValueError(f"not a BERT vocabulary: {missing} missing among {len(index)} pieces")
        self.tokenizer = BertWordPieceTokenizer(index, lowercase=False, strip_accents=False)
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding(pad_id=index["[PAD]"], pad_token="[PAD]")

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokenise a batch."""
        encoded = self.tokenizer.encode_batch(list(texts))
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)
        return Tokens(torch.tensor([e.ids for e in encoded]), mask)
