"""Presets, the command line, JSON, and the generated tables."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from common.config import (
    cite,
    from_dict,
    hyperparameter_table,
    ledger_table,
    options,
    parse,
    released,
    to_dict,
)


@dataclass(frozen=True)
class Inner:
    rate: float = cite(0.5, paper="Sec. 1", released=0.25, ledger="X1")
    """A rate."""


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    size: int = cite(3, note="ours")
    """A size."""
    shape: tuple[int, ...] | None = cite(None, note="ours")
    """A shape."""
    folder: Path = cite(Path("x"), note="ours")
    """A folder."""


PRESETS = {"paper": Outer(), "released": released(Outer()), "tiny": replace(Outer(), size=1)}


def test_released_changes_only_what_carries_a_value() -> None:
    assert PRESETS["released"] == Outer(inner=Inner(rate=0.25))


def test_a_number_without_a_source_is_refused() -> None:
    with pytest.raises(TypeError, match="paper="):
        cite(1)


def test_first_word_names_the_preset() -> None:
    assert parse(PRESETS, ["tiny", "--inner.rate", "0.1"]) == Outer(inner=Inner(rate=0.1), size=1)
    assert parse(PRESETS, ["--size", "9"]) == Outer(size=9)


@pytest.mark.parametrize("words", [["papr"], ["paper", "--inner.rat", "1"], ["--size", "many"]])
def test_misspelt_words_end_with_status_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(PRESETS, words)
    assert stop.value.code == 2
    assert capsys.readouterr().err


def test_json_round_trip() -> None:
    config = replace(Outer(), shape=(1, 2), folder=Path("a/b"))
    assert from_dict(Outer, to_dict(config)) == config


def test_unknown_json_keys_are_named() -> None:
    with pytest.raises(ValueError, match="sise"):
        from_dict(Outer, {"sise": 1})


def test_tables_show_values_sources_and_meanings() -> None:
    table = hyperparameter_table(PRESETS)
    assert "| `inner.rate` | `0.5` | `0.25` | `0.5` | paper: Sec. 1 | A rate. |" in table
    ledger = ledger_table({"": Outer()}, {"X2": "Decided."})
    assert "| X1 | `inner.rate` | `0.5` | `0.25` |" in ledger
    assert "| X2 | – | – | – | Decided. |" in ledger
    with pytest.raises(ValueError, match="X1"):
        ledger_table({"": Outer()}, {"X1": "Again."})


def test_options_read_their_docstrings() -> None:
    assert {o.name: o.about for o in options(Outer())}["size"] == "A size."
