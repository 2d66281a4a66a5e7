"""Released layouts to our model; see tests/gloria/test_checkpoint.py for hostile files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import weights
from benchmarks.models import MODELS
from common.checkpoint import CheckpointError
from mgca.checkpoint import fresh_model, load_released, load_vocabulary, rename
from mgca.config import PRESETS, PretrainConfig, released
from mgca.model import MGCA

LAYOUTS = json.loads((Path(__file__).parents[1] / "golden/mgca/checkpoint_keys.json").read_text())[
    "layouts"
]
OURS_TO_RELEASED = (
    ("image_encoder.backbone.", "img_encoder_q.model."),
    ("global_image.layers.", "img_encoder_q.global_embed.head."),
    ("local_image.layers.", "img_encoder_q.local_embed.head."),
    ("text_encoder.bert.", "text_encoder_q.model."),
    ("global_text.layers.", "text_encoder_q.global_embed.head."),
    ("local_text.layers.", "text_encoder_q.local_embed.head."),
    ("prototypes.", "prototype_layer."),
    ("word_attention.", "word_local_atten_layer."),
    ("patch_attention.", "patch_local_atten_layer."),
)


def small(backbone: str) -> PretrainConfig:
    """The phantom's sizes with the released behaviour."""
    cfg = PRESETS["phantom" if backbone == "vit_base" else "phantom-resnet50"]
    behaviour = released(cfg)
    text = replace(behaviour.model.text, layers=cfg.model.text.layers)
    return replace(behaviour, model=replace(behaviour.model, text=text))


def released_state(source: MGCA) -> dict[str, Tensor]:
    state = {}
    for key, value in source.state_dict().items():
        if "token_type" in key:
            continue
        old, new = next(pair for pair in OURS_TO_RELEASED if key.startswith(pair[0]))
        convolution = key.startswith("local_") and value.ndim == 2
        state[new + key[len(old) :]] = value[..., None] if convolution else value
    state["text_encoder_q.model.embeddings.position_ids"] = torch.arange(512)[None]
    state["text_encoder_q.model.encoder.layer.0.crossattention.self.key.bias"] = torch.zeros(3)
    state.setdefault("patch_local_atten_layer.in_proj_bias", torch.zeros(3))
    return state


@pytest.mark.parametrize("backbone", ["vit_base", "resnet_50"])
def test_released_file_loads_and_embeds_alike(tmp_path: Path, backbone: str) -> None:
    cfg = small(backbone)
    source = fresh_model(cfg).eval()
    path = tmp_path / f"{backbone}.ckpt"
    torch.save({"epoch": 1, "state_dict": released_state(source)}, path)
    loaded, ignored = load_released(str(path), vocabulary=source.vocabulary, config=cfg.model)
    assert len(ignored) == 3
    texts = ["small left pleural effusion", "no focal consolidation"]
    torch.testing.assert_close(loaded.embed_texts(texts), source.embed_texts(texts))
    images = torch.randn(2, 1, 96, 96)
    ours, theirs = (m.embed_images(images) for m in (loaded, source))
    torch.testing.assert_close(ours.emb, theirs.emb)
    torch.testing.assert_close(ours.patch_emb, theirs.patch_emb)


def test_trained_cross_attention_is_kept(tmp_path: Path) -> None:
    cfg = small("resnet_50")
    learned = replace(cfg.model, cta_attention="learned")
    source = fresh_model(replace(cfg, model=learned)).eval()
    assert source.word_attention is not None
    torch.nn.init.ones_(source.word_attention.in_proj_bias)
    path = tmp_path / "resnet_50.ckpt"
    torch.save({"state_dict": released_state(source)}, path)
    loaded, ignored = load_released(path, vocabulary=source.vocabulary, config=learned)
    assert not any("_local_atten_layer" in key for key in ignored)
    assert loaded.word_attention is not None
    torch.testing.assert_close(
        loaded.word_attention.state_dict(), source.word_attention.state_dict()
    )


@pytest.mark.parametrize("backbone", ["vit_base", "resnet_50"])
def test_every_key_of_the_documented_layout_has_a_place(backbone: str) -> None:
    preset = PRESETS["released" if backbone == "vit_base" else "released-resnet50"]
    with torch.device("meta"):
        model = MGCA(preset.model, ["piece"] * 28996)
    theirs = {k: torch.zeros(shape) for k, shape in LAYOUTS[backbone].items()}
    renamed, ignored = rename(theirs)
    assert all("crossattention" in k or "position_ids" in k or "atten_layer" in k for k in ignored)
    assert {k: v.shape for k, v in renamed.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_unknown_and_missing_keys_are_errors(tmp_path: Path) -> None:
    cfg = small("resnet_50")
    source = fresh_model(cfg)
    state: dict[str, Any] = released_state(source)
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {**state, "surprise": torch.zeros(1)}}, path)
    with pytest.raises(CheckpointError, match="surprise"):
        load_released(path, vocabulary=source.vocabulary, config=cfg.model)
    del state["prototype_layer.weight"]
    torch.save({"state_dict": state}, path)
    with pytest.raises(CheckpointError, match="1 keys missing"):
        load_released(path, vocabulary=source.vocabulary, config=cfg.model)


def test_the_hub_is_asked_for_and_missed_in_words() -> None:
    with pytest.raises(CheckpointError, match="phantom"):
        load_vocabulary(PRESETS["paper"].model.text)


def test_a_file_of_the_other_backbone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit = fresh_model(PRESETS["phantom"])
    monkeypatch.setitem(weights.RELEASED, "mgca-resnet50", lambda _: (vit, {}))
    with pytest.raises(CheckpointError, match=r"holds a deit.*, mgca-resnet50 is a resnet50"):
        weights.from_authors(
            MODELS["mgca-resnet50"], tmp_path / "vit_base.ckpt", None, reads_text=False
        )
