"""Two models over seeds: the paired numbers, and what is no pair."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.over_seeds import Args, lines, main, pairs_of

FIRST, SECOND = (0.70, 0.80, 0.90), (0.65, 0.77, 0.82)


def write(results: Path, model: str, seed: int, value: float, **record: Any) -> None:
    path = results / model / f"linear__rsna__seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [
        {"dataset": "rsna", "metric": metric, "value": value, "n": 9, "label_fraction": share}
        for metric, share in (("auroc", 0.01), ("f1", 0.01), ("dice", None))
    ]
    same = {"corpus": "phantom", "protocol": "p", "splits": {"s": {"sha256": "0"}}, "seed": seed}
    details = {"0.01": {"sha256": str(seed)}, "note": 1}
    path.write_text(json.dumps({**same, "details": details, "cells": cells, **record}))


def both(results: Path) -> None:
    for seed, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        write(results, "a", seed, a)
        write(results, "b", seed, b)


def test_numbers_by_hand(tmp_path: Path) -> None:
    """Gaps of 5, 3 and 8 points: mean 5.33, deviation 2.52, t = 3.67 with two degrees, p = 0.07."""
    both(tmp_path)
    write(tmp_path, "a", 3, 0.1)  # the other model lacks this seed
    rows = lines(pairs_of(Args("a", "b", tmp_path)))[2:]
    assert rows == [
        "| linear | rsna | auroc | 1% | 3 | 80.0 ± 10.0 | 74.7 ± 8.7 | +5.3 ± 2.5 | 0.07 |",
        "| linear | rsna | dice | – | 3 | 80.0 ± 10.0 | 74.7 ± 8.7 | +5.3 ± 2.5 | 0.07 |",
    ]


def test_one_seed_has_no_test(tmp_path: Path) -> None:
    write(tmp_path, "a", 0, 0.7)
    write(tmp_path, "b", 0, 0.8)
    found = lines(pairs_of(Args("a", "b", tmp_path, metrics=("auroc",))))
    assert found[2:] == ["| linear | rsna | auroc | 1% | 1 | 70.0 | 80.0 | -10.0 | – |"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"protocol": "other"}, "other protocol"),
        ({"splits": {}}, "other split"),
        ({"corpus": "real"}, "other corpus"),
        ({"details": {"0.01": {"sha256": "x"}}}, "other labelled images"),
    ],
)
def test_what_is_no_pair_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], record: dict[str, Any], reason: str
) -> None:
    both(tmp_path)
    write(tmp_path, "b", 1, 0.9, **record)
    found = pairs_of(Args("a", "b", tmp_path, metrics=("auroc",)))
    assert [len(pairs) for pairs in found.values()] == [2]
    assert capsys.readouterr().err == f"linear on rsna, seed 1: {reason}, left out\n"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("c", r"has no results of 'c'; it has: a, b"),
        ("b", r"a and b share no result of auroc, .* in "),
    ],
)
def test_nothing_to_compare_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str, words: str
) -> None:
    write(tmp_path, "a", 0, 0.7)
    write(tmp_path, "b", 1, 0.7)
    monkeypatch.setattr(sys, "argv", ["over_seeds", "a", second, "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match=words):
        main()
