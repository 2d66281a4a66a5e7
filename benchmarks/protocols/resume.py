"""Fits that take days save themselves, and go on from there."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.checkpoint import read_foreign
from common.provenance import git_state

SAVE_SECONDS = 600.0
"""Between two saves, beside those of each look at the validation part."""


class Saved:
    """What a fit has reached, in a file of tensors that is replaced at once.

    Args:
        path: The file; None keeps nothing.
        weights: The net that the fit starts from.
        made_of: Whatever else it depends on, beside the commit; the file of another fit is not
            read.

    Attributes:
        state: As saved last, empty at first.

    Raises:
        CheckpointError: If the file is damaged.
    """

    def __init__(self, path: Path | None, weights: nn.Module, **made_of: Any) -> None:
        self.path, self.state = path, dict[str, Any]()
        if path is None:
            return
        digest = hashlib.sha256(repr((git_state(), sorted(made_of.items()))).encode())
        for name, tensor in weights.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        self.key = digest.hexdigest()
        if path.is_file():
            there = read_foreign(path)
            self.state = there["state"] if there["key"] == self.key else {}

    def save(self, **parts: Any) -> None:
        """Keep these entries, and what was saved before under other names."""
        self.state |= parts
        if self.path is not None:
            whole = self.path.with_name(f"{self.path.name}.part")
            torch.save({"key": self.key, "state": self.state}, whole)
            whole.replace(self.path)


class Resumable:
    """One training that keeps its best weights; begun before, it takes up everything it needs.

    Args:
        net: What is trained.
        optimizer: Of its parameters.
        generator: Whatever the loop draws from, beside torch's own.
        saved: Where it was, under `run`.

    Attributes:
        step: Updates done.
        best: Highest value of a look at the validation part, -1 before the first.
        waited: Looks since that one.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: np.random.Generator,
        saved: Saved,
    ) -> None:
        self.net, self.optimizer, self.generator, self.saved = net, optimizer, generator, saved
        self.step, self.best, self.waited = 0, -1.0, 0
        self.best_state = net.state_dict()
        self.order: NDArray[np.int64] = np.empty(0, np.int64)
        if run := saved.state.get("run"):
            self._restore(run)
        self.saved_at = time.monotonic()

    def rows(self, count: int, size: int) -> NDArray[np.int64]:
        """Indices of the next batch of a shuffled pass, whose incomplete last one is dropped."""
        if len(self.order) < size:
            self.order = self.generator.permutation(count)
        rows, self.order = self.order[:size], self.order[size:]
        return rows

    def updated(self) -> None:
        """Count an update; save once in a while."""
        self.step += 1
        if self.saved.path is not None and time.monotonic() - self.saved_at > SAVE_SECONDS:
            self.save()

    def looked(self, value: float) -> None:
        """Take note of a look at the validation part, and save."""
        self.waited += 1
        if value > self.best:
            self.best, self.waited = float(value), 0
            self.best_state = copy.deepcopy(self.net.state_dict())
        self.save()

    def save(self) -> None:
        """Everything that the next update depends on."""
        if self.saved.path is None:
            return
        self.saved.save(
            run={
                **{"step": self.step, "best": self.best, "waited": self.waited},
                **{"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()},
                **{"best_state": self.best_state, "order": torch.from_numpy(self.order.copy())},
                "generator": json.dumps(self.generator.bit_generator.state),
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all(),
            }
        )
        self.saved_at = time.monotonic()

    def _restore(self, run: dict[str, Any]) -> None:
        self.step, self.best, self.waited = run["step"], run["best"], run["waited"]
        self.net.load_state_dict(run["net"])
        self.optimizer.load_state_dict(run["optimizer"])
        self.best_state, self.order = run["best_state"], run["order"].numpy()
        self.generator.bit_generator.state = json.loads(run["generator"])
        torch.set_rng_state(run["torch"])
        torch.cuda.set_rng_state_all(run["cuda"])
