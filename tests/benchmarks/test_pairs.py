"""Zero-shot by pairs of prompts, thresholds, sizes, IMITATE's fine-tuning."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks import evaluate, findings
from benchmarks.facts import parameters, split_sizes
from benchmarks.findings import zero_shot_findings
from benchmarks.job import Args
from benchmarks.models import (
    GLORIA,
    IMITATE,
    RANDOM_CHEXZERO,
    RANDOM_IMITATE,
    UNFROZEN,
    settings,
)
from benchmarks.protocols import finetune, prompt_pairs, regions
from benchmarks.protocols.segmentation import mixed_loss, soft_dice
from common.data import load_tables, splits
from common.data.phantom.writers import write_corpus
from common.interface import Predictor
from common.metrics import auroc, binary_rates, threshold
from gloria.checkpoint import fresh_model
from lrclr.config import ImageConfig

GOLDEN = Path(__file__).parents[1] / "golden" / "lrclr" / "zeroshot.npz"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    names = ["chexpert", "chexpert_test", "siim", "nih"]
    write_corpus(root, size="ci", datasets=names, workers=1)
    return root


def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN) as file:
        return {key: file[key] for key in file.files}


def test_released_probabilities_and_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """CheXzero's softmax of a pair, and its cuts on the same data."""
    g = golden()
    unit = {k: g[k] / np.linalg.norm(g[k], axis=1, keepdims=True) for k in ("pos", "neg")}
    image = g["image_features"] / np.linalg.norm(g["image_features"], axis=1, keepdims=True)
    names = [f"finding {k}" for k in range(len(unit["pos"]))]
    cosines = {
        template.format(name): image @ unit[sign][k]
        for sign, template in (("pos", "{}"), ("neg", "No {}"))
        for k, name in enumerate(names)
    }

    def class_scores(*arguments: Any) -> np.ndarray:
        return np.stack([cosines[texts[0]] for texts in arguments[3].values()], axis=1)

    monkeypatch.setattr(prompt_pairs, "class_scores", class_scores)
    nothing: Any = None
    cfg = prompt_pairs.PairConfig()
    scores = prompt_pairs.probabilities(nothing, nothing, (), names, cfg)
    np.testing.assert_allclose(scores, g["y_pred"], rtol=1e-5)
    for k, wanted in enumerate(g["auc"]):
        truth, found = g["y_true"][:, k], g["y_pred"][:, k]
        assert auroc(truth, found) == pytest.approx(wanted, abs=1e-9)
        for rule in ("mcc", "f1"):
            assert threshold(truth, found, rule) == pytest.approx(
                g[f"threshold_{rule}"][k], rel=1e-6
            )


@pytest.mark.parametrize("rule", ["half", "mcc", "f1"])
def test_released_rates(rule: str) -> None:
    g = golden()
    cuts = [0.5] * 14 if rule == "half" else list(g[f"threshold_{rule}"])
    rates = prompt_pairs.rates_at(g["y_true"], g["y_pred"].astype(np.float64), cuts)
    names = ("specificity", "ppv", "sensitivity", "f1")
    found = np.array([[r[name] for name in names] for r in rates])
    np.testing.assert_allclose(found, g[f"spec_prec_rec_f1/{rule}"], atol=1e-9)
    np.testing.assert_allclose(found.mean(axis=0), g[f"macro/{rule}"], atol=1e-9)


@torch.no_grad()
def test_pairs_compare_cosines_alone() -> None:
    """GLoRIA's own similarity also sums over words, so longer prompts would gain."""
    torch.manual_seed(0)
    model = fresh_model(settings(GLORIA, "phantom", 0)).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (2, model.size, model.size), np.uint8)
    images = model.embed_images(model.normalise(pixels, generator=None))
    texts = model.embed_texts(["pulmonary edema", "no edema of the lungs"])
    _, cosines = model.similarities(images, texts)
    twin = prompt_pairs.by_cosine(cast(Predictor, model))
    torch.testing.assert_close(twin.similarity(images, texts), cosines)
    assert not torch.allclose(model.similarity(images, texts), cosines)  # as before


def test_mcc_equals_a_loop_over_cuts() -> None:
    generator = np.random.default_rng(0)
    truth, scores = generator.integers(0, 2, 40), generator.random(40).round(1)

    def mcc(cut: float) -> float:
        guess = scores >= cut
        tp, fp = (guess & (truth == 1)).sum(), (guess & (truth == 0)).sum()
        fn, tn = (~guess & (truth == 1)).sum(), (~guess & (truth == 0)).sum()
        spread = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
        return float(tp * tn - fp * fn) / spread if spread else 0.0

    cut = threshold(truth, scores, "mcc")
    assert mcc(cut) == pytest.approx(max(mcc(c) for c in np.unique(scores)))
    assert binary_rates(truth, scores >= cut)["accuracy"] > 0


def test_fourteen_findings_with_intervals_and_a_mended_pair(corpus: Path, tmp_path: Path) -> None:
    args = Args(
        task="zero_shot",
        model=RANDOM_CHEXZERO.id,
        dataset="chexpert14",
        data_root=corpus,
        results=tmp_path,
        resamples=20,
    )
    record = json.loads(evaluate.run(args).read_text())
    cells = {cell["metric"]: cell for cell in record["cells"]}
    assert record["protocol"] == "zero_shot/findings"
    positives = record["details"]["positives"]
    assert all(0 < n < cells["auroc"]["n"] for n in positives.values())
    assert {f"auroc:{name}" for name in positives} <= set(cells)
    assert all(cells[f"auroc:{name}"]["interval"] for name in positives)
    inverted = cells["auroc"]["value"] * len(positives)
    mended = cells["auroc_repaired"]["value"] * len(positives)
    assert inverted != pytest.approx(mended)
    assert {"f1", "f1_youden", "f1_mcc", "f1_half"} <= set(cells)
    assert not set(record["details"]["left_out"]) & set(positives)


def test_the_mended_pair_asks_for_no_finding(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that knows every label, and "finding" as the contrary of no finding, is perfect."""

    def knowing(model: Any, data: Any, ids: Any, names: Any, cfg: Any) -> np.ndarray:
        lower = [label.lower() for label in data.task.labels]
        labels = np.asarray(data.targets(ids), np.float32)
        if list(names) == ["finding"]:
            return 1 - labels[:, [lower.index("no finding")]]
        return labels[:, [lower.index(name) for name in names]]

    monkeypatch.setattr(prompt_pairs, "probabilities", knowing)
    args = Args("zero_shot", RANDOM_CHEXZERO.id, "chexpert14", data_root=corpus, resamples=5)
    model = fresh_model(settings(GLORIA, "phantom", 0))
    monkeypatch.setattr(findings, "_honest", lambda *rest: [])
    cells = zero_shot_findings(args, cast(Predictor, model)).cells
    perfect = {c.metric: c.value for c in cells if c.metric.startswith("auroc")}
    assert perfect["auroc_repaired:No Finding"] == 1.0
    assert set(perfect.values()) == {1.0}


def test_a_pair_of_prompts_on_siim(corpus: Path, tmp_path: Path) -> None:
    args = Args(
        task="zero_shot",
        model=RANDOM_IMITATE.id,
        dataset="siim",
        data_root=corpus,
        results=tmp_path,
    )
    cells = {c["metric"]: c["value"] for c in json.loads(evaluate.run(args).read_text())["cells"]}
    assert cells["f1"] >= cells["f1_valid_cut"]  # the test part's own cut is the best there is


def test_split_sizes_are_counted_without_a_model(corpus: Path, tmp_path: Path) -> None:
    args = Args(task="splits", model=IMITATE.id, dataset="nih_kad", data_root=corpus)
    found = {cell.metric: cell.n for cell in split_sizes(args).cells}
    table = load_tables("nih", corpus)
    pool = int((table.frame["source_split"] == "train").sum())
    assert found == {
        "n_train": pool - pool // 10,
        "n_valid": pool // 10,
        "n_test": len(table.frame) - pool,
    }
    other = splits.build("nih/official", table)
    assert set(other.parts["test"]) == set(splits.build("nih/kad-v1", table).parts["test"])
    path = evaluate.run(replace(args, results=tmp_path))
    assert json.loads(path.read_text())["pretraining"] is None


def test_published_parameter_counts() -> None:
    """The paper's sizes grow by a BERT layer of 7.088 M each."""
    sizes = [
        parameters(Args(task="parameters", model=model.id, dataset="architecture")).cells[0].n
        for model in (IMITATE, *list(UNFROZEN.values())[:3])
    ]
    assert set(np.diff(sizes)) == {7_087_872}
    assert round(sizes[3] / 1e6, 1) == 51.9


def test_a_model_that_the_phantom_cannot_make_says_why(tmp_path: Path) -> None:
    args = Args(task="linear", model="imitate-unfreeze-5", dataset="rsna_dense", results=tmp_path)
    record = json.loads(evaluate.run(args).read_text())
    assert "has 2 layers" in record["not_run"]


def test_kad_input_keeps_whole_images_and_draws_for_each() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 32, 32)).astype(np.uint8)
    plain = finetune.kad_input(pixels, train=False)
    assert plain.shape == (4, 3, 32, 32)
    wanted = (pixels[0, 0, 0] / 255 - 0.485) / 0.229
    assert plain[0, 0, 0, 0].item() == pytest.approx(wanted, abs=1e-5)
    for train in (False, True):  # a ViT's own size
        assert finetune.kad_input(pixels, train=train, side=24).shape == (4, 3, 24, 24)
    torch.manual_seed(0)
    same = np.repeat(pixels[:1], 8, axis=0)
    drawn = finetune.kad_input(same, train=True)
    assert len({float(image.mean()) for image in drawn}) > 4
    assert not {"Color", "Posterize"} & set(finetune.KadOperations()._AUGMENTATION_SPACE)


def test_linear_dice_term() -> None:
    logits, masks = torch.randn(2, 8, 8), (torch.rand(2, 8, 8) > 0.5).float()
    dice = soft_dice(logits.sigmoid(), masks)
    difference = mixed_loss(logits, masks, "linear") - mixed_loss(logits, masks)
    assert difference.item() == pytest.approx((1 - dice + dice.log()).item(), abs=1e-5)


def test_patch_centres_and_boxes_share_one_square() -> None:
    whole = regions.centres(ImageConfig(size=320, input=224, patch=32))
    assert whole.shape == (49, 2)
    np.testing.assert_allclose(
        whole[[0, 6, 48]], [[1 / 14, 1 / 14], [13 / 14, 1 / 14], [13 / 14] * 2]
    )
    cut = regions.centres(ImageConfig(size=104, input=96, patch=12, fit="crop"))
    np.testing.assert_allclose(cut[0], [10 / 104, 10 / 104])
    box = np.array([[0.25, 0.25, 0.5, 0.5]], np.float32)
    covered = regions.inside(whole, box)
    assert covered.sum() == 16  # centres up to 1/2, which is the fourth of seven
