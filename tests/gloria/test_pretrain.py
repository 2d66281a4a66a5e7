"""Training end to end on the phantom corpus: learning, resuming, launching, clear refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.data.phantom.writers import write_corpus
from common.data.tables import DataError
from common.training import Run, TrainingError
from gloria.checkpoint import fresh_model
from gloria.config import PHANTOM, PretrainConfig
from gloria.losses import pretrain_losses
from gloria.pairs import load_pairs, shuffled
from gloria.pretrain import lr_at, train, validate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_corpus(root, size="ci", datasets=["chexpert"], workers=1)
    return root


def small(corpus: Path, out: Path, epochs: int = 2) -> PretrainConfig:
    run = replace(PHANTOM.run, data_root=corpus, out=out, tracker="none", save_every=2, log_every=1)
    return replace(PHANTOM, run=run, optim=replace(PHANTOM.optim, batch_size=8, epochs=epochs))


def flags(corpus: Path, out: Path, epochs: int) -> list[str]:
    words = f"--data-root {corpus} --out {out} --tracker none --save-every 2 --optim.batch-size 8"
    return ["phantom", *words.split(), "--optim.epochs", str(epochs)]


def python(*words: str, **environment: str) -> dict[str, Any]:
    """Arguments of a subprocess in the repository's root."""
    return {
        "args": [sys.executable, *words],
        "cwd": ROOT,
        "env": {**os.environ, "OMP_NUM_THREADS": "1", **environment},
    }


@pytest.mark.slow
def test_it_overfits_eight_studies(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    model = fresh_model(cfg).train()
    pairs = load_pairs(cfg, model.word_pieces()).train
    distinct = list({" ".join(r): i for i, r in enumerate(pairs.reports)}.values())[:8]
    images, tokens = pairs.__getitems__(distinct)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(60):
        terms = pretrain_losses(model(images, tokens), cfg.loss, cfg.model)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.slow
def test_kill_and_resume_give_the_same_weights(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in mid-epoch, the same settings again: bit for bit an undisturbed run's weights.

    The undisturbed run is started with `accelerate launch`, the other one directly.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    words = ["--cpu", "--num_processes", "1", "--num_machines", "1", "--dynamo_backend", "no"]
    launcher = ["-m", "accelerate.commands.launch", *words, "--mixed_precision", "no"]
    subprocess.run(
        **python(*launcher, "gloria/pretrain.py", *flags(corpus, whole, 3)),
        check=True,
        capture_output=True,
        timeout=240,
    )
    record = json.loads((whole / "provenance.json").read_text())
    assert record["steps"] == 15
    assert {"commit", "dirty", "command", "hardware", "seconds"} <= set(record)

    command = python("gloria/pretrain.py", *flags(corpus, broken, 3))
    process = subprocess.Popen(**command, stderr=subprocess.DEVNULL)
    while process.poll() is None and not _saved(broken, at_least=7):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert not (broken / "provenance.json").exists()
    train(small(corpus, broken, epochs=3))
    assert "resuming" in capfd.readouterr().err
    for part in ("best", "last"):
        weights = [load_file(folder / part / "model.safetensors") for folder in (broken, whole)]
        torch.testing.assert_close(*weights, rtol=0, atol=0)


def _saved(out: Path, *, at_least: int) -> bool:
    return any(int(p.name) >= at_least for p in (out / "checkpoints").glob("[0-9]*"))


def test_a_finished_run_is_not_repeated(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg = small(corpus, tmp_path)
    (tmp_path / "run.json").parent.mkdir(exist_ok=True)
    (tmp_path / "provenance.json").write_text("{}")
    train(cfg)
    assert "complete" in capfd.readouterr().err


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_drops_out_its_own(
    corpus: Path, tmp_path: Path, rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small(corpus, tmp_path)
    model = torch.nn.Linear(2, 2)
    with Run(cfg, name="x") as run:
        monkeypatch.setattr(type(run.accelerator), "process_index", rank)
        torch.manual_seed(99)
        run.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert torch.initial_seed() == (cfg.run.seed + 1 if rank else 99)


def test_another_configuration_does_not_resume_a_run(corpus: Path, tmp_path: Path) -> None:
    with Run(small(corpus, tmp_path), name="x"):
        pass
    other = replace(small(corpus, tmp_path), loss=replace(PHANTOM.loss, tau1=0.2))
    with pytest.raises(TrainingError, match="loss"), Run(other, name="x"):
        pass


def test_a_folder_is_trained_in_once_at_a_time(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    with (
        Run(cfg, name="x"),
        pytest.raises(TrainingError, match="another process"),
        Run(cfg, name="x"),
    ):
        pass
    with Run(cfg, name="x"):  # left free
        pass


def test_a_launcher_s_second_signal_does_not_end_the_save(corpus: Path, tmp_path: Path) -> None:
    with Run(small(corpus, tmp_path), name="x") as run:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
        assert run.stop_signal == signal.SIGTERM
        run.asked_at -= 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_another_number_of_processes_does_not_resume_a_run(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg, model = small(corpus, tmp_path), torch.nn.Linear(2, 2)
    with Run(cfg, name="x") as run:
        run.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        run.save()
    with Run(cfg, name="x") as run:
        monkeypatch.setattr(type(run.accelerator), "num_processes", 2)
        with pytest.raises(TrainingError, match="begun with 1 processes, these are 2"):
            run.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize(("negatives", "size"), [("local", 4), ("global", 8)])
def test_validation_contrasts_as_training_does(
    corpus: Path, tmp_path: Path, negatives: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, loss=replace(cfg.loss, negatives=negatives))
    sizes: list[int] = []

    def noted(out: Any, *_: Any) -> dict[str, torch.Tensor]:
        sizes.append(len(out.image[0]))
        return {"x": torch.zeros(())}

    model = fresh_model(cfg)
    pairs = load_pairs(cfg, model.word_pieces()).train
    monkeypatch.setattr("gloria.pretrain.pretrain_losses", noted)
    validate(model, pairs, cfg, processes=2)
    assert set(sizes) == {size}


def test_more_processes_or_batches_than_pairs_are_refused(corpus: Path, tmp_path: Path) -> None:
    cfg = replace(small(corpus, tmp_path), optim=replace(PHANTOM.optim, batch_size=4000))
    with pytest.raises(TrainingError, match="fewer than one optimiser step"):
        train(cfg)


def test_shuffled_pairs_keep_images_and_texts(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    pieces = fresh_model(cfg).word_pieces()
    plain = load_pairs(cfg, pieces).train
    mixed = load_pairs(replace(cfg, data=replace(cfg.data, shuffle_pairs=True)), pieces).train
    assert mixed.image_ids == plain.image_ids
    assert mixed.reports != plain.reports
    assert sorted(map(tuple, mixed.reports)) == sorted(map(tuple, plain.reports))


def test_a_shuffle_leaves_no_text_in_place() -> None:
    for seed in range(20):
        mixed = shuffled(range(7), seed=seed)
        assert sorted(mixed) == list(range(7))
        assert all(text != place for place, text in enumerate(mixed))


def test_empty_sentences_need_cls(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, data=replace(cfg.data, keep_empty_sentences=True))
    with pytest.raises(DataError, match="cls_words"):
        load_pairs(cfg, fresh_model(cfg).word_pieces())


def test_accumulation_drops_an_incomplete_last_group(corpus: Path, tmp_path: Path) -> None:
    """42 pairs are 5 batches of 8: two steps of two batches an epoch."""
    cfg = small(corpus, tmp_path)
    cfg = replace(cfg, run=replace(cfg.run, accumulate=2, max_epochs=1))
    train(cfg)
    assert json.loads((tmp_path / "provenance.json").read_text())["steps"] == 4


@pytest.mark.parametrize("every", [1, 1_000], ids=["at each log", "before each save"])
def test_weights_that_turned_nan_replace_no_state(
    corpus: Path, tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small(corpus, tmp_path / "run")
    cfg = replace(cfg, run=replace(cfg.run, save_every=2, log_every=every, workers=0))
    losses: list[float] = []

    def broken_from_the_third(*args: Any) -> dict[str, torch.Tensor]:
        found = pretrain_losses(*args)
        losses.append(1.0)
        return found if len(losses) < 3 else {k: v * float("nan") for k, v in found.items()}

    monkeypatch.setattr("gloria.pretrain.pretrain_losses", broken_from_the_third)
    with pytest.raises(TrainingError, match="not finite"):
        train(cfg)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000002"]


@pytest.mark.slow
def test_two_processes_train_together(corpus: Path, tmp_path: Path) -> None:
    """Global negatives, accumulation, and a loss that leaves a head without gradient."""
    words = ["--loss.negatives", "global", "--accumulate", "2", "--loss.local-weight", "0"]
    subprocess.run(
        **python(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("gloria/pretrain.py", *flags(corpus, tmp_path, 1), *words),
            ACCELERATE_USE_CPU="true",
        ),
        check=True,
        capture_output=True,
        timeout=240,
    )
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert (record["processes"], record["steps"]) == (2, 4)
    assert load_file(tmp_path / "last" / "model.safetensors")


def test_a_batch_depends_only_on_seed_epoch_and_position(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    pairs = load_pairs(cfg, fresh_model(cfg).word_pieces()).train
    first = pairs.__getitems__([3, 5])
    pairs.__getitems__([1])
    again, other = pairs.__getitems__([3, 5]), None
    np.testing.assert_array_equal(first.images, again.images)
    pairs.set_epoch(1)
    other = pairs.__getitems__([3, 5])
    assert not torch.equal(first.images, other.images)


def test_evaluation_images_are_not_trained_on(corpus: Path, tmp_path: Path) -> None:
    cfg = small(corpus, tmp_path)
    train_pairs, valid_pairs, table, _ = load_pairs(cfg, fresh_model(cfg).word_pieces())
    expert = set(table.frame["image_id"][table.frame["source_split"] == "valid"])
    assert not set(train_pairs.image_ids) & (expert | set(valid_pairs.image_ids))


def test_constant_rate_unless_the_plateau_is_asked_for() -> None:
    flat = [3.0, *[4.0] * 12]
    assert lr_at(flat, PHANTOM) == PHANTOM.optim.lr
    plateau = replace(PHANTOM, optim=replace(PHANTOM.optim, plateau="epoch", plateau_patience=5))
    assert lr_at(flat, plateau) == PHANTOM.optim.lr / 4
