"""What LRCLR's training draws anew in every epoch: cuts of images and sentences of texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.data.prepare import Images
from common.data.tables import DataError
from lrclr.config import PRESETS, ImageConfig
from lrclr.images import cut
from lrclr.pairs import Pairs, load_pairs
from lrclr.text import some_sentences, tokenised

TEXT = "No 2.5 cm nodule. Edema is mild. The heart is large."
PARTS = ("No 2.5 cm nodule.", "Edema is mild.", "The heart is large.")


def test_a_cut_is_part_of_the_turned_and_resized_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (20, 20)).astype(np.uint8)
    plain = ImageConfig(size=20, input=16, fit="crop")
    np.testing.assert_array_equal(cut(image, plain, None), image[2:18, 2:18])
    place = np.random.default_rng(3)
    y, x = np.random.default_rng(3).integers(0, 5, 2)
    np.testing.assert_array_equal(cut(image, plain, place), image[y : y + 16, x : x + 16])
    still = replace(plain, rotate=1e-9)
    found = cut(image, still, np.random.default_rng(3))
    np.testing.assert_array_equal(found, image[y : y + 16, x : x + 16])
    spot = np.zeros((101, 101), np.uint8)
    spot[50, 50 + 30 : 50 + 33] = 255  # 31 pixels right of the middle
    numbers = iter([20.0, 1.2])
    draws: Any = SimpleNamespace(
        integers=lambda *_, size: np.zeros(size, int), uniform=lambda *_: next(numbers)
    )
    turned = cut(spot, ImageConfig(101, 101, "crop", rotate=20.0, zoom=0.2), draws)
    rows, columns = np.nonzero(turned > 100)
    assert rows.mean() - 50 == pytest.approx(-1.2 * 31 * math.sin(math.radians(20)), abs=0.7)
    assert columns.mean() - 50 == pytest.approx(1.2 * 31 * math.cos(math.radians(20)), abs=0.7)


def test_sentences_are_left_out_at_the_share_asked_for() -> None:
    generator = np.random.default_rng(0)
    assert some_sentences(TEXT, 0.0, generator) == TEXT
    drawn = [some_sentences(TEXT, 0.3, generator) for _ in range(3000)]
    count = np.mean([sum(part in some for part in PARTS) for some in drawn])
    assert count == pytest.approx(3 * 0.7 + 0.3**3, abs=0.05)
    orders = [" ".join(some) for size in (1, 2, 3) for some in permutations(PARTS, size)]
    assert set(drawn) == set(orders)
    assert {some_sentences(TEXT, 1.0, generator) for _ in range(50)} == set(PARTS)


class Noise:
    """Images by name: noise of the prepared size."""

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        generator = np.random.default_rng(len(ids))
        return generator.integers(0, 255, (len(ids), 112, 112)).astype(np.uint8)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_that_leaves_no_sentence_is_refused(share: float) -> None:
    preset = PRESETS["phantom"]
    cfg = replace(preset, data=replace(preset.data, sentence_dropout=share))
    with pytest.raises(DataError, match="0 to below 1"):
        load_pairs(cfg)


def test_training_alone_draws() -> None:
    cfg, rows, images = PRESETS["phantom"], range(4), cast(Images, Noise())
    train, valid = (Pairs(images, "abcd", [TEXT] * 4, cfg=cfg, train=t) for t in (True, False))
    first, fixed = train.__getitems__(rows), valid.__getitems__(rows)
    torch.testing.assert_close(train.__getitems__(rows), first)
    for pairs in (train, valid):
        pairs.set_epoch(1)
    later = train.__getitems__(rows)
    assert not torch.equal(first.ids, later.ids)
    assert not torch.equal(first.images, later.images)
    torch.testing.assert_close(valid.__getitems__(rows), fixed)
    torch.testing.assert_close(fixed.ids, tokenised([TEXT] * 4, 77))
