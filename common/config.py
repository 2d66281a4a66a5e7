"""Hyperparameters with their sources: `cite`, presets, command line, JSON, generated tables."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import tyro

C = TypeVar("C")
_SAME = object()
"""Marks an option whose released value is the paper's."""


def cite(
    default: Any,
    *,
    paper: str | None = None,
    code: str | None = None,
    note: str | None = None,
    ledger: str | None = None,
    released: Any = _SAME,
) -> Any:
    """A dataclass field that carries where its number comes from.

    Args:
        default: The PAPER value.
        paper: Section, equation or table that prints it.
        code: File and key in the authors' released code.
        note: Why we chose it, when neither says.
        ledger: Id of the point where paper and released code differ or the paper is silent.
        released: The value in the authors' code, where it differs.

    Raises:
        TypeError: If no source is given.
    """
    if not (paper or code or note):
        raise TypeError("cite() needs paper=, code= or note=")
    source = {"paper": paper, "code": code, "note": note, "ledger": ledger}
    if released is not _SAME:
        source["released"] = released
    return dataclasses.field(default=default, metadata={"cite": source})


def released(config: C) -> C:
    """`config` with every field that carries a released value set to it."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = released(value)
        elif "released" in field.metadata.get("cite", {}):
            changes[field.name] = field.metadata["cite"]["released"]
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def parse(
    presets: Mapping[str, C], args: Sequence[str] | None = None, *, prog: str | None = None
) -> C:
    """The configuration a command line asks for: an optional preset name, then flags.

    An unknown preset or a misspelt flag ends the program with status 2 and says what there is.
    """
    words = list(sys.argv[1:] if args is None else args)
    name = words.pop(0) if words and not words[0].startswith("-") else next(iter(presets))
    if name not in presets:
        sys.exit(_usage(f"unknown preset {name!r}; choose one of: {', '.join(presets)}"))
    default = presets[name]
    description = f"Presets: {', '.join(presets)} (the first is the default). Shown: {name}."
    return tyro.cli(type(default), default=default, args=words, prog=prog, description=description)


def _usage(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 2


def to_dict(config: Any) -> dict[str, Any]:
    """A nested dataclass as JSON-ready values."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Path):
            return value.as_posix()
        return list(value) if isinstance(value, tuple) else value

    return plain(config)


def from_dict(kind: type[C], values: Mapping[str, Any]) -> C:
    """The inverse of `to_dict`.

    Raises:
        ValueError: If a key is not a field of `kind` (a misspelt or newer option).
    """
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{kind.__name__} has no option {unknown}; it has {sorted(hints)}")

    def restore(hint: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
            return from_dict(hint, value)  # type: ignore[arg-type]
        choices = get_args(hint) or (hint,)
        if value is not None and any(get_origin(c) is tuple for c in (*choices, hint)):
            return tuple(value)
        if value is not None and Path in choices:
            return Path(value)
        return value

    return kind(**{name: restore(hints[name], value) for name, value in values.items()})


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where and how a run happens; nothing here is a paper's hyperparameter."""

    data_root: Path = Path("data/phantom-small")
    """Folder that holds the corpora."""
    out: Path | None = None
    """Run folder; by default runs/<paper>. The same command again resumes it."""
    seed: int = 0
    """Seed of initial weights, data order, crops and dropout."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast precision on an accelerator; the CPU always computes in float32."""
    accumulate: int = 1
    """Batches per optimiser step; does not enlarge the set of negatives."""
    workers: int = 0
    """Processes that load data; prepared images rarely need any."""
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    """Where the loss terms are logged."""
    log_every: int = 10
    """Batches between two log entries."""
    save_every: int = 200
    """Batches between two checkpoints inside an epoch."""
    max_epochs: int | None = None
    """Stop earlier than the paper does, to try things out."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One leaf of a configuration, with its source."""

    name: str
    value: Any
    cite: Mapping[str, Any]
    about: str


def options(config: Any, prefix: str = "") -> Iterator[Option]:
    """Every leaf of a nested configuration, depth first, in order of declaration."""
    about = _attribute_docstrings(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from options(value, f"{name}.")
        else:
            yield Option(name, value, field.metadata.get("cite", {}), about.get(field.name, ""))


def _attribute_docstrings(kind: type) -> dict[str, str]:
    """The string literal under each field: the one home of an option's help text."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body[0]
    found, name = {}, None
    for node in body.body if isinstance(body, ast.ClassDef) else []:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and name:
            found[name], name = " ".join(str(node.value.value).split()), None
    return found


def hyperparameter_table(presets: Mapping[str, Any]) -> str:
    """The card's table: every cited option, its value in each preset, and its source."""
    rows = [
        f"| option | {' | '.join(presets)} | source | meaning |",
        "|---" * (len(presets) + 3) + "|",
    ]
    leaves = {name: {o.name: o for o in options(preset)} for name, preset in presets.items()}
    for name, option in next(iter(leaves.values())).items():
        if option.cite:
            values = " | ".join(f"`{_show(leaf[name].value)}`" for leaf in leaves.values())
            rows.append(f"| `{name}` | {values} | {source(option)} | {option.about} |")
    return "\n".join(rows)


def ledger_table(configs: Mapping[str, Any], decisions: Mapping[str, str]) -> str:
    """The card's ledger: one row a point, either the options that select it or the decision taken.

    Args:
        configs: Configurations by the prefix of their options; "" for the paper's own.
        decisions: Points without an option, in words.

    Raises:
        ValueError: If a point has both an option and a written decision.
    """
    rows: dict[str, list[str]] = {}
    for prefix, preset in configs.items():
        for option in options(preset, f"{prefix}." if prefix else ""):
            for key in (option.cite.get("ledger") or "").split():
                theirs = option.cite.get("released", option.value)
                rows.setdefault(key, []).append(
                    f"| {key} | `{option.name}` | `{_show(option.value)}` | `{_show(theirs)}` "
                    f"| {option.about} ({source(option)}) |"
                )
    both = sorted(set(rows) & set(decisions))
    if both:
        raise ValueError(f"{both} have an option and a written decision; keep one")
    for key, text in decisions.items():
        rows[key] = [f"| {key} | – | – | – | {text} |"]
    lines = [
        "| point | option | PAPER (default) | RELEASED | meaning (source) |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(lines + [line for key in sorted(rows) for line in rows[key]])


def source(option: Option) -> str:
    """Where an option's number comes from, in one phrase."""
    labels = {"paper": "paper", "code": "code", "note": "ours"}
    return "; ".join(
        f"{label}: {option.cite[key]}" for key, label in labels.items() if option.cite.get(key)
    )


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
