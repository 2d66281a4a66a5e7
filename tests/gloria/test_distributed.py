"""Two processes against one: losses and gradients, for both kinds of negatives."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).with_name("two_processes.py")


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("two_processes", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_processes_give_the_loss_and_gradient_of_one(tmp_path: Path) -> None:
    """Global negatives equal one process on the joined batch; local ones the mean of the halves."""
    out = tmp_path / "found.pt"
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", str(SCRIPT), str(out)),
        ],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    found = torch.load(out, weights_only=True)  # noqa: TID251
    module = script()
    whole = module.loss_and_gradients(module.Towers(), "global", slice(0, 6))
    halves = [
        module.loss_and_gradients(module.Towers(), "local", rows)
        for rows in (slice(0, 3), slice(3, 6))
    ]
    mean = {name: (halves[0][name] + halves[1][name]) / 2 for name in whole}
    torch.testing.assert_close(found["global"], whole)
    torch.testing.assert_close(found["local"], mean)
    assert not torch.isclose(whole["loss"], mean["loss"])
