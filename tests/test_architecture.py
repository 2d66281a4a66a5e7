"""The house rules that a parser can check: imports, file names, sources of numbers, sizes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.cards import CARDS
from common.config import options

ROOT = Path(__file__).parents[1]
PAPERS = sorted(path.parent.name for path in ROOT.glob("*/pretrain.py"))
LIBRARIES = {"datasets", "tokenizers", "accelerate", "transformers", "timm", "torch", "numpy"}
VAGUE = {"utils", "helpers", "misc", "base"}
FILES = sorted(p for top in (*PAPERS, "common", "benchmarks") for p in (ROOT / top).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def identity(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_imports_run_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    found = {name.partition(".")[0] for name in imports(path)}
    if package == "common":
        # the phantom's vocabulary and preset are data of common; papers are unknown to it
        assert not found & {*PAPERS, "benchmarks"}
    elif package in PAPERS:
        assert not found & {*(p for p in PAPERS if p != package), "benchmarks"}
    assert not any(name.endswith(".pretrain") for name in imports(path))


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_file_names_shadow_nothing(path: Path) -> None:
    """A script's own folder is first on sys.path: `datasets.py` there would hide the library."""
    assert path.stem not in VAGUE
    if path.relative_to(ROOT).parts[0] in PAPERS:
        assert path.stem not in LIBRARIES | set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_torch_distributed_has_one_user() -> None:
    users = [p for p in FILES if any(n.startswith("torch.distributed") for n in imports(p))]
    assert users == [ROOT / "common" / "distributed.py"]


@pytest.mark.parametrize("paper", CARDS)
def test_every_number_has_a_source(paper: str) -> None:
    preset = next(iter(CARDS[paper].presets.values()))
    bare = [o.name for o in options(preset) if not o.cite and not o.name.startswith("run.")]
    assert not bare


@pytest.mark.parametrize("paper", CARDS)
def test_every_option_says_what_it_means(paper: str) -> None:
    preset = next(iter(CARDS[paper].presets.values()))
    assert not [o.name for o in options(preset) if not o.about]


POINTS = {
    "imitate": {f"A{k}" for k in range(1, 18)}
    | {f"B{k}" for k in range(1, 22)}
    | {f"C{k}" for k in range(1, 14)}
    | {f"D{k}" for k in range(1, 12)}
    | {f"E{k}" for k in range(1, 11)}
    | {"F1", "F2"},
    "lrclr": {f"L{k:02d}" for k in range(1, 33)},
    "gloria": {f"G{k:02d}" for k in range(1, 71)},
    "mgca": {f"D{k:02d}" for k in range(1, 55)},
    "maco": {"V1", "L1b", "L3b", "Z1", "B1", "T1", "T2", "C2b", "S6b", "D8b", "G3b", "O9"}
    | {f"A{k}" for k in range(1, 16)}
    | {f"L{k}" for k in range(1, 12)}
    | {f"D{k}" for k in range(1, 9)}
    | {f"O{k}" for k in range(1, 9)}
    | {f"C{k}" for k in range(1, 11)}
    | {f"S{k}" for k in range(1, 8)}
    | {f"G{k}" for k in range(1, 13)},
}


@pytest.mark.parametrize("paper", POINTS)
def test_every_ledger_point_is_settled(paper: str) -> None:
    """Each point of a paper's ledger is an option or a written decision."""
    card = CARDS[paper]
    configs = [next(iter(card.presets.values())), *card.protocols.values()]
    chosen = {
        key for c in configs for o in options(c) for key in (o.cite.get("ledger") or "").split()
    }
    assert chosen | set(card.decisions) == POINTS[paper]


def test_the_repository_speaks_of_the_project_alone() -> None:
    for path in [*FILES, ROOT / "README.md", ROOT / "Makefile"]:
        assert "/work/" not in path.read_text(), path
