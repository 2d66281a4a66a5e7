"""The phantom in the layout of Open-I: XML reports, PNG images, and the Kaggle tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from common.data.phantom.disk import (
    NOTICE,
    Picture,
    Result,
    write_notice,
    write_sums,
    write_table,
    write_whole,
)
from common.data.phantom.world import Study, another_view, draw_study

ROOT = "openi"
SHARES = {"findings": 0.134, "impression": 0.009, "indication": 0.023, "comparison": 0.157}
"""How often each section is empty."""
KAGGLE = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
MESH = {
    "Pleural Effusion": "Pleural Effusion",
    "Cardiomegaly": "Cardiomegaly",
    "Edema": "Pulmonary Edema",
    "Consolidation": "Consolidation",
    "Atelectasis": "Pulmonary Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Lung Lesion": "Nodule",
    "Fracture": "Fractures, Bone",
    "Support Devices": "Medical Device",
    "Pleural Other": "Thickening",
    "Foreign Object": "Foreign Bodies",
}
CAPTION = "Xray Chest PA and Lateral"


def plan(seed: int, train: int, valid: int) -> list[Picture]:
    """As many reports as held-out studies (`train` only below 100); most have two images."""
    count = train + valid if train < 100 else valid
    pictures = []
    for index in range(count):
        study = draw_study(seed, index, site="open_i")
        uid = report_number(index)
        for take, view in enumerate(_views(study, index)):
            shown = (
                study
                if take == 0 and view == study.view
                else another_view(study, view, take=take + 1)
            )
            series = 1 + (index * 37 + seed) % 2900
            image = f"IM-{series:04d}-{(1 + take) * 1000 + 1:04d}"
            # A few of the real names repeat the number; Kaggle's never do.
            name = f"CXR{uid}_{uid}_{image}" if index % 200 == 0 else f"CXR{uid}_{image}"
            path = f"{ROOT}/NLMCXR_png/{name}.png"
            extra = {"uid": str(uid), "filename": f"{uid}_{image}.dcm.png"}
            pictures.append(Picture(name, path, shown, encoding="png", extra=extra))
    return pictures


def report_number(index: int) -> int:
    """Numbers from 1, with gaps."""
    return 1 + index + index // 80


def _views(study: Study, index: int) -> list[str]:
    """None on a few reports, else frontal and lateral, sometimes one or three."""
    if index % 38 == 20:  # never the last of a size, whose pictures tell how many there are
        return []
    if index % 9 == 4:
        return [study.view]
    if index % 22 == 6:
        return [study.view, "LATERAL", study.view]
    return [study.view, "LATERAL"]


def finish(out: Path, pictures: Sequence[Picture], results: Mapping[str, Result]) -> None:
    """XML files for every report, imageless ones included, and the Kaggle tables."""
    del results
    root = out / ROOT
    by_uid: dict[int, list[Picture]] = {}
    for picture in pictures:
        by_uid.setdefault(int(picture.extra["uid"]), []).append(picture)
    last = max(picture.study.index for picture in pictures)
    rows: list[list[object]] = []
    for index in range(last + 1):
        uid = report_number(index)
        shown = by_uid.get(uid, [])
        study = draw_study(pictures[0].study.seed, index, site="open_i")
        sections = _sections(study)
        write_whole(
            root / "ecgen-radiology" / f"{uid}.xml", _xml(uid, study, sections, shown).encode()
        )
        if shown:
            rows.append(_kaggle_row(uid, study, sections))
    projections = [
        [
            p.extra["uid"],
            p.extra["filename"],
            "Lateral" if p.study.view == "LATERAL" else "Frontal",
        ]
        for p in pictures
    ]
    tables = [
        write_table(root / "indiana_reports.csv", KAGGLE, rows),
        write_table(
            root / "indiana_projections.csv", ["uid", "filename", "projection"], projections
        ),
    ]
    write_notice(root)
    write_sums(root, tables)


def _sections(study: Study) -> dict[str, str]:
    """Sections with gaps; removed identifiers are `XXXX`, sometimes in place of plain words."""
    rng = np.random.default_rng([study.seed, study.index, 79])
    sections = {}
    for name, share in SHARES.items():
        text = study.sections[name].replace("___", "XXXX")
        sections[name] = "" if rng.random() < share else text
    if rng.random() < 0.15:
        sections["comparison"] = "None"
    if rng.random() < 0.35:
        words = sections["findings"].split(" ")
        words[int(rng.integers(len(words)))] = "XXXX"
        sections["findings"] = " ".join(words) if sections["findings"] else ""
    return sections


def _mesh(study: Study) -> list[str]:
    """Coded findings: name, then place and degree behind slashes."""
    terms = []
    for finding in study.findings:
        parts = [MESH[finding.label], finding.side, finding.zone and f"{finding.zone} zone"]
        terms.append("/".join(part for part in parts if part))
    return terms or ["normal"]


def _kaggle_row(uid: int, study: Study, sections: Mapping[str, str]) -> list[object]:
    """As the XML, except a few indications that a spreadsheet spoilt."""
    terms = _mesh(study)
    indication = "#NAME?" if study.index % 400 == 45 else sections["indication"]
    problems = ";".join(dict.fromkeys(term.split("/")[0] for term in terms))
    texts = [sections[name] for name in ("comparison", "findings", "impression")]
    return [uid, ";".join(terms), problems, CAPTION, indication, *texts]


def _xml(uid: int, study: Study, sections: Mapping[str, str], shown: Sequence[Picture]) -> str:
    """A report in the archive's shape, reduced to the elements that carry data."""
    labels = ("COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION")
    text = "\n".join(
        f'            <AbstractText Label="{name}">{escape(sections[name.lower()])}</AbstractText>'
        for name in labels
    )
    terms = _mesh(study)
    mesh = "\n".join(f"      <major>{escape(term)}</major>" for term in terms)
    if terms != ["normal"] and study.index % 2:
        names = dict.fromkeys(term.split("/")[0].lower() for term in terms)
        mesh += "".join(f"\n      <automatic>{escape(name)}</automatic>" for name in names)
    images = "\n".join(
        f'   <parentImage id="{p.image_id}">\n      <figureId>F{n}</figureId>\n'
        f"      <caption>{CAPTION}</caption>\n"
        f'      <panel type="single">\n         <url>/{p.image_id}.jpg</url>\n      </panel>\n'
        "   </parentImage>"
        for n, p in enumerate(shown, 1)
    )
    return f"""<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <meta type="rr"/>
   <uId id="CXR{uid}"/>
   <pmcId id="{uid}"/>
   <docSource>CXR</docSource>
   <IUXRId id="{uid}"/>
   <articleType>XR</articleType>
   <publisher>SYNTHETIC</publisher>
   <note>{NOTICE}.</note>
   <MedlineCitation Owner="SYNTHETIC" Status="supplied by publisher">
      <Article PubModel="Electronic">
         <Abstract>
{text}
         </Abstract>
      </Article>
   </MedlineCitation>
   <MeSH>
{mesh}
   </MeSH>
{images}
</eCitation>
"""
