"""The phantom in the layout of MS-CXR 0.1: boxes and sentences of the phantom's MIMIC studies.

Nothing is drawn here: pictures, boxes and reports are those of `write_mimic`. A phrase is the
sentence by which the report's findings section states a finding; findings it calls uncertain, and
those of reports that lost the section, have none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.data.ms_cxr import CATEGORIES, COLUMNS, STEM
from common.data.phantom import write_mimic
from common.data.phantom.disk import (
    Picture,
    Result,
    write_notice,
    write_sums,
    write_table,
    write_whole,
)
from common.data.phantom.world import Finding, Study

ROOT = "ms-cxr/0.1"
TABLE = f"{STEM}_v1.0.0.csv"
JSON = f"{STEM}_v1.0.0.json"
STATED: Mapping[str, re.Pattern[str]] = {
    "Atelectasis": re.compile(r"\batelectasis\b"),
    "Cardiomegaly": re.compile(r"\b(cardiomegaly|heart|cardiac silhouette)\b"),
    "Consolidation": re.compile(r"\bconsolidation\b"),
    "Edema": re.compile(r"\bedema\b"),
    "Pleural Effusion": re.compile(r"\bpleural effusions?\b"),
    "Pneumothorax": re.compile(r"\bpneumothorax\b"),
}
"""Words of the sentence that states a finding; absences are stated of other findings alone."""
UNREADABLE = ("no_findings", "swallowed_header", "blank")
"""Quirks of reports whose file has no findings section."""
TRAIN_STEP = 20
"""One annotated training image in so many is kept: some were seen in pre-training."""


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """The frontal test pictures of `write_mimic.plan` with a stated finding, a few for training."""
    stated = [
        picture
        for picture in write_mimic.plan(seed, train, valid)
        if picture.study.view != "LATERAL" and any(True for _ in statements(picture.study))
    ]
    test = [picture for picture in stated if picture.extra["split"] == "test"]
    seen = [picture for picture in stated if picture.extra["split"] == "train"]
    return [*test, *seen[::TRAIN_STEP]]


def statements(study: Study) -> Iterator[tuple[Finding, str]]:
    """Each finding of MS-CXR's categories that the report states, with its sentence."""
    if study.quirk in UNREADABLE:
        return
    sentences = re.split(r"(?<=\.) ", study.sections["findings"])
    for finding in study.findings:
        words = STATED.get(finding.label)
        if words and study.mentions[finding.label] == 1:
            yield finding, next(s for s in sentences if words.search(s.lower()))


def category_of(finding: Finding, sentence: str) -> str:
    """One of `CATEGORIES`: a consolidation by the words of its sentence, else the label."""
    if finding.label == "Consolidation":
        if "pneumonia" in sentence.lower():
            return "Pneumonia"
        return "Lung Opacity" if "opacity" in sentence.lower() else "Consolidation"
    return finding.label


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """The table, a row a box, and the same as COCO JSON."""
    root = out / ROOT
    rows = [row for p in pictures for row in _rows(p, results[p.image_id])]
    table = write_table(root / TABLE, COLUMNS, rows)
    write_whole(root / JSON, (json.dumps(_coco(rows), indent=1) + "\n").encode())
    write_notice(root)
    write_sums(root, [table, root / JSON])


def _rows(picture: Picture, result: Result) -> Iterator[tuple[object, ...]]:
    path = Path(picture.path).relative_to(write_mimic.IMAGES).as_posix()
    size = (result["width"], result["height"])
    for finding, sentence in statements(picture.study):
        category = category_of(finding, sentence)
        for box in result["boxes"].get(finding.label, []):
            yield (picture.image_id, category, sentence, path, *box, *size)


def _coco(rows: Sequence[tuple[object, ...]]) -> dict[str, list[dict[str, object]]]:
    images: dict[object, dict[str, object]] = {}
    notes: list[dict[str, object]] = []
    for name, category, text, path, x, y, w, h, width, height in rows:
        image = {"id": len(images) + 1, "file_name": f"{name}.jpg", "path": path}
        image = images.setdefault(name, {**image, "width": width, "height": height})
        note = {"id": len(notes) + 1, "image_id": image["id"], "bbox": [x, y, w, h]}
        note["category_id"] = CATEGORIES.index(str(category)) + 1
        notes.append({**note, "label_text": text, "width": width, "height": height})
    kinds = [{"id": n, "name": name} for n, name in enumerate(CATEGORIES, start=1)]
    return {"categories": kinds, "images": list(images.values()), "annotations": notes}
