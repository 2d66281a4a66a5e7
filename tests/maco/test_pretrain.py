"""MaCo's training on the phantom corpus: learning, kill and resume, two processes, data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from common.data.phantom.writers import write_corpus
from common.data.records import COLUMNS, Exclusions, RecordTable
from common.data.tables import DataError
from maco.augment import warped
from maco.checkpoint import fresh_model
from maco.config import PRESETS, DataConfig, PretrainConfig
from maco.losses import pretrain_losses
from maco.pairs import load_pairs, reports_of
from maco.pretrain import optimizer_of, train
from maco.text import sentences, some_sentences

ROOT = Path(__file__).parents[2]
WORDS = "phantom --tracker none --optim.batch-size 8 --optim.epochs 2 --save-every 2"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["mimic"], workers=1)
    return root


def small(corpus: Path, out: Path) -> PretrainConfig:
    cfg = PRESETS["phantom"]
    run = replace(cfg.run, data_root=corpus, out=out, tracker="none")
    return replace(cfg, run=run, optim=replace(cfg.optim, batch_size=8, epochs=2))


def command(corpus: Path, out: Path, *launcher: str) -> list[str]:
    script = [*launcher, "maco/pretrain.py", *WORDS.split()]
    return [sys.executable, *script, "--data-root", str(corpus), "--out", str(out)]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.mark.slow
def test_it_overfits_eight_studies(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg).train()
    pairs = load_pairs(cfg, model.word_pieces()).train
    distinct = list({text: i for i, text in enumerate(pairs.reports)}.values())[:8]
    batch = pairs.__getitems__(distinct)
    optimizer = optimizer_of(model, cfg.optim)
    losses = []
    for _ in range(120):
        terms = pretrain_losses(model(*batch), cfg.loss)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in terms.items()})
    assert losses[-1]["align"] < 0.3 * losses[0]["align"]
    assert losses[-1]["mae"] < 0.3 * losses[0]["mae"]


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_masks_and_weights(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL inside the first epoch, then the same settings: the weights of an unbroken run."""
    whole, parts = tmp_path / "a", tmp_path / "b"
    train(small(corpus, whole))
    process = subprocess.Popen(command(corpus, parts), cwd=ROOT, env=ENVIRONMENT)
    limit = time.monotonic() + 120
    while not list((parts / "checkpoints").glob("[0-9]*")) and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (parts / "provenance.json").exists(), "it ended before it could be killed"
    train(small(corpus, parts))
    assert "resuming" in capfd.readouterr().err
    weights = [load_file(run / "last" / "model.safetensors") for run in (whole, parts)]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
    positions = [(run / "positions.jsonl").read_text().splitlines() for run in (whole, parts)]
    assert set(positions[0]) == set(positions[1])  # an epoch may have written twice


@pytest.mark.slow
def test_two_processes_train_as_one_on_the_joined_batch(corpus: Path, tmp_path: Path) -> None:
    """Contrast alone, two epochs: every weight is that of one process, so every gradient was."""
    cfg = small(corpus, tmp_path / "one")
    train(replace(cfg, loss=replace(cfg.loss, mae_weight=0.0, align_weight=1.0)))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    subprocess.run(
        [
            *command(corpus, tmp_path / "two", *launcher),
            *("--loss.mae-weight", "0", "--loss.align-weight", "1"),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        timeout=240,
    )
    one, two = (json.loads((tmp_path / n / "provenance.json").read_text()) for n in ("one", "two"))
    assert two["processes"] == 2
    assert two["valid_scores"] == pytest.approx(one["valid_scores"], rel=1e-4)
    trained = [load_file(tmp_path / n / "last" / "model.safetensors") for n in ("one", "two")]
    # some biases, as of keys, have no gradient but rounding, which AdamW scales up
    weights = [{k: v for k, v in state.items() if k.endswith(".weight")} for state in trained]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weighting", ["paper", "released", "none"])
@pytest.mark.parametrize("off", ["", "mae", "align"])
def test_exactly_the_trained_parameters_get_a_gradient(
    corpus: Path, tmp_path: Path, weighting: str, off: str
) -> None:
    cfg = small(corpus, tmp_path)
    weights = {f"{off}_weight": 0.0} if off else {}
    cfg = replace(cfg, loss=replace(cfg.loss, weighting=weighting, **weights))  # type: ignore[arg-type]
    model = fresh_model(cfg).train()
    model.freeze_unused(cfg.loss)
    batch = load_pairs(cfg, model.word_pieces()).train.__getitems__(range(4))
    terms = pretrain_losses(model(*batch), cfg.loss)
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_pairs_take_every_view_and_draws_repeat(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg)
    train, valid, table, _, empty = load_pairs(cfg, model.word_pieces())
    views = table.frame.set_index("image_id").loc[train.image_ids, "view"]
    assert {"frontal", "lateral"} <= set(views)
    assert empty == sum(not report.strip() for report in train.reports)
    first, again = (train.__getitems__([0, 3]) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    train.set_epoch(1)
    assert not torch.equal(train.__getitems__([0, 3]).noise, first.noise)
    before = valid.__getitems__([0]).noise
    valid.set_epoch(1)
    assert torch.equal(valid.__getitems__([0]).noise, before)
    with pytest.raises(DataError, match="views frontal"):
        load_pairs(replace(cfg, data=replace(cfg.data, dataset="chexpert")), model.word_pieces())


def test_vectors_tokens_and_the_temperature_are_not_decayed(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg)
    names = {id(p): n for n, p in model.named_parameters()}
    kept = {names[id(p)] for p in optimizer_of(model, cfg.optim).param_groups[1]["params"]}
    assert {"encoder.cls_token", "decoder.mask_token", "temperature", "importance.bias"} <= kept
    released = replace(cfg.optim, decay="released")
    kept = {names[id(p)] for p in optimizer_of(model, released).param_groups[1]["params"]}
    assert not kept & {"encoder.cls_token", "temperature"}
    assert "encoder.norm.bias" in kept


def test_empty_reports_and_decimals() -> None:
    generator = np.random.default_rng(0)
    assert some_sentences("", generator) == ""
    text = some_sentences("A 2.5 cm nodule.", generator)
    assert text == "a 2.5 cm nodule. "
    drawn = {some_sentences("One. Two. Three.", generator) for _ in range(200)}
    assert {"one. ", "two. one. ", "three. one. two. "} <= drawn


def test_list_numbers_and_masked_names_are_no_sentences_and_sections_stay_apart() -> None:
    sections = {
        "section_findings": ["Heart is large.\n No effusion", ""],
        "section_impression": ["1. Edema. 2. Compare ___. ___.", ""],
        "section_last_paragraph": ["unused", "Clear lungs"],
    }
    frame = pd.DataFrame({name: ["a", "b"] for name in COLUMNS} | sections)
    labels = pd.DataFrame(index=frame.index)
    table = RecordTable("mimic", Path(), frame, labels, Exclusions(), rows_in=2, table_sha256="")
    numbered, last = reports_of(table, DataConfig())
    whole = ["Heart is large. ", "No effusion. ", "Edema. ", "Compare ___. "]
    assert sentences(numbered) == whole
    assert sentences(last) == ["Clear lungs. "]
    safe = sentences(numbered, rule="safe")
    assert {"2. ", "No effusion\n\n1. "} <= set(safe)
    assert ". " not in safe
    released = sentences(numbered, rule="released")
    assert {"2. ", "___. ", "No effusion\n\n1. "} <= set(released)


def test_warps_keep_the_centre_and_mirror() -> None:
    still = DataConfig(flip=0.0, rotate=0.0, scale=(1.0, 1.0))
    images = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    np.testing.assert_array_equal(warped(images, still, [np.random.default_rng(0)]), images)
    mirrored = warped(images, replace(still, flip=1.0), [np.random.default_rng(0)])
    np.testing.assert_array_equal(mirrored, images[:, :, ::-1])
