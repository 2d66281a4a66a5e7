"""Sizes, shapes, masks and gradients of MGCA."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks.oracles import mgca as oracle
from mgca.checkpoint import fresh_model
from mgca.config import PRESETS, LossConfig, PretrainConfig
from mgca.losses import pretrain_losses, token_loss
from mgca.model import MGCA, TEXTS_AT_ONCE, ImageOutput, Output, TextOutput, ViTEncoder

PHANTOMS = pytest.mark.parametrize("preset", ["phantom", "phantom-resnet50"])


def published(preset: str) -> MGCA:
    with torch.device("meta"):
        return MGCA(PRESETS[preset].model, ["piece"] * 28996)


def count(module: torch.nn.Module | None) -> int:
    return sum(p.numel() for p in module.parameters()) if module else 0


def test_published_sizes() -> None:
    """Backbones, heads and prototypes as the specification counts them."""
    vit, resnet = published("released"), published("released-resnet50")
    assert count(vit.image_encoder) == 85_798_656
    assert count(resnet.image_encoder) == 23_508_032
    assert count(vit.global_image) == count(vit.local_text) == 1_841_280
    assert count(resnet.global_image) == 4_462_720
    assert count(resnet.local_image) == 2_365_568
    assert count(vit.prototypes) == 500 * 128
    paper = published("paper")
    assert count(paper.text_encoder) - count(vit.text_encoder) == 6 * 7_087_872
    assert count(paper.word_attention) == 4 * 128 * 128
    # the released 172.7 M and 113.6 M hold cross-attention that never runs, in text and tokens
    idle = 6 * 2_363_904 + 2 * 66_048
    assert round((count(vit) + idle) / 1e5) == 1727
    assert round((count(resnet) + idle) / 1e5) == 1136


def test_published_shapes() -> None:
    model = published("paper")
    out = model.encode_images(torch.zeros(2, 1, 224, 224, device="meta"))
    assert out.emb.shape == (2, 128)
    assert out.patch_emb.shape == (2, 196, 128)
    assert out.patch_weights is not None
    assert out.patch_weights.shape == (2, 196)
    regions = published("paper-resnet50").encode_images(torch.zeros(2, 1, 224, 224, device="meta"))
    assert regions.patch_emb.shape == (2, 361, 128)


def test_cls_attention_is_the_block_s_own() -> None:
    """Replacing every value by a one-hot of its token lets the block's attention be read off."""
    torch.manual_seed(0)
    encoder = fresh_model(PRESETS["phantom"]).image_encoder.eval()
    assert isinstance(encoder, ViTEncoder)
    attn = encoder.backbone.blocks[-1].attn
    x = torch.randn(2, 5, 96)
    q, k, _ = attn.qkv(x).reshape(2, 5, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    slow = (q @ k.transpose(-1, -2) * attn.scale).softmax(-1)[:, :, 0].mean(1)

    class Block:
        norm1 = torch.nn.Identity()

    Block.attn = attn  # type: ignore[attr-defined]
    from mgca.model import cls_attention

    torch.testing.assert_close(cls_attention(Block, x), slow)


@PHANTOMS
def test_padding_changes_nothing(preset: str) -> None:
    """With masked padding (D13) texts padded to 112 give the same loss in training, too."""
    texts = ["mild cardiomegaly is seen", "no focal consolidation", "small left pleural effusion"]
    images = torch.randn(3, 1, 96, 96)

    def losses(
        pad: Literal["longest", "max"], pad_words: Literal["mask", "keep"]
    ) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        cfg = PRESETS[preset]
        text = replace(cfg.model.text, pad=pad, pad_words=pad_words)
        model = fresh_model(replace(cfg, model=replace(cfg.model, text=text))).train()
        out = model(images, model.word_pieces()(texts))
        return pretrain_losses(out, cfg.loss, mask_padding=pad_words == "mask")

    longest, full = losses("longest", "mask"), losses("max", "mask")
    for name in longest:
        torch.testing.assert_close(longest[name], full[name], rtol=1e-4, atol=1e-5)
    assert abs(losses("longest", "keep")["cta"] - losses("max", "keep")["cta"]) > 1e-3


@PHANTOMS
@pytest.mark.parametrize("off", ["", "ita", "cta", "cpa", "ita cpa", "cta cpa"])
def test_exactly_the_trained_parameters_get_a_gradient(preset: str, off: str) -> None:
    """Several processes would wait for ever for the gradient of one that gets none."""
    cfg = PRESETS[preset]
    loss = LossConfig(
        ita_weight=float("ita" not in off),
        cta_weight=float("cta" not in off),
        cpa_weight=float("cpa" not in off),
    )
    model = fresh_model(cfg)
    model.freeze_unused(loss)
    tokens = model.word_pieces()(["mild edema is seen", "small left pleural effusion"])
    terms = pretrain_losses(model(torch.randn(2, 1, 96, 96), tokens), loss, mask_padding=True)
    assert set(terms) == {"ita", "cta", "cpa"} - set(off.split())
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_word_order_is_seen_unless_positions_are_zero() -> None:
    """Issue with the released encoder: permuting the words changed nothing (D19)."""
    texts = ["left effusion no edema", "left edema no effusion"]
    for positions, same in (("true", False), ("zero", True)):
        torch.manual_seed(0)
        cfg: PretrainConfig = PRESETS["phantom"]
        text = replace(cfg.model.text, positions=positions)  # type: ignore[arg-type]
        model = fresh_model(replace(cfg, model=replace(cfg.model, text=text)))
        a, b = model.embed_texts(texts)
        assert torch.allclose(a, b, atol=1e-5) == same


def test_many_texts_are_encoded_in_parts_with_the_same_result() -> None:
    model = fresh_model(PRESETS["phantom"])
    phrases = ["small left pleural effusion", *["mild edema"] * TEXTS_AT_ONCE]
    whole, part = model.embed_texts(phrases), model.embed_texts([phrases[0], phrases[-1]])
    torch.testing.assert_close(whole[[0, -1]], part, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no word"):
        model.embed_texts(["..."])


def test_scores_do_not_depend_on_the_batch() -> None:
    model = fresh_model(PRESETS["phantom-resnet50"])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 104, 104), dtype=np.uint8)
    texts = model.embed_texts(["mild edema", "small left pleural effusion"])
    together = model.similarity(model.embed_images(model.normalise(pixels)), texts)
    for i in range(3):
        alone = model.similarity(model.embed_images(model.normalise(pixels[i : i + 1])), texts)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)


def test_token_loss_equals_a_loop_over_pairs() -> None:
    """Cosine attention inside each pair, clipped weights, both directions, one pair at a time."""
    counts = torch.tensor([3, 7, 5])
    patches = F.normalize(torch.randn(3, 9, 8), dim=-1)
    mask = torch.arange(7) < counts[:, None]
    words = F.normalize(torch.randn(3, 7, 8), dim=-1) * mask[..., None]
    shares, attention = torch.rand(3, 7) * mask, torch.rand(3, 9)
    image = ImageOutput(patches[:, 0], patches, attention, (3, 3))
    text = TextOutput(words[:, 0], words, shares, mask)
    out = Output(image, text, None, None, patches[:, 0], patches[:, 0])
    cfg = LossConfig()
    texts = [w[m] for w, m in zip(words, mask, strict=True)]
    weights = [w[m] for w, m in zip(shares, mask, strict=True)]
    loop = oracle.token_loss(patches, texts, attention, weights, cfg.tau_cta)
    torch.testing.assert_close(token_loss(out, cfg, mask_padding=True), loop)
