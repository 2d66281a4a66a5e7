"""Fine-tuning and UPerNet: golden head, schedules, Dice kinds, losses by hand, learning."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from benchmarks.classify import with_auroc
from benchmarks.downstream import Downstream
from benchmarks.models import MACO, RANDOM, RANDOM_MACO
from benchmarks.protocols import finetune, resume, upernet
from benchmarks.protocols.segmentation import Scans
from benchmarks.weights import ready
from common.data import load
from common.data.phantom.writers import write_corpus
from common.data.prepare import DecodedImages
from common.data.tables import DataError

GOLDEN = Path(__file__).parents[1] / "golden" / "maco"


def test_golden_head() -> None:
    """Mean of the last block's patch tokens, fresh norm, linear head."""
    weights = np.load(GOLDEN / "tiny_forward.npz")
    head = np.load(GOLDEN / "finetune_head.npz")
    vit = VisionTransformer(
        img_size=56, patch_size=4, embed_dim=16, depth=2, num_heads=4, num_classes=0
    )
    names = vit.state_dict()
    vit.load_state_dict({k: torch.tensor(weights[f"weights/{k}"]) for k in names})
    net = finetune.Classifier(SimpleNamespace(backbone=vit), 5, drop_path=0.1).eval()
    for part in ("fc_norm", "head"):
        state = {k: torch.tensor(head[f"weights/{part}.{k}"]) for k in ("weight", "bias")}
        net.get_submodule(part).load_state_dict(state)
    with torch.no_grad():
        x = torch.tensor(head["x"]).float()
        np.testing.assert_allclose(net.features(x), head["features"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(net(x), head["logits"], rtol=1e-5, atol=1e-5)


def test_golden_schedule() -> None:
    rows = json.loads((GOLDEN / "schedules.json").read_text())["finetuning"]
    for step, factor in rows["rows_step_factor"]:
        if step <= rows["t_total"]:
            found = finetune.lr_factor(step, steps=rows["t_total"], warmup=rows["warmup_steps"])
            assert found == pytest.approx(factor, rel=1e-9, abs=1e-12)


def kinds(guess: np.ndarray, truth: np.ndarray) -> upernet.DiceKinds:
    """One image a batch."""
    pairs = zip(torch.from_numpy(guess).split(1), torch.from_numpy(truth).split(1), strict=True)
    return upernet.dice_kinds([upernet.counts_of(*pair) for pair in pairs])


def test_rates_of_both_recipes() -> None:
    """Ledger S1: one rate for every share of the labels, or one for each."""
    paper, released = (upernet.RECIPES[f"segmentation/maco{end}"] for end in ("", "-released"))
    assert [paper.rate(stage) for stage in range(3)] == [5e-6] * 3
    assert [released.rate(stage) for stage in range(3)] == [5e-6, 2e-5, 1.5e-5]


def test_golden_dice() -> None:
    g = np.load(GOLDEN / "segmentation_dice.npz")
    found = kinds(g["pred"].astype(bool), g["target"].astype(bool))
    assert found.per_image == pytest.approx(float(g["medDice_front"]))
    back, front = g["mDice_background_front"]
    assert found.pooled_front == pytest.approx(float(front))
    assert found.pooled == pytest.approx(float(back + front) / 2)


def test_dice_kinds_by_hand() -> None:
    truth, guess = np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    truth[0, 0, 0] = guess[0, 0] = True
    found = kinds(guess, truth)
    assert found.per_image == pytest.approx((2 / 3 + 1) / 2)
    assert found.images.tolist() == pytest.approx([2 / 3, 1])


def test_losses_equal_loops_over_pixels() -> None:
    logits, classes = torch.randn(2, 2, 3, 3), torch.randint(0, 2, (2, 3, 3))
    focal = []
    for x, y in zip(logits.movedim(1, -1).reshape(-1, 2), classes.flatten(), strict=True):
        for k in (0, 1):
            p = x[k].sigmoid() if int(y) == k else 1 - x[k].sigmoid()
            focal.append(-0.5 * (1 - p) ** 2 * p.log())
    torch.testing.assert_close(upernet.focal_loss(logits, classes), torch.stack(focal).mean())
    dice = []
    for image, truth in zip(logits.softmax(1)[:, 1], classes.float(), strict=True):
        overlap, size = (image * truth).sum(), (image**2).sum() + (truth**2).sum()
        dice.append(1 - (2 * overlap + 1) / (size + 1))
    torch.testing.assert_close(upernet.dice_loss(logits, classes), torch.stack(dice).mean() / 2)


def test_published_upernet_has_its_maps() -> None:
    recipe = upernet.MacoSegmentation(size=64, width=96)
    vit = VisionTransformer(img_size=32, patch_size=16, embed_dim=48, depth=12, num_heads=4)
    net = upernet.UPerNet(vit, recipe).eval()
    assert net.blocks == [3, 5, 7, 11]
    main, side = net(torch.randn(1, 1, 64, 64))
    assert main.shape == side.shape == (1, 2, 64, 64)
    assert upernet.lr_at(0, lr=1.0, steps=10, warmup=2) == pytest.approx(1e-6)
    assert upernet.lr_at(2, lr=1.0, steps=10, warmup=2) == pytest.approx(0.8)
    assert upernet.lr_at(10, lr=1.0, steps=10, warmup=2) == 0.0
    groups = upernet.parameter_groups(net, recipe)
    scale = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
    decay = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    assert len(scale) == len(list(net.parameters()))
    last, first = net.vit.blocks[-1].attn.qkv.weight, net.vit.blocks[0].attn.qkv.weight
    assert scale[id(last)] == pytest.approx(0.65)
    assert scale[id(first)] == pytest.approx(0.65**12)
    assert scale[id(net.head.fpn_bottleneck.conv.weight)] == 1.0
    assert decay[id(net.vit.pos_embed)] == decay[id(net.vit.blocks[0].norm1.weight)] == 0.0
    assert decay[id(last)] == 0.05


def test_labels_without_both_classes_are_not_judged() -> None:
    targets = np.array([[0, 1, 1], [1, 1, 0]], np.float32)
    assert finetune.judged_labels(targets) == [0, 2]


def test_a_part_without_both_classes_is_refused_before_training() -> None:
    class Part:
        task = SimpleNamespace(labels=("Mass", "Edema"))
        split = SimpleNamespace(id="nih/maco-v1")

        def targets(self, ids: list[str]) -> np.ndarray:
            return np.array([[0, 1], [0, len(ids) - 2]], np.float32)

    part: Any = Part()
    assert with_auroc(part, "valid", ("a", "b")) == ["Edema"]
    with pytest.raises(DataError, match=r"valid part \(3 images\) no label"):
        with_auroc(part, "valid", ("a", "b", "c"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["rsna", "nih", "siim"], workers=1)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("model", [RANDOM_MACO, RANDOM], ids=["vit", "resnet"])
def test_fine_tuning_moves_the_encoder_but_fixed_weights(
    corpus: Path, tmp_path: Path, model: Any
) -> None:
    predictor = ready(model, "phantom", 0, tmp_path)
    data = Downstream("rsna", corpus, size=predictor.size)
    recipe = replace(finetune.RECIPES["finetune/phantom"], steps=4, batch=8, evaluations=2)
    before = finetune.Classifier(predictor, 1, drop_path=0).backbone.state_dict()
    train, valid = data.ids("train"), data.ids("valid")
    fitted = finetune.fit(predictor, data, train, valid, recipe, share=0.01, seed=0)
    assert set(fitted.searched) == {"0.05", "0.01"}
    assert fitted.valid_auroc == max(fitted.searched.values())
    parameters = dict(fitted.net.backbone.named_parameters())
    moved = {name for name, p in parameters.items() if not torch.equal(p, before[name])}
    trained = {name for name, p in parameters.items() if p.requires_grad}
    assert moved <= trained
    # a ResNet's blocks start as identities: what they hide moves a few steps later
    assert len(moved) > 0.5 * len(trained)
    scores = finetune.scores_of(fitted.net, predictor, data, data.ids("test"), recipe)
    assert scores.shape == (len(data.ids("test")), 1)


@pytest.mark.slow
def test_upernet_overfits_what_it_sees(corpus: Path, tmp_path: Path) -> None:
    predictor = ready(RANDOM_MACO, "phantom", 0, tmp_path)
    table = load("siim", corpus)
    recipe = upernet.RECIPES["segmentation/maco-phantom"]
    scans = Scans("siim", table, DecodedImages(table, recipe.size))
    positive = [i for i in table.frame["image_id"] if scans.positive(i)][:4]
    short = replace(recipe, iterations=(60,) * 3, check_every=(30,) * 3, flip=0.0)
    net = upernet.fit(predictor.backbone, scans, positive, positive, short, stage=0, seed=0)
    found = upernet.evaluate(net, scans, positive, batch=4)
    assert found.per_image > 0.3
    assert MACO.paper == "maco"
    wild = replace(short, iterations=(2,) * 3, check_every=(1,) * 3, lr=1e30)
    with pytest.raises(DataError, match="UPerNet diverges"):
        upernet.fit(predictor.backbone, scans, positive, positive, wild, stage=0, seed=0)
    with pytest.raises(DataError, match="two training images or more, found 1"):
        upernet.fit(predictor.backbone, scans, positive[:1], positive, short, stage=0, seed=0)


@pytest.mark.slow
def test_a_rate_that_diverges_leaves_the_others_alone(corpus: Path, tmp_path: Path) -> None:
    model = ready(RANDOM_MACO, "phantom", 0, tmp_path)
    data = Downstream("rsna", corpus, size=model.size)
    recipe = replace(finetune.RECIPES["finetune/phantom"], steps=4, batch=8, evaluations=2)
    train, valid = data.ids("train")[:16], data.ids("valid")
    both = replace(recipe, rates=(1e30, 1e-3), clip_norm=None)
    found = finetune.fit(model, data, train, valid, both, share=1.0, seed=0)
    assert found.rate == 1e-3
    assert found.searched["1e+30"] == -1
    with pytest.raises(DataError, match="no rate of"):
        finetune.fit(model, data, train, valid, replace(both, rates=(1e30,)), share=1.0, seed=0)


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Count updates from now on, each saved; raise at one of them."""
    count = resume.Resumable.updated
    monkeypatch.setattr(resume, "SAVE_SECONDS", -1.0)

    def watch(*, stop_after: int | None = None) -> list[int]:
        done: list[int] = []

        def updated(run: resume.Resumable) -> None:
            count(run)  # and save
            done.append(run.step)
            if len(done) == stop_after:
                raise Interrupted

        monkeypatch.setattr(resume.Resumable, "updated", updated)
        return done

    return watch


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stop_after", [3, 11])  # in the first rate, in the second
def test_interrupted_fine_tuning_ends_with_the_same_weights(
    corpus: Path, tmp_path: Path, updates: Callable[..., list[int]], optimizer: Any, stop_after: int
) -> None:
    model = ready(RANDOM_MACO, "phantom", 0, tmp_path)
    data = Downstream("rsna", corpus, size=model.size)
    short = {"steps": 6, "batch": 8, "evaluations": 1, "optimizer": optimizer, "drop_path": 0.5}
    recipe = replace(finetune.RECIPES["finetune/phantom"], **short)
    train, valid, path = data.ids("train")[:20], data.ids("valid"), tmp_path / "fit.kept"

    def fit(path: Path | None, seed: int = 0) -> finetune.Fitted:
        return finetune.fit(model, data, train, valid, recipe, share=1.0, seed=seed, path=path)

    whole = fit(None)
    updates(stop_after=stop_after)
    with pytest.raises(Interrupted):
        fit(path)
    done = updates()
    resumed = fit(path)
    assert len(done) == 12 - stop_after
    assert resumed.searched == whole.searched
    assert same(resumed.net, whole.net)
    done = updates()
    assert same(fit(path).net, whole.net)
    assert not done
    fit(path, seed=1)  # another fit's file is not read
    assert len(done) == 12


@pytest.mark.slow
def test_interrupted_upernet_ends_with_the_same_weights(
    corpus: Path, tmp_path: Path, updates: Callable[..., list[int]]
) -> None:
    vit = ready(RANDOM_MACO, "phantom", 0, tmp_path).backbone
    table = load("siim", corpus)
    recipe = upernet.RECIPES["segmentation/maco-phantom"]
    scans = Scans("siim", table, DecodedImages(table, recipe.size))
    ids = list(table.frame["image_id"])[:12]
    short = replace(recipe, iterations=(6,) * 3, check_every=(6,) * 3, batch=4, dropout=0.5)

    def fit(path: Path | None) -> upernet.UPerNet:
        return upernet.fit(vit, scans, ids, ids, short, stage=0, seed=0, path=path)

    whole = fit(None)
    updates(stop_after=5)
    with pytest.raises(Interrupted):
        fit(tmp_path / "fit.kept")
    done = updates()
    assert same(fit(tmp_path / "fit.kept"), whole)
    assert done == [6]


def test_a_fit_saves_itself_between_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def run() -> resume.Resumable:
        saved = resume.Saved(tmp_path / "fit.kept", torch.nn.Identity(), recipe="one")
        return resume.Resumable(net, optimizer, np.random.default_rng(0), saved)

    monkeypatch.setattr(resume, "SAVE_SECONDS", 0.0)
    first = run()
    drawn = [first.rows(5, 2).tolist(), first.rows(5, 2).tolist()]
    assert len({*drawn[0], *drawn[1]}) == 4  # of one pass
    first.updated()
    second = run()
    assert (second.step, second.best) == (1, -1.0)
    assert second.rows(5, 2).tolist() == first.rows(5, 2).tolist()


def test_epochs_are_whole_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 images in batches of 8 are two updates a pass: the incomplete third batch is dropped."""
    asked: list[int] = []

    def trained(*_: Any, steps: int, **__: Any) -> tuple[float, dict[str, torch.Tensor]]:
        asked.append(steps)
        return 0.7, {}

    monkeypatch.setattr(finetune, "_train", trained)
    monkeypatch.setattr(finetune, "classifier_of", lambda *_: torch.nn.Identity())
    model: Any = SimpleNamespace(backbone=torch.nn.Identity())
    data: Any = SimpleNamespace(name="nih_kad", task=SimpleNamespace(dataset="nih", labels=()))
    recipe = replace(finetune.RECIPES["finetune/imitate"], batch=8, epochs=5)
    ids = [str(k) for k in range(20)]
    for train in (ids, ids[:3]):
        finetune.fit(model, data, train, (), recipe, share=0.01, seed=0)
    assert asked == [10, 5]


def test_a_recipe_without_its_row_is_refused(corpus: Path, tmp_path: Path) -> None:
    model = ready(RANDOM_MACO, "phantom", 0, tmp_path)
    data = Downstream("rsna", corpus, size=model.size)
    recipe = finetune.RECIPES["finetune/maco-released"]
    with pytest.raises(DataError, match="no rate and steps"):
        finetune.fit(model, data, (), (), recipe, share=0.5, seed=0)
