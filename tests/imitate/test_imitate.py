"""IMITATE: sizes, oracle, missing sections, stored codes, layouts, training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.core import NotRunnable
from benchmarks.models import MODELS
from benchmarks.oracles.imitate import literal_losses
from benchmarks.weights import from_authors
from common.checkpoint import CheckpointError
from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from common.training import TrainingError
from imitate.augment import cropped, stretched, to_input, view, warped
from imitate.checkpoint import fresh_model, load_released, load_vocabulary, rename
from imitate.config import (
    PAPER,
    PRESETS,
    RELEASED,
    LossConfig,
    ModelConfig,
    PretrainConfig,
    Term,
)
from imitate.losses import cicl, multi_weight, pretrain_losses, soft_targets, softness
from imitate.model import IMITATE, Section, Views
from imitate.pairs import Codes, Report, codes_of, load_pairs
from imitate.pretrain import lr_at, train
from imitate.text import cleaned

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["mimic"], workers=1)
    return root


def small(corpus: Path, out: Path) -> PretrainConfig:
    cfg = PRESETS["phantom"]
    run = replace(cfg.run, data_root=corpus, out=out, tracker="none", save_every=2)
    return replace(cfg, run=run, optim=replace(cfg.optim, batch_size_per_process=8, epochs=2))


def test_published_sizes() -> None:
    with torch.device("meta"):
        model = IMITATE(ModelConfig(), ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["a"] * 28992)
        wide = IMITATE(RELEASED.model, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["a"] * 28992)
    assert sum(model.aggregation.kept) == 395
    trained = sum(p.numel() for p in wide.parameters() if p.requires_grad)
    assert trained == 30_664_512
    assert not any(p.requires_grad for p in model.text_encoder.parameters())


def test_loss_equals_a_loop_over_pairs() -> None:
    """-sum_j T_ij log softmax_j(cos / tau), rows and columns, mean over i."""
    x, y, codes = torch.randn(3, 4, 6, dtype=torch.float64)
    cfg = LossConfig()
    targets = soft_targets(codes, cfg, tau=0.07, size=4)
    for i in range(4):
        for j in range(4):
            r = np.corrcoef(codes[i], codes[j])[0, 1]
            wanted = 1.0 if i == j else 1 - np.exp(-0.2 * r)
            assert float(targets[i, j]) == pytest.approx(wanted, rel=1e-9)
    cosine = torch.nn.functional.cosine_similarity(x[:, None], y[None], dim=2) / 0.07
    total = sum(
        -float(targets[i, j]) * float(line[i, j] - line[i].logsumexp(0))
        for line in (cosine, cosine.mT)
        for i in range(4)
        for j in range(4)
    )
    assert float(cicl(x, y, targets, cfg, tau=0.07)) == pytest.approx(total / 4, rel=1e-9)
    with pytest.raises(ValueError, match="need pairs"):
        cicl(x, y[:2], targets, cfg, tau=0.07)
    mass, share = softness(targets)
    assert float(mass) == pytest.approx(float(targets.sum()) / 4)
    shares = [float(targets[i, i] / targets[i].sum()) for i in range(4)]
    assert float(share) == pytest.approx(sum(shares) / 4)


def test_missing_findings_leave_their_terms_alone(corpus: Path, tmp_path: Path) -> None:
    """Without two studies' findings: the loss of the others, and no gradient to the two."""
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg).train()
    batch = load_pairs(cfg, model).train.__getitems__(range(6))
    out = model(*batch)
    here = torch.tensor([True, False, True, True, False, True])
    gone = out._replace(findings=out.findings._replace(present=here))
    kept = out._replace(
        multi=Views(*(v[here] for v in out.multi)),
        multi_vv=Views(*(v[here] for v in out.multi_vv)),
        findings=Section(*(part[here] for part in out.findings)),
    )
    only = replace(cfg.loss, terms=("vlm", "vvm"))
    losses = pretrain_losses(gone, only)
    for name, value in losses.items():
        torch.testing.assert_close(value, pretrain_losses(kept, only)[name])
    gradients = torch.autograd.grad(
        torch.stack(list(losses.values())).sum(), [out.multi.first, out.multi_vv.second]
    )
    for gradient in gradients:
        assert gradient[~here].abs().max() == 0
        assert gradient[here].abs().min(dim=1).values.max() > 0
    one = torch.zeros_like(here).index_fill(0, torch.tensor([2]), True)
    for few in (torch.zeros_like(here), one):
        none = out._replace(findings=out.findings._replace(present=few))
        assert {v.item() for v in pretrain_losses(none, only).values()} == {0.0}
    hard = replace(only, kernel="none", terms=("vvm",))  # no text softens it: all studies count
    plain = pretrain_losses(out, hard)["vvm"]
    torch.testing.assert_close(pretrain_losses(gone, hard)["vvm"], plain)
    torch.testing.assert_close(pretrain_losses(none, hard)["vvm"], plain)


def test_the_same_section_twice_is_aligned_once(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg).train()
    out = model(*load_pairs(cfg, model).train.__getitems__(range(6)))
    once = replace(cfg.loss, terms=("vlm",), report_mode="imp")
    both = replace(once, vlm_targets="both")
    torch.testing.assert_close(pretrain_losses(out, both), pretrain_losses(out, once))


def test_codes_are_the_same_while_the_text_encoder_is_trained() -> None:
    """Dropout would change the targets from call to call (ledger A13)."""
    cfg = PRESETS["phantom"]
    text = replace(cfg.model.text, unfreeze_last=1)
    model = fresh_model(replace(cfg, model=replace(cfg.model, text=text))).train()
    tokens = model.word_pieces()(["no effusion", "mild edema"])
    torch.testing.assert_close(model.text_encoder(tokens), model.text_encoder(tokens))
    assert model.text_projector.training


def test_report_modes_exchange_the_sections(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg).train()
    out = model(*load_pairs(cfg, model).train.__getitems__(range(6)))
    swapped = out._replace(findings=out.impression, impression=out.findings)
    plain = pretrain_losses(swapped, cfg.loss)
    other = pretrain_losses(out, replace(cfg.loss, report_mode="reversed"))
    torch.testing.assert_close(plain, other)
    assert multi_weight(40, RELEASED.loss) == pytest.approx(0.8)
    assert multi_weight(40, PAPER.loss) == 1.0


def test_codes_are_stored_once_and_follow_weights_and_texts(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, run=replace(cfg.run, data_root=tmp_path))
    model = fresh_model(cfg)
    reports = [Report("small effusion.", "effusion."), Report("", "no acute process.")]
    first = codes_of(model, reports, cfg)
    stored = list((tmp_path / "prepared" / "imitate-text").glob("*.safetensors"))
    assert len(stored) == 1
    torch.testing.assert_close(first.impression, model.codes([r.impression for r in reports]))
    again = codes_of(model, reports, cfg)
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    codes_of(model, reports[:1], cfg)
    with torch.no_grad():
        model.text_encoder.bert.embeddings.word_embeddings.weight.mul_(2)
    codes_of(model, reports, cfg)
    assert len(list((tmp_path / "prepared" / "imitate-text").glob("*.safetensors"))) == 3


def test_codes_come_in_the_order_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fresh_model(PRESETS["phantom"])
    texts = ["a small left pleural effusion.", "normal.", "no acute cardiopulmonary process."] * 2
    alone = torch.cat([model.codes([text]) for text in texts])
    monkeypatch.setattr("imitate.model.TEXTS_AT_ONCE", 4)
    torch.testing.assert_close(model.codes(texts), alone)


def test_trained_text_layers_take_gradients(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    text = replace(cfg.model.text, unfreeze_last=1)
    cfg = replace(cfg, model=replace(cfg.model, text=text))
    model = fresh_model(cfg).train()
    pairs = load_pairs(cfg, model).train
    assert not isinstance(pairs.words, Codes)
    terms = pretrain_losses(model(*pairs.__getitems__(range(4))), cfg.loss)
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    trained = [n for n, p in model.text_encoder.named_parameters() if p.requires_grad]
    assert trained
    assert all("encoder.layer.1." in name for name in trained)


@pytest.mark.parametrize("terms", [("vvh",), ("vlm",), ("vlh", "vvm")])
def test_exactly_the_trained_parameters_get_a_gradient(
    corpus: Path, tmp_path: Path, terms: tuple[Term, ...]
) -> None:
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, loss=replace(cfg.loss, terms=terms))
    model = fresh_model(cfg).train()
    model.freeze_unused(cfg.loss)
    losses = pretrain_losses(model(*load_pairs(cfg, model).train.__getitems__(range(4))), cfg.loss)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_released_layouts_load(tmp_path: Path) -> None:
    layout = json.loads(
        (Path(__file__).parents[1] / "golden" / "imitate" / "checkpoint_keys.json").read_text()
    )
    state = {name: torch.empty(shape, device="meta") for name, shape in layout.items()}
    named, ignored = rename(state)
    with torch.device("meta"):
        model = IMITATE(RELEASED.model, ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["a"] * 28992)
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert own == {k: tuple(v.shape) for k, v in named.items()}
    assert all("pooler" in key or "position_ids" in key for key in ignored)
    tiny = PRESETS["phantom"].model
    source = fresh_model(PRESETS["phantom"])
    path = tmp_path / "x_encoder.pth"
    torch.save(
        {f"module.{k}": v for k, v in source.image_encoder.backbone.state_dict().items()}, path
    )
    loaded, _ = load_released(path, vocabulary=load_vocabulary(tiny.text), config=tiny)
    torch.testing.assert_close(
        loaded.image_encoder.backbone.state_dict(), source.image_encoder.backbone.state_dict()
    )
    with pytest.raises(NotRunnable, match="text side would be random"):
        from_authors(MODELS["imitate"], path, None, reads_text=True)
    with pytest.raises(CheckpointError, match="unknown key"):
        rename({"surprise": torch.ones(1)})


def test_views_without_ranges_and_norms() -> None:
    still = replace(PAPER.data, rotation=(0.0, 0.0), flip=0.0, autocontrast=0.0)
    image = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(view(image, 8, still, np.random.default_rng(0)), image)
    assert to_input(image[None], "imagenet").shape == (1, 3, 8, 8)
    for option, expected in (
        ({"flip": 1.0}, image[:, ::-1]),
        ({"vertical_flip": 1.0}, image[::-1]),
        ({"rotation": (90.0, 90.0)}, np.rot90(image)),
        ({"autocontrast": 1.0}, np.round(image * (255 / 63))),
    ):
        moved = replace(still, **option)
        found = view(image, 8, moved, np.random.default_rng(0))
        np.testing.assert_allclose(found.astype(float), expected, atol=1)
    assert float(to_input(image[None], "unit").max()) == pytest.approx(63 / 255)
    flat = np.full((8, 8), 7, np.uint8)
    np.testing.assert_array_equal(stretched(flat, 4), np.full((4, 4), 7))
    assert not stretched(np.zeros((8, 8), np.uint8), 4).any()
    with pytest.raises(DataError, match="cannot crop"):
        cropped(image[None], 9)
    assert cleaned(" ___ \n .") == ""


def test_schedules() -> None:
    paper, code = PAPER.optim, RELEASED.optim
    assert lr_at(0, 100, paper) == paper.lr_floor
    assert lr_at(40, 100, paper) == pytest.approx(paper.lr)
    assert lr_at(100, 100, paper) == pytest.approx(paper.lr_floor)
    assert lr_at(0, 100, code) == pytest.approx(code.lr)
    assert lr_at(4_368, 4_368, code) == pytest.approx(1.92e-4, rel=1e-2)
    assert lr_at(code.restart_steps, 10**6, code) == pytest.approx(code.lr)


@pytest.mark.slow
def test_it_overfits_eight_studies(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, loss=replace(cfg.loss, kernel="none", terms=("vlh",)))
    model = fresh_model(cfg).train()
    pairs = load_pairs(cfg, model).train
    distinct = list({report.impression: i for i, report in enumerate(pairs.reports)}.values())[:8]
    batch = pairs.__getitems__(distinct)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(60):
        loss = pretrain_losses(model(*batch), cfg.loss)["vlh"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    whole, parts = (small(corpus, tmp_path / name) for name in ("a", "b"))
    train(whole)
    one = replace(parts, run=replace(parts.run, max_epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.training.Run.finish", lambda *_, **__: None)
        train(one)
    train(parts)
    weights = [load_file(tmp_path / name / "last" / "model.safetensors") for name in ("a", "b")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.slow
def test_two_processes_train_together(corpus: Path, tmp_path: Path) -> None:
    words = f"phantom --data-root {corpus} --out {tmp_path} --tracker none --optim.epochs 1"
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "imitate/pretrain.py", *words.split()),
            *("--optim.batch-size-per-process", "8", "--loss.gather"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    assert json.loads((tmp_path / "provenance.json").read_text())["processes"] == 2


def test_literal_step_gives_the_same_loss_and_gradients(corpus: Path, tmp_path: Path) -> None:
    """One encoding a view, stored codes and the lone [CLS] query change nothing."""
    cfg = small(corpus, tmp_path)
    torch.manual_seed(0)
    model = fresh_model(cfg).double().train()
    pieces = model.word_pieces()
    texts = (pieces(["clear lungs", "left effusion", "edema"]), pieces(["a", "b c", "large heart"]))
    views, seeds = torch.rand(3, 2, 1, 96, 96).double(), torch.arange(4)
    there = torch.ones(3, dtype=torch.bool)
    codes = tuple(model.text_encoder(text) for text in texts)
    terms = pretrain_losses(model(views, codes, (there, there), seeds), cfg.loss)
    lean = torch.stack(list(terms.values())).sum()
    literal = literal_losses(model, views, texts, seeds, cfg.loss)
    assert lean.item() == pytest.approx(literal.item(), rel=1e-6)
    trained = [p for p in model.parameters() if p.requires_grad]
    pairs = zip(
        torch.autograd.grad(lean, trained), torch.autograd.grad(literal, trained), strict=True
    )
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_a_step_encodes_each_view_once_and_no_text(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg)
    calls = {"image": 0, "text": 0}
    model.image_encoder.register_forward_hook(lambda *_: calls.update(image=calls["image"] + 1))
    model.text_encoder.register_forward_hook(lambda *_: calls.update(text=calls["text"] + 1))
    there = torch.ones(2, dtype=torch.bool)
    codes = (torch.rand(2, 128), torch.rand(2, 128))
    model(torch.rand(2, 2, 1, 96, 96), codes, (there, there), torch.arange(4))
    assert calls == {"image": 2, "text": 0}


def test_the_multi_level_feature_can_meet_both_sections(corpus: Path, tmp_path: Path) -> None:
    cfg = LossConfig(terms=("vlm",))
    out = fresh_model(small(corpus, tmp_path)).eval()(
        torch.rand(3, 2, 1, 96, 96),
        (torch.rand(3, 128), torch.rand(3, 128)),
        (torch.ones(3, dtype=torch.bool),) * 2,
        torch.arange(4),
    )
    one = pretrain_losses(out, cfg)["vlm"]
    other = pretrain_losses(out._replace(findings=out.impression), cfg)["vlm"]
    both = pretrain_losses(out, replace(cfg, vlm_targets="both"))["vlm"]
    assert both.item() == pytest.approx((one + other).item())
    assert one.item() != pytest.approx(other.item())


def test_mean_of_word_pieces_leaves_padding_out(corpus: Path, tmp_path: Path) -> None:
    model = fresh_model(small(corpus, tmp_path))
    alone = model.codes(["left effusion"])
    padded = model.codes(["left effusion", "large right pleural effusion with a long text behind"])
    torch.testing.assert_close(alone[0], padded[0], rtol=1e-4, atol=1e-5)


def test_warped_view_keeps_its_size_and_darkens_the_rim() -> None:
    image = np.full((64, 64), 200, np.uint8)
    found = warped(image, np.random.default_rng(0))
    assert found.shape == image.shape
    assert found[0, 0] == 0
    assert found[32, 32] == 200


def test_text_layers_that_are_not_there_cannot_be_trained() -> None:
    cfg = PRESETS["phantom"]
    text = replace(cfg.model.text, unfreeze_last=3)
    with pytest.raises(CheckpointError, match="2 layers"):
        fresh_model(replace(cfg, model=replace(cfg.model, text=text)))


def test_joined_sections_are_counted_once(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg)
    kept = []
    for mode in ("hierarchical", "find_imp"):
        loss = replace(cfg.loss, report_mode=mode)
        data = replace(cfg.data, min_words=12)
        kept.append(load_pairs(replace(cfg, loss=loss, data=data), model).table.exclusions.counts)
    assert kept[0] == kept[1]
    assert kept[0]["empty_text"]


def test_a_loss_without_bound_is_refused(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    with pytest.raises(TrainingError, match="negative-corr clip"):
        train(replace(cfg, loss=replace(cfg.loss, similarity="dot")))
