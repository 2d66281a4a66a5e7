"""Byte pairs of CLIP, and CheXzero's rule for the impression of a report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import numpy as np
from open_clip import SimpleTokenizer
from torch import Tensor

NO_IMPRESSION = "NO IMPRESSION"
"""What CheXzero's rule gives a report without one; its authors train on it."""
STOPS = (
    ("RECOMMENDATION(S):", "RECOMMENDATION:", "RECOMMENDATIONS:"),
    ("NOTIFICATION:", "NOTIFICATIONS:"),
)
"""Words that end an impression; of each group the first that the report holds."""


@cache
def byte_pairs() -> SimpleTokenizer:
    """CLIP's tokeniser: repaired and unescaped text, single spaces, lower case, byte pairs."""
    return SimpleTokenizer()


def tokenised(texts: Sequence[str], context: int, *, cut: bool = True) -> Tensor:
    """Texts to (B, context) ids: start, byte pairs, end, zeros.

    Args:
        texts: Raw.
        context: Longest text, start and end included.
        cut: Cut a longer one, its last id the end; else it is an error, as for prompts.

    Raises:
        ValueError: If a text is too long and must not be cut.
    """
    tokenizer = byte_pairs()
    if not cut:
        long = [text for text in texts if len(tokenizer.encode(text)) + 2 > context]
        if long:
            raise ValueError(
                f"longer than {context} tokens: {long[0][:60]!r} and {len(long) - 1} more"
            )
    ids: Tensor = tokenizer(list(texts), context_length=context)
    return ids


def some_sentences(text: str, dropout: float, generator: np.random.Generator) -> str:
    """The text's sentences in random order, each left out with probability `dropout`.

    One at least stays; 0 leaves the text as it is.
    """
    if not dropout:
        return text
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    kept = [sentence for sentence in sentences if generator.random() >= dropout]
    kept = kept or [sentences[generator.integers(len(sentences))]]
    return " ".join(kept[k] for k in generator.permutation(len(kept)))


def chexzero_impression(report: str) -> str:
    """The impression by CheXzero's rule, its quirks included (ledger L12).

    From behind the last word `IMPRESSION:` to the first stop; a stop before the impression gives an
    empty text, one that opens the report is overlooked.
    """
    words = report.split()
    if "IMPRESSION:" not in words:
        return NO_IMPRESSION
    start = len(words) - words[::-1].index("IMPRESSION:")
    ends = []
    for group in STOPS:
        place = next((words.index(stop) for stop in group if stop in words), 0)
        ends += [place] if place else []
    return " ".join(words[start : min(ends, default=len(words))])
