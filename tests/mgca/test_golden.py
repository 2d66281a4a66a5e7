"""The released functions' outputs on fixed inputs (see tests/golden/mgca/README.md)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor, nn
from torch.nn import functional as F

from mgca.config import RELEASED, ImageConfig
from mgca.losses import TokenContrast, instance_loss, prototype_loss, token_loss
from mgca.model import (
    Head,
    ImageOutput,
    Output,
    TextEncoder,
    TextOutput,
    ViTEncoder,
)
from mgca.pretrain import retrieval
from mgca.prototypes import sinkhorn
from mgca.text import Tokens, WordPieces, caption

GOLDEN = Path(__file__).parents[1] / "golden" / "mgca"
CASES = [path.stem.removeprefix("losses_") for path in sorted(GOLDEN.glob("losses_*.npz"))]
CASES.remove("inputs")


def arrays(name: str) -> NpzFile:
    return np.load(GOLDEN / f"{name}.npz")


def close(ours: Tensor, golden: Any, *, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), golden, rtol=rtol, atol=atol)


def attention_of(g: NpzFile, name: str, heads: int) -> nn.MultiheadAttention:
    module = nn.MultiheadAttention(8, heads, batch_first=True)
    state = {k.removeprefix(f"{name}."): torch.tensor(g[k]) for k in g if k.startswith(name)}
    module.load_state_dict(state)
    return module


def outputs(case: str) -> tuple[Output, dict[str, Tensor], Tensor]:
    """The case's raw inputs as leaves, and what the model would return for them."""
    g, inputs = arrays(f"losses_{case}"), arrays("losses_inputs")
    raw = {
        k: torch.tensor(inputs[k], requires_grad=True) for k in ("img", "report", "patch", "word")
    }
    prototypes = torch.tensor(g["prototypes_normalised"], requires_grad=True)
    unit = {k: F.normalize(v, dim=-1) for k, v in raw.items()}
    row = torch.tensor(inputs["vit_attn_cls_row"]).mean(dim=1)[:, 1:]
    vit = case.startswith("vit")
    mask = ~torch.tensor(g["in_pad_mask"])
    text = TextOutput(unit["report"], unit["word"], torch.tensor(g["in_word_attn"]), mask)
    image = ImageOutput(unit["img"], unit["patch"], row if vit else None, (3, 4))
    seen: tuple[Tensor | None, Tensor | None] = (None, None)
    if "local_atten" in case:
        heads = 2 if "2heads" in case else 1
        words, patches = (attention_of(g, k, heads) for k in ("word_mha", "patch_mha"))
        keys, padding = unit["word"], ~mask
        seen = (
            words(unit["word"], unit["patch"], unit["patch"], need_weights=False)[0],
            patches(unit["patch"], keys, keys, key_padding_mask=padding, need_weights=False)[0],
        )
    scores = (unit["img"] @ prototypes.mT, unit["report"] @ prototypes.mT)
    return Output(image, text, *seen, *scores), raw, prototypes


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    g = arrays(f"losses_{case}")
    out, raw, prototypes = outputs(case)
    ita, cta, cpa = (float(t) for t in g["tau_ita_tau_cta_tau_cpa"])
    cfg = replace(RELEASED.loss, tau_ita=ita, tau_cta=cta, tau_cpa=cpa)
    if "word_side_only" in case:
        silence_patches(monkeypatch, out)
    losses = {
        "ita": instance_loss(out.image.emb, out.text.emb, tau=ita),
        "cta": token_loss(out, cfg, mask_padding=False),
        "cpa": prototype_loss(out.image_scores, out.text_scores, cfg),
    }
    for top in (1, 5):
        found_top = retrieval(out.image.emb.detach(), out.text.emb.detach(), top=top)
        assert found_top == pytest.approx(g[f"acc{top}"].mean())
    leaves = {**raw, "prototypes": prototypes}
    for name, loss in losses.items():
        close(loss, g[f"loss_{name}"])
        found = torch.autograd.grad(
            loss, list(leaves.values()), allow_unused=True, retain_graph=True
        )
        for leaf, grad in zip(leaves, found, strict=True):
            key = f"grad_{name}__{leaf}"
            if key in g:
                assert grad is not None
                close(grad, g[key], rtol=1e-4)
            else:
                assert grad is None or not grad.abs().max() > 1e-6


def silence_patches(monkeypatch: pytest.MonkeyPatch, out: Output) -> None:
    """The released switch that leaves the patches' side out is no option of ours."""
    from mgca import losses

    real, patches = losses.token_contrast, out.image.patch_emb

    def contrast(tokens: Tensor, *rest: Any, **named: Any) -> TokenContrast:
        found = real(tokens, *rest, **named)
        return TokenContrast(*(0 * part for part in found)) if tokens is patches else found

    monkeypatch.setattr(losses, "token_contrast", contrast)


@pytest.mark.parametrize("case", range(5))
def test_codes(case: int) -> None:
    g = arrays("sinkhorn")
    eps, iterations = g[f"{case}_eps_iters"]
    codes = sinkhorn(torch.tensor(g[f"{case}_scores"]), eps=float(eps), iterations=int(iterations))
    close(codes, g[f"{case}_codes"], atol=1e-7)


def test_codes_of_two_processes_are_those_of_the_joined_batch() -> None:
    g = arrays("sinkhorn")
    _, eps, iterations = g["dist_world_eps_iters"]
    codes = sinkhorn(torch.tensor(g["dist_scores"]), eps=float(eps), iterations=int(iterations))
    close(codes, g["dist_codes"], atol=1e-6)


@pytest.mark.parametrize("kind", ["global", "local"])
def test_heads(kind: str) -> None:
    """Ours ends in unit vectors; the golden ones are before that."""
    g = arrays("heads")
    head = Head(10, 14, 6)
    state = {
        k.removeprefix(f"{kind}.before.head."): torch.tensor(g[k]).squeeze(-1)
        if g[k].ndim == 3
        else torch.tensor(g[k])
        for k in g
        if k.startswith(f"{kind}.before")
    }
    head.layers.load_state_dict(state)
    x = torch.tensor(g[f"{kind}.x"])
    close(head(x), F.normalize(torch.tensor(g[f"{kind}.y_train"]), dim=-1))
    for layer in (1, 4):
        for name in ("running_mean", "running_var"):
            close(head.layers[layer].get_buffer(name), g[f"{kind}.after.head.{layer}.{name}"])
    close(head.eval()(x), F.normalize(torch.tensor(g[f"{kind}.y_eval"]), dim=-1))


def test_vit() -> None:
    g = arrays("vit_small")
    size, patch, width, depth, heads = (int(n) for n in g["config"])
    form = ImageConfig(
        backbone="vit_base_patch16_224",
        patch=patch,
        width=width,
        depth=depth,
        heads=heads,
        crop=size,
    )
    encoder = ViTEncoder(form).eval()
    state = {k.removeprefix("sd."): torch.tensor(g[k]) for k in g if k.startswith("sd.")}
    encoder.backbone.load_state_dict(state)
    out = encoder(torch.tensor(g["x"]))
    close(out.pooled, g["tokens"][:, 0], atol=1e-5)
    close(out.tokens, g["tokens"][:, 1:], atol=1e-5)
    assert out.attention is not None
    close(out.attention, g["last_attention"][:, :, 0, 1:].mean(axis=1))


def released_text(g: NpzFile, j: dict[str, Any], **changes: Any) -> tuple[TextEncoder, Tokens]:
    vocabulary, shape = [*j["vocab"], "[MASK]"], j["config"]
    form = replace(
        RELEASED.model.text,
        width=shape["dim"],
        layers=shape["layers"],
        heads=shape["heads"],
        max_tokens=j["max_words"],
        **changes,
    )
    encoder = TextEncoder(form, len(j["vocab"])).eval()
    bert = encoder.bert
    state = {k.removeprefix("sd."): torch.tensor(g[k]) for k in g if k.startswith("sd.")}
    for layer in bert.encoder.layer:  # the golden encoder has its own inner width and positions
        layer.intermediate.dense = nn.Linear(shape["dim"], shape["ff"])
        layer.output.dense = nn.Linear(shape["ff"], shape["dim"])
    bert.embeddings.position_embeddings = nn.Embedding(shape["max_positions"], shape["dim"])
    left = bert.load_state_dict(state, strict=False)
    assert left.missing_keys == ["embeddings.token_type_embeddings.weight"]
    bert.embeddings.token_type_embeddings.weight.data.zero_()
    pieces = WordPieces(vocabulary, max_tokens=j["max_words"], drop_last_word_if_full=True)
    return encoder, pieces.group(torch.tensor(g["ids"]), torch.tensor(g["mask"]).bool())


def test_text_encoder_and_words() -> None:
    g, j = arrays("text_small"), json.loads((GOLDEN / "text_small.json").read_text())
    encoder, tokens = released_text(g, j)
    out = encoder(tokens)
    close(out.report, g["report_feat"])
    close(out.words, g["word_feat"])
    close(out.weights, g["word_attn"])
    words = WordPieces([*j["vocab"], "[MASK]"], max_tokens=12).words(tokens)
    padded = [[*text, *["[PAD]"] * (12 - len(text))] for text in words]
    assert padded == j["words"]


def test_text_encoder_with_true_positions() -> None:
    g, j = arrays("text_small"), json.loads((GOLDEN / "text_small.json").read_text())
    encoder, tokens = released_text(g, j, positions="true")
    hidden = encoder.bert(input_ids=tokens.ids, attention_mask=tokens.mask.long())[0]
    real = g["mask"].astype(bool)
    close(hidden[torch.tensor(real)], g["hidden_true_positions"][real])


def test_captions() -> None:
    j = json.loads((GOLDEN / "reports.json").read_text())
    for case in j["sentence_cases"]:
        assert caption(case["impression"], case["findings"]) == " ".join(case["kept"] or [])
    table = [dict(zip(j["master_csv"][0], row, strict=True)) for row in j["master_csv"][1:]]
    kept = {
        row["Path"]: text for row in table if (text := caption(row["impression"], row["findings"]))
    }
    assert kept == {path: " ".join(parts) for path, parts in j["path_to_sentences"].items()}
