"""Write the phantom corpus: plan the pictures, draw them in parallel, then the tables."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm.auto import tqdm

from common.data.phantom import (
    write_chexpert,
    write_covidx,
    write_mimic,
    write_ms_cxr,
    write_nih,
    write_object_cxr,
    write_open_i,
    write_rsna,
    write_siim,
)
from common.data.phantom.disk import (
    Picture,
    Result,
    encode,
    run_lengths,
    write_notice,
    write_whole,
)
from common.data.phantom.render import render
from common.data.phantom.world import another_view, draw_study

SIZES: Mapping[str, tuple[int, int]] = {
    "ci": (48, 12),
    "small": (3000, 1000),
    "bench": (8000, 2000),
}
"""Training and held-out studies."""
DATASETS = (
    *("chexpert", "mimic", "rsna", "open_i", "covidx", "siim", "object_cxr", "nih", "ms_cxr"),
)
PIXELS = 256
CHUNK = 24
SEED_STEP = 1000


@dataclass(frozen=True)
class Layout:
    """How one data set is written.

    Attributes:
        offset: Added to `seed * SEED_STEP`, so that no two data sets show the same studies.
        plan: Pictures for a seed and the counts of `SIZES`.
        finish: Writes the tables once every picture is on disk.
        source: Data set whose pictures it annotates, with that one's offset; none are drawn then.
    """

    offset: int
    plan: Callable[[int, int, int], list[Picture]]
    finish: Callable[[Path, Sequence[Picture], Mapping[str, Result]], None]
    source: str = ""


LAYOUTS: Mapping[str, Layout] = {
    "chexpert": Layout(1, write_chexpert.plan_small, write_chexpert.finish_small),
    "mimic": Layout(2, write_mimic.plan, write_mimic.finish),
    "rsna": Layout(3, write_rsna.plan, write_rsna.finish),
    "open_i": Layout(4, write_open_i.plan, write_open_i.finish),
    "covidx": Layout(8, write_covidx.plan, write_covidx.finish),
    "siim": Layout(9, write_siim.plan, write_siim.finish),
    "object_cxr": Layout(10, write_object_cxr.plan, write_object_cxr.finish),
    "nih": Layout(11, write_nih.plan, write_nih.finish),
    "nih-folders": Layout(12, write_nih.plan_folders, write_nih.finish_folders),
    "ms_cxr": Layout(2, write_ms_cxr.plan, write_ms_cxr.finish, source="mimic"),
    "chexpert-full": Layout(5, write_chexpert.plan_full, write_chexpert.finish_full),
    "chexpert-aimi": Layout(6, write_chexpert.plan_aimi, write_chexpert.finish_aimi),
    "chexpert_test": Layout(7, write_chexpert.plan_test, write_chexpert.finish_test),
}


def write_corpus(
    out: Path, *, size: str, datasets: Sequence[str] = DATASETS, seed: int = 0, workers: int = 2
) -> dict[str, int]:
    """Write data sets in their own layouts below `out`; goes on where a killed run stopped.

    Args:
        out: Corpus root, which doubles as a data root of the loaders.
        size: A name of `SIZES`.
        datasets: Names of `LAYOUTS`.
        seed: Another seed gives other studies throughout.
        workers: Processes; 1 draws in this one.

    Returns:
        Images by data set.

    Raises:
        ValueError: If a name is unknown, `out` holds a corpus of another size or seed, or a data
            set's pictures are another's that is not written.
    """
    unknown = [name for name in datasets if name not in LAYOUTS]
    if unknown or size not in SIZES:
        raise ValueError(
            f"unknown {unknown or size!r}; choose data sets from {', '.join(LAYOUTS)} and a size "
            f"from {', '.join(SIZES)}"
        )
    for name in datasets:
        source = LAYOUTS[name].source
        if source and source not in datasets and not _world(out, source).is_file():
            raise ValueError(f"{name} annotates the pictures of {source}: write {source} too")
    settings = {"size": size, "seed": seed, "corpus": "phantom-v1"}
    _claim(out, settings)
    plans: dict[str, list[Picture]] = {}
    for name in datasets:
        layout = LAYOUTS[name]
        plans[name] = layout.plan(seed * SEED_STEP + layout.offset, *SIZES[size])
    open_plans = {name: p for name, p in plans.items() if not _world(out, name).is_file()}
    drawn = {name: p for name, p in open_plans.items() if not LAYOUTS[name].source}
    _draw_all(out, drawn, workers)
    for name, pictures in {**drawn, **open_plans}.items():  # annotations after their pictures
        source = LAYOUTS[name].source
        results = _results_of(out, source) if source else _collect(out, name, pictures)
        LAYOUTS[name].finish(out, pictures, results)
        _write_world(out, name, pictures, results)
        shutil.rmtree(_parts(out, name), ignore_errors=True)
    return {name: len(pictures) for name, pictures in plans.items()}


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Refuse to mix two corpora in one folder."""
    path = out / "phantom.json"
    if path.is_file():
        found = json.loads(path.read_text())
        if found != settings:
            raise ValueError(
                f"{out} holds a phantom corpus of {found}, not {settings}; choose another folder"
            )
        return
    write_whole(path, (json.dumps(settings) + "\n").encode())
    write_notice(out)


def _world(out: Path, dataset: str) -> Path:
    return out / "world" / f"{dataset}.jsonl"


def _parts(out: Path, dataset: str) -> Path:
    return out / "world" / f"{dataset}.parts"


def _chunks(
    out: Path, name: str, pictures: Sequence[Picture]
) -> Iterator[tuple[Path, Sequence[Picture]]]:
    """Groups of pictures with the file that says they are done."""
    for start in range(0, len(pictures), CHUNK):
        yield _parts(out, name) / f"{start:06d}.json", pictures[start : start + CHUNK]


def _draw_all(out: Path, plans: Mapping[str, list[Picture]], workers: int) -> None:
    """Draw what is not on disk yet."""
    jobs = [job for name, pictures in plans.items() for job in _chunks(out, name, pictures)]
    todo = [job for job in jobs if not job[0].is_file()]
    with tqdm(
        total=sum(len(p) for _, p in jobs), unit="image", desc="phantom", disable=None
    ) as bar:
        bar.update(bar.total - sum(len(p) for _, p in todo))
        if workers <= 1:
            for part, pictures in todo:
                bar.update(_draw_chunk(out, part, pictures))
            return
        with ProcessPoolExecutor(workers, initializer=_one_thread) as pool:
            for job in as_completed([pool.submit(_draw_chunk, out, *job) for job in todo]):
                bar.update(job.result())


def _one_thread() -> None:
    """Processes already fill the cores; OpenCV's own threads would only contend."""
    cv2.setNumThreads(1)


def _draw_chunk(out: Path, part: Path, pictures: Sequence[Picture]) -> int:
    """Write a group of pictures, then the file that says so; returns how many."""
    results: dict[str, Result] = {}
    for picture in pictures:
        drawn = render(picture.study, size=PIXELS)
        write_whole(out / picture.path, encode(picture, drawn.image))
        height, width = drawn.image.shape
        results[picture.image_id] = {
            "boxes": dict(drawn.boxes),
            "rles": {label: run_lengths(mask) for label, mask in drawn.masks.items()},
            "width": width,
            "height": height,
        }
    write_whole(part, json.dumps(results).encode())
    return len(pictures)


def _collect(out: Path, name: str, pictures: Sequence[Picture]) -> dict[str, Result]:
    results: dict[str, Result] = {}
    for part, _ in _chunks(out, name, pictures):
        results |= json.loads(part.read_text())
    return results


def _results_of(out: Path, name: str) -> dict[str, Result]:
    """What drawing a finished data set told."""
    lines = map(json.loads, _world(out, name).read_text().splitlines())
    kept = ("boxes", "rles", "width", "height")
    return {line["image_id"]: {key: line[key] for key in kept} for line in lines}


def _write_world(
    out: Path, name: str, pictures: Sequence[Picture], results: Mapping[str, Result]
) -> None:
    """One JSON line an image: what the files of this data set were made from."""
    lines = []
    for picture in pictures:
        study = picture.study
        line = {
            "dataset": name,
            "image_id": picture.image_id,
            "path": picture.path,
            "encoding": picture.encoding,
            "index": study.index,
            "patient": study.patient,
            "number": study.number,
            "sex": study.sex,
            "age": study.age,
            "view": study.view,
            "truth": dict(study.truth),
            "mentions": {k: None if math.isnan(v) else v for k, v in study.mentions.items()},
            "findings": [asdict(finding) for finding in study.findings],
            "decoys": list(study.decoys),
            "sections": dict(study.sections),
            "quirk": study.quirk,
            "extra": dict(picture.extra),
            **results[picture.image_id],
        }
        lines.append(json.dumps(line) + "\n")
    write_whole(_world(out, name), "".join(lines).encode())


def contact_sheet(out: Path, path: Path) -> Path:
    """A grid of varied studies with their impressions, as PNG at `path`.

    Args:
        out: A corpus; its seed is used, or 0 where there is none yet.
        path: File to write.
    """
    settings = out / "phantom.json"
    seed = json.loads(settings.read_text())["seed"] if settings.is_file() else 0
    columns, rows, text = 8, 4, 64
    sheet = np.full((rows * (PIXELS + text), columns * (PIXELS + 4)), 255, np.uint8)
    sites = [name for name in DATASETS if not LAYOUTS[name].source]
    for n in range(columns * rows):
        site = sites[n % len(sites)]
        study = draw_study(seed * SEED_STEP + LAYOUTS[site].offset, n, site=site)
        if n % 11 == 10:
            study = another_view(study, "LATERAL")
        image = render(study, size=PIXELS).image
        top, left = n // columns * (PIXELS + text), n % columns * (PIXELS + 4)
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        _caption(
            sheet, f"{site} {study.view}: {study.sections['impression']}", (left, top + PIXELS)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet)
    return path


def _caption(sheet: np.ndarray, text: str, corner: tuple[int, int]) -> None:
    """Black text on white, wrapped to the width of a tile."""
    for line, piece in enumerate(textwrap.wrap(text, 46)[:5]):
        place = (corner[0] + 2, corner[1] + 11 + 12 * line)
        cv2.putText(sheet, piece, place, cv2.FONT_HERSHEY_SIMPLEX, 0.31, 0, 1, cv2.LINE_AA)
