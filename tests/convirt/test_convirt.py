"""ConVIRT: golden loss, its oracle, augmentation, text, frozen layers, training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from convirt.augment import augmented, cropped
from convirt.checkpoint import fresh_model, load_vocabulary
from convirt.config import PRESETS, AugmentConfig, ModelConfig, PretrainConfig, TextConfig
from convirt.losses import contrastive_loss, pretrain_losses
from convirt.model import ConVIRT
from convirt.pairs import load_pairs
from convirt.pretrain import lr_at, train
from convirt.text import sentences

GOLDEN = Path(__file__).parents[1] / "golden" / "convirt" / "losses.npz"


def small(corpus: Path, out: Path) -> PretrainConfig:
    cfg = PRESETS["phantom"]
    run = replace(cfg.run, data_root=corpus, out=out, tracker="none", save_every=2)
    return replace(cfg, run=run, optim=replace(cfg.optim, batch_size=8, epochs=2))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["mimic"], workers=1)
    return root


def test_golden_loss() -> None:
    g = np.load(GOLDEN)
    v, t = (torch.tensor(g[name], dtype=torch.float64) for name in ("v", "t"))
    loss = contrastive_loss(v, t, tau=0.1, image_to_text=0.75)
    np.testing.assert_allclose(loss.item(), g["convirt"], rtol=1e-10)
    both = 2 * contrastive_loss(v, t, tau=0.07, image_to_text=0.5)
    np.testing.assert_allclose(both.item(), g["mgca"], rtol=1e-10)


def test_loss_equals_a_loop_over_pairs() -> None:
    """Each row and column costs -log of its own share among exp(cosine / tau)."""
    v, t = torch.randn(2, 5, 7, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        row = [float(F.cosine_similarity(v[i], t[j], dim=0)) / 0.1 for j in range(5)]
        column = [float(F.cosine_similarity(v[j], t[i], dim=0)) / 0.1 for j in range(5)]
        costs = [float(np.log(np.exp(line).sum())) - line[i] for line in (row, column)]
        total += 0.75 * costs[0] + 0.25 * costs[1]
    loss = contrastive_loss(v, t, tau=0.1, image_to_text=0.75)
    assert loss.item() == pytest.approx(total / 5, rel=1e-12)


def test_equal_embeddings_cost_log_b_and_shapes_must_match() -> None:
    same = torch.ones(4, 3)
    loss = contrastive_loss(same, same, tau=0.1, image_to_text=0.75)
    assert loss.item() == pytest.approx(np.log(4))
    with pytest.raises(ValueError, match="one text per image"):
        contrastive_loss(same, same[:2], tau=0.1, image_to_text=0.75)


def test_published_sizes_and_frozen_half() -> None:
    with torch.device("meta"):
        model = ConVIRT(ModelConfig(), ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + ["a"] * 28992)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert not any("embeddings" in n or f"layer.{5}." in n for n in trained if "text" in n)
    assert any("encoder.layer.6." in n for n in trained)
    assert model.image_head[2].out_features == model.text_head[2].out_features == 512
    assert model.image_head[0].out_features == 2048


def test_padding_changes_nothing() -> None:
    cfg = replace(PRESETS["phantom"].model)
    model = ConVIRT(cfg, load_vocabulary(TextConfig(encoder=None))).eval()
    alone = model.embed_texts(["small left pleural effusion"]).emb
    with_longer = model.embed_texts(["small left pleural effusion", "no " * 40]).emb
    torch.testing.assert_close(alone[0], with_longer[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no word"):
        model.embed_texts(["..."])


def test_views_without_ranges_are_the_resized_image() -> None:
    """Nothing drawn: the whole image, scaled to the crop; all of it stays where it is."""
    still = AugmentConfig(
        crop_area=(1, 1), flip=0, rotate=0, shift=0, scale=(1, 1), light=(1, 1), blur=(1e-3, 1e-3)
    )
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 4, (1, 64, 1))
    view = augmented(ramp, 64, still, [np.random.default_rng(0)])
    assert (view - cropped(ramp, 64)).abs().max() < 0.02
    mirrored = augmented(ramp, 64, replace(still, flip=1.0), [np.random.default_rng(0)])
    assert (mirrored[..., 1:] - view.flip(-1)[..., :-1]).abs().max() < 0.05
    with pytest.raises(DataError, match="cannot crop"):
        cropped(ramp, 65)


def test_a_shift_is_a_share_of_the_crop() -> None:
    """The middle of a quarter of the image lies within it, or up to a tenth of its side beyond."""
    cfg = AugmentConfig(
        crop_area=(0.25, 0.25),
        flip=0,
        rotate=0,
        shift=0.1,
        scale=(1, 1),
        light=(1, 1),
        blur=(1e-3, 1e-3),
    )
    ramp = np.tile(np.arange(100, dtype=np.uint8), (300, 100, 1))
    views = augmented(ramp, 50, cfg, [np.random.default_rng(k) for k in range(300)])
    middles = (views[:, 0, 25, 25].numpy() + 1) * 255 / 2
    assert 19 < middles.min() < 24  # 25 without a shift
    assert 76 < middles.max() < 81


def test_sentences_split_at_stops_not_at_decimals() -> None:
    text = "1. A 2.5 cm nodule.\n2. No effusion seen today. Normal."
    assert sentences(text, min_words=3) == ["a 2.5 cm nodule.", "no effusion seen today."]
    text = "Heart size is unchanged compared to 2013. Tube ends at T 5. No effusion seen: 1. clear."
    assert sentences(text, min_words=1) == [
        "heart size is unchanged compared to 2013.",
        "tube ends at t 5.",
        "no effusion seen:",
        "clear.",
    ]


def test_the_rate_is_halved_on_a_plateau() -> None:
    cfg = PRESETS["paper"].optim
    assert lr_at([3, 2, 1], cfg) == cfg.lr
    assert lr_at([1] + [2] * 5, cfg) == cfg.lr / 2
    assert lr_at([1] + [2] * 10, cfg) == cfg.lr / 4


@pytest.mark.slow
def test_it_overfits_eight_studies(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg).train()
    batch = load_pairs(cfg, model.word_pieces()).train.__getitems__(range(8))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        loss = pretrain_losses(model(*batch), cfg.loss)["contrast"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    whole, parts = (small(corpus, tmp_path / name) for name in ("a", "b"))
    train(whole)
    one: Any = replace(parts, run=replace(parts.run, max_epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.training.Run.finish", lambda *_, **__: None)
        train(one)
    train(parts)
    weights = [load_file(tmp_path / name / "last" / "model.safetensors") for name in ("a", "b")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    record = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert record["split"] == "mimic/official"
