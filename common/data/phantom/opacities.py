"""Findings, devices and look-alikes of a frontal phantom radiograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.data.phantom import anatomy
from common.data.phantom.canvas import Canvas, Plane, box_of, curve, ellipse
from common.data.phantom.world import Finding, Study

Mask = NDArray[np.bool_]
ZONES = {"upper": -0.42, "mid": -0.05, "lower": 0.32}
"""Height of the middle of each zone."""


@dataclass
class Scene:
    """The picture while findings are added to it.

    Attributes:
        air: How much air is in the beam, 0 to 1.
        lungs: Where the image's left and right lung are.
        vessels: Lung vessels, 0 to 1 and above.
        extra: Attenuation added inside the body.
        devices: Attenuation added anywhere.
        boxes: Found so far, by label.
        masks: Found so far, by label.
    """

    air: Plane
    lungs: tuple[Mask, Mask]
    vessels: Plane
    extra: Plane
    devices: Plane
    boxes: dict[str, list[tuple[int, int, int, int]]] = field(default_factory=dict)
    masks: dict[str, Mask] = field(default_factory=dict)

    def mark(self, label: str, mask: Mask, *, keep: bool = False) -> None:
        """Note the box of `mask`, and with `keep` the mask itself."""
        box = box_of(mask)
        if box is None:
            return
        self.boxes.setdefault(label, []).append(box)
        if keep:
            self.masks[label] = self.masks[label] | mask if label in self.masks else mask.copy()


def draw_all(canvas: Canvas, scene: Scene, study: Study, heart: Mask) -> None:
    """Draw every finding and decoy of `study`."""
    for finding in study.findings:
        if finding.label == "Cardiomegaly":
            scene.mark("Cardiomegaly", heart)
        else:
            _DRAW[finding.label](canvas, scene, study, finding)
    for name in study.decoys:
        if name in _DECOYS:
            _DECOYS[name](canvas, scene, study)


def sides(finding: Finding) -> tuple[int, ...]:
    """Image sides (-1 left, 1 right) of a finding; the patient's left is the image's right."""
    return {"right": (-1,), "left": (1,)}.get(finding.side, (-1, 1))


def _lung(scene: Scene, side: int) -> Mask:
    return scene.lungs[0 if side < 0 else 1]


def _base(study: Study, side: int) -> float:
    return study.body.diaphragm[0 if side < 0 else 1]


def _edema(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """Haze around the hila and fuller vessels; lines at the bases when severe."""
    rng = np.random.default_rng(finding.seed)
    strength = finding.severity
    patches = canvas.empty()
    for side in sides(finding):
        shape = ellipse(side * 0.33 + study.body.turn, 0.06, 0.24, 0.44, tilt=-side * 0.12)
        patch = canvas.fill(shape)
        patches = np.maximum(patches, patch)
        scene.mark("Edema", (patch > 127) & _lung(scene, side))
    haze = canvas.soft(patches, 0.10) * (1 + 0.35 * canvas.texture(rng, 0.12))
    scene.extra += np.maximum(haze, 0) * np.float32(0.015 + 0.075 * strength)
    scene.vessels *= np.float32(1 + 0.6 * strength)
    if strength > 0.5:
        lines = canvas.empty()
        for side in sides(finding):
            for y in np.linspace(0.20, 0.50, 6):
                x = abs(float(anatomy.lung_edge(study.body, np.array([y]), side)[1][0]))
                ends = np.array([[x - 0.02, y], [x - 0.10, y + 0.015]]) * [side, 1]
                canvas.stroke(lines, ends, width=0.008, value=200)
        scene.extra += canvas.soft(lines, 0.004) * np.float32(0.12)


def _effusion(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """Fluid with a meniscus that rises along the lateral wall."""
    rng = np.random.default_rng(finding.seed)
    height = float(np.interp(finding.severity, [0.15, 0.5, 0.9], [0.12, 0.25, 0.54]))
    for side in sides(finding):
        level = _base(study, side) + 0.03 - height * rng.uniform(0.85, 1.15)
        u = np.linspace(0, 1, 24)
        rise = 0.16 * (u**3) + 0.05 * (1 - u) ** 3
        x = side * (0.05 + 0.85 * u) + study.body.turn
        top = np.stack([x, level - rise * (0.5 + height)], axis=1)
        below = np.array([[side * 1.0, 1.2], [side * 0.02, 1.2]])
        area = canvas.fill(np.concatenate([top, below]))
        fluid = canvas.soft(area, 0.022)
        scene.mark("Pleural Effusion", (area > 127) & _lung(scene, side), keep=True)
        near = _side_half(canvas, side)
        scene.air *= 1 - 0.88 * fluid * near
        scene.extra += fluid * near * np.float32(0.05)


def _side_half(canvas: Canvas, side: int) -> Plane:
    """1 on one side of the midline, softly 0 on the other."""
    half = np.array([[0, -2], [side * 2, -2], [side * 2, 2], [0, 2]], dtype=np.float64)
    return canvas.soft(canvas.fill(half), 0.02)


def _atelectasis(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """One or two dense bands above a diaphragm."""
    rng = np.random.default_rng(finding.seed)
    for side in sides(finding):
        for n in range(1 + (rng.random() < 0.5)):
            band = canvas.empty()
            y = _base(study, side) - 0.17 - 0.09 * n + rng.uniform(-0.04, 0.03)
            start, length = rng.uniform(0.22, 0.32), rng.uniform(0.26, 0.42)
            slope = rng.uniform(-0.16, 0.10)
            knots = [
                (start, y),
                (start + length / 2, y + slope * 0.5 + 0.015),
                (start + length, y + slope),
            ]
            line = curve(knots, 12) * [side, 1] + [study.body.turn, 0]
            canvas.stroke(band, line, width=rng.uniform(0.026, 0.048), value=255)
            amount = 0.10 + 0.07 * finding.severity + rng.uniform(-0.02, 0.02)
            scene.extra += canvas.soft(band, 0.010) * np.float32(amount)
            scene.mark("Atelectasis", band > 127)


def _consolidation(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """A ragged dense patch that hides vessels, with a few air-filled bronchi."""
    rng = np.random.default_rng(finding.seed)
    for side in sides(finding):
        x = side * rng.uniform(0.34, 0.52) + study.body.turn
        y = ZONES[finding.zone] + rng.uniform(-0.07, 0.07)
        reach = rng.uniform(0.14, 0.23)
        angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
        ragged = reach * (1 + 0.22 * _wobble(rng, angle))
        outline = np.stack([x + ragged * np.cos(angle), y + 1.1 * ragged * np.sin(angle)], axis=1)
        area = canvas.fill(outline)
        inside = (area > 127) & _lung(scene, side)
        patch = canvas.soft(area, 0.045) * np.clip(1 + 0.45 * canvas.texture(rng, 0.07), 0.2, 1.8)
        amount = 0.16 + 0.11 * finding.severity
        lung = canvas.soft(_lung(scene, side).astype(np.uint8) * 255, 0.02)
        scene.extra += patch * lung * np.float32(amount)
        scene.vessels *= 1 - 0.85 * np.minimum(patch, 1)
        scene.mark("Consolidation", inside if inside.any() else area > 127, keep=True)


def _wobble(rng: np.random.Generator, angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth periodic curve of deviation about 1."""
    waves = [rng.normal(0, 0.6) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (2, 3, 5)]
    return np.clip(sum(waves), -1.6, 1.6)


def _pneumothorax(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """Air without vessels beside a thin pleural line, at the apex and the side."""
    rng = np.random.default_rng(finding.seed)
    depth = float(np.interp(finding.severity, [0.15, 0.5, 0.9], [0.07, 0.13, 0.24]))
    for side in sides(finding):
        low = rng.uniform(0.0, 0.35) * (0.6 + finding.severity)
        y = np.linspace(anatomy.LUNG_TOP, low, 24)
        medial, lateral = anatomy.lung_edge(study.body, y, side)
        fade = np.sqrt(np.clip(1 - (y - y[0]) / (low - y[0]), 0, 1))
        edge = lateral - side * depth * fade
        edge = side * np.maximum(side * edge, side * medial)
        line = np.stack([edge, y + depth * fade * 0.8], axis=1)
        outer = np.stack([lateral + side * 0.05, y - 0.05], axis=1)[::-1]
        area = canvas.fill(np.concatenate([line, outer]))
        gas = (area > 127) & _lung(scene, side)
        scene.vessels *= 1 - canvas.soft(area, 0.006)
        scene.extra -= canvas.soft(gas.astype(np.uint8) * 255, 0.008) * np.float32(0.09)
        rim = canvas.empty()
        canvas.stroke(rim, line, width=0.009, value=255)
        scene.extra += canvas.soft(rim, 0.003) * np.float32(0.11)
        scene.mark("Pneumothorax", gas, keep=True)


def _lesion(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """A round nodule or mass."""
    rng = np.random.default_rng(finding.seed)
    for side in sides(finding):
        x = side * rng.uniform(0.30, 0.58) + study.body.turn
        y = ZONES[finding.zone] + rng.uniform(-0.10, 0.10)
        radius = 0.05 + 0.04 * finding.severity
        disc = canvas.fill(ellipse(x, y, radius, radius * rng.uniform(0.85, 1.1)))
        amount = rng.uniform(0.16, 0.24)
        scene.extra += canvas.soft(disc, 0.010) * np.float32(amount)
        scene.mark("Lung Lesion", disc > 127, keep=True)


def _fracture(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """A gap in a rib and a displaced end beside it."""
    rng = np.random.default_rng(finding.seed)
    for side in sides(finding):
        line = anatomy.ribs(study.body)[int(rng.integers(3, 7)) + (9 if side > 0 else 0)]
        at = int(rng.integers(12, 16))
        gap, end = canvas.empty(), canvas.empty()
        canvas.stroke(gap, line[at : at + 2], width=0.05, value=255)
        moved = line[at : at + 5] + np.array([0, 0.05 + 0.025 * finding.severity])
        canvas.stroke(end, moved, width=0.046, value=255)
        scene.extra -= canvas.soft(gap, 0.004) * np.float32(0.07)
        scene.extra += canvas.soft(end, 0.004) * np.float32(0.08)
        scene.mark("Fracture", (gap > 60) | (end > 127))


def _thickening(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """A dense strip along the lateral chest wall."""
    rng = np.random.default_rng(finding.seed)
    for side in sides(finding):
        y = np.linspace(-0.3, rng.uniform(0.25, 0.5), 16)
        lateral = anatomy.lung_edge(study.body, y, side)[1] - side * 0.03
        strip = canvas.empty()
        canvas.stroke(strip, np.stack([lateral, y], axis=1), width=0.06, value=255)
        scene.extra += canvas.soft(strip, 0.012) * np.float32(0.14 + 0.06 * finding.severity)
        scene.mark("Pleural Other", strip > 127)


def _device(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """Tube, central line, pacemaker or monitoring leads."""
    rng = np.random.default_rng(finding.seed)
    side, x = sides(finding)[0], study.body.turn
    plane = canvas.empty()
    if finding.kind == "tube":
        end = rng.uniform(-0.50, -0.36)
        line = curve([(0.02, -1.4), (x - 0.01, -0.9), (x, end)])
        canvas.stroke(plane, line, width=0.030, value=200)
        canvas.stroke(plane, line, width=0.014, value=110)
    elif finding.kind == "line":
        tip = rng.uniform(-0.12, 0.08)
        knots = [(side * 0.95, -0.55), (side * 0.45, -0.58), (-0.10 + x, -0.42), (-0.11 + x, tip)]
        canvas.stroke(plane, curve(knots), width=0.014, value=190)
    elif finding.kind == "generator":
        at = (side * 0.58, float(rng.uniform(-0.50, -0.40)))
        plane = canvas.fill(ellipse(at[0], at[1], 0.12, 0.10, tilt=side * 0.4))
        knots = [at, (side * 0.20, -0.55), (-0.11 + x, -0.25), (-0.06 + x, 0.25), (0.18, 0.48)]
        canvas.stroke(plane, curve(knots, 40), width=0.014, value=220)
    else:
        for place in ((-0.55, -0.35), (0.55, -0.35), (0.45, 0.55)):
            spot = np.array(place) + rng.normal(0, 0.05, 2)
            plane = np.maximum(plane, canvas.fill(ellipse(spot[0], spot[1], 0.035, 0.035)))
            way = rng.uniform(-0.3, 0.3)
            knots = [tuple(spot), (spot[0] * 0.6 + way, spot[1] - 0.3), (way, 1.2)]
            canvas.stroke(plane, curve(knots), width=0.010, value=170)
    amount = (0.55 if finding.kind == "generator" else 0.30) + 0.20 * finding.severity
    scene.devices += canvas.soft(plane, 0.003) * np.float32(amount)
    scene.mark("Support Devices", plane > 80)


def _foreign(canvas: Canvas, scene: Scene, study: Study, finding: Finding) -> None:
    """One to three metallic objects: rectangles, rings, loops."""
    rng = np.random.default_rng(finding.seed)
    for _ in range(int(rng.integers(1, 4))):
        plane = canvas.empty()
        x, y, r = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), rng.uniform(0.03, 0.06)
        if finding.kind == "rectangle":
            plane = canvas.fill(np.array([[x, y], [x + 2 * r, y], [x + 2 * r, y + r], [x, y + r]]))
        else:
            stretch = 1.0 if finding.kind == "ring" else 2.2
            ring = ellipse(x, y, r, r * stretch, tilt=rng.uniform(0, 3))
            canvas.stroke(plane, np.concatenate([ring, ring[:1]]), width=0.014, value=255)
        scene.devices += canvas.soft(plane, 0.002) * np.float32(0.42)
        scene.mark("Foreign Object", plane > 80)


def _skin_fold(canvas: Canvas, scene: Scene, study: Study) -> None:
    """A line like a pleural edge, with vessels on both sides."""
    rng = np.random.default_rng([study.body.seed, 2])
    side = int(rng.choice(anatomy.SIDES))
    knots = [(side * 0.50, -0.75), (side * 0.60, -0.2), (side * 0.52, 0.4)]
    plane = canvas.empty()
    canvas.stroke(plane, curve(knots), width=0.012, value=255)
    scene.extra += canvas.soft(plane, 0.006) * np.float32(0.09)


def _nipples(canvas: Canvas, scene: Scene, study: Study) -> None:
    """A symmetric pair of small discs."""
    plane = canvas.empty()
    for side in anatomy.SIDES:
        plane = np.maximum(plane, canvas.fill(ellipse(side * 0.46, 0.36, 0.028, 0.028)))
    scene.extra += canvas.soft(plane, 0.008) * np.float32(0.11)


def _calcified_rib(canvas: Canvas, scene: Scene, study: Study) -> None:
    """Dense cartilage at the front ends of two ribs."""
    plane = canvas.empty()
    for side in anatomy.SIDES:
        end = anatomy.front_ribs(study.body)[1 if side < 0 else 6, -1]
        plane = np.maximum(plane, canvas.fill(ellipse(end[0], end[1], 0.05, 0.025)))
    scene.extra += canvas.soft(plane, 0.012) * np.float32(0.12)


_DRAW: dict[str, Callable[[Canvas, Scene, Study, Finding], None]] = {
    "Edema": _edema,
    "Pleural Effusion": _effusion,
    "Atelectasis": _atelectasis,
    "Consolidation": _consolidation,
    "Pneumothorax": _pneumothorax,
    "Lung Lesion": _lesion,
    "Fracture": _fracture,
    "Pleural Other": _thickening,
    "Support Devices": _device,
    "Foreign Object": _foreign,
}
_DECOYS: dict[str, Callable[[Canvas, Scene, Study], None]] = {
    "skin_fold": _skin_fold,
    "nipples": _nipples,
    "calcified_rib": _calcified_rib,
}
