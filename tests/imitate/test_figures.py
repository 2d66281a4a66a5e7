"""IMITATE's figures: drawn from a small model and made-up results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.tables import DataError
from imitate.checkpoint import fresh_model
from imitate.config import PHANTOM
from imitate.figures import (
    cam_figure,
    grad_cam,
    main,
    section_figure,
    smoothing_figure,
    smoothing_points,
)
from imitate.pairs import Report


def test_sections_need_reports_with_both() -> None:
    model = fresh_model(PHANTOM)
    words = ("heart", "lungs", "effusion", "edema", "left", "right")
    reports = [Report(f"the {word} is large", f"large {word}") for word in words]
    assert len(section_figure(model, reports).axes) == 1
    with pytest.raises(DataError, match="both sections"):
        section_figure(model, [Report("heart", "")] * 4)


def test_grad_cam_lies_inside_the_crop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = fresh_model(PHANTOM)
    generator = np.random.default_rng(0)
    heat = grad_cam(model, generator.integers(0, 255, (104, 104)).astype(np.uint8), "edema")
    assert heat.shape == (104, 104)
    assert heat.min() == 0
    assert heat.max() == pytest.approx(1, abs=0.05)
    assert not heat[:4].any()
    path = tmp_path / "film.png"
    path.write_bytes(_png(generator))
    assert len(cam_figure(model, [path], ["edema", "effusion"]).axes) == 3


def _png(generator: np.random.Generator) -> bytes:
    import cv2

    return cv2.imencode(".png", generator.integers(0, 255, (50, 40)).astype(np.uint8))[1].tobytes()


def test_smoothing_reads_results(tmp_path: Path) -> None:
    cell = {"metric": "auroc", "label_fraction": 0.01, "value": 0.7}
    for name in ("imitate", "imitate-lambda-05", "imitate-vlh"):
        path = tmp_path / name / "linear__chexpert__seed0.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"cells": [cell]}))
    points = smoothing_points(tmp_path, seed=0)
    assert points == {0.2: {"chexpert/linear": 0.7}, 0.5: {"chexpert/linear": 0.7}}
    assert len(smoothing_figure(points).axes) == 3
    with pytest.raises(DataError, match="figure4"):
        smoothing_points(tmp_path / "none", seed=0)


def test_a_missing_model_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["figures", "cam", "--model", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"^error:"):
        main()
