"""MaCo against arrays made by the authors' functions and by the paper's equations in float64."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.config import released
from maco.checkpoint import load_vocabulary, rename, sized_like
from maco.config import PAPER, PHANTOM, RELEASED, LossConfig, ModelConfig
from maco.losses import (
    alignment_loss,
    importance_weights,
    pretrain_losses,
    reconstruction_loss,
    released_terms,
    weighted_contrast,
)
from maco.model import MaCo, Output, mask_of, patchify, rows_of
from maco.positions import position_table
from maco.pretrain import lr_at
from maco.text import Tokens, WordPieces, chosen, sentences
from maco.zero_shot import NEGATIVE, probabilities, prompt_vectors, scores

GOLDEN = Path(__file__).parents[1] / "golden" / "maco"
SIZES = json.loads((GOLDEN / "config.json").read_text())


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def close(found: Tensor, wanted: np.ndarray, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=rtol, atol=atol)


def test_patches() -> None:
    g = arrays("patchify")
    for scale in (1, 2):
        found = patchify(torch.tensor(g[f"imgs_scale{scale}"]), 4 * scale)
        close(found, g[f"patches_scale{scale}"], rtol=0, atol=0)


@pytest.mark.parametrize("norm_pix", [0, 1])
def test_reconstruction(norm_pix: int) -> None:
    """Ours gets the removed patches alone; the others have no gradient."""
    g = arrays("mae_loss")
    predicted = torch.tensor(g["pred"], dtype=torch.float64, requires_grad=True)
    target = patchify(torch.tensor(g["imgs"], dtype=torch.float64), 8)
    removed = torch.tensor(g["mask"]).bool()
    loss = reconstruction_loss(
        predicted[removed][None], target[removed][None], norm_pix=bool(norm_pix)
    )
    np.testing.assert_allclose(loss.item(), g[f"loss_norm_pix_{norm_pix}"], rtol=1e-10)
    loss.backward()
    assert predicted.grad is not None
    close(predicted.grad, g[f"grad_pred_norm_pix_{norm_pix}"])


def test_positions() -> None:
    g = arrays("positions")
    for rule, name in (("stretched", "released"), ("mae", "mae_formula")):
        close(position_table(16, 14, rule=rule)[0], g[f"{name}_dim16_grid14"])
        rows = position_table(768, 14, rule=rule)[0, [0, 1, 15, 196]]
        close(rows, g[f"{name}_dim768_rows_0_1_15_196"])


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_masks(ratio: float) -> None:
    g = arrays("masking")
    name = f"{ratio}".replace(".", "p")
    kept, removed, visible = mask_of(torch.tensor(g["noise"]), ratio)
    close(rows_of(torch.tensor(g["x"]), kept), g[f"kept_{name}"], rtol=0, atol=0)
    close(~visible, g[f"mask_{name}"].astype(bool), rtol=0, atol=0)
    restore = torch.cat([kept, removed], dim=1).argsort(dim=1)
    close(restore, g[f"ids_restore_{name}"], rtol=0, atol=0)


@pytest.mark.parametrize("size", [2, 4])
def test_paper_equations(size: int) -> None:
    g = {k: torch.tensor(v) for k, v in arrays("paper_equations").items()}
    cfg = replace(LossConfig(), group_size=size)
    v, t, weight, tau3 = (g[k].clone().requires_grad_() for k in ("v", "t", "weight", "tau3"))
    scores = F.linear(g["x_pos"].double(), weight, g["bias"]).squeeze(1)
    logits = F.normalize(v, dim=-1) @ F.normalize(t, dim=-1).mT / tau3
    weights = importance_weights(scores, tau1=cfg.tau1, tau2=cfg.tau2, group_size=size)
    tight: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}

    def same(found: Tensor, name: str) -> None:
        close(found, g[f"D{size}_{name}"].numpy(), **tight)

    same(scores, "p")
    same(weights.temperature, "w_t")
    same(weights.loss, "w_l")
    same(weighted_contrast(logits, weights), "per_sample_i2t")
    same(weighted_contrast(logits.mT, weights), "per_sample_t2i")
    loss = alignment_loss(logits, scores, cfg)
    same(loss, "align_group_mean")
    batch = replace(cfg, align_reduction="batch_mean")
    same(alignment_loss(logits, scores, batch), "align_batch_mean")
    both = replace(cfg, align_direction="symmetric")
    same(alignment_loss(logits, scores, both), "align_group_mean_symmetric")
    total = cfg.mae_weight * g["loss_mae"] + cfg.align_weight * loss
    same(total, "total")
    grads = torch.autograd.grad(total, [v, t, weight, tau3])
    for name, grad in zip(("v", "t", "weight", "tau3"), grads, strict=True):
        same(grad, f"grad_total_{name}")


@pytest.mark.parametrize("start", ["init", "random"])
def test_released_contrast(start: str) -> None:
    g = {k: torch.tensor(v) for k, v in arrays("contrastive_released").items()}
    image, text, multiplier = (
        g[k].clone().requires_grad_() for k in ("img", "text", "logit_scale")
    )
    weight, bias = (g[f"{start}_{k}"].clone().requires_grad_() for k in ("weight", "bias"))
    scores = F.linear(g["x_pos"].float(), weight, bias).squeeze(1)
    logits = multiplier * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).mT
    terms = released_terms(logits, scores)
    close(terms, g[f"{start}_terms_scaled_i2t_scaled_t2i_weighted_i2t_weighted_t2i"].numpy())
    plain = released_terms(logits, scores, scale_texts=False)
    close(plain[[0, 2, 3]], terms[[0, 2, 3]].detach().numpy())
    torch.testing.assert_close(
        plain[1], released_terms(logits.mT, scores * 0 + math.log(math.e - 1))[0]
    )
    loss = terms.mean()
    close(loss, g[f"{start}_loss"].numpy())
    leaves = {"img": image, "text": text, "weight": weight, "bias": bias, "logit_scale": multiplier}
    for (name, _), grad in zip(
        leaves.items(), torch.autograd.grad(loss, list(leaves.values())), strict=True
    ):
        close(grad, g[f"{start}_grad_{name}"].numpy(), atol=2e-6)


def tiny(scale: int) -> tuple[MaCo, dict[str, np.ndarray]]:
    """The small released model; `scale` 2 has the doubled target."""
    g = arrays("tiny_forward")
    names = ["weights/", "sr1_weights/"][:scale]  # the second replaces the first's last layer
    state = {
        k.removeprefix(name): torch.tensor(v)
        for name in names
        for k, v in g.items()
        if k.startswith(name)
    }
    state["decoder_pos_embed"] = state["pos_embed"]
    named, _ = rename(state)
    sizes = sized_like(named, heads())
    model = MaCo(sizes, ["[PAD]", "[UNK]", "[CLS]"] + [f"w{k}" for k in range(SIZES["vocab"] - 3)])
    model.load_state_dict(named)
    return model.eval(), {k.removeprefix(f"sr{scale - 1}_"): v for k, v in g.items()}


def heads() -> ModelConfig:
    model = RELEASED.model
    return replace(
        model,
        image=replace(model.image, heads=SIZES["heads"], mask_ratio=SIZES["ratio"]),
        decoder=replace(model.decoder, heads=SIZES["dheads"]),
        text=replace(model.text, heads=SIZES["th"]),
    )


@pytest.mark.parametrize("scale", [1, 2])
def test_tiny_forward(scale: int) -> None:
    model, g = tiny(scale)
    assert model.target_side == SIZES["patch"] * scale
    pixels = torch.tensor(g["image_uint8"])[:, None]
    mask = torch.tensor(g["attention_mask"]).bool()
    out: Output = model(
        pixels, Tokens(torch.tensor(g["ids"]).long(), mask), torch.tensor(g["noise"])
    )
    close(out.image_emb, g["image_embedding"], atol=1e-5)
    close(out.text_emb, g["text_embedding"], atol=1e-5)
    losses = pretrain_losses(out, released(LossConfig()))
    close(losses["mae"], g["loss_image"], rtol=1e-5)
    close(losses["align"], g["loss_contrastive"], rtol=1e-5)
    visible = mask_of(torch.tensor(g["noise"]), 0.5)
    close(~visible.visible, g["mask"].astype(bool), rtol=0, atol=0)
    for row, patch in enumerate(visible.removed[0].tolist()):
        if patch < 8:
            close(out.predicted[0, row], g["pred_first_image_first_8_patches"][patch], atol=1e-5)
    if scale == 1:
        tokens = model.encoder.forward_features(
            model.normalise(g["image_uint8"]).expand(-1, 3, -1, -1)
        )
        close(tokens[0], g["tokens_without_masking_first_image"], atol=1e-5)
    torch.stack(list(losses.values())).sum().backward()
    grads = {n: p.grad.norm() for n, p in model.named_parameters() if p.grad is not None}
    wanted = dict(zip(g["grad_names"].tolist(), g["grad_norms"].tolist(), strict=True))
    renamed, _ = rename({name: torch.tensor(value) for name, value in wanted.items()})
    for name, norm in renamed.items():
        np.testing.assert_allclose(float(grads.pop(name)), float(norm), rtol=1e-4, atol=1e-6)
    assert not grads


def test_report_procedure() -> None:
    for case in json.loads((GOLDEN / "reports.json").read_text()):
        pieces = sentences(case["report"], rule="released")
        text = chosen(pieces, case["permutation"], case["keep"])
        assert text == case["processed"]
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", *dict.fromkeys(case["tokens"][1:])]
        ids, mask = WordPieces(vocabulary, max_tokens=100)([text])
        assert [vocabulary[i] for i in ids[0].tolist()] == case["tokens"]
        assert mask.all()


def test_schedule() -> None:
    rows = json.loads((GOLDEN / "schedules.json").read_text())["pretraining"]["rows_epoch_lr"]
    for epoch, rate in rows:
        assert lr_at(epoch, RELEASED.optim) == pytest.approx(rate, rel=1e-9)
    assert lr_at(PAPER.optim.warmup_epochs, PAPER.optim) == PAPER.optim.lr


def test_zero_shot_probabilities() -> None:
    g = arrays("zero_shot")
    found = probabilities(*(torch.tensor(g[k]) for k in ("image", "positive", "negative")))
    close(found, g["probability_pos_neg"])


def test_zero_shot_means_over_prompts() -> None:
    torch.manual_seed(0)
    model = MaCo(PHANTOM.model, load_vocabulary(PHANTOM.model.text)).eval()
    positive, negative = prompt_vectors(model, ["edema", "pneumothorax"])
    texts = [template.format("edema") for template in NEGATIVE]
    close(negative[0], model.embed_texts(texts).emb.mean(dim=0).numpy())
    assert positive.shape == negative.shape == (2, PHANTOM.model.image.width)
    images = model.embed_images(torch.randn(3, 1, 96, 96))
    assert scores(model, images, ["edema", "pneumothorax"]).shape == (3, 2)
