"""The released functions' outputs on fixed inputs (see tests/golden/gloria/README.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from common.data.images import resize_and_pad
from gloria.config import PAPER, RELEASED, LossConfig, ModelConfig
from gloria.losses import contrastive_loss, global_logits, local_logits
from gloria.matching import attention_maps, ragged
from gloria.model import TextEncoder
from gloria.prompts import RELEASED as RELEASED_PROMPTS
from gloria.prompts import draw_prompts
from gloria.similarity import (
    global_similarity,
    hybrid,
    inference_words,
    local_similarity,
    zscore,
)
from gloria.text import WordPieces, aggregate_words, sentences

GOLDEN = Path(__file__).parents[1] / "golden" / "gloria"
PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-10), (torch.float32, 1e-5)],
    ids=["float64", "float32"],
)


def arrays(name: str) -> NpzFile:
    return np.load(GOLDEN / f"{name}.npz")


def facts(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def close(ours: Tensor | None, golden: Any, tolerance: float) -> None:
    assert ours is not None
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=tolerance, atol=tolerance)


def regions_of(maps: np.ndarray, dtype: torch.dtype) -> Tensor:
    """(B, D, h, w) to (B, R, D)."""
    return torch.tensor(maps, dtype=dtype).flatten(2).mT


def released_model(temp1: float, temp2: float) -> ModelConfig:
    return replace(RELEASED.model, tau2=1 / temp1, tau3=1 / temp2)


@PRECISIONS
def test_global_loss(dtype: torch.dtype, tolerance: float) -> None:
    g = arrays("global_loss")
    img = torch.tensor(g["img"], dtype=dtype, requires_grad=True)
    txt = torch.tensor(g["txt"], dtype=dtype, requires_grad=True)
    logits = global_logits(img, txt, tau1=float(1 / g["temp3"]))
    close(contrastive_loss(logits, text_to_image=0.0), g["loss0"], tolerance)
    close(contrastive_loss(logits, image_to_text=0.0), g["loss1"], tolerance)
    contrastive_loss(logits).backward()
    close(img.grad, g["grad_img"], tolerance)
    close(txt.grad, g["grad_txt"], tolerance)


@PRECISIONS
@pytest.mark.parametrize("pool", ["sum", "mean"])
@pytest.mark.parametrize("max_scores", [2**26, 150], ids=["whole", "chunked"])
def test_local_loss(dtype: torch.dtype, tolerance: float, pool: str, max_scores: int) -> None:
    g = arrays(f"local_loss_{pool}")
    maps = torch.tensor(g["img"], dtype=dtype, requires_grad=True)
    txt = torch.tensor(g["txt"], dtype=dtype, requires_grad=True)  # (B, D, T)
    lengths = torch.tensor(g["cap_lens"])
    words = ragged(txt.mT, torch.arange(txt.shape[2]) < lengths[:, None])
    model = released_model(float(g["temp1"]), float(g["temp2"]))
    cfg = LossConfig(match="released", tau_local=float(1 / g["temp3"]), max_scores=max_scores)
    logits = local_logits(maps.flatten(2).mT, words, cfg, model)
    if pool == "mean":
        logits = logits - words.counts.double().log() * g["temp3"].item()
    close(contrastive_loss(logits, text_to_image=0.0), g["loss0"], tolerance)
    close(contrastive_loss(logits, image_to_text=0.0), g["loss1"], tolerance)
    contrastive_loss(logits).backward()
    close(maps.grad, g["grad_img"], tolerance)
    close(txt.grad, g["grad_txt"], tolerance)


def test_paper_form_at_002_gives_the_released_logits() -> None:
    g = arrays("local_loss_sum")
    words = ragged(
        torch.tensor(g["txt"]).mT,
        torch.arange(g["txt"].shape[2]) < torch.tensor(g["cap_lens"])[:, None],
    )
    both = [
        local_logits(regions_of(g["img"], torch.float64), words, p.loss, PAPER.model)
        for p in (PAPER, RELEASED)
    ]
    torch.testing.assert_close(*both)


@PRECISIONS
def test_attention(dtype: torch.dtype, tolerance: float) -> None:
    g = arrays("attention_fn")
    query = torch.tensor(g["query"], dtype=dtype, requires_grad=True)  # (B, D, L)
    context = torch.tensor(g["context"], dtype=dtype, requires_grad=True)  # (B, D, h, w)
    regions, words = context.flatten(2).mT, query.mT
    tau2 = float(1 / g["temp1"])
    maps = torch.stack(
        [attention_maps(r, w, tau2=tau2) for r, w in zip(regions, words, strict=True)]
    )
    weighted = (maps @ regions).mT
    close(maps.reshape(g["attn"].shape), g["attn"], tolerance)
    close(weighted, g["weighted"], tolerance)
    (weighted.square().sum() + maps.square().sum()).backward()
    close(query.grad, g["grad_query"], tolerance)
    close(context.grad, g["grad_context"], tolerance)


def test_local_loss_attention_maps() -> None:
    g = arrays("local_loss_sum")
    regions = regions_of(g["img"], torch.float64)
    for i, n in enumerate(g["cap_lens"]):
        words = torch.tensor(g["txt"][i, :, :n]).T
        maps = attention_maps(regions[i], words, tau2=float(1 / g["temp1"]))
        close(maps.reshape(g[f"attn_{i}"].shape), g[f"attn_{i}"], 1e-10)


class Playback(torch.nn.Module):
    """A language model that returns stored hidden states (layers, R, T, D)."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, **_: object) -> SimpleNamespace:
        return SimpleNamespace(hidden_states=tuple(self.hidden))


@PRECISIONS
@pytest.mark.parametrize("layer_pool", ["sum", "mean"])
@pytest.mark.parametrize(
    ("units", "l2_norm"), [("words", False), ("pieces", False), ("pieces", True)]
)
def test_text_encoder(
    dtype: torch.dtype, tolerance: float, layer_pool: Any, units: Any, l2_norm: bool
) -> None:
    """Word aggregation and norm on and off; released, words with norm divide padding by zero."""
    g, j = arrays("aggregate_tokens"), facts("aggregate_tokens")
    hidden = torch.tensor(g["hidden"], dtype=dtype)
    vocabulary = [*j["vocab"], "[MASK]"]
    ids = torch.tensor(g["ids"])
    pieces = WordPieces(vocabulary, max_tokens=ids.shape[1], unk_shortens=True, units=units)
    tokens = pieces.group(ids, ids != j["vocab"].index("[PAD]"))
    if units == "words":
        assert (tokens.n_words + 1).tolist() == j["train_cap_lens"]
    form = replace(
        RELEASED.model.text,
        width=hidden.shape[-1],
        heads=1,
        layers=1,
        max_tokens=ids.shape[1],
        last_n_layers=int(g["last_n_layers"]),
        layer_pool=layer_pool,
        l2_norm=l2_norm,
    )
    encoder = TextEncoder(form, len(vocabulary))
    encoder.bert = Playback(hidden)  # type: ignore[assignment]
    report, words = encoder(tokens)
    padded = torch.nn.functional.pad(words, (0, 0, 0, ids.shape[1] - words.shape[1]))
    name = f"{layer_pool}_agg{int(units == 'words')}_norm{int(l2_norm)}"
    close(padded.mT, g[f"word_{name}"], tolerance)
    close(report, g[f"sent_{name}"], tolerance)


@PRECISIONS
def test_aggregated_layers(dtype: torch.dtype, tolerance: float) -> None:
    g, j = arrays("aggregate_tokens"), facts("aggregate_tokens")
    ids = torch.tensor(g["ids"])
    tokens = WordPieces([*j["vocab"], "[MASK]"], max_tokens=13).group(ids, ids != 0)
    for layer, golden in zip(
        g["hidden"][-int(g["last_n_layers"]) :], g["aggregated"].swapaxes(0, 1), strict=True
    ):
        words = aggregate_words(torch.tensor(layer, dtype=dtype), tokens, pool="sum")
        close(words, golden[:, : words.shape[1]], tolerance)
        assert not golden[:, words.shape[1] :].any()


def test_words_as_strings() -> None:
    j = facts("aggregate_tokens")
    pieces = WordPieces([*j["vocab"], "[MASK]"], max_tokens=13)
    tokens = pieces(["cardiomegaly is the heart enlarged", "no effusion"])
    assert pieces.words(tokens) == [
        ["cardiomegaly", "is", "the", "heart", "enlarged"],
        ["no", "effusion"],
    ]


@pytest.mark.parametrize("counts", ["words", "chars"])
def test_similarities(counts: str) -> None:
    g = arrays("similarities")
    regions, image_emb = regions_of(g["img_l"], torch.float64), torch.tensor(g["img_g"])
    scores = []
    for c in range(3):
        text, lengths = torch.tensor(g[f"txt_l_{c}"]).mT, torch.tensor(g[f"{counts}_{c}"])
        local = local_similarity(regions, inference_words(text, lengths), RELEASED.model)
        global_ = global_similarity(image_emb, torch.tensor(g[f"txt_g_{c}"]))
        close(local, g[f"local_{counts}_{c}"], 1e-10)
        close(global_.float(), g[f"global_{c}"], 1e-6)
        close(hybrid(local, global_, "mean"), g[f"api_both_{counts}_{c}"], 1e-6)
        scores.append(hybrid(local, global_, "mean").amax(dim=1))
    close(zscore(torch.stack(scores, dim=1), dim=0), g[f"zero_shot_{counts}"], 1e-6)


def test_retrieval() -> None:
    g = arrays("retrieval")
    stored = torch.tensor(g["txt_l"]).mT  # without [CLS]
    text = torch.cat([torch.zeros_like(stored[:, :1]), stored], dim=1)
    words = inference_words(text, torch.tensor(g["cap_lens"]), skip_first=True)
    model = released_model(float(g["temp1"]), float(g["temp2"]))
    for i in range(2):
        regions = regions_of(g[f"img_l_{i}"], torch.float64)
        for pool in ("sum", "mean"):
            form = replace(model.similarity, local="lse", length_norm=pool == "mean")
            local = local_similarity(regions, words, replace(model, similarity=form))
            close(local[0], g[f"local_{pool}_{i}"], 1e-10)
        form = replace(model.similarity, local="lse")
        local = local_similarity(regions, words, replace(model, similarity=form))
        global_ = global_similarity(torch.tensor(g[f"img_g_{i}"]), torch.tensor(g["txt_g"]))
        for name, score in {
            "both": hybrid(local, global_, "zscore"),
            "local": local,
            "global": global_,
        }.items():
            order = score[0].argsort(descending=True)
            assert order.tolist() == g[f"order_{name}_{i}"].tolist()
            assert g["classes"][order].tolist() == g[f"classes_{name}_{i}"].tolist()


def test_resize_and_pad() -> None:
    g = arrays("resize_img")
    for i in range(6):
        ours = resize_and_pad(g[f"in_u8_{i}"], int(g[f"scale_{i}"]))
        assert np.abs(ours.astype(int) - g[f"out_u8_{i}"]).max() <= 1
    for i in range(2):
        ours = resize_and_pad(g[f"in_mask_{i}"], int(g[f"scale_{i}"]))
        np.testing.assert_allclose(ours, g[f"out_mask_{i}"], atol=1e-6)


@pytest.mark.parametrize("budget", ["5", "1000000"])
def test_training_sentences(budget: str) -> None:
    j = facts("reports")
    for i, report in enumerate(j["reports"]):
        ours = sentences(report, word_budget=int(budget), keep_empty=True)
        assert ours == j["pretraining"][budget]["sentences"].get(f"r{i}", [])


def test_inference_text() -> None:
    j = facts("reports")["inference"]
    pieces = WordPieces(j["vocab"], max_tokens=j["word_num"], pad_to_max=True)
    reports = [report for report in facts("reports")["reports"] if report is not None]
    assert [" ".join(sentences(report)) for report in reports] == j["cleaned"]
    tokens = pieces(j["cleaned"])
    assert tokens.ids.tolist() == j["input_ids"]
    assert tokens.mask.long().tolist() == j["attention_mask"]


def test_prompts() -> None:
    j = facts("prompts")
    assert draw_prompts(RELEASED_PROMPTS, n=j["n"], seed=j["python_random_seed"]) == j["sample"]
