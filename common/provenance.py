"""Where a number comes from: code, versions, hardware, command, time."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
RECORDED = "benchmarks/results"
"""Folder of committed results."""
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "open-clip-torch",
    "transformers",
    "accelerate",
    "datasets",
    "numpy",
    "scikit-learn",
)


def git_state(root: Path = ROOT) -> dict[str, object]:
    """The commit, and whether tracked files differ from it; `unknown` outside a checkout.

    Recorded results are what runs write, not what they run: they do not count.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        pathspec = ("--", ".", f":!{RECORDED}")
        dirty = bool(_git(root, "status", "--porcelain", "--untracked-files=no", *pathspec))
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": True}
    return {"commit": commit, "dirty": dirty}


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def hardware() -> str:
    """The accelerator, or the processor with the number of threads in use."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    return f"{processor()}, {torch.get_num_threads()} threads of {os.cpu_count()} cores"


def peak_memory() -> int:
    """Most memory that this process has held, MiB: the accelerator's, else the machine's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def processor() -> str:
    """The processor's model name as the system prints it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def command_line() -> str:
    """The command as typed, with the script's path below the project's root."""
    script = Path(sys.argv[0]).resolve()
    name = script.relative_to(ROOT).as_posix() if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", name, *sys.argv[1:]])


def provenance() -> dict[str, object]:
    """Everything above, for the record beside a run or a result."""
    return {
        **git_state(),
        "command": command_line(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "hardware": hardware(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
