"""Results beside published numbers, as Markdown: `python -m benchmarks.render [--check]`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.core import (
    HERE,
    Column,
    Row,
    Table,
    evaluation,
    evaluations,
    load_results,
    published_values,
)
from benchmarks.tables import TABLES
from common.metrics import mean_std

COMMITTED = HERE / "results"
PAGE = COMMITTED / "README.md"
README = HERE.parent / "README.md"
SPEED = COMMITTED / "speed.json"
"""Written by `benchmarks.speed.presets --out`."""
FIRST = "mgca-table1"
"""The table that the README shows, with seed 0 as its first command prints it."""
UNITS = {
    "%": (100.0, 1),
    "fraction": (1.0, 2),
    "ratio": (1.0, 3),
    "images": (1.0, 0),
    "M": (1e-6, 1),
}
"""Factor and decimals of rendered values."""
PHANTOM = (
    "**Corpus: phantom** (synthetic radiographs and reports). Phantom numbers say whether the code "
    "learns; they are not comparable with the published ones."
)


def values_of(
    row: Row, column: Column, results: Path, seeds: Sequence[int]
) -> tuple[list[float], str]:
    """A cell's measured values over seeds, and why there are none."""
    model = row.model_for(column)
    if model is None:
        return [], row.why_not_run or ""
    records = load_results(results, evaluation(model, column), seeds)
    values = [
        cell["value"]
        for record in records
        for cell in record.get("cells", [])
        if (cell["dataset"], cell["metric"], cell["label_fraction"]) == column.cell
    ]
    reasons = [record["not_run"] for record in records if "not_run" in record]
    return values, reasons[0] if reasons else _lacking(records)


def _lacking(records: list[dict[str, Any]]) -> str:
    """Why results that ran hold no value for a cell."""
    labels = {x for r in records for x in r["details"].get("labels_without_auroc", [])}
    if labels:
        return f"the test part lacks a class of {', '.join(sorted(labels))}"
    return "it has no such value" if records else "no result yet"


def render(table: Table, results: Path, seeds: Sequence[int]) -> str:
    """A table as Markdown: the published block, the measured block, footnotes, provenance.

    On real data a third block holds the differences. Dirty results are refused there.
    """
    records = [r for job in evaluations(table) for r in load_results(results, job, seeds)]
    corpora = sorted({record["corpus"] for record in records})
    if len(corpora) > 1:
        raise ValueError(f"{table.id}: results of {corpora} in one table")
    corpus = corpora[0] if corpora else "phantom"
    dirty = [r["model"] for r in records if r["dirty"] or (r.get("pretraining") or {}).get("dirty")]
    if corpus == "real" and dirty:
        raise ValueError(
            f"{table.id}: results of {sorted(set(dirty))} come from uncommitted code; "
            "commit and rerun"
        )
    published = published_values(table)
    blocks: list[tuple[str, list[list[str]]]] = [
        ("published", []),
        (corpus, []),
        ("difference", []),
    ]
    reasons: dict[str, str] = {}
    for row in table.rows:
        cells: list[list[str]] = [[], [], []]
        for column in table.columns:
            scale, digits = UNITS[column.unit or table.unit]
            printed = published.get((row.name, column))
            values, reason = values_of(row, column, results, seeds)
            cells[0].append("" if printed is None else printed.text)
            cells[1].append(
                _measured([v * scale for v in values], digits, len(seeds)) if values else "–"
            )
            cells[2].append(
                f"{mean_std(values)[0] * scale - printed.value:+.{digits}f}"
                if printed is not None and values
                else ""
            )
            if not values:
                reasons[row.name] = reason
        for (_, rows), found in zip(blocks, cells, strict=True):
            rows.append([row.name, *found])
    shown = {"published": table.published is not None, "difference": corpus == "real"}
    lines = [f"### {table.title} ({table.unit})", ""]
    if corpus == "phantom":
        lines += [PHANTOM, ""]
    for title, rows in blocks:
        lines += [] if not shown.get(title, True) else [*_grid(title, table, rows), ""]
    lines += [f"- {note}" for note in table.footnotes]
    if any("±" in cell for _, *row in blocks[1][1] for cell in row):
        lines.append(
            "- ±: sample deviation over the seeds named below, or as many as stand in brackets; a "
            "cell without it has one seed."
        )
    partly = {row[0] for row in blocks[1][1] if set(row[1:]) != {"–"}}
    lines += [
        f"- {name}: {'in part ' if name in partly else ''}not run: {reason}."
        for name, reason in reasons.items()
    ]
    return "\n".join(lines + _origin(records)) + "\n"


def _measured(values: list[float], digits: int, wanted: int) -> str:
    """Mean, and over several seeds its deviation; their number where it is not `wanted`."""
    mean, deviation = mean_std(values)
    number = f" ({len(values)})" if len(values) < wanted else ""
    spread = f" ± {deviation:.{digits}f}{number}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def _grid(title: str, table: Table, rows: list[list[str]]) -> list[str]:
    """Aligned Markdown; wide tables are cut into groups of six columns."""
    lines: list[str] = []
    for start in range(0, len(table.columns), 6):
        header = [title, *(c.title for c in table.columns[start : start + 6])]
        body = [[row[0], *row[1 + start : 7 + start]] for row in rows]
        lines += [*_aligned(header, body), ""]
    return lines[:-1]


def _aligned(header: list[str], body: list[list[str]]) -> list[str]:
    """A Markdown table whose columns line up as plain text, too."""
    widths = [max(len(line[k]) for line in (header, *body)) for k in range(len(header))]
    grid = [header, ["-" * w for w in widths], *body]
    return [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in grid
    ]


def speed_table(path: Path) -> str:
    """What `benchmarks.speed.presets` measured: images a second and memory by precision."""
    records = json.loads(path.read_text())
    arms = list(dict.fromkeys(r["arm"] for r in records))
    found = {(r["model"], r["arm"]): r for r in records}
    sizes = {r["model"]: str(r["batch_size"]) for r in records if "batch_size" in r}
    body = [
        [model, sizes.get(model, "–"), *(_speed(found.get((model, arm))) for arm in arms)]
        for model in dict.fromkeys(r["model"] for r in records)
    ]
    made = {
        (r["hardware"], r["packages"]["torch"], r["commit"][:12] + " and changes" * r["dirty"])
        for r in records
        if "hardware" in r
    }
    lines = _aligned(["PAPER preset", "batch", *arms], body)
    origin = "; ".join(f"{card}, torch {torch}, commit {commit}" for card, torch, commit in made)
    return "\n".join([*lines, "", f"Images a second, and peak memory: {origin}."]) + "\n"


def _speed(record: dict[str, Any] | None) -> str:
    """One cell."""
    if record is None:
        return "–"
    if "failed" in record:
        return str(record["failed"])
    return f"{record['images_per_second']:.0f}, {record['peak_memory_mib'] / 1024:.1f} GiB"


def _origin(records: list[dict[str, Any]]) -> list[str]:
    """The provenance of a table's results in a few lines."""
    if not records:
        return []
    measured = [r for r in records if "cells" in r]
    trained = [r for r in measured if r.get("pretraining")]
    fields = {
        "seeds": {str(r["seed"]) for r in records},
        "protocols": {r["protocol"] for r in measured},
        "commit": {
            r["commit"][:12] + (" with local changes" if r["dirty"] else "") for r in records
        },
        "commit of pre-training, where it is another": {
            f"{r['model']} {', '.join(commit[:12] for commit in commits)}"
            for r in trained
            if (commits := commits_of(r["pretraining"])) != [r["commit"]]
        },
        "hardware": {r["hardware"] for r in records},
        "hardware of pre-training, where it is another": {
            f"{r['model']} {r['pretraining']['hardware']}"
            for r in trained
            if r["pretraining"]["hardware"] != r["hardware"]
        },
        "pre-training": {_cost(r["model"], r["pretraining"]) for r in trained},
    }
    fields["test images seen in pre-training"] = {
        f"{r['model']} {n} of {r['cells'][0]['dataset']}"
        for r in trained
        if (n := r["pretraining"].get("test_images_seen"))
    }
    fields["other settings"] = {
        f"{r['model']}: {r['other_settings']}" for r in records if r.get("other_settings")
    }
    fields = {name: values for name, values in fields.items() if values}
    splits = {name: facts for r in measured for name, facts in r["splits"].items()}
    lines = ["- " + "; ".join(f"{k}: {', '.join(sorted(v))}" for k, v in fields.items()) + "."]
    return lines + [f"- {_split_line(name, facts)}" for name, facts in sorted(splits.items())]


def commits_of(run: dict[str, Any]) -> list[str]:
    """Those that a run was trained at, in their order."""
    return run.get("commits", [run["commit"]])


def _cost(model: str, run: dict[str, Any]) -> str:
    """Minutes, precision, images a second with validation, memory if recorded, and processes."""
    rate = run["pairs"] * run["epochs"] / run["seconds"]
    memory = f", {run['peak_memory_mib']} MiB" if "peak_memory_mib" in run else ""
    several = f", {run['processes']} processes" if run["processes"] > 1 else ""
    precision = {"no": "float32"}.get(run["precision"], run["precision"])
    speed = f"{precision}, {rate:.0f} images/s"
    return f"{model} {run['seconds'] / 60:.1f} min ({speed}{memory}{several})"


def _split_line(name: str, facts: dict[str, Any]) -> str:
    """A split's sizes, hash and overlaps."""
    sizes = ", ".join(f"{n} {part}" for part, n in facts["images"].items())
    shared = "; ".join(
        f"{pair} share {n['images']} images, {n['patients']} patients"
        for pair, n in facts["shared"].items()
    )
    digest = facts["sha256"]["total"][:12]
    shared = shared or "no image and no known patient shared"
    return f"Split {name}: {sizes}; sha256 {digest}; {shared}."


def page() -> str:
    """Every table with committed results, as one Markdown page."""
    parts = [
        "# Results\n\nRendered by `make tables` from the JSON files below this folder; "
        "neither is edited by hand.\n"
    ]
    for corpus in sorted(path.name for path in COMMITTED.iterdir() if path.is_dir()):
        found = {int(p.stem.rpartition("seed")[2]) for p in (COMMITTED / corpus).glob("*/*.json")}
        folder, seeds = COMMITTED / corpus, sorted(found)
        texts = [
            render(table, folder, seeds)
            for table in TABLES.values()
            if table.folder(corpus.partition("-")[0]) == corpus
            and any(load_results(folder, job, seeds) for job in evaluations(table))
        ]
        parts += ["\n".join(map(_contents_line, texts)) + "\n", *texts]
    return "\n".join(parts)


def _contents_line(text: str) -> str:
    """A link to a table, by the anchor that GitHub gives its heading."""
    title = text.splitlines()[0].removeprefix("### ")
    kept = re.sub(r"[^\w\- ]", "", title.lower())
    return f"- [{title}](#{kept.replace(' ', '-')})"


def with_tables(readme: str) -> str:
    """The top README with what its first command and `make compare` print, and speeds."""
    texts = {
        place: render(TABLES[name], COMMITTED / "phantom", [0]).partition("\n\n")[2]
        for place, name in (("first-table", FIRST), ("compare", "compare"))
    }
    for place, table in {**texts, "speed": speed_table(SPEED)}.items():
        head, _, rest = readme.partition(f"<!-- {place} -->\n")
        readme = f"{head}<!-- {place} -->\n{table}{rest[rest.index(f'<!-- /{place} -->') :]}"
    return readme


def main() -> None:
    """Write the page, or with `--check` fail when it differs."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text() != text or with_tables(README.read_text()) != README.read_text():
            sys.exit(
                "README.md or benchmarks/results/README.md differ from their results; make tables"
            )
        return
    PAGE.write_text(text)
    README.write_text(with_tables(README.read_text()))
    print(text)


if __name__ == "__main__":
    main()
