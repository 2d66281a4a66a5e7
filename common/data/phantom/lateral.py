"""A simple lateral view: spine behind, sternum in front, both lungs in one dark field."""

from __future__ import annotations

import numpy as np

from common.data.phantom.canvas import Canvas, Plane, curve, ellipse
from common.data.phantom.opacities import ZONES, Scene
from common.data.phantom.world import Finding, Study

TORSO = (
    *((-0.15, -1.3), (-0.22, -0.95), (-0.42, -0.70), (-0.62, -0.30), (-0.72, 0.10)),
    *((-0.66, 0.60), (-0.62, 1.3), (0.74, 1.3), (0.76, 0.60), (0.78, 0.0), (0.66, -0.45)),
    *((0.42, -0.80), (0.24, -0.95), (0.20, -1.3)),
)
"""Outline; the patient looks to the left of the image."""
LUNG = (
    *((0.02, -0.80), (-0.20, -0.62), (-0.42, -0.30), (-0.52, 0.10), (-0.46, 0.42)),
    *((-0.20, 0.40), (0.10, 0.42), (0.36, 0.56), (0.58, 0.74), (0.60, 0.30)),
    *((0.58, -0.15), (0.44, -0.55), (0.24, -0.78)),
)


def draw_lateral(canvas: Canvas, study: Study) -> tuple[Plane, Scene]:
    """Attenuation of a lateral view, with the findings that show on it."""
    torso = canvas.fill(_closed(TORSO))
    lung = canvas.fill(_closed(LUNG))
    zero = np.zeros((canvas.height, canvas.width), np.float32)
    scene = Scene(
        air=canvas.soft(lung, 0.02),
        lungs=(lung > 127, lung > 127),
        vessels=_vessels(canvas, study),
        extra=zero.copy(),
        devices=zero.copy(),
    )
    heart = canvas.fill(_heart(study))
    for finding in study.findings:
        _draw(canvas, scene, finding)
    if any(f.label == "Cardiomegaly" for f in study.findings):
        scene.mark("Cardiomegaly", heart > 127)
    beat = canvas.soft(heart, 0.03)
    field = 0.36 * canvas.soft(torso, 0.012) + 0.34 * canvas.soft(torso, 0.12)
    field += _bones(canvas)
    field += beat * np.float32(0.10)
    field += scene.air * (1 - 0.5 * beat) * (scene.vessels * np.float32(0.15) - np.float32(0.42))
    field += scene.extra
    return field * canvas.soft(torso, 0.006), scene


def _closed(knots: tuple[tuple[float, float], ...]) -> np.ndarray:
    return curve([*knots, knots[0]], 80)


def _heart(study: Study) -> np.ndarray:
    reach = 0.16 + 0.30 * study.body.heart_ratio
    return ellipse(-0.20, 0.20, reach, reach * 1.05, tilt=0.6)


def _vessels(canvas: Canvas, study: Study) -> Plane:
    rng = np.random.default_rng([study.body.seed, 3])
    plane = canvas.empty()
    for angle in np.linspace(0, 2 * np.pi, 20, endpoint=False) + rng.normal(0, 0.1, 20):
        reach = rng.uniform(0.25, 0.55)
        bend = angle + rng.normal(0, 0.25)
        middle = (0.08 + reach / 2 * np.cos(angle), -0.08 + reach / 2 * np.sin(angle))
        tip = (0.08 + reach * np.cos(bend), -0.08 + reach * np.sin(bend))
        canvas.stroke(plane, curve([(0.08, -0.08), middle, tip]), width=0.014, value=150)
    hilum = canvas.fill(ellipse(0.08, -0.08, 0.10, 0.13))
    return np.maximum(canvas.soft(plane, 0.008), canvas.soft(hilum, 0.04) * np.float32(0.8))


def _bones(canvas: Canvas) -> Plane:
    plane = canvas.empty()
    spine = curve([(0.30, -1.2), (0.46, -0.60), (0.52, 0.0), (0.44, 0.7), (0.40, 1.3)], 40)
    canvas.stroke(plane, spine, width=0.16, value=110)
    for x, y in spine[4::2]:
        canvas.stroke(
            plane, np.array([[x - 0.08, y - 0.01], [x + 0.08, y + 0.01]]), width=0.018, value=50
        )
    sternum = curve([(-0.30, -0.66), (-0.56, -0.20), (-0.64, 0.25)])
    canvas.stroke(plane, sternum, width=0.05, value=130)
    for k in range(8):
        y = -0.62 + 0.16 * k
        arc = curve([(0.56, y), (0.25, y + 0.02), (-0.15, y + 0.17), (-0.40, y + 0.34)])
        canvas.stroke(plane, arc, width=0.036, value=55)
    domes = canvas.fill(
        _closed(((-0.7, 0.6), (-0.4, 0.42), (0.1, 0.44), (0.5, 0.72), (0.6, 1.4), (-0.7, 1.4)))
    )
    return canvas.soft(plane, 0.008) * np.float32(0.20) + canvas.soft(domes, 0.04) * np.float32(
        0.06
    )


def _draw(canvas: Canvas, scene: Scene, finding: Finding) -> None:
    """One finding, coarsely; those that a lateral view hides are left out."""
    rng = np.random.default_rng(finding.seed)
    label = finding.label
    if label == "Pleural Effusion":
        level = 0.66 - 0.5 * finding.severity
        fluid = canvas.fill(
            curve(
                [(0.70, level - 0.15), (0.40, level), (0.0, level + 0.10), (-0.2, 1.2), (0.8, 1.2)]
            )
        )
        scene.mark(label, (fluid > 127) & scene.lungs[0], keep=True)
        scene.air *= 1 - 0.85 * canvas.soft(fluid, 0.025)
    elif label in ("Consolidation", "Lung Lesion", "Atelectasis"):
        y = ZONES.get(finding.zone, 0.3) + rng.uniform(-0.05, 0.05)
        reach = {"Consolidation": 0.17, "Lung Lesion": 0.07, "Atelectasis": 0.05}[label]
        wide = 3.2 if label == "Atelectasis" else 1.0
        area = canvas.fill(ellipse(rng.uniform(-0.05, 0.30), y, reach * wide, reach))
        scene.extra += canvas.soft(area, 0.02) * np.float32(0.15 + 0.08 * finding.severity)
        scene.mark(label, (area > 127) & scene.lungs[0], keep=label != "Atelectasis")
    elif label == "Edema":
        haze = canvas.soft(canvas.fill(ellipse(0.08, -0.02, 0.32, 0.40)), 0.10)
        scene.extra += haze * np.float32(0.02 + 0.09 * finding.severity)
        scene.vessels *= np.float32(1 + 0.6 * finding.severity)
    elif label == "Support Devices" and finding.kind in ("generator", "line", "leads"):
        line = canvas.empty()
        canvas.stroke(
            line,
            curve([(-0.45, -0.75), (-0.1, -0.5), (0.0, 0.0), (-0.2, 0.35)]),
            width=0.014,
            value=200,
        )
        scene.devices += canvas.soft(line, 0.003) * np.float32(0.35)
        scene.mark(label, line > 80)
