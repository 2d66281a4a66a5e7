"""What a phantom study is: patient, findings, anatomy, exposure, label states and report.

A study depends on `(seed, index, site)` alone, so that any of them can be redrawn by itself. Priors
and dependencies follow common radiographic practice only as far as learning needs: labels have
realistic co-occurrence, borderline cases exist, and the report leaves things out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from common.data.labels import CHEXPERT_14
from common.data.phantom.reports import compose

NORMAL_SHARE = 0.30
"""Of studies, forced to have no finding but devices."""
CONFOUND = 0.5
"""How much likelier findings are on AP views; 1 gives RSNA's 38 % (AP) against 9 % (PA)."""
RATIO_ENLARGED = 0.52
"""Cardiothoracic ratio above which the cardiomediastinum counts as enlarged."""
PATIENT_BLOCK, PATIENTS_IN_BLOCK = 10, 8
"""Of ten consecutive studies seven have a patient of their own, the last three share one."""
QUIRKS: tuple[tuple[str, float], ...] = (
    ("no_impression", 0.12),
    ("no_findings", 0.17),
    ("last_paragraph", 0.05),
    ("merged_header", 0.02),
    ("swallowed_header", 0.01),
    ("addendum", 0.02),
    ("misspelt_header", 0.02),
    ("blank", 0.005),
)
"""What is odd about a report file, with its share."""


@dataclass(frozen=True)
class Site:
    """How the radiographs of one source look.

    Attributes:
        aspect: Width over height.
        ap: Share of AP among frontal views.
        gamma: Exponent of the display curve.
        contrast: Strength of an S-shaped display curve, 0 none.
        border: Width of a black frame, as a share of the long side.
        letter: Side marker beside the synthetic one.
        consolidation: Factor on its prior; 1.8 gives RSNA's 22 % positives.
        pneumothorax: Factor on its prior; 2.7 gives SIIM's 22 %.
        foreign: Factor on the prior of foreign objects; 5 gives Object-CXR's half.
    """

    aspect: float = 1.0
    ap: float = 0.5
    gamma: float = 1.0
    contrast: float = 0.0
    border: float = 0.0
    letter: str = "L"
    consolidation: float = 1.0
    pneumothorax: float = 1.0
    foreign: float = 1.0


SITES: Mapping[str, Site] = {
    "chexpert": Site(aspect=1.0, ap=0.6, contrast=0.15, letter="L"),
    "mimic": Site(aspect=0.86, ap=0.6, gamma=0.9, contrast=0.35, letter="R"),
    "rsna": Site(aspect=1.0, ap=0.456, gamma=1.1, border=0.012, letter="L", consolidation=1.8),
    "covidx": Site(aspect=1.0, ap=0.7, gamma=0.85, contrast=0.25, letter="L", consolidation=3.0),
    "siim": Site(aspect=1.0, ap=0.39, gamma=1.05, border=0.008, letter="R", pneumothorax=2.7),
    "object_cxr": Site(aspect=1.0, ap=0.2, contrast=0.3, letter="L", foreign=5.0),
    "nih": Site(aspect=1.0, ap=0.40, gamma=1.05, border=0.010, letter="R"),
    "open_i": Site(aspect=1.16, ap=0.15, gamma=0.95, contrast=0.2, letter="R"),
}


@dataclass(frozen=True)
class Finding:
    """One abnormality, or a group that the report names together.

    Attributes:
        label: A name of `CHEXPERT_14`, or `Foreign Object`.
        side: Patient's `left`, `right`, `bilateral`, or "" where sides make no sense.
        zone: `upper`, `mid`, `lower` or "".
        severity: In [0, 1].
        kind: Sub-type: of a device or foreign object; `pneumonia` of a consolidation.
        seed: Of the details that only the picture shows.
    """

    label: str
    side: str
    zone: str
    severity: float
    kind: str
    seed: int


@dataclass(frozen=True)
class Exposure:
    """Nuisance of one exposure: position, dose, display."""

    rotation: float
    scale: float
    shift: tuple[float, float]
    gamma: float
    gain: float
    noise: float
    seed: int


@dataclass(frozen=True)
class Body:
    """Anatomy. Coordinates run from -1 to 1, y down; image right is the patient's left."""

    heart_ratio: float
    lung_width: float
    diaphragm: tuple[float, float]
    mediastinum: float
    turn: float
    seed: int


@dataclass(frozen=True)
class Study:
    """One examination: what is there, what the report says, and how it was exposed.

    Attributes:
        patient: Number from 0 within the site; some have several studies.
        number: Of this study among the patient's, from 1.
        view: `PA`, `AP` or `LATERAL`.
        decoys: Unlabelled look-alikes: `skin_fold`, `nipples`, `rotated`, `calcified_rib`.
        truth: 0 or 1 a label: what the image shows.
        mentions: 1, 0, -1 or NaN a label: what a labeller reads in the report.
        sections: Report text by lower-case section name, complete.
        quirk: What a report file does with the sections, "" nothing.
    """

    seed: int
    index: int
    site: str
    patient: int
    number: int
    sex: str
    age: int
    view: str
    findings: tuple[Finding, ...]
    decoys: tuple[str, ...]
    body: Body
    exposure: Exposure
    truth: Mapping[str, int]
    mentions: Mapping[str, float]
    sections: Mapping[str, str]
    quirk: str

    def has(self, label: str) -> bool:
        """Whether the image shows `label`."""
        return any(finding.label == label for finding in self.findings)


def draw_study(seed: int, index: int, *, site: str) -> Study:
    """Draw study `index` of a site; the same arguments give the same study."""
    patient, number = _patient(index)
    person = np.random.default_rng([seed, index - number + 1])
    sex = "Male" if person.random() < 0.55 else "Female"
    age = int(_within(18, person.normal(60, 18), 97)) + number // 2

    rng = np.random.default_rng([seed, index])
    rng.random(2)  # the patient's draws
    style = SITES[site]
    view = "AP" if rng.random() < style.ap else "PA"
    findings = _draw_findings(rng, view, style)
    present = {finding.label for finding in findings}
    body = _draw_body(rng, "Cardiomegaly" in present, "Atelectasis" in present)
    decoys = tuple(
        name
        for name in ("skin_fold", "nipples", "rotated", "calcified_rib")
        if rng.random() < 0.10 and not (name == "skin_fold" and "Pneumothorax" in present)
    )
    if "rotated" in decoys:
        body = replace(body, turn=float(rng.choice([-1, 1]) * rng.uniform(0.05, 0.09)))
    truth = _truth(findings, body, rng)
    sections, mentions = compose(findings, truth, rng, view=view, sex=sex, age=age)
    names, shares = [name for name, _ in QUIRKS], [share for _, share in QUIRKS]
    quirk = str(rng.choice(["", *names], p=[1 - sum(shares), *shares]))
    return Study(
        seed=seed,
        index=index,
        site=site,
        patient=patient,
        number=number,
        sex=sex,
        age=age,
        view=view,
        findings=findings,
        decoys=decoys,
        body=body,
        exposure=_draw_exposure(rng),
        truth=truth,
        mentions=mentions,
        sections=sections,
        quirk=quirk,
    )


def another_view(study: Study, view: str, *, take: int = 1) -> Study:
    """The same patient at the same time from `view`, exposed anew; `take` tells exposures apart."""
    rng = np.random.default_rng([study.seed, study.index, take])
    return replace(study, view=view, exposure=_draw_exposure(rng))


def _patient(index: int) -> tuple[int, int]:
    """Patient and number of a study."""
    block, place = divmod(index, PATIENT_BLOCK)
    shared = PATIENTS_IN_BLOCK - 1
    return block * PATIENTS_IN_BLOCK + min(place, shared), max(place - shared, 0) + 1


def _draw_findings(rng: np.random.Generator, view: str, site: Site) -> tuple[Finding, ...]:
    """Findings with their dependencies; the view's factor has mean 1 over a site."""
    confound = 1.27 * CONFOUND
    factor = 1 + confound * (1 - site.ap) if view == "AP" else 1 - confound * site.ap
    normal = rng.random() < NORMAL_SHARE
    found: list[Finding] = []

    def occurs(prior: float) -> bool:
        return bool(rng.random() < min(prior * factor, 0.9)) and not normal

    def add(label: str, side: str = "", zone: str = "", *, severity: float, kind: str = "") -> None:
        found.append(Finding(label, side, zone, severity, kind, int(rng.integers(2**31))))

    def side_of(right: float, left: float) -> str:
        return str(rng.choice(["right", "left", "bilateral"], p=[right, left, 1 - right - left]))

    zone = str(rng.choice(["upper", "mid", "lower"], p=[0.25, 0.30, 0.45]))
    severity = float(rng.random())
    heart = occurs(0.21)
    if heart:
        add("Cardiomegaly", severity=severity)
    edema = occurs(0.17 + 0.25 * heart)
    if edema:
        add("Edema", "bilateral", severity=float(rng.uniform(0.2, 0.9)))
    effusion = occurs(0.20 + 0.30 * edema)
    if effusion:
        size = float(rng.choice([0.15, 0.5, 0.9], p=[0.45, 0.35, 0.20]))
        add("Pleural Effusion", side_of(0.38, 0.38), "lower", severity=size)
    if occurs(0.16 + 0.30 * effusion):
        add("Atelectasis", side_of(0.35, 0.35), "lower", severity=float(rng.random()))
    if occurs(0.18 * site.consolidation):
        kind = "pneumonia" if rng.random() < 0.5 else ""
        side = "bilateral" if rng.random() < 0.25 else str(rng.choice(["left", "right"]))
        add("Consolidation", side, zone, severity=float(rng.random()), kind=kind)
    _draw_focal(rng, occurs, add, site)
    if rng.random() < (0.45 if view == "AP" else 0.20) * 0.65:
        kind = str(rng.choice(["tube", "line", "generator", "leads"], p=[0.25, 0.35, 0.2, 0.2]))
        add("Support Devices", side_of(0.5, 0.5), severity=float(rng.random()), kind=kind)
    return tuple(found)


def _draw_focal(
    rng: np.random.Generator,
    occurs: Callable[[float], bool],
    add: Callable[..., None],
    site: Site,
) -> None:
    """The findings that depend on no other."""
    side = str(rng.choice(["left", "right"]))
    if occurs(0.10 * site.pneumothorax):
        size = float(rng.choice([0.15, 0.5, 0.9], p=[0.4, 0.35, 0.25]))
        add("Pneumothorax", side, "upper", severity=size)
    if occurs(0.10):
        zone = str(rng.choice(["upper", "mid", "lower"]))
        side = str(rng.choice(["left", "right"]))
        add("Lung Lesion", side, zone, severity=float(rng.random()))
    if occurs(0.06):
        add("Fracture", str(rng.choice(["left", "right"])), severity=float(rng.random()))
    if occurs(0.03):
        add("Pleural Other", str(rng.choice(["left", "right"])), severity=float(rng.random()))
    if occurs(0.10 * site.foreign):
        kind = str(rng.choice(["rectangle", "ring", "loop"]))
        add("Foreign Object", severity=float(rng.random()), kind=kind)


def _draw_body(rng: np.random.Generator, enlarged: bool, atelectasis: bool) -> Body:
    """Anatomy; the ratios of normal and enlarged hearts overlap on purpose."""
    if enlarged:
        ratio = _within(0.49, rng.normal(0.565, 0.045), 0.70)
    else:
        ratio = _within(0.34, rng.normal(0.455, 0.04), 0.53)
    raised = rng.uniform(0.03, 0.08) if atelectasis else 0.0
    domes = rng.normal([0.60, 0.64], 0.06) - raised
    wide = 1.7 if rng.random() < 0.04 else 1.0
    return Body(
        heart_ratio=ratio,
        lung_width=_within(0.31, rng.normal(0.36, 0.02), 0.41),
        diaphragm=(float(domes[0]), float(domes[1])),
        mediastinum=float(0.12 * wide * _within(0.8, rng.normal(1, 0.08), 1.2)),
        turn=float(rng.normal(0, 0.012)),
        seed=int(rng.integers(2**31)),
    )


def _within(low: float, value: float, high: float) -> float:
    return float(min(max(value, low), high))


def _draw_exposure(rng: np.random.Generator) -> Exposure:
    shift = rng.normal(0, 0.045, 2)
    return Exposure(
        rotation=_within(-0.15, rng.normal(0, 0.05), 0.15),
        scale=_within(0.82, rng.normal(1, 0.07), 1.15),
        shift=(float(shift[0]), float(shift[1])),
        gamma=float(rng.uniform(0.85, 1.2)),
        gain=float(rng.uniform(0.85, 1.15)),
        noise=_within(0.008, abs(rng.normal(0.02, 0.006)), 0.04),
        seed=int(rng.integers(2**31)),
    )


def _truth(findings: tuple[Finding, ...], body: Body, rng: np.random.Generator) -> dict[str, int]:
    """Image labels: those drawn, and those that follow from them."""
    del rng
    truth = {label: int(any(f.label == label for f in findings)) for label in CHEXPERT_14}
    truth["Pneumonia"] = int(any(f.kind == "pneumonia" for f in findings))
    opaque = ("Consolidation", "Edema", "Atelectasis")
    truth["Lung Opacity"] = int(any(truth[label] for label in opaque))
    enlarged = body.heart_ratio > RATIO_ENLARGED or body.mediastinum > 0.16
    truth["Enlarged Cardiomediastinum"] = int(enlarged)
    others = [label for label in CHEXPERT_14 if label not in ("No Finding", "Support Devices")]
    truth["No Finding"] = int(not any(truth[label] for label in others))
    return truth
