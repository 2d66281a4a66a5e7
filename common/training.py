"""The plumbing of a training run on Accelerate: everything that is not the paper."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, TypeVar, cast

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import (
    ProjectConfiguration,
    parse_flag_from_env,
    send_to_device,
    set_seed,
)
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from tqdm.auto import tqdm

from common import config, distributed
from common.config import RunConfig
from common.provenance import peak_memory, provenance

M = TypeVar("M", bound=nn.Module)


class Preset(Protocol):
    """A paper's configuration: any frozen dataclass with a `run`."""

    @property
    def run(self) -> RunConfig:
        """The run's settings."""
        ...


@dataclass
class Progress:
    """What a resumed run must know beside weights, optimiser and random states."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    processes: int = 1
    commits: list[str] = field(default_factory=list)
    dirty: bool = False

    @property
    def best(self) -> float:
        """Lowest validation score so far."""
        return min(self.scores, default=math.inf)

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.scores) - 1 - self.scores.index(self.best) if self.scores else 0

    def state_dict(self) -> dict[str, Any]:
        """For Accelerate's checkpointing."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """For Accelerate's checkpointing."""
        vars(self).update(state)


class TrainingError(Exception):
    """A run cannot start or go on; the message says why and what to do."""


class Run:
    """A resumable run: devices, seeds, progress bar, logging, checkpoints, Ctrl-C.

    Use as a context manager around building and looping. A run folder holds `run.json` (the
    resolved configuration), `checkpoints/` (the newest resumable state), `best/` and `last/` (model
    folders) and, once finished, `provenance.json`.

    Args:
        cfg: A paper's configuration.
        name: Of the run folder below `runs/`, by default, and of the tracker's project.
    """

    def __init__(self, cfg: Preset, *, name: str) -> None:
        self.cfg = cfg.run
        self.name = name
        self.resolved = config.to_dict(cfg)
        self.options = {option.name: str(option.value) for option in config.options(cfg)}
        self.out = cfg.run.out or Path("runs", name)
        self.progress = Progress()
        self.losses: dict[str, Tensor] = {}
        self.stop_signal = 0

    def __enter__(self) -> Run:
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        self.accelerator = Accelerator(
            cpu=cpu,
            mixed_precision="no" if cpu else self.cfg.precision,
            gradient_accumulation_steps=self.cfg.accumulate,
            log_with=None if self.cfg.tracker == "none" else self.cfg.tracker,
            project_config=ProjectConfiguration(project_dir=str(self.out)),
        )
        distributed.leave_at_exit()
        # cuDNN plans attention anew for every length of text, for up to seconds each (README)
        torch.backends.cuda.enable_cudnn_sdp(False)
        set_seed(self.cfg.seed)
        if self.is_main:
            self._claim_folder()
        self.accelerator.wait_for_everyone()
        self.accelerator.register_for_checkpointing(self.progress)
        self.accelerator.init_trackers(self.name, config=self.options)
        self.record = provenance()
        self.started = time.monotonic()
        self.handlers = {
            s: signal.signal(s, self._request_stop) for s in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        for tracker in self.accelerator.trackers:
            tracker.finish()
        if self.is_main:
            self.lock.release()

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        """Where models and batches live."""
        return self.accelerator.device

    @property
    def finished(self) -> bool:
        """Whether an earlier call completed this run."""
        return (self.out / "provenance.json").is_file()

    def _claim_folder(self) -> None:
        """Lock the folder; write `run.json`, or check that the one there asks for the same run."""
        self.out.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.out / ".lock", blocking=False)  # ends with the process
        try:
            self.lock.acquire()
        except Timeout:
            raise TrainingError(
                f"{self.out} is being trained in by another process; wait for it, or give another "
                "--out"
            ) from None
        path = self.out / "run.json"
        if path.is_file():
            there, here = json.loads(path.read_text()), json.loads(json.dumps(self.resolved))
            changed = [k for k in sorted({*there, *here} - {"run"}) if there.get(k) != here.get(k)]
            kept = ["seed", "data_root", "precision", "accumulate"]
            kept += ["max_epochs"] if self.finished else []
            changed += [k for k in kept if there["run"][k] != here["run"][k]]
            if changed:
                raise TrainingError(
                    f"{self.out} holds a run with other settings ({', '.join(changed)}); give "
                    "another --out, or delete that folder"
                )
        path.write_text(json.dumps(self.resolved, indent=2) + "\n")

    def prepare(
        self, model: M, optimizer: torch.optim.Optimizer
    ) -> tuple[M, torch.optim.Optimizer]:
        """Move to devices, wrap for several processes, and load the newest checkpoint if any.

        Every parameter that requires a gradient must get one in each step: several processes wait
        for each other's gradients.

        Raises:
            TrainingError: If the checkpoint is of another number of processes.
        """
        self.model, self.optimizer = self.accelerator.prepare(channels_last(model), optimizer)
        rank = self.accelerator.process_index
        if rank:  # dropout of its own; a resumed run finds each process's state
            set_seed(self.cfg.seed + rank)
        world = self.progress.processes = self.accelerator.num_processes
        newest = max((self.out / "checkpoints").glob("[0-9]*"), default=None)
        if newest:
            self.accelerator.load_state(str(newest))
            if self.progress.processes != world:  # shares of the batch, draws, local negatives
                raise TrainingError(
                    f"{self.out} was begun with {self.progress.processes} processes, these are "
                    f"{world}; start as many as before, or give another --out"
                )
            self.say(
                f"resuming {self.out} at epoch {self.progress.epoch}, step {self.progress.step}"
            )
        self.progress.dirty |= bool(self.record["dirty"])
        if self.record["commit"] not in self.progress.commits:
            self.progress.commits.append(str(self.record["commit"]))
        return self.model, self.optimizer

    def loader(self, dataset: Dataset[Any], *, batch_size: int) -> DataLoader[Any]:
        """Shuffled training batches; `batch_size` is global, each process gets its share.

        Raises:
            TrainingError: If the batch does not divide among the processes, or the data set is
                smaller than an optimiser step.
        """
        world = self.accelerator.num_processes
        if batch_size % world:
            raise TrainingError(f"batch size {batch_size} does not divide among {world} processes")
        size = len(dataset)  # type: ignore[arg-type]
        if size < batch_size * self.cfg.accumulate:
            raise TrainingError(
                f"{size} training pairs are fewer than one optimiser step of {self.cfg.accumulate} "
                f"x {batch_size}"
            )
        sampler: DistributedSampler[Any] = DistributedSampler(
            dataset,
            num_replicas=world,
            rank=self.accelerator.process_index,
            seed=self.cfg.seed,
            drop_last=True,
        )
        return DataLoader(
            dataset,
            batch_size=batch_size // world,
            sampler=sampler,
            drop_last=True,
            num_workers=self.cfg.workers,
            collate_fn=_identity,
            pin_memory=torch.cuda.is_available(),
            # an iterator draws a seed when it is made: not from the state that dropout uses, or a
            # resumed epoch, which makes one more iterator, would go another way
            generator=torch.Generator(),
        )

    def batches(self, loader: DataLoader[Any]) -> int:
        """Batches of an epoch; an incomplete last group of `accumulate` is dropped."""
        return len(loader) - len(loader) % self.cfg.accumulate

    def epochs(self, most: int, *, patience: int | None = None) -> Iterator[int]:
        """Epoch numbers still to do; ends early after `patience` epochs without a better score."""
        most = min(most, self.cfg.max_epochs or most)
        while self.progress.epoch < most:
            if patience is not None and self.progress.waited >= patience:
                self.say(f"stopped early: no better score for {patience} epochs")
                return
            yield self.progress.epoch

    def steps(self, loader: DataLoader[Any]) -> Iterator[tuple[int, Any]]:
        """The remaining batches of this epoch on the device, with the global step number.

        Saves every `save_every` batches; on Ctrl-C or SIGTERM saves and exits with status 130.
        """
        epoch, done = self.progress.epoch, self.progress.batch
        batches = self.batches(loader)
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        loader.dataset.set_epoch(epoch)  # type: ignore[attr-defined]
        self.bar = tqdm(
            total=batches,
            initial=done,
            desc=f"epoch {epoch}",
            unit="batch",
            disable=not self.is_main,
        )
        self.window = {"images": 0, "wait": 0.0, "since": time.monotonic()}
        source = iter(skip_first_batches(loader, done) if done else loader)
        with self.bar:
            for _ in range(done, batches):
                asked = time.monotonic()
                batch = next(source)
                batch = send_to_device(batch, self.device, non_blocking=True)
                self.window["wait"] += time.monotonic() - asked
                self.window["images"] += len(batch[0]) * self.accelerator.num_processes
                with self.accelerator.accumulate(self.model):
                    yield self.progress.step, batch
                self.progress.step += 1
                self.progress.batch += 1
                self.bar.update()
                self._between_steps(batches)

    def _between_steps(self, batches: int) -> None:
        if not self.accelerator.sync_gradients:  # half an accumulated step cannot be saved
            return
        stop = self.stop_signal
        if distributed.world_size() > 1:  # all processes stop at the same batch
            stop = distributed.largest(stop, self.device)
        if stop or (
            self.progress.batch % self.cfg.save_every == 0 and self.progress.batch < batches
        ):
            self._finite_losses()  # or the last good state would be replaced
            self.save()
        if stop:
            self.say(f"interrupted at step {self.progress.step}; the same command resumes here")
            sys.exit(130)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.stop_signal:
            self.stop_signal, self.asked_at = number, now
        # launchers pass a signal on to processes that have heard it; a second Ctrl-C means now
        elif number == signal.SIGINT and now - self.asked_at > 1:
            raise KeyboardInterrupt

    def set_lr(self, optimizer: torch.optim.Optimizer, lr: float) -> None:
        """Set the learning rate of every parameter group."""
        for group in optimizer.param_groups:
            group["lr"] = lr

    def update(
        self,
        optimizer: torch.optim.Optimizer,
        losses: Mapping[str, Tensor],
        *,
        clip_norm: float | None,
        frozen: Sequence[nn.Module] = (),
    ) -> None:
        """Backward through the sum of the terms, clip, step; logs every `log_every` batches.

        `frozen` modules lose their gradient after the backward pass: no step, no decay.

        Raises:
            TrainingError: If a logged term is not finite; no state is saved from there on.
        """
        loss = torch.stack(list(losses.values())).sum()
        self.accelerator.backward(loss)
        for module in frozen:
            module.zero_grad()
        if clip_norm is not None and self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        self.losses = {name: value.detach() for name, value in losses.items()}
        if self.progress.step % self.cfg.log_every == 0:
            self._log()

    def _finite_losses(self) -> dict[str, float]:
        values = {name: float(value) for name, value in self.losses.items()}
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"loss {bad} is not finite at step {self.progress.step}: {values}; lower the "
                "learning rate, or turn off reduced precision with --precision no, in another --out"
            )
        return values

    def _log(self) -> None:
        values = self._finite_losses()
        passed = max(time.monotonic() - self.window["since"], 1e-9)
        speed, wait = self.window["images"] / passed, self.window["wait"] / passed
        self.bar.set_postfix({**values, "images/s": round(speed), "data wait": f"{wait:.0%}"})
        rates = {"images_per_second": speed, "data_wait_share": wait}
        self.accelerator.log({**values, **rates}, step=self.progress.step)
        self.window = {"images": 0, "wait": 0.0, "since": time.monotonic()}

    def end_epoch(self, score: float, *, name: str = "valid/loss") -> bool:
        """Close an epoch whose validation gave `score` (lower is better); saves.

        Returns:
            Whether it is the best so far, in which case `best/` now holds these weights.
        """
        # each process's own batch normalisation gives it a slightly different score
        score = distributed.from_main(score, self.device)
        if not math.isfinite(score):
            raise TrainingError(
                f"{name} is {score} after epoch {self.progress.epoch}; nothing learnt"
            )
        self.accelerator.log({name: score}, step=self.progress.step)
        better = score < self.progress.best
        self.say(f"epoch {self.progress.epoch}: {name} {score:.4f}{' (best)' if better else ''}")
        self.progress.scores.append(score)
        if better:
            self.export("best")
        self.progress.epoch += 1
        self.progress.batch = 0
        self.save()
        return better

    def export(self, folder: str) -> None:
        """Write the weights as a model folder below the run folder, replacing it atomically."""
        if self.is_main:
            model = self.accelerator.unwrap_model(self.model)
            _replace(self.out / folder, lambda path: model.save_pretrained(path))
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Write a resumable state, then drop the older ones."""
        now = time.monotonic()
        self.progress.seconds += now - self.started
        self.started = now
        folder = self.out / "checkpoints"
        target, part = (
            folder / f"{self.progress.step:08d}",
            folder / f"part-{self.progress.step:08d}",
        )
        self.accelerator.save_state(str(part))
        self.accelerator.wait_for_everyone()
        if self.is_main:
            _swap(part, target)
            for old in folder.iterdir():
                if old != target:
                    shutil.rmtree(old)
        self.accelerator.wait_for_everyone()

    def finish(self, **facts: object) -> None:
        """Write the last weights and the provenance; the run is complete after this."""
        self.export("last")
        self.progress.seconds += time.monotonic() - self.started
        record = {
            **self.record,
            "dirty": self.progress.dirty,
            "commits": self.progress.commits,
            "processes": self.progress.processes,
            "precision": self.accelerator.mixed_precision,
            "steps": self.progress.step,
            "epochs": self.progress.epoch,
            "valid_scores": self.progress.scores,
            "seconds": round(self.progress.seconds, 1),
            "peak_memory_mib": peak_memory(),
            **facts,
        }
        if self.is_main:
            part = self.out / "provenance.json.part"
            part.write_text(json.dumps(record, indent=2) + "\n")
            part.replace(self.out / "provenance.json")
            shutil.rmtree(self.out / "checkpoints", ignore_errors=True)

    def say(self, message: str) -> None:
        """Print one line from the main process, beside a progress bar if there is one."""
        if self.is_main:
            tqdm.write(message, file=sys.stderr)


def channels_last(module: M) -> M:
    """The module, its convolutions' weights laid out with channels last: the faster order."""
    return cast(M, cast(Any, module).to(memory_format=torch.channels_last))


def _identity(batch: Any) -> Any:
    """Data sets here return whole batches (`__getitems__`); nothing is left to collate."""
    return batch


def _replace(target: Path, write: Any) -> None:
    """Call `write` on a fresh folder, then put it in place of `target`."""
    part = target.with_name(f"part-{target.name}")
    shutil.rmtree(part, ignore_errors=True)
    write(part)
    _swap(part, target)


def _swap(part: Path, target: Path) -> None:
    """Put `part` in place of `target`; a kill at any point leaves one of them whole."""
    old = target.with_name(f"part-old-{target.name}")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    part.rename(target)
    shutil.rmtree(old, ignore_errors=True)
