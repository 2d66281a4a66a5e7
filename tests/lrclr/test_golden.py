"""CheXzero against its released functions, LRCLR against its equations in float64."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from lrclr.config import LITERAL, ImageConfig, LossConfig, RegionConfig
from lrclr.cross import CrossConfig, CrossModality, prompt_scores
from lrclr.hosts import ClipHost, TextTokens
from lrclr.images import normalised, padded, to_input
from lrclr.losses import contrast, global_loss, local_loss
from lrclr.regions import by_score, class_row, gather, select
from lrclr.text import chexzero_impression, tokenised

GOLDEN = Path(__file__).parents[1] / "golden" / "lrclr"


def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def close(found: Tensor, wanted: Any, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=rtol, atol=atol)


def tiny() -> tuple[CLIP, dict[str, np.ndarray]]:
    g = arrays("clip_tiny")
    c = json.loads(str(g["config"]))
    vision = CLIPVisionCfg(
        layers=c["vl"],
        width=c["vw"],
        head_width=c["vw"] // c["vh"],
        patch_size=c["patch"],
        image_size=c["res"],
    )
    text = CLIPTextCfg(
        context_length=c["ctx"], vocab_size=c["vocab"], width=c["tw"], heads=c["th"], layers=c["tl"]
    )
    clip = CLIP(c["embed"], vision, text, quick_gelu=True)
    weights = {k[2:]: torch.tensor(v).float() for k, v in g.items() if k.startswith("w/")}
    clip.load_state_dict(weights, strict=True)
    return clip, g


def features(clip: CLIP, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    host = ClipHost(clip)
    image, text = host.image_tokens(images, attention=False), host.text_tokens(ids)
    rows = torch.arange(len(ids))
    return (
        image.tokens[:, 0] @ clip.visual.proj,
        text.tokens[rows, text.cls_index] @ clip.text_projection,
    )


def test_chexzero_forward() -> None:
    clip, g = tiny()
    images, ids = torch.tensor(g["images"]).float(), torch.tensor(g["ids"])
    host = ClipHost(clip)
    image, text = host.image_tokens(images, attention=True), host.text_tokens(ids)
    assert image.attention is not None
    close(torch.stack(image.attention), g["attn"])
    tokens = clip.visual.ln_post(torch.tensor(g["image_tokens"])).detach()
    close(image.tokens, tokens, atol=1e-5)  # they reach 3.4
    length = text.tokens.shape[1]
    assert length == g["ids"].argmax(axis=1).max() + 1
    close(text.tokens, g["text_tokens"][:, :length], atol=1e-5)
    for found, name in zip(features(clip, images, ids), ("image", "text"), strict=True):
        close(found, g[f"{name}_features"])


def test_the_fast_path_equals_the_library_s_own() -> None:
    clip, g = tiny()
    images, ids = torch.tensor(g["images"]).float(), torch.tensor(g["ids"])
    for found, wanted in zip(
        features(clip, images, ids),
        (clip.encode_image(images), clip.encode_text(ids)),
        strict=True,
    ):
        close(found, wanted.detach().numpy())


def test_chexzero_training() -> None:
    clip, g = tiny()
    images, ids = torch.tensor(g["images"]).float(), torch.tensor(g["ids"])
    lr = json.loads((GOLDEN / "set.json").read_text())["lr"]
    optimizer = torch.optim.SGD(clip.parameters(), lr=lr, momentum=0.9)
    for wanted in g["sgd_losses"]:
        loss = global_loss(*features(clip, images, ids), clip.logit_scale.exp())
        close(loss, wanted, rtol=2e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    sums = json.loads(str(g["after_sgd_abs_sum"]))
    for name, value in clip.state_dict().items():
        np.testing.assert_allclose(value.abs().sum().item(), sums[name], rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("default", {}),
        ("ascending", {"order": "ascending"}),
        ("residual", {"rollout": "residual"}),
        ("first_layers", {"layers": "before_last"}),
    ],
)
def test_region_selection(name: str, changes: dict[str, Any]) -> None:
    g = arrays("regions")
    attention = list(torch.tensor(g["attn"], dtype=torch.float64))
    row = class_row(attention, RegionConfig(**changes))
    close(row, g[f"{name}_row"], rtol=1e-10, atol=1e-14)
    found = select(row)
    close(found.patch, g[f"{name}_idx"])
    close(found.score, g[f"{name}_score"], rtol=1e-10)
    if name == "default":
        close(found.patch, g["transfg_all_layers_idx"])
        close(by_score(found), g["baseline_rank"])
    if name == "first_layers":
        close(found.patch, g["transfg_idx"])


def test_selection_equals_a_direct_evaluation_of_equations_3_and_4() -> None:
    g = arrays("regions")
    h = torch.tensor(g["eq_hidden"])
    heads = int(g["eq_heads"])
    q = h @ torch.tensor(g["eq_wq"]).mT + torch.tensor(g["eq_bq"])
    k = h @ torch.tensor(g["eq_wk"]).mT + torch.tensor(g["eq_bk"])
    q, k = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k))
    a = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    close(a, g["eq_attn"], rtol=1e-10, atol=1e-14)
    attention = list(torch.tensor(arrays("regions")["attn"], dtype=torch.float64))
    product = attention[0]
    for layer in attention[1:]:
        product = layer @ product
    close(class_row(attention), product[:, :, 0].numpy(), rtol=1e-10, atol=1e-14)


NAMES = {
    "img_in.w": "image_in.weight",
    "img_in.b": "image_in.bias",
    "txt_in.w": "text_in.weight",
    "txt_in.b": "text_in.bias",
    "type": "types",
    "ln1.w": "blocks.0.ln_1.weight",
    "ln1.b": "blocks.0.ln_1.bias",
    "in.w": "blocks.0.attn.in_proj_weight",
    "in.b": "blocks.0.attn.in_proj_bias",
    "out.w": "blocks.0.attn.out_proj.weight",
    "out.b": "blocks.0.attn.out_proj.bias",
    "ln2.w": "blocks.0.ln_2.weight",
    "ln2.b": "blocks.0.ln_2.bias",
    "fc.w": "blocks.0.mlp.0.weight",
    "fc.b": "blocks.0.mlp.0.bias",
    "pr.w": "blocks.0.mlp.2.weight",
    "pr.b": "blocks.0.mlp.2.bias",
    "lnf.w": "norm.weight",
    "lnf.b": "norm.bias",
}


def joint() -> tuple[CrossModality, Tensor, TextTokens, dict[str, np.ndarray], CLIP]:
    clip, base = tiny()
    clip.double()
    g = arrays("lrclr_forward")
    cross = CrossModality(16, 18, CrossConfig(width=16, heads=int(g["heads"]))).double()
    weights = {NAMES[k[2:]]: torch.tensor(v) for k, v in g.items() if k.startswith("w/")}
    cross.load_state_dict({**weights, "logit_scale": clip.logit_scale.detach()}, strict=True)
    tokens = clip.visual.ln_post(torch.tensor(base["image_tokens"], dtype=torch.float64))
    attention = list(torch.tensor(base["attn"], dtype=torch.float64))
    row = class_row(attention)
    close(row, g["cls_row"], rtol=1e-6)
    regions = select(row)
    close(regions.patch, g["region_idx"])
    close(regions.score, g["region_score"], rtol=1e-6)
    end = torch.tensor(g["eot"])
    valid = torch.arange(base["ids"].shape[1]) <= end[:, None]
    text = TextTokens(torch.tensor(base["text_tokens"], dtype=torch.float64), end, valid)
    return cross, gather(tokens, regions), text, g, clip


def test_cross_modality_transformer() -> None:
    cross, regions, text, g, _ = joint()
    v, t, attention = cross(regions, text, weights=True)
    assert attention is not None
    close(v, g["v_local"], rtol=1e-6, atol=1e-8)
    close(t, g["t_local"], rtol=1e-6, atol=1e-8)
    close(attention, g["cross_attn"], rtol=1e-5, atol=1e-7)
    scores = prompt_scores(attention, text, regions.shape[1] - 1)
    close(scores, g["prompt_score"], rtol=1e-6)
    close(scores.argsort(dim=1, descending=True, stable=True), g["prompt_rank"])
    scaled = cross.logit_scale.exp() * cross.all_pairs(regions, text)
    close(scaled, g["all_pairs_logits"], rtol=1e-6, atol=1e-8)


def test_trimming_padding_changes_nothing() -> None:
    cross, regions, text, g, _ = joint()
    length = int(text.cls_index.max()) + 1
    short = TextTokens(text.tokens[:, :length], text.cls_index, text.valid[:, :length])
    close(cross(regions, short)[0], g["v_local"], rtol=1e-6, atol=1e-8)


def test_total_losses() -> None:
    *_, g, clip = joint()
    wanted = json.loads(str(g["losses"]))
    scale = clip.logit_scale.exp().detach()
    found = global_loss(torch.tensor(g["v_global"]), torch.tensor(g["t_global"]), scale)
    close(found, wanted["L_global"], rtol=1e-10)
    v, t = torch.tensor(g["v_local"]), torch.tensor(g["t_local"])
    one = torch.ones(())
    variants = {
        "default": (LossConfig(), scale),
        "symmetric": (LossConfig(symmetric=True), scale),
        "literal": (LITERAL.loss, one),
        "literal_mean": (replace(LITERAL.loss, reduction="mean"), one),
        "cosine_no_temperature": (LossConfig(), one),
    }
    for name, (cfg, factor) in variants.items():
        local = local_loss(v, t, factor, cfg)
        close(local, wanted[f"L_local/{name}"], rtol=1e-10)
        close(found + 0.5 * local, wanted[f"L_total/{name}"], rtol=1e-10)
    every = contrast(torch.tensor(g["all_pairs_logits"]), LossConfig())
    close(every, wanted["L_local/all_pairs"], rtol=1e-10)


LOSSES = arrays("losses")
CASES = [
    name
    for name in json.loads(str(LOSSES["losses"]))
    if "normalize=" in name and name.split("|")[0] in ("small", "large_logits", "one")
]


@pytest.mark.parametrize("name", CASES)
def test_every_form_of_the_local_loss(name: str) -> None:
    case, *flags = name.split("|")
    given = dict(flag.split("=") for flag in flags)
    cfg = LossConfig(
        normalize=given["normalize"] == "True",
        symmetric=given["symmetric"] == "True",
        reduction=given["reduction"],  # type: ignore[arg-type]
    )
    v, t = (torch.tensor(LOSSES[f"{case}_{side}"]) for side in "vt")
    scale = torch.tensor(float(given["scale"]), dtype=torch.float64)
    if given["scale"].startswith("14.28"):
        scale = torch.tensor(1 / 0.07, dtype=torch.float64)
    found = local_loss(v, t, scale, cfg)
    close(found, json.loads(str(LOSSES["losses"]))[name], rtol=1e-6, atol=1e-9)


def test_preprocessing() -> None:
    g = arrays("preprocess")
    square = padded(g["gray"], int(g["big"]))
    np.testing.assert_array_equal(square, g["padded"])
    close(normalised(square[None])[0, 0], g["normalised"])
    for antialias, name in ((False, "off"), (True, "on")):
        cfg = ImageConfig(input=int(g["small"]), antialias=antialias)
        found = to_input(square[None], cfg)[0, 0]
        close(found, g[f"resized_antialias_{name}"], rtol=1e-4, atol=1e-5)


def test_tokens_and_impressions() -> None:
    facts = json.loads((GOLDEN / "text.json").read_text())
    for item in facts["tokenizer"]:
        ids = tokenised([item["text"]], item["padded_len"])[0].tolist()
        assert ids[: len(item["ids"])] == item["ids"]
        assert not any(ids[len(item["ids"]) :])
    for item in facts["sections"]:
        assert chexzero_impression(item["report"]) == item["impression"]
