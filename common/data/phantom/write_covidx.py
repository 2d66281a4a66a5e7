"""The phantom in the layout of COVIDx (list V9A, with some lines of V8A's form)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data.phantom.disk import Picture, Result, write_notice, write_sums, write_whole
from common.data.phantom.world import Study, draw_study

ROOT = "COVIDx"
LISTS = {"train": "train_COVIDx9A.txt", "test": "test_COVIDx9A.txt"}
SHARES = {"normal": 0.4, "pneumonia": 0.3, "COVID-19": 0.3}
SOURCES = {"normal": "rsna", "pneumonia": "rsna", "COVID-19": "bimcv"}


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """Studies are taken in order until each class has its share."""
    pictures, index = [], 0
    for part, count in (("train", train), ("test", valid)):
        left = {name: round(share * count) for name, share in SHARES.items()}
        while any(left.values()):
            study, number = draw_study(seed, index, site="covidx"), index
            index += 1
            kind = kind_of(study)
            if not kind or not left[kind]:
                continue
            left[kind] -= 1
            name = f"{part}-{number:06d}({left[kind]}).{'png' if number % 3 else 'jpg'}"
            pictures.append(
                Picture(
                    f"{part}/{name}",
                    f"{ROOT}/{part}/{name}",
                    study,
                    encoding="png" if number % 3 else "jpeg",
                    extra={"part": part, "class": kind},
                )
            )
    return pictures


def kind_of(study: Study) -> str:
    """`COVID-19` for bilateral consolidation, `pneumonia` for one-sided, `normal` for nothing."""
    sides = {finding.side for finding in study.findings if finding.label == "Consolidation"}
    if sides:
        return "COVID-19" if "bilateral" in sides else "pneumonia"
    return "normal" if study.truth["No Finding"] else ""


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """The two lists; one line in fifty has a space in its patient id, as in V8A."""
    root = out / ROOT
    lists = []
    for part, name in LISTS.items():
        lines = []
        for number, picture in enumerate(p for p in pictures if p.extra["part"] == part):
            patient = f"{picture.study.patient + (10**6 if part == 'test' else 0)}"
            if number % 50 == 7:
                patient = f"COVID {patient}"
            kind, file = picture.extra["class"], picture.path.rpartition("/")[2]
            lines.append(f"{patient} {file} {kind} {SOURCES[kind]}\n")
        write_whole(root / name, "".join(lines).encode())
        lists.append(root / name)
    write_notice(root)
    write_sums(root, lists)
