"""Maps of a frozen encoder: those of encoding anew, computed once, within the limit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from benchmarks.protocols.frozen import FrozenMaps

IMAGES = {name: torch.full((2, 3, 3), float(k)) for k, name in enumerate("abcdef")}
BYTES = 2 * 3 * 3 * 4 + 2 * 2 * 2 * 4
"""Of one image's maps."""


class Encoder:
    """Two maps an image, and a record of what was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, ids: Sequence[str]) -> list[Tensor]:
        self.asked += ids
        batch = torch.stack([IMAGES[i] for i in ids]).contiguous(memory_format=torch.channels_last)
        return [batch + 1, batch[:, :, :2, :2] * 2]


@pytest.mark.parametrize("limit", [0, 2 * BYTES, 10**6])
def test_maps_are_those_of_encoding_anew(limit: int) -> None:
    maps = FrozenMaps(Encoder(), keep=True, limit=limit)
    for ids in (["a", "b"], ["b", "c", "a"], ["c", "c", "f"], ["a", "b"]):
        for found, expected in zip(maps(ids), Encoder()(ids), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)
            assert found.is_contiguous(memory_format=torch.channels_last)


def test_each_image_is_encoded_once() -> None:
    encoder = Encoder()
    maps = FrozenMaps(encoder, keep=True)
    for ids in (["a", "b"], ["b", "c"], ["a", "c"]):
        maps(ids)
    assert encoder.asked == ["a", "b", "c"]


@pytest.mark.parametrize(("keep", "limit"), [(True, 2 * BYTES), (False, 10**6)])
def test_what_is_over_the_limit_or_may_change_is_encoded_again(keep: bool, limit: int) -> None:
    encoder = Encoder()
    maps = FrozenMaps(encoder, keep=keep, limit=limit)
    for ids in (["a", "b"], ["c", "d"], ["a", "b"], ["c", "d"]):
        maps(ids)
    assert encoder.asked == ["a", "b", "c", "d", *([] if keep else ["a", "b"]), "c", "d"]
