"""LRCLR: sizes, hosts, the leak of matched pairs, layouts, training."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from common.checkpoint import CheckpointError
from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from lrclr import attach
from lrclr.checkpoint import clip_weights, fresh_model, load_released
from lrclr.config import PRESETS, LossConfig, PretrainConfig, RegionConfig
from lrclr.cross import CrossConfig, CrossModality
from lrclr.hosts import TextTokens, VitBertHost, attended, vit_image_tokens
from lrclr.losses import contrast, global_loss, local_loss, pretrain_losses
from lrclr.model import LRCLR
from lrclr.pairs import impressions, load_pairs
from lrclr.pretrain import joint_passes, noise_loss, train
from lrclr.regions import class_row, gather, select
from lrclr.text import chexzero_impression, tokenised
from mgca.checkpoint import fresh_model as fresh_mgca
from mgca.config import PRESETS as MGCA_PRESETS
from mgca.pairs import load_pairs as load_mgca_pairs
from mgca.pretrain import losses_of as mgca_losses

ROOT = Path(__file__).parents[2]
KEYS = json.loads((ROOT / "tests" / "golden" / "lrclr" / "checkpoint_keys.json").read_text())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["mimic"], workers=1)
    return root


def small(corpus: Path, out: Path, **loss: Any) -> PretrainConfig:
    cfg = PRESETS["phantom"]
    run = replace(cfg.run, data_root=corpus, out=out, tracker="none", save_every=2)
    return replace(
        cfg,
        run=run,
        loss=replace(cfg.loss, **loss),
        optim=replace(cfg.optim, batch_size=8, epochs=2),
    )


def test_published_sizes_and_keys() -> None:
    with torch.device("meta"):
        model = LRCLR(PRESETS["paper"].model)
    state = model.clip.state_dict()
    assert sum(p.numel() for p in model.clip.parameters()) == KEYS["meta"]["parameters"]
    assert sum(p.numel() for p in model.lrclr.parameters()) == 3_810_817
    assert {k: list(v.shape) for k, v in state.items()} == {
        k: facts["shape"] for k, facts in KEYS["keys"].items()
    }


def test_released_layout_loads_safely(tmp_path: Path) -> None:
    cfg = PRESETS["phantom"].model
    torch.manual_seed(0)
    state = {f"module.{k}": v.half() for k, v in LRCLR(cfg).clip.state_dict().items()}
    state["input_resolution"] = torch.tensor(96)
    path = tmp_path / "best.pt"
    torch.save(state, path)
    model, ignored = load_released(str(path), config=cfg)
    assert list(ignored) == ["input_resolution"]
    torch.testing.assert_close(
        model.clip.visual.proj, state["module.visual.proj"].float(), rtol=0, atol=0
    )
    state.pop("module.visual.proj")
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"visual\.proj"):
        load_released(path, config=cfg)
    assert list(clip_weights({"attn_mask": torch.ones(1)})[1]) == ["attn_mask"]


def vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=3, num_heads=3, num_classes=0, global_pool=""
    ).eval()


def test_a_timm_host_gives_the_library_s_tokens_and_attention() -> None:
    net = vit()
    images = torch.randn(2, 3, 32, 32)
    found = vit_image_tokens(net, images, attention=True)
    torch.testing.assert_close(found.tokens, net.forward_features(images))
    assert found.attention is not None
    kept: list[torch.Tensor] = []
    blocks: Any = net.blocks
    for block in blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _m, _i, out: kept.append(out))
    net.forward_features(images)
    for ours, theirs in zip(found.attention, kept, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not any(layer.requires_grad for layer in found.attention)


def test_attached_to_a_vit_and_a_bert_it_leaves_them_alone() -> None:
    bert = BertModel(
        BertConfig(
            vocab_size=30,
            hidden_size=20,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=40,
        ),
        add_pooling_layer=False,
    ).eval()
    net = vit()
    keys = set(net.state_dict()) | set(bert.state_dict())
    local = attach(VitBertHost(net, bert), CrossConfig(width=16, heads=2))
    assert all(key.startswith("lrclr.") for key in local.state_dict())
    assert set(net.state_dict()) | set(bert.state_dict()) == keys
    ids = torch.randint(0, 30, (4, 7))
    out = local(torch.randn(4, 1, 32, 32), ids, torch.ones(4, 7, dtype=torch.bool))
    assert out.image.shape == out.text.shape == (4, 16)
    local_loss(out.image, out.text, out.scale, LossConfig()).backward()
    first = dict(net.named_parameters())["blocks.0.attn.qkv.weight"]
    for part in (first, bert.embeddings.word_embeddings.weight):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_attached_to_mgca_both_learn_together(corpus: Path, tmp_path: Path) -> None:
    """Five steps on a batch of MGCA's own pairs, its three losses and the local one."""
    cfg = MGCA_PRESETS["phantom"]
    cfg = replace(cfg, run=replace(cfg.run, data_root=corpus, out=tmp_path))
    torch.manual_seed(0)
    mgca: Any = fresh_mgca(cfg)
    keys = set(mgca.state_dict())
    local = attach(VitBertHost(mgca.backbone, mgca.text_encoder.bert), CrossConfig(width=32))
    images, tokens = load_mgca_pairs(cfg, mgca.word_pieces()).train.__getitems__(range(8))
    optimizer = torch.optim.AdamW([*mgca.parameters(), *local.parameters()], lr=3e-4)
    totals = []
    for _ in range(5):
        out = local(images, tokens.ids, tokens.mask)
        terms = mgca_losses(mgca(images, tokens), cfg)
        terms["local"] = 0.5 * local_loss(out.image, out.text, out.scale, LossConfig())
        totals.append({name: term.item() for name, term in terms.items()})
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert set(mgca.state_dict()) == keys
    assert totals[0].keys() == {"ita", "cta", "cpa", "local"}
    assert totals[-1]["ita"] < totals[0]["ita"]
    assert totals[-1]["local"] < totals[0]["local"]
    assert out.regions.patch.shape == (8, cfg.model.image.heads)


def test_a_network_without_class_token_is_refused() -> None:
    with pytest.raises(TypeError, match="class token"):
        VitBertHost(timm.create_model("resnet10t"), None)


def test_the_gradient_of_the_selection_reaches_chosen_tokens_alone() -> None:
    attention = [torch.rand(1, 2, 6, 6).softmax(dim=-1) for _ in range(3)]
    tokens = torch.randn(1, 6, 4, requires_grad=True)
    regions = select(class_row(attention))
    gather(tokens, regions).sum().backward()
    assert tokens.grad is not None
    touched = set(tokens.grad.abs().sum(dim=-1)[0].nonzero().flatten().tolist())
    assert touched == {0, *(regions.patch[0] + 1).tolist()}


def test_layers_of_different_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="same heads"):
        class_row([torch.rand(1, 2, 4, 4), torch.rand(1, 3, 4, 4)])


def noise(size: int, generator: torch.Generator) -> tuple[torch.Tensor, TextTokens]:
    regions = torch.randn(size, 5, 32, generator=generator)
    words = torch.randn(size, 6, 32, generator=generator)
    there = torch.ones(size, 6, dtype=torch.bool)
    return regions, TextTokens(words, torch.full((size,), 5), there)


@pytest.mark.slow
def test_matched_pairs_learn_to_pair_noise_and_all_pairs_do_not() -> None:
    """Image and text tokens are independent noise, fresh every step: nothing can be learnt."""
    torch.manual_seed(0)
    cfg, size = LossConfig(), 12
    found = {}
    for kind in ("matched", "all"):
        generator = torch.Generator().manual_seed(1)
        cross = CrossModality(32, 32, CrossConfig(width=64, heads=4))
        optimizer = torch.optim.AdamW(cross.parameters(), lr=2e-3)
        losses = []
        for _ in range(200):
            regions, text = noise(size, generator)
            if kind == "all":
                loss = contrast(cross.logit_scale.exp() * cross.all_pairs(regions, text), cfg)
            else:
                v, t, _ = cross(regions, text)
                loss = local_loss(v, t, cross.logit_scale.exp(), cfg)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        found[kind] = float(np.mean(losses[-20:]))
    chance = np.log(size)
    assert found["matched"] < 0.6 * chance
    assert found["all"] > 0.97 * chance


def test_all_pairs_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    cross = CrossModality(32, 32, CrossConfig(width=16, heads=2))
    regions, text = noise(3, generator)
    found = cross.all_pairs(regions, text)
    for i in range(3):
        for k in range(3):
            one = TextTokens(*(part[k : k + 1] for part in text))
            v, t, _ = cross(regions[i : i + 1], one)
            wanted = F.cosine_similarity(v, t)[0]
            assert found[i, k].item() == pytest.approx(wanted.item(), abs=1e-6)


def test_impressions_by_both_rules(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, data=replace(cfg.data, section="impression"))
    pairs = load_pairs(cfg)
    assert all(pairs.train.texts)
    table = pairs.table
    literal = impressions(table, replace(cfg, data=replace(cfg.data, sections="chexzero")))
    strict = impressions(table, cfg)
    same = np.mean([a.lower() == b.lower() for a, b in zip(literal, strict, strict=True)])
    assert same > 0.8
    assert "views" in pairs.split.id
    data = replace(cfg.data, sections="chexzero", dataset="chexpert")
    with pytest.raises(DataError, match="mimic"):
        impressions(table, replace(cfg, data=data))
    data = replace(cfg.data, sections="chexzero", section="both")
    with pytest.raises(DataError, match=r"add --data\.section"):
        impressions(table, replace(cfg, data=data))
    first = table.frame.index[0]
    table.frame.loc[first, "section_impression"] = "___."
    assert impressions(table, cfg)[0] == ""


def test_exactly_the_trained_parameters_get_a_gradient(corpus: Path, tmp_path: Path) -> None:
    for loss, freeze in (({}, "none"), ({"weight": 0.0}, "none"), ({"pairs": "all"}, "text")):
        cfg = replace(small(corpus, tmp_path, **loss), freeze=freeze)  # type: ignore[arg-type]
        model = fresh_model(cfg)
        model.freeze(cfg.loss, cfg.freeze)
        kind = cfg.loss.pairs if cfg.loss.weight else "none"
        out = model(*load_pairs(cfg).train.__getitems__(range(4)), kind)
        torch.stack(list(pretrain_losses(out, cfg.loss).values())).sum().backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (name, loss, freeze)


def test_explained_regions(corpus: Path, tmp_path: Path) -> None:
    model = fresh_model(small(corpus, tmp_path))
    found = model.explain(torch.randn(2, 1, 96, 96), ["edema", "small left effusion"])
    assert found.regions.patch.shape == found.scores.shape == (2, 4)
    assert (found.scores.sum(dim=1) < 1).all()
    with pytest.raises(ValueError, match="tokens"):
        tokenised(["word " * 100], 64, cut=False)


def placed(where: Any) -> LRCLR:
    """The phantom's model with the same first weights wherever it selects."""
    cfg = PRESETS["phantom"].model
    torch.manual_seed(0)
    return LRCLR(replace(cfg, regions=replace(cfg.regions, select_at=where))).eval()


def test_before_the_last_layer_it_sees_class_and_regions_alone() -> None:
    model, images = placed("before_last"), torch.randn(2, 3, 96, 96)
    found = model.image_side(images, regions=True)
    visual: Any = model.clip.visual
    kept: list[torch.Tensor] = []
    x = visual._embeds(images)
    for block in visual.transformer.resblocks[:-1]:
        y = block.ln_1(x)
        kept.append(block.attn(y, y, y, average_attn_weights=False)[1])
        x = block(x)
    regions = select(class_row(kept))
    rows = [torch.stack([x[b, 0], *(x[b, 1 + int(p)] for p in regions.patch[b])]) for b in (0, 1)]
    expected = visual.ln_post(visual.transformer.resblocks[-1](torch.stack(rows)))
    assert found.regions is not None
    torch.testing.assert_close(found.regions.patch, regions.patch)
    torch.testing.assert_close(found.tokens, expected)
    torch.testing.assert_close(found.feature, expected[:, 0])
    assert (
        found.feature - placed("post").image_side(images, regions=False).feature
    ).abs().max() > 0


def test_layers_before_the_last_mean_what_they_say() -> None:
    attention = [torch.rand(1, 2, 5, 5).softmax(-1) for _ in range(3)]
    cfg = RegionConfig(rollout="last_layer", layers="before_last")
    torch.testing.assert_close(class_row(attention, cfg), attention[1][:, :, 0])
    cfg = replace(cfg, layers="all")
    torch.testing.assert_close(class_row(attention, cfg), attention[2][:, :, 0])


def test_a_layer_of_its_own_changes_nothing_until_it_is_trained() -> None:
    model, images = placed("extra_layer"), torch.randn(2, 3, 96, 96)
    after = placed("post").image_side(images, regions=True)
    found = model.image_side(images, regions=False)
    torch.testing.assert_close(found.feature, after.feature)
    torch.testing.assert_close(found.tokens, after.tokens)
    ids = tokenised(["edema", "small left effusion"], 64)
    losses = pretrain_losses(model(images, ids, "matched"), LossConfig())
    torch.stack(list(losses.values())).sum().backward()
    assert model.extra is not None
    assert model.extra.attn.out_proj.weight.grad.abs().sum() > 0
    model.freeze(LossConfig(), "image")
    assert all(p.requires_grad for p in model.extra.parameters())


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return LRCLR.from_pretrained(folder / "last").state_dict()


def test_without_weight_the_module_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    """Lambda 0 is CheXzero: a loop over the library's own CLIP ends with the same weights."""
    cfg = small(corpus, tmp_path, weight=0.0)
    text = replace(cfg.model.text, pool="end")
    cfg = replace(cfg, model=replace(cfg.model, text=text))
    model = fresh_model(cfg)
    model.freeze(cfg.loss, "none")
    clip = copy.deepcopy(model.clip)
    batch = load_pairs(cfg).train.__getitems__(range(6))
    ours = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    theirs = torch.optim.SGD(clip.parameters(), lr=0.1)
    for _ in range(3):
        loss = pretrain_losses(model(*batch, joint_passes(cfg)), cfg.loss)["global"]
        plain = global_loss(
            clip.encode_image(batch.images.expand(-1, 3, -1, -1)),
            clip.encode_text(batch.ids),
            clip.logit_scale.exp(),
        )
        for optimizer, value in ((ours, loss), (theirs, plain)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for name, value in clip.state_dict().items():
        torch.testing.assert_close(model.clip.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_noise_loss_is_in_the_unit_of_the_logged_term(corpus: Path, tmp_path: Path) -> None:
    """At scale 0 every similarity is the same: lambda log(size), times size for a sum."""
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg)
    model.lrclr.logit_scale.data.fill_(-30.0)
    chance = 0.5 * np.log(16)
    assert noise_loss(model, cfg, size=16).item() == pytest.approx(chance, rel=1e-4)
    total = replace(cfg, loss=replace(cfg.loss, reduction="sum"))
    assert noise_loss(model, total, size=16).item() == pytest.approx(16 * chance, rel=1e-4)
    one = replace(cfg, loss=replace(cfg.loss, scale="one"))
    assert noise_loss(model, one, size=16).item() != pytest.approx(chance, rel=1e-4)


def test_selection_is_exact_under_autocast() -> None:
    attention = [torch.randn(2, 3, 9, 9).softmax(dim=-1) for _ in range(6)]
    wanted = class_row(attention)
    with torch.autocast("cpu", torch.bfloat16):
        found = class_row(attention)
        q = torch.randn(2, 3, 9, 4)
        maps = attended(q, q, q, wanted=True)[1]
    assert maps is not None
    assert found.dtype == maps.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_all_pairs_follow_normalize(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path, pairs="all")
    model = fresh_model(cfg).eval()
    batch = load_pairs(cfg).train.__getitems__(range(3))
    cosine, dot = (model(*batch, "all", normalize).all_pairs for normalize in (True, False))
    assert not torch.allclose(cosine, dot)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    whole, halves = small(corpus, tmp_path / "whole"), small(corpus, tmp_path / "halves")
    train(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.training.Run.finish", lambda *_, **__: None)
        train(replace(halves, run=replace(halves.run, max_epochs=1)))
    train(halves)
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "halves")
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.slow
def test_two_processes_train_together(corpus: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("lrclr/pretrain.py", "phantom", "--data-root", str(corpus), "--out", str(tmp_path)),
        *("--optim.batch-size", "8", "--optim.epochs", "1", "--loss.gather", "--tracker", "none"),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "provenance.json").is_file()


@pytest.mark.parametrize(
    ("text", "impression"),
    [
        ("FINDINGS: a IMPRESSION: b  c\n d", "b c d"),
        ("IMPRESSION: b IMPRESSION: c", "c"),
        ("IMPRESSION: b RECOMMENDATION(S): c", "b"),
        ("IMPRESSION: b NOTIFICATION: c RECOMMENDATION: d", "b"),
        ("x RECOMMENDATION: a IMPRESSION: b", ""),
        ("RECOMMENDATION: a IMPRESSION: b", "b"),  # a first word's place is 0, taken for absent
        ("FINDINGS: a", "NO IMPRESSION"),
        ("Impression: b", "NO IMPRESSION"),
    ],
)
def test_chexzeros_impression(text: str, impression: str) -> None:
    assert chexzero_impression(text) == impression


def test_before_last_takes_every_layer_that_it_has_seen() -> None:
    attention = [torch.rand(2, 3, 5, 5).softmax(dim=-1) for _ in range(3)]
    whole = class_row(attention, RegionConfig())
    for layers in ("all", "before_last"):
        cfg = RegionConfig(select_at="before_last", layers=layers)
        torch.testing.assert_close(class_row(attention, cfg), whole)


def test_an_add_on_chooses_behind_the_last_layer() -> None:
    with pytest.raises(ValueError, match="use post"):
        attach(None, regions=RegionConfig(select_at="before_last"))


def test_a_crop_must_fit() -> None:
    cfg = PRESETS["phantom"]
    for wrong, why in (
        ({"size": 90}, "does not fit"),
        ({"fit": "resize"}, "need --model.image.fit"),
    ):
        image = replace(cfg.model.image, **wrong)
        with pytest.raises(CheckpointError, match=why):
            fresh_model(replace(cfg, model=replace(cfg.model, image=image)))
