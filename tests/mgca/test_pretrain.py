"""MGCA's training on the phantom corpus: learning, schedule, frozen prototypes, pairs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from mgca.checkpoint import fresh_model
from mgca.config import PRESETS, PretrainConfig
from mgca.pairs import load_pairs
from mgca.pretrain import losses_of, lr_at, retrieval, train

ROOT = Path(__file__).parents[2]
PHANTOMS = pytest.mark.parametrize("preset", ["phantom", "phantom-resnet50"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["mimic"], workers=1)
    return root


def small(preset: str, corpus: Path, out: Path) -> PretrainConfig:
    cfg = PRESETS[preset]
    run = replace(cfg.run, data_root=corpus, out=out, tracker="none", save_every=2)
    return replace(cfg, run=run, optim=replace(cfg.optim, batch_size=8, epochs=2))


@pytest.mark.slow
@PHANTOMS
def test_it_overfits_eight_studies(preset: str, corpus: Path, tmp_path: Path) -> None:
    cfg = small(preset, corpus, tmp_path)
    torch.manual_seed(0)
    model = fresh_model(cfg).train()
    pairs = load_pairs(cfg, model.word_pieces()).train
    distinct = list({text: i for i, text in enumerate(pairs.captions)}.values())[:8]
    images, tokens = pairs.__getitems__(distinct)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        terms = losses_of(model(images, tokens), cfg)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append(terms["ita"].item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    """Stopped after one epoch, then gone on with: the weights of a run of two."""
    whole, parts = (small("phantom-resnet50", corpus, tmp_path / name) for name in ("a", "b"))
    train(whole)
    one = replace(parts, run=replace(parts.run, max_epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.training.Run.finish", lambda *_, **__: None)
        train(one)
    train(parts)
    weights = [load_file(tmp_path / name / "last" / "model.safetensors") for name in ("a", "b")]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    record = json.loads((tmp_path / "a" / "provenance.json").read_text())
    assert record["split"] == "mimic/official"


@pytest.mark.slow
def test_prototypes_rest_in_the_first_epoch(corpus: Path, tmp_path: Path) -> None:
    cfg = small("phantom-resnet50", corpus, tmp_path)
    train(replace(cfg, run=replace(cfg.run, max_epochs=1)))
    torch.manual_seed(cfg.run.seed)
    before = torch.nn.functional.normalize(_seeded(cfg), dim=1)
    after = load_file(tmp_path / "last" / "model.safetensors")["prototypes.weight"]
    torch.testing.assert_close(after, before)


def _seeded(cfg: PretrainConfig) -> torch.Tensor:
    from accelerate.utils import set_seed

    set_seed(cfg.run.seed)
    return fresh_model(cfg).prototypes.weight.detach()


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    cfg = PRESETS["paper"].optim
    rates = [lr_at(step, 100, cfg) for step in range(101)]
    assert rates[0] == cfg.lr_floor
    assert rates[20] == pytest.approx((cfg.lr + cfg.lr_floor) / 2)
    assert max(rates) == rates[40] == cfg.lr
    assert rates[70] == pytest.approx((cfg.lr + cfg.lr_floor) / 2)
    assert rates[100] == pytest.approx(cfg.lr_floor)


@pytest.mark.parametrize("top", [1, 5])
def test_retrieval_inside_a_batch_counts_hits_of_both_directions(top: int) -> None:
    torch.manual_seed(0)
    image, text = torch.nn.functional.normalize(torch.randn(2, 12, 4), dim=-1)
    hits = 0
    for i in range(12):
        hits += i in (image[i] @ text.T).topk(top).indices.tolist()
        hits += i in (text[i] @ image.T).topk(top).indices.tolist()
    assert retrieval(image, text, top=top) == pytest.approx(100 * hits / 24)
    assert retrieval(image, image, top=top) == 100
    assert retrieval(image[:1].expand(12, 4), text[:1].expand(12, 4), top=top) == 0


def test_pairs_are_one_an_image_and_parts_disjoint(corpus: Path, tmp_path: Path) -> None:
    cfg = small("phantom", corpus, tmp_path)
    train_pairs, valid, table, _ = load_pairs(cfg, fresh_model(cfg).word_pieces())
    frame = table.frame.set_index("image_id")
    assert not set(frame.loc[train_pairs.image_ids, "patient_id"]) & set(
        frame.loc[valid.image_ids, "patient_id"]
    )
    assert all(len(text.split()) >= 3 for text in train_pairs.captions)
    merged = replace(cfg, data=replace(cfg.data, valid_split="merged"))
    both = load_pairs(merged, train_pairs.word_pieces).valid
    assert set(valid.image_ids) < set(both.image_ids)
    nothing = replace(cfg, data=replace(cfg.data, pretrain_fraction=0.0))
    with pytest.raises(DataError, match="share between 0 and 1"):
        load_pairs(nothing, train_pairs.word_pieces)
    half = replace(cfg, data=replace(cfg.data, pretrain_fraction=0.5))
    fewer = load_pairs(half, train_pairs.word_pieces).train
    assert set(fewer.image_ids) < set(train_pairs.image_ids)
    assert 0.4 < len(fewer) / len(train_pairs) < 0.6


def test_a_fraction_is_drawn_from_what_is_there(corpus: Path, tmp_path: Path) -> None:
    """An image that is missing on disk is in the split still."""
    root = tmp_path / "corpus"
    shutil.copytree(corpus, root)
    cfg = small("phantom-resnet50", root, tmp_path)
    cfg = replace(cfg, data=replace(cfg.data, pretrain_fraction=0.5))
    pieces = fresh_model(cfg).word_pieces()
    whole = load_pairs(cfg, pieces)
    missing = whole.train.image_ids[0]
    frame = whole.table.frame.set_index("image_id")
    (whole.table.root / frame.loc[missing, "path"]).unlink()
    found = load_pairs(cfg, pieces).train.image_ids
    assert missing not in found
    assert abs(len(found) - len(whole.train)) <= 2


@pytest.mark.slow
def test_two_processes_train_together(corpus: Path, tmp_path: Path) -> None:
    """Gathered instances and codes, and prototypes that rest in the first epoch."""
    words = f"phantom-resnet50 --data-root {corpus} --out {tmp_path} --tracker none --max-epochs 2"
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "mgca/pretrain.py", *words.split()),
            *("--optim.batch-size", "8"),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        check=True,
        capture_output=True,
        timeout=240,
    )
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["processes"] == 2
    assert load_file(tmp_path / "last" / "model.safetensors")
