"""MaCo's model: published sizes, masking, oracles, released files."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import evaluate, weights
from benchmarks.job import Args
from common.checkpoint import CheckpointError
from common.data.phantom.writers import write_corpus
from common.data.tables import sha256
from maco.checkpoint import fresh_model, load_released, load_vocabulary, rename
from maco.config import PAPER, PRESETS, RELEASED, LossConfig, ModelConfig
from maco.losses import (
    alignment_loss,
    importance_weights,
    reconstruction_loss,
    released_terms,
)
from maco.model import MaCo, centre_start, mask_of

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]"] + [f"w{k}" for k in range(61)]


def phantom() -> MaCo:
    return fresh_model(PRESETS["phantom"]).eval()


def test_published_sizes() -> None:
    with torch.device("meta"):
        model = MaCo(ModelConfig(), ["[PAD]", "[UNK]", "[CLS]"] + ["a"] * 30519)
    sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
    assert sizes["encoder"] == 85_798_656
    assert round(sizes["decoder"] / 1e6, 1) == 31.5
    assert model.target_side == 32
    assert model.importance.in_features == 196
    images = torch.zeros(2, 1, 224, 224, device="meta")
    mask = mask_of(torch.rand(2, 196, device="meta"), 0.5)
    latent = model.encoder.forward_visible(images, mask.kept)
    assert latent.shape == (2, 99, 768)
    assert model.decoder(latent, mask).shape == (2, 98, 32 * 32 * 3)


def test_released_sizes_are_six_layers() -> None:
    text = RELEASED.model.text
    assert (text.layers, text.heads, text.feedforward, text.width) == (6, 6, 1536, 768)


def test_without_masking_the_visible_path_is_the_whole_vit() -> None:
    model = phantom()
    images = model.normalise(np.random.default_rng(0).integers(0, 256, (2, 192, 192), np.uint8))
    noise = torch.arange(model.grid**2).float()[None].expand(2, -1)
    tokens = model.encoder.forward_visible(images, mask_of(noise, 0.0).kept)
    whole = model.encoder.forward_features(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(tokens, whole, rtol=1e-4, atol=1e-5)


def test_removed_patches_have_no_influence_on_the_image_vector() -> None:
    model = phantom()
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (1, 1, 192, 192), np.uint8))
    noise = torch.rand(1, model.grid**2)
    tokens = model.word_pieces()(["no effusion"])
    out = model(images, tokens, noise)
    removed = int(mask_of(noise, 0.5).removed[0, 0])
    side = model.target_side
    row, column = (side * k for k in divmod(removed, model.grid))
    changed = images.clone()
    inner = slice(row + 4, row + side - 4), slice(column + 4, column + side - 4)
    changed[0, 0, inner[0], inner[1]] = 255 - changed[0, 0, inner[0], inner[1]]
    again = model(changed, tokens, noise)
    torch.testing.assert_close(again.image_emb, out.image_emb, rtol=1e-5, atol=1e-6)
    assert not torch.equal(again.target, out.target)


def test_padding_changes_nothing() -> None:
    model = phantom()
    alone = model.embed_texts(["small left pleural effusion."]).emb
    longer = model.embed_texts(["small left pleural effusion.", "no. " * 30]).emb
    torch.testing.assert_close(alone[0], longer[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="no word"):
        model.embed_texts([""])


def test_texts_of_any_length_keep_their_places() -> None:
    model = phantom()
    texts = ["no. " * words for words in (7, 1, 30, 2, 12, 1, 20, 3, 5)]
    together = model.embed_texts(texts).emb
    alone = torch.cat([model.embed_texts([text]).emb for text in texts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert (together[0] - together[1:]).norm(dim=1).min() > 1e-2


def test_alignment_equals_loops_over_groups() -> None:
    """Eq. 2-3 sample by sample; the last group is smaller."""
    scores, cosines = torch.randn(5).double(), torch.randn(5, 5).double()
    cfg = LossConfig(group_size=2)
    found = []
    for members in ([0, 1], [2, 3], [4]):
        group = scores[members]
        w_t, w_l = (group / cfg.tau1).softmax(0).exp(), (group / cfg.tau2).softmax(0)
        for k, i in enumerate(members):
            found.append(-w_l[k] * (cosines[i] / w_t[k]).log_softmax(0)[i])
    total = torch.stack(found).sum() / 3
    torch.testing.assert_close(alignment_loss(cosines, scores, cfg), total)


def test_equal_weights_give_plain_cross_entropy() -> None:
    logits = torch.randn(32, 32)
    plain = F.cross_entropy(logits, torch.arange(32))
    cfg = LossConfig(weighting="none")
    torch.testing.assert_close(alignment_loss(logits, torch.randn(32), cfg), plain)
    odd = logits[:17, :17]  # the last group has one member
    plain = F.cross_entropy(odd, torch.arange(17))
    torch.testing.assert_close(alignment_loss(odd, torch.randn(17), cfg), plain)
    mean = replace(cfg, align_reduction="batch_mean")
    torch.testing.assert_close(alignment_loss(odd, torch.randn(17), mean), plain * 2 / 17)
    weights = importance_weights(torch.zeros(32), tau1=1.0, tau2=16.0, group_size=16)
    torch.testing.assert_close(weights.temperature, torch.full((32,), np.exp(1 / 16)).float())
    with pytest.raises(ValueError, match="one prediction"):
        reconstruction_loss(torch.zeros(1, 2, 3), torch.zeros(1, 3, 3))


def test_scaled_rows_of_texts_see_the_mask_and_those_of_images_do_not() -> None:
    """Similarities that no text changes match nothing, and yet sS^T falls below chance (L3b)."""
    visible = torch.tensor([1.0, -1.0]).double().repeat(32)
    logits = visible[:, None].expand(64, 64)
    chance = torch.tensor(64.0).double().log()
    images, texts, *_ = released_terms(logits, 4 * visible)
    torch.testing.assert_close(images, chance)
    assert texts < chance - 0.1
    _, texts, *_ = released_terms(logits, 4 * visible, scale_texts=False)
    assert texts > chance


def test_the_multiplier_is_clamped_only_as_a_logarithm() -> None:
    model, start = phantom(), PRESETS["phantom"].model.tau3
    assert PAPER.model.tau3 == 0.03
    assert float(model.multiplier.detach()) == pytest.approx(1 / start)
    model.temperature.data.fill_(10.0)
    model.clamp_temperature()
    assert float(model.multiplier.detach()) == pytest.approx(100.0)
    model.multiplier.backward()
    assert model.temperature.grad == pytest.approx(100.0)
    linear = replace(PRESETS["phantom"].model, temperature="linear")
    model = MaCo(linear, load_vocabulary(linear.text))
    model.temperature.data.fill_(200.0)
    model.clamp_temperature()
    assert float(model.multiplier.detach()) == 200.0


def test_text_and_image_widths_must_agree() -> None:
    narrow = replace(PAPER.model, text=replace(PAPER.model.text, width=384))
    with pytest.raises(ValueError, match="projection is off"), torch.device("meta"):
        MaCo(narrow, VOCABULARY)


@pytest.mark.parametrize("grid", [7, 8])
def test_a_centred_start_falls_off_alike_on_all_sides(grid: int) -> None:
    weights = centre_start(grid).view(grid, grid)
    torch.testing.assert_close(weights, weights.flip(0, 1))
    torch.testing.assert_close(weights, weights.mT)
    assert weights.argmax() in (weights.numel() // 2, (grid // 2 - 1) * (grid + 1))
    assert float(weights.sum()) == pytest.approx(1.0)


def released_file(folder: Path) -> tuple[Path, dict[str, torch.Tensor], ModelConfig]:
    """A small checkpoint in the released layout, its weights, and what its shapes cannot show."""
    golden = Path(__file__).parents[1] / "golden" / "maco" / "tiny_forward.npz"
    with np.load(golden) as g:
        state = {k[8:]: torch.tensor(g[k]) for k in g.files if k.startswith("weights/")}
    state["decoder_pos_embed"] = state["pos_embed"]
    state["WCE.weight"] = torch.ones(8)
    path = folder / "checkpoint-50.pth"
    torch.save({"model": state, "epoch": 50, "scaler": {}}, path)
    config = RELEASED.model
    config = replace(
        config,
        image=replace(config.image, heads=4),
        decoder=replace(config.decoder, heads=2),
        text=replace(config.text, heads=2),
    )
    return path, state, config


def test_released_file_loads_by_shape_and_reports_what_it_drops(tmp_path: Path) -> None:
    path, state, config = released_file(tmp_path)
    model, ignored = load_released(str(path), vocabulary=VOCABULARY, config=config)
    assert (model.config.image.patch, model.config.image.input) == (4, 56)
    logarithm = replace(config, temperature="log")  # the file holds the factor itself
    again, _ = load_released(path, vocabulary=VOCABULARY, config=logarithm)
    torch.testing.assert_close(again.multiplier, state["Tpar"].squeeze())
    assert "WCE.weight" in ignored
    assert all(reason for reason in ignored.values())
    with pytest.raises(CheckpointError, match="layers of text, the released code 6"):
        load_released(path, vocabulary=VOCABULARY)
    state["surprise"] = torch.ones(1)
    torch.save({"model": state}, path)
    with pytest.raises(CheckpointError, match="unknown key 'surprise'"):
        load_released(path, vocabulary=VOCABULARY, config=config)
    words = next(key for key in state if key.endswith("word_embeddings.weight"))
    wordless = {key: value for key, value in state.items() if key not in (words, "surprise")}
    torch.save({"model": wordless}, path)
    with pytest.raises(CheckpointError, match=r"not a MaCo checkpoint: .*word_embeddings"):
        load_released(path, vocabulary=VOCABULARY, config=config)
    torch.save({"model": {"cls_token": torch.zeros(1, 1, 16)}}, path)
    with pytest.raises(CheckpointError, match="not a MaCo checkpoint"):
        load_released(path, vocabulary=VOCABULARY, config=config)


def test_a_released_file_is_evaluated_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, config = released_file(tmp_path)
    words = tmp_path / "wordpiece.json"
    ids = {piece: k for k, piece in enumerate(VOCABULARY)}
    words.write_text(json.dumps({"model": {"vocab": ids}}))
    monkeypatch.setitem(weights.RELEASED, "maco", partial(load_released, config=config))
    write_corpus(tmp_path, size="ci", datasets=["mimic", "ms_cxr"], workers=1)
    args = Args("grounding", "maco", "ms_cxr", data_root=tmp_path, results=tmp_path / "results")
    args = replace(args, checkpoint=path, vocabulary=words)
    record = json.loads(evaluate.run(args).read_text())
    assert record["pretraining"] is None
    assert record["preset"] == "released"
    assert record["model_settings"]["image"]["patch"] == 4
    assert record["other_settings"] == {"checkpoint": path.name, "sha256": sha256(path)}
    assert "WCE.weight" in record["unused_keys"]
    assert 0 < next(c["value"] for c in record["cells"] if c["metric"] == "miou") < 1
    with pytest.raises(CheckpointError, match="random-maco has no released layout"):
        evaluate.run(replace(args, model="random-maco"))
    with pytest.raises(CheckpointError, match="need no --vocabulary"):
        evaluate.run(replace(args, model="chexzero"))


def test_every_key_of_the_documented_layout_has_a_place() -> None:
    layout = json.loads(
        (Path(__file__).parents[1] / "golden" / "maco" / "checkpoint_keys.json").read_text()
    )
    state = {name: torch.empty(shape, device="meta") for name, shape in layout.items()}
    named, ignored = rename(state)
    with torch.device("meta"):
        model = MaCo(RELEASED.model, ["[PAD]", "[UNK]", "[CLS]"] + ["a"] * 29997)
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert own == {k: tuple(v.shape) for k, v in named.items()}
    assert len(named) + len(ignored) == len(state)


def test_the_hub_is_asked_for_and_missed_in_words() -> None:
    with pytest.raises(CheckpointError, match="Download it once"):
        load_vocabulary(PAPER.model.text)


def test_patches_fill_input_and_target() -> None:
    preset = PRESETS["phantom"]
    image = preset.model.image
    for wrong in (replace(image, input=100), replace(image, size=230)):
        with pytest.raises(CheckpointError, match="must fill"):
            fresh_model(replace(preset, model=replace(preset.model, image=wrong)))


def test_vocabularies_come_as_lines_or_as_a_tokeniser(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "lung", "clear"]
    lines, tokeniser = tmp_path / "vocab.txt", tmp_path / "wordpiece.json"
    lines.write_text("\n".join(pieces) + "\n")
    ids = {piece: k for k, piece in reversed(list(enumerate(pieces)))}
    tokeniser.write_text(json.dumps({"model": {"type": "WordPiece", "vocab": ids}}))
    text = PRESETS["phantom"].model.text
    for path in (lines, tokeniser):
        assert load_vocabulary(replace(text, vocabulary=str(path))) == pieces
    for path, content in (
        (lines, b"lung\n"),
        (lines, b"\xff"),
        (tokeniser, b"{}"),
        (tokeniser, b"["),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=path.name):
            load_vocabulary(replace(text, vocabulary=str(path)))
