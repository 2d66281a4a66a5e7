"""Report sections to word pieces, and the store of frozen text codes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import BertWordPieceTokenizer
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def cleaned(section: str) -> str:
    """A section with single spaces, lower case; "" if it holds no letter."""
    text = " ".join(section.lower().split())
    return text if re.search(r"[a-z]", text) else ""


def word_count(*sections: str) -> int:
    """Words of a report, over its sections."""
    return sum(len(re.findall(r"\w+", section)) for section in sections)


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
        """Tokenise a batch; an empty text is [CLS] [SEP]."""
        encoded = self.tokenizer.encode_batch(list(texts))
        mask = torch.tensor([e.attention_mask for e in encoded], dtype=torch.bool)
        return Tokens(torch.tensor([e.ids for e in encoded]), mask)


def store_key(weights: dict[str, Tensor], settings: str, texts: Sequence[str]) -> str:
    """Hash of what text codes depend on: encoder weights, tokeniser settings, every text."""
    digest = hashlib.sha256(settings.encode())
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weights[name].detach().cpu().numpy()).tobytes())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def store_path(data_root: Path, key: str) -> Path:
    """Where the codes of a key lie."""
    return data_root / "prepared" / "imitate-text" / f"{key[:32]}.safetensors"
