"""Protocols on made-up features and similarities whose answers are known."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.core import Model, NotRunnable
from benchmarks.downstream import Downstream
from benchmarks.job import Args
from benchmarks.localise import dense_data, require_scales
from benchmarks.models import (
    GLORIA,
    IMAGENET,
    MODELS,
    RANDOM,
    RANDOM_CHEXZERO,
    RANDOM_RESNET,
    RANDOM_VIT,
    settings,
)
from benchmarks.protocols.linear_probe import (
    CachedProbe,
    GloriaProbe,
    ImitateProbe,
    MgcaProbe,
    fit_cached,
    moco,
)
from benchmarks.protocols.retrieval import without_self
from benchmarks.protocols.zero_shot import cuts_on, single_label_rates
from benchmarks.weights import other_settings, ready
from common.checkpoint import CheckpointError
from common.config import to_dict
from common.data import load
from common.data.phantom.writers import write_corpus
from common.data.prepare import prepare
from common.metrics import auroc, precision_at_k


def blobs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features whose first two columns carry the two labels, the second hundred times weaker."""
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, 2, (n, 2)).astype(np.float32)
    noise = generator.normal(size=(n, 8)).astype(np.float32)
    noise[:, 0] += 4 * targets[:, 0]
    noise[:, 1] = 0.01 * (noise[:, 1] + 4 * targets[:, 1])
    return noise, targets


def test_cached_probe_finds_both_labels_whatever_their_scale() -> None:
    classify = fit_cached(*blobs(200, 0), *blobs(100, 1))
    features, targets = blobs(300, 2)
    assert auroc(targets, classify(features)) > 0.98


def test_cached_probe_survives_a_label_with_one_class() -> None:
    features, targets = blobs(50, 0)
    targets[:, 1] = 0
    classify = fit_cached(features, targets, *blobs(100, 1))
    assert not classify(features)[:, 1].any()


def test_single_label_rates_are_argmax_accuracy_and_macro_one_vs_rest() -> None:
    """Two classes, four images, one of class 1 scored as class 0."""
    classes = np.array([0, 0, 1, 1])
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]], np.float32)
    rates = single_label_rates(classes, scores, [0.75, 0.25])
    assert rates["accuracy"] == 0.75
    assert rates["sensitivity"] == rates["specificity"] == 1.0


def test_without_cuts_the_best_class_alone_is_positive() -> None:
    """Image 2 of class 1 goes to class 0: sensitivities 1 and 1/2, specificities 1/2 and 1."""
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.1, 0.9]], np.float32)
    rates = single_label_rates(np.array([0, 0, 1, 1]), scores, None)
    assert rates["accuracy"] == rates["sensitivity"] == rates["specificity"] == 0.75


def test_cuts_come_from_the_given_images() -> None:
    targets = np.array([[0], [0], [1], [1]], np.float32)
    assert cuts_on(targets, np.array([[0.1], [0.2], [0.6], [0.9]], np.float32), "youden") == [
        pytest.approx(0.6)
    ]


def test_own_report_can_be_left_out() -> None:
    similarity = np.eye(4, dtype=np.float32)
    classes = np.arange(4)
    assert precision_at_k(similarity, classes, classes, 1) == 1.0
    assert precision_at_k(without_self(similarity), classes, classes, 1) == 0.0


def test_model_flags_are_valid_and_do_what_their_names_say() -> None:
    found = {name: settings(model, "phantom", 0) for name, model in MODELS.items()}
    assert found["gloria-global-only"].loss.local_weight == 0
    assert found["gloria-local-only"].loss.global_weight == 0
    convirt = found["convirt-gloria"].loss
    assert (convirt.image_to_text, convirt.text_to_image, convirt.tau1) == (0.75, 0.25, 0.1)
    assert found["gloria-shuffled"].data.shuffle_pairs


@pytest.mark.parametrize("corpus", ["phantom", "real"])
def test_imagenet_says_why_it_cannot_run_here(corpus: str, tmp_path: Path) -> None:
    with pytest.raises(NotRunnable, match="ImageNet"):
        ready(IMAGENET, corpus, 0, tmp_path)


@pytest.mark.parametrize("model", [RANDOM_VIT, RANDOM_CHEXZERO])
def test_a_vision_transformer_says_why_it_has_no_unet(model: Model, tmp_path: Path) -> None:
    with pytest.raises(NotRunnable, match="one scale"):
        require_scales(ready(model, "phantom", 0, tmp_path))
    require_scales(ready(RANDOM_RESNET, "phantom", 0, tmp_path))


def test_dense_tasks_leave_out_what_is_not_on_disk(tmp_path: Path) -> None:
    write_corpus(tmp_path, size="ci", datasets=["siim"], workers=1)
    args = Args("segmentation", model="random", dataset="siim", data_root=tmp_path)
    whole = dense_data(args, load("siim", tmp_path), size=32)
    missing = whole.parts[0][0]
    frame = whole.table.frame.set_index("image_id")
    (whole.table.root / frame.loc[missing, "path"]).unlink()
    found = dense_data(args, load("siim", tmp_path), size=32)
    assert found.parts == (whole.parts[0][1:], *whole.parts[1:])
    unreadable = whole.parts[2][0]
    (whole.table.root / frame.loc[unreadable, "path"]).write_bytes(b"no image" * 99)
    prepare(load("siim", tmp_path), tmp_path, size=32, workers=1)
    found = dense_data(args, load("siim", tmp_path), size=32)
    assert found.parts == (whole.parts[0][1:], whole.parts[1], whole.parts[2][1:])
    assert found.table.exclusions.counts["not_prepared"] == 1
    found.images.read(found.parts[2])


def test_random_baselines_differ_by_seed(tmp_path: Path) -> None:
    def weight(model: Model, seed: int) -> torch.Tensor:
        return ready(model, "phantom", seed, tmp_path).global_image.weight  # type: ignore[attr-defined]

    assert torch.equal(weight(RANDOM, 0), weight(RANDOM, 0))
    assert not torch.equal(weight(RANDOM, 0), weight(RANDOM, 1))


@pytest.fixture(scope="module")
def rsna(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["rsna"], workers=1)
    return root


def test_exclusive_labels_get_one_classifier_and_unseen_classes_the_lowest_score() -> None:
    features, targets = blobs(200, 0)
    one_hot = np.eye(3, dtype=np.float32)[targets[:, 0].astype(int)]
    classify = fit_cached(features, one_hot, features, one_hot, exclusive=True)
    scores = classify(features)
    assert (scores.argmax(axis=1) == targets[:, 0]).mean() > 0.95
    assert (scores.argmin(axis=1) == 2).all()


def test_one_class_alone_is_always_predicted() -> None:
    features, _ = blobs(20, 0)
    one_hot = np.eye(3, dtype=np.float32)[np.full(20, 2)]
    scores = fit_cached(features, one_hot, features, one_hot, exclusive=True)(features)
    assert (scores.argmax(axis=1) == 2).all()


def test_moco_draws_for_each_image_and_keeps_the_range() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 16, 16) * 2 - 1
    ends = torch.full((1, 1, 1), -1.0), torch.ones(1, 1, 1)
    out = moco(image.expand(8, -1, -1, -1), *ends)
    assert out.shape == (8, 1, 16, 16)
    assert out.abs().max() <= 1 + 1e-6
    assert len({tuple(x.flatten().tolist()) for x in out}) > 4


def test_a_run_of_other_settings_is_refused_and_its_settings_named(tmp_path: Path) -> None:
    here = to_dict(settings(GLORIA, "phantom", 0))
    with pytest.raises(CheckpointError, match="no finished run"):
        ready(GLORIA, "phantom", 0, tmp_path, any_settings=True)
    there = deepcopy(here)
    there["loss"]["negatives"], there["data"]["reports"] = "global", "elsewhere.csv"
    (tmp_path / "provenance.json").write_text("{}")
    (tmp_path / "run.json").write_text(json.dumps(there))
    assert other_settings(tmp_path, here) == {"loss.negatives": "global"}
    with pytest.raises(CheckpointError, match=r"loss\.negatives.*--any-settings"):
        ready(GLORIA, "phantom", 0, tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(here))
    assert other_settings(tmp_path, here) == {}
    with pytest.raises(CheckpointError, match=r"'run\.seed': 0"):
        ready(GLORIA, "phantom", 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("probe", [CachedProbe, GloriaProbe, MgcaProbe, ImitateProbe])
def test_probes_run_on_images(rsna: Path, probe: type[CachedProbe]) -> None:
    model = ready(RANDOM, "phantom", 0, rsna)
    data = Downstream("rsna", rsna, size=model.size)
    train, valid, test = (data.ids(part) for part in ("train", "valid", "test"))
    fitted = probe(model, data, train, [*valid, *test])
    scores = fitted.fit(data, train, valid, 0)(fitted.of(test))
    assert scores.shape == (len(test), 1)
    assert np.isfinite(scores).all()
    assert model.training is False  # type: ignore[attr-defined]
