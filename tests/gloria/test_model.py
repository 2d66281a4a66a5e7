"""Architecture at the published size without memory, saving, and inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.config import to_dict
from gloria.checkpoint import fresh_model
from gloria.config import PAPER, PHANTOM, RELEASED, LossConfig, ModelConfig
from gloria.losses import pretrain_losses
from gloria.model import TEXTS_AT_ONCE, GLoRIA
from gloria.text import Tokens


@pytest.fixture(scope="module")
def small() -> GLoRIA:
    torch.manual_seed(0)
    return fresh_model(PHANTOM).eval()


def published(config: ModelConfig) -> GLoRIA:
    with torch.device("meta"):
        return GLoRIA(config, ["piece"] * 28996)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_size() -> None:
    """README section (b): parameter counts of the released model."""
    model = published(RELEASED.model)
    assert count(model.text_encoder) == 108_310_272
    assert count(model.image_encoder) == 23_508_032
    assert count(model.global_image) == 1_573_632
    assert count(model.local_image) == 786_432
    assert count(model) == 134_178_368


def test_published_shapes() -> None:
    model = published(PAPER.model)
    ids = torch.zeros(2, 97, dtype=torch.long, device="meta")
    images = model.encode_images(torch.zeros(2, 1, 224, 224, device="meta"))
    assert images.emb.shape == (2, 768)
    assert images.region_emb.shape == (2, 361, 768)
    assert images.grid == (19, 19)
    out = model.text_encoder.bert(input_ids=ids, output_hidden_states=True)
    assert len(out.hidden_states) == 13
    assert out.hidden_states[-1].shape == (2, 97, 768)


def test_paper_has_text_projections_and_released_has_none() -> None:
    assert count(published(PAPER.model)) - count(published(RELEASED.model)) == 768 * 769 + 768 * 768


def test_region_width_is_read_from_the_network() -> None:
    """Ledger G17: other ResNets work; the released code announced wrong channel counts."""
    config = replace(PAPER.model, image=replace(PAPER.model.image, backbone="resnet18"))
    model = published(config)
    assert model.local_image.in_channels == 256
    assert model.global_image.in_features == 512


def test_none_projection_needs_equal_widths() -> None:
    with pytest.raises(ValueError, match="embedding_dim"):
        published(replace(RELEASED.model, embedding_dim=512))


def test_saving_and_loading_keeps_everything(small: GLoRIA, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"model.safetensors", "config.json"}
    loaded = GLoRIA.from_pretrained(str(tmp_path))
    assert to_dict(loaded.config) == to_dict(small.config)
    assert loaded.vocabulary == small.vocabulary
    torch.testing.assert_close(loaded.state_dict(), small.state_dict())
    image = np.random.default_rng(0).integers(0, 256, (1, small.size, small.size), dtype=np.uint8)
    texts = ["small left pleural effusion"]
    scores = [
        m.similarity(m.embed_images(m.normalise(image)), m.embed_texts(texts))
        for m in (small, loaded)
    ]
    torch.testing.assert_close(*scores)


def test_scores_do_not_depend_on_the_batch(small: GLoRIA) -> None:
    """Ledger G35, G36: the released example's scores change with what is scored beside them."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, small.size, small.size), dtype=np.uint8)
    texts = [
        "mild pneumonia",
        "moderate pulmonary edema in a longer phrase than the other one",
    ]
    together = small.similarity(
        small.embed_images(small.normalise(pixels)), small.embed_texts(texts)
    )
    alone = [
        [
            small.similarity(small.embed_images(small.normalise(p[None])), small.embed_texts([t]))
            for t in texts
        ]
        for p in pixels
    ]
    torch.testing.assert_close(together, torch.tensor(alone), rtol=1e-4, atol=1e-5)


def test_released_inference_does_depend_on_the_batch(small: GLoRIA) -> None:
    """With the released slips selected the same comparison fails."""
    compat = replace(small.config.compat, train_mode_inference=True)
    torch.manual_seed(0)
    slip = GLoRIA(replace(small.config, compat=compat), small.vocabulary)
    pixels = np.random.default_rng(0).integers(0, 256, (5, small.size, small.size), dtype=np.uint8)
    together = slip.embed_images(slip.normalise(pixels)).emb[:1]
    alone = slip.embed_images(slip.normalise(pixels[:2])).emb[:1]
    assert not torch.allclose(together, alone, rtol=1e-3)


def test_padding_changes_nothing(small: GLoRIA) -> None:
    """Ledger G09: padding to the longest text equals padding to 97."""
    text = replace(small.config.text, pad="max")
    padded = GLoRIA(replace(small.config, text=text), small.vocabulary).eval()
    padded.load_state_dict(small.state_dict())
    phrases = ["mild cardiomegaly", "no acute cardiopulmonary process"]
    short, long = small.embed_texts(phrases), padded.embed_texts(phrases)
    torch.testing.assert_close(short.report_emb, long.report_emb, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        short.word_emb, long.word_emb[:, : short.word_emb.shape[1]], rtol=1e-4, atol=1e-5
    )


def test_empty_phrases_are_refused(small: GLoRIA) -> None:
    with pytest.raises(ValueError, match="no word"):
        small.embed_texts(["effusion", "..."])


def test_character_count_slip_is_bounded(small: GLoRIA) -> None:
    compat = replace(small.config.compat, char_caption_length=True)
    slip = GLoRIA(replace(small.config, compat=compat), small.vocabulary).eval()
    assert slip.embed_texts(["mild edema"]).n_words.tolist() == [10]
    with pytest.raises(ValueError, match="96 characters"):
        slip.embed_texts(["no " + "x" * 94])


def test_one_word_texts_keep_their_word(small: GLoRIA) -> None:
    """Ledger G13: at inference "pneumonia" is kept with a warning; released code drops it."""
    with pytest.warns(UserWarning, match="'pneumonia'"):
        assert small.embed_texts(["pneumonia"]).n_words.tolist() == [1]
    text = replace(small.config.text, inference_min_tokens=2, sentence_split="decimal_safe")
    other = GLoRIA(replace(small.config, text=text), small.vocabulary)
    with pytest.raises(ValueError, match="no word"):
        other.embed_texts(["pneumonia"])
    assert other.clean(["nodule of 1.8 cm. stable."]) == ["nodule of 1 8 cm"]
    assert small.clean(["nodule of 1.8 cm. stable."]) == ["nodule of 8 cm stable"]


def test_many_texts_are_encoded_in_parts_with_the_same_result(small: GLoRIA) -> None:
    phrases = ["small left pleural effusion", *["mild edema"] * TEXTS_AT_ONCE]
    many, few = small.embed_texts(phrases), small.embed_texts([phrases[0], phrases[-1]])
    for whole, part in zip(many, few, strict=True):
        torch.testing.assert_close(whole[[0, -1]], part, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("global_", "local"), [(1, 1), (1, 0), (0, 1)])
def test_exactly_the_trained_parameters_get_a_gradient(global_: float, local: float) -> None:
    """Several processes would wait for ever for the gradient of one that gets none."""
    model, loss = fresh_model(PHANTOM), LossConfig(global_weight=global_, local_weight=local)
    model.freeze_unused(loss)
    tokens = model.word_pieces()(["mild edema", "small left pleural effusion"])
    out = model(torch.randn(2, 1, 96, 96), tokens)
    torch.stack([*pretrain_losses(out, loss, model.config).values()]).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_tokens_mask_out_padding(small: GLoRIA) -> None:
    tokens: Tokens = small.word_pieces()(["edema", "small left pleural effusion"])
    assert (tokens.word_index[0][~tokens.mask[0]] == -1).all()
    assert tokens.n_words.tolist() == [1, 4]
