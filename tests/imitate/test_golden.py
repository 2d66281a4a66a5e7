"""IMITATE against arrays of the released functions and of the paper's equations in float64."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imitate.augment import content_box, stretched
from imitate.config import RELEASED, LossConfig
from imitate.losses import (
    cicl,
    correlation,
    kernel,
    pretrain_losses,
    soft_targets,
)
from imitate.model import IMITATE, Aggregation, Output, Section, Views, projector

GOLDEN = Path(__file__).parents[1] / "golden" / "imitate"
SEED = json.loads((GOLDEN / "params.json").read_text())["seed"]
WIDTHS = (256, 512, 1024, 2048)


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def drawn(name: str, *shape: int, scale: float = 1.0) -> np.ndarray:
    """The random inputs that are not stored."""
    state = np.random.RandomState(zlib.crc32(name.encode()) ^ SEED)
    return scale * state.standard_normal(shape)


def close(found: Tensor, wanted: Any, *, rtol: float = 1e-6, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=rtol, atol=atol)


TAGS = [key[5:] for key in arrays("clip_loss") if re.match(r"loss_[a-z]+_r[\d.]+_t", key)]
"""Kernel, smoothing and temperature of each released loss."""


@pytest.mark.parametrize("tag", TAGS)
def test_released_loss(tag: str) -> None:
    g = arrays("clip_loss")
    name, smoothing, tau = tag.split("_")[0], *(float(x[1:]) for x in tag.split("_")[1:])
    cfg = replace(RELEASED.loss, kernel=name, smoothing=smoothing)  # type: ignore[arg-type]
    x, y = (torch.tensor(g[k], dtype=torch.float64, requires_grad=True) for k in ("x", "y"))
    codes = torch.tensor(g["prior"], dtype=torch.float64)
    close(correlation(codes), g["corrcoef"], atol=1e-12)
    targets = soft_targets(codes, cfg, tau=tau, size=len(x))
    if f"target_{tag}" in g:
        close(targets, g[f"target_{tag}"])
    loss = cicl(x, y, targets, cfg, tau=tau)
    close(loss, g[f"loss_{tag}"])
    if f"gradx_{tag}" in g:
        for grad, side in zip(torch.autograd.grad(loss, [x, y]), ("x", "y"), strict=True):
            close(grad, g[f"grad{side}_{tag}"])


def test_released_loss_without_prior_and_swapped() -> None:
    g = arrays("clip_loss")
    x, y = (torch.tensor(g[k], dtype=torch.float64) for k in ("x", "y"))
    cfg = RELEASED.loss
    hard = soft_targets(None, cfg, tau=0.07, size=len(x)).double()
    close(cicl(x, y, hard, cfg, tau=0.07), g["loss_noprior_t0.07"])
    soft = soft_targets(torch.tensor(g["prior"], dtype=torch.float64), cfg, tau=0.2, size=len(x))
    close(cicl(y, x, soft, cfg, tau=0.2), g["loss_swapped_exp_r0.2_t0.2"])


def paper() -> dict[str, Tensor]:
    return {k: torch.tensor(v, dtype=torch.float64) for k, v in arrays("paper_direct").items()}


@pytest.mark.parametrize("section", ["I", "F"])
def test_paper_correlation_and_targets(section: str) -> None:
    g = paper()
    r = correlation(g[f"z{section}"])
    close(r, g[f"R_{section}"], rtol=1e-10, atol=1e-12)
    for smoothing in (0.1, 0.2, 0.5, 1.0):
        for rule in ("keep", "clip"):
            cfg = LossConfig(smoothing=smoothing, negative_corr=rule)
            name = f"Rsmooth_{section}_lam{smoothing:g}_{rule}"
            if name in g:
                found = soft_targets(g[f"z{section}"], cfg, tau=0.07, size=6)
                close(found, g[name], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rule", ["keep", "clip"])
@pytest.mark.parametrize("form", ["cosine", "dot"])
@pytest.mark.parametrize("tau", [0.07, 1.0])
def test_paper_loss(rule: str, form: str, tau: float) -> None:
    """The golden sums over the batch are ours times B."""
    g = paper()
    rows = LossConfig(negative_corr=rule, similarity=form, symmetric=False)  # type: ignore[arg-type]
    both = replace(rows, symmetric=True)
    targets = soft_targets(g["zI"], rows, tau=tau, size=6)
    by_row = 6 * cicl(g["p_v1h"], g["p_tI"], targets, rows, tau=tau)
    tag = f"sum_{rule}_{'cos' if form == 'cosine' else 'dot'}_tau{tau:g}"
    close(by_row, g[f"CICL_rows_{tag}"], rtol=1e-10)
    total = 6 * cicl(g["p_v1h"], g["p_tI"], targets, both, tau=tau)
    close(total - by_row, g[f"CICL_cols_{tag}"], rtol=1e-10)


def test_paper_total() -> None:
    """Six terms of weight 1, clipped, cosine, tau 0.07."""
    g = paper()
    here = torch.ones(6, dtype=torch.bool)
    multi = Views(g["p_v1m"], g["p_v2m"])
    out = Output(
        Views(g["p_v1h"], g["p_v2h"]),
        multi,
        multi,
        Section(g["p_tF"], g["zF"], here),
        Section(g["p_tI"], g["zI"], here),
    )
    cfg = LossConfig(negative_corr="clip")
    terms = pretrain_losses(out, cfg)
    close(torch.stack(list(terms.values())).sum() * 6, g["total_both_sum"], rtol=1e-10)
    rows = pretrain_losses(out, replace(cfg, symmetric=False))
    close(torch.stack(list(rows.values())).sum() * 6, g["total_rows_sum"], rtol=1e-10)


def test_gradient_of_the_paper_loss() -> None:
    g = paper()
    cfg = LossConfig(negative_corr="clip", symmetric=False)
    x = g["p_v1h"].requires_grad_()
    targets = soft_targets(g["zI"], cfg, tau=0.07, size=6)
    loss = 6 * cicl(x, g["p_tI"], targets, cfg, tau=0.07)
    (grad,) = torch.autograd.grad(loss, x)
    close(grad, g["grad_rows_v1h_clip_cos_tau0.07"], rtol=1e-5, atol=1e-6)


def released_weights(module: nn.Module, prefix: str) -> None:
    """Closed-form weights of the golden model, by released key."""
    names = {"attention": "multi_attent", "positions": "positional_embedding"}
    for key, value in module.state_dict().items():
        first, _, rest = key.partition(".")
        name = f"{prefix}{names.get(first, first)}{'.' if rest else ''}{rest}"
        if name in ("cls_token", "positional_embedding"):
            value.copy_(torch.tensor(drawn(name, *value.shape, scale=0.5)))
        elif "running" in name or "num_batches" in name:
            continue
        elif value.ndim >= 2:
            scale = 1 / np.sqrt(np.prod(value.shape[1:]))
            value.copy_(torch.tensor(drawn(name, *value.shape, scale=scale)))
        else:
            base = 1.0 if name.endswith(".weight") else 0.0
            value.copy_(base + torch.tensor(drawn(name, *value.shape, scale=0.1)))


def aggregation() -> tuple[Aggregation, list[Tensor], list[Tensor], dict[str, np.ndarray]]:
    g = arrays("aggregation")
    module = Aggregation(RELEASED.model.aggregation, WIDTHS)
    released_weights(module, "")
    sides = (56, 28, 14, 7)
    maps = [
        torch.tensor(np.abs(drawn(f"agg.stage{k}", 3, width, side, side, scale=0.5))).float()
        for k, (width, side) in enumerate(zip(WIDTHS, sides, strict=True), start=1)
    ]
    return module, maps, [torch.tensor(g[f"idx{k}"]).long()[None] for k in range(1, 5)], g


def test_aggregation() -> None:
    """Only the [CLS] query is computed; the released code computes all 513."""
    module, maps, chosen, g = aggregation()
    assert sum(module.kept) == 446
    tokens = module.tokens(maps, chosen) + module.positions[:, 1:]
    close(tokens.mean(dim=2), g["seq_token_mean"][:, :512], rtol=1e-4, atol=2e-6)
    sampled = [0, 63, 64, 139, 140, 241, 242, 445, 446, 511]
    close(tokens[:, sampled, :32], g["seq_tokens_sampled"][:, :10], rtol=1e-4, atol=2e-6)
    readout = module(maps, chosen)
    close(readout, g["readout"], rtol=1e-4, atol=1e-5)
    first = (module.cls_token + module.positions[:, :1])[:, 0]
    close(readout - first, g["att_out_last"], rtol=1e-4, atol=1e-5)


def test_projectors_and_gradients() -> None:
    module, maps, chosen, g = aggregation()
    multi, high = projector(256, 256, 512), projector(2048, 2048, 512)
    released_weights(multi, "read_proj.")
    released_weights(high, "diag_proj.")
    read = module(maps, chosen)
    find, imp = multi(read), high(maps[-1].mean(dim=(2, 3)))
    close(find, g["train_find"], rtol=1e-2, atol=5e-3)
    close(imp, g["train_imp"], rtol=1e-2, atol=5e-3)
    probe = torch.tensor(drawn("agg.probe", 3, 512)).float()
    ((find * probe).sum() + (imp * probe).sum()).backward()
    assert module.cls_token.grad is not None
    assert module.positions.grad is not None
    close(module.positions.grad[0, :1], g["grad_pos_first"], rtol=2e-2, atol=2e-2)


def test_extraction() -> None:
    g = arrays("preproc")
    image = g["img"]
    top, left, bottom, right = content_box(image)
    assert {top, left, bottom - 1, right - 1} == set(g["box"].tolist())
    found = stretched(image, 16).astype(int)
    assert np.abs(found - g["scale255_uint8_16px"].astype(int)).max() <= 1


def test_kernels_by_hand() -> None:
    r = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    close(kernel(r, LossConfig(smoothing=0.2)), 1 - np.exp([0, -0.1, -0.2]))
    close(kernel(r, LossConfig(kernel="lap")), np.exp([0, -0.5, -1]) / 2)
    flat = correlation(torch.tensor([[1.0, 1.0], [1.0, 2.0]]))
    assert torch.isfinite(flat).all()
    assert flat[0, 1] == 0


def test_whole_image_side() -> None:
    """Two views encoded once each; the released model encodes both twice and gets the same."""
    g = arrays("forward_e2e")
    text = replace(RELEASED.model.text, layers=1)
    model = IMITATE(replace(RELEASED.model, text=text), ["[PAD]", "[UNK]", "[CLS]", "[SEP]"])
    released_weights(model.image_encoder.backbone, "encoder.")
    released_weights(model.aggregation, "")
    released_weights(model.multi_projector, "read_proj.")
    released_weights(model.high_projector, "diag_proj.")
    model.train()
    second_draws = []
    for v in (1, 2):
        maps = model.image_encoder(torch.tensor(drawn(f"fwd.x{v}", 4, 3, 64, 64)).float())
        pooled = maps[-1].mean(dim=(2, 3))
        high = model.high_projector(pooled)
        for draw in (1, 2):
            call = 2 * (draw - 1) + v - 1
            chosen = [torch.tensor(g[f"call{call}_idx{k}"]).long()[None] for k in range(1, 5)]
            multi = model.multi_projector(model.aggregation(maps, chosen))
            found = {"img": pooled, "imp": high, "find": multi}
            for name, emb in found.items():
                close(emb[:, :96], g[f"{name}_emb{v}_m{draw}_first96"], rtol=0, atol=5e-3)
        second_draws.append(multi)
    hard = soft_targets(None, RELEASED.loss, tau=0.2, size=4)
    first, second = second_draws
    loss = 2 * cicl(first, second, hard, RELEASED.loss, tau=0.2)
    close(loss, g["loss_img_read"], rtol=1e-2)
