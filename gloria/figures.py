"""GLoRIA's Figure 4: where the words of a phrase look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor


class Attended(Protocol):
    """A phrase with the attention of its words, as `gloria.score.Score`."""

    @property
    def phrase(self) -> str:
        """The phrase."""
        ...

    @property
    def similarity(self) -> float:
        """Its similarity to the image."""
        ...

    @property
    def words(self) -> list[str]:
        """Its words."""
        ...

    @property
    def attention(self) -> np.ndarray:
        """(words, rows, columns)."""
        ...


def attention_figure(view: Tensor, phrases: Sequence[Attended]) -> Figure:
    """One row a phrase: the image, the maximum over words, then each word.

    Source: GLoRIA Fig. 4 and Sec. 4.6; released `plot_attn_maps`, which also scales all words of a
    text jointly and puts their maximum first.

    Args:
        view: (1, 1, H, W) network input in [-1, 1].
        phrases: Phrases with their words' maps.
    """
    image = (view[0, 0].cpu().numpy() + 1) / 2
    most = max(len(p.words) for p in phrases) + 2
    figure = Figure(figsize=(1.9 * most, 2.2 * len(phrases)))
    grid = figure.subplots(len(phrases), most, squeeze=False)
    for row, phrase in zip(grid, phrases, strict=True):
        maps = [phrase.attention.max(axis=0), *phrase.attention]
        low, high = phrase.attention.min(), phrase.attention.max()
        titles = [f"{phrase.phrase}\n{phrase.similarity:+.2f}", "all words", *phrase.words]
        for axes, title, heat in zip(row, titles, [None, *maps], strict=False):
            _panel(
                axes, image, title, None if heat is None else (heat - low) / max(high - low, 1e-12)
            )
        for axes in row[len(titles) :]:
            axes.axis("off")
    return figure


def _panel(axes: Axes, image: np.ndarray, title: str, heat: np.ndarray | None) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=1)
    if heat is not None:
        smooth = cv2.resize(
            heat.astype(np.float32), image.shape[::-1], interpolation=cv2.INTER_CUBIC
        )
        axes.imshow(np.clip(smooth, 0, 1), cmap="jet", alpha=0.35, vmin=0, vmax=1)
    axes.set_title(title, fontsize=7, wrap=True)
    axes.axis("off")
