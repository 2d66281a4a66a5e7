"""Pixels of a phantom study: anatomy, findings by attenuation, display, with boxes and masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from common.data.phantom import anatomy, opacities
from common.data.phantom.canvas import Canvas, Plane, ellipse
from common.data.phantom.lateral import draw_lateral
from common.data.phantom.opacities import Scene
from common.data.phantom.world import SITES, Site, Study

SATURATION = 1.25
"""Display level that infinite attenuation would reach."""

Boxes = Mapping[str, tuple[tuple[int, int, int, int], ...]]


@dataclass(frozen=True)
class Rendering:
    """One picture and where its findings are.

    Attributes:
        image: (H, W) uint8, brighter = denser.
        boxes: (x, y, width, height) in pixels of `image`, by label; a finding out of the picture or
            without a place has none.
        masks: (H, W) bool by label, for effusion, pneumothorax, consolidation and lesion.
    """

    image: NDArray[np.uint8]
    boxes: Boxes
    masks: Mapping[str, NDArray[np.bool_]]


def render(study: Study, *, size: int = 256) -> Rendering:
    """Draw `study` from its view, the long side `size` pixels."""
    site = SITES[study.site]
    width, height = _shape(site.aspect, size)
    canvas = Canvas(width, height, study.exposure)
    if study.view == "LATERAL":
        attenuation, scene = draw_lateral(canvas, study)
    else:
        attenuation, scene = _frontal(canvas, study)
    image = _expose(attenuation, scene.devices, study)
    _mark(image, site)
    boxes = {label: tuple(found) for label, found in scene.boxes.items()}
    return Rendering(image, boxes, scene.masks)


def _shape(aspect: float, size: int) -> tuple[int, int]:
    """Width and height."""
    if aspect >= 1:
        return size, round(size / aspect)
    return round(size * aspect), size


def _frontal(canvas: Canvas, study: Study) -> tuple[Plane, Scene]:
    """Attenuation of a PA or AP view."""
    body = study.body
    torso = canvas.fill(anatomy.body_outline())
    thickness = 0.30 * canvas.soft(torso, 0.012) + 0.34 * canvas.soft(torso, 0.10)
    lungs = [canvas.fill(anatomy.lung_outline(body, side)) for side in anatomy.SIDES]
    both = np.maximum(*lungs)
    air = 0.62 * canvas.soft(both, 0.008) + 0.38 * canvas.soft(both, 0.07) * (both > 0)
    heart = canvas.fill(anatomy.heart_outline(body))
    scene = Scene(
        air=air.astype(np.float32),
        lungs=(lungs[0] > 127, lungs[1] > 127),
        vessels=anatomy.vessels(canvas, body),
        extra=np.zeros_like(air, dtype=np.float32),
        devices=np.zeros_like(air, dtype=np.float32),
    )
    opacities.draw_all(canvas, scene, study, heart > 127)
    beat = canvas.soft(heart, 0.014)
    scene.air *= 1 - 0.80 * beat
    field = thickness + anatomy.bones(canvas, body, portable=study.view == "AP")
    field += anatomy.mediastinum(canvas, body)
    field += 0.06 * beat + _abdomen(canvas, study)
    field += scene.air * (scene.vessels * np.float32(0.17) - np.float32(0.42))
    field += scene.extra
    return field * canvas.soft(torso, 0.006), scene


def _abdomen(canvas: Canvas, study: Study) -> Plane:
    """Denser tissue below the diaphragm, a gas bubble under the left dome, breast shadows."""
    rng = np.random.default_rng([study.body.seed, 1])
    right, left = study.body.diaphragm
    lower = np.array([[-1.3, right - 0.1], [0, right], [1.3, left - 0.1], [1.3, 2], [-1.3, 2]])
    field = canvas.soft(canvas.fill(lower), 0.09) * np.float32(0.09)
    if rng.random() < 0.7:
        bubble = ellipse(0.42, left + 0.07, rng.uniform(0.07, 0.16), rng.uniform(0.04, 0.08))
        field -= canvas.soft(canvas.fill(bubble), 0.02) * np.float32(0.16)
    if study.sex == "Female":
        depth = np.float32(rng.uniform(0.03, 0.08))
        for side in anatomy.SIDES:
            breast = ellipse(side * 0.50, 0.30, 0.30, 0.34)
            field += canvas.soft(canvas.fill(breast), 0.035) * depth
    return field


def _expose(attenuation: Plane, devices: Plane, study: Study) -> NDArray[np.uint8]:
    """Attenuation to grey levels: saturation, dose, noise, window, display curve."""
    exposure, site = study.exposure, SITES[study.site]
    rng = np.random.default_rng(exposure.seed)
    tissue = np.maximum(attenuation * np.float32(exposure.gain), 0)
    # Metal saturates instead of dimming everything else.
    low, high = np.percentile(_saturate(tissue[::4, ::4]), (0.5, 99.5))
    level = _saturate(tissue + devices)
    height, width = level.shape
    # Fine grain repeats after half the height and width; under coarse grain nobody can tell.
    half = (height // 2 + 1, width // 2 + 1)
    fine, coarse = rng.standard_normal((2, *half), dtype=np.float32)
    grain = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    grain += np.tile(fine * np.float32(0.6), (2, 2))[:height, :width]
    level += grain * np.float32(exposure.noise * 0.5)
    scale = 255 / max(float(high - low), 1e-3)
    grey = cv2.convertScaleAbs(np.maximum(level - np.float32(low), 0), alpha=scale)
    return np.asarray(cv2.LUT(grey, _display(exposure.gamma * site.gamma, site.contrast)), np.uint8)


def _saturate(dense: Plane) -> Plane:
    """What is behind dense tissue adds ever less: S (1 - exp(-x / S))."""
    through = cv2.exp(np.ascontiguousarray(dense) * np.float32(-1 / SATURATION))
    return np.asarray(SATURATION - SATURATION * through, np.float32)


def _display(gamma: float, contrast: float) -> NDArray[np.uint8]:
    """The display curve as a table of 256 grey levels."""
    level = np.linspace(0, 1, 256) ** gamma
    level += contrast * (level * level * (3 - 2 * level) - level)
    return np.rint(level * 255).astype(np.uint8)


def _mark(image: NDArray[np.uint8], site: Site) -> None:
    """Burn in `PH` (phantom) and the side marker outside the body, and the site's black frame."""
    height, width = image.shape
    long = max(height, width)
    frame = round(site.border * long)
    if frame:
        image[:frame], image[-frame:], image[:, :frame], image[:, -frame:] = 0, 0, 0, 0
    scale, thick = long / 700, max(1, long // 400)
    font = cv2.FONT_HERSHEY_SIMPLEX
    top = frame + round(0.05 * long)
    cv2.putText(image, "PH", (frame + 3, top), font, scale, 235, thick, cv2.LINE_AA)
    if site.letter:
        right = width - frame - round(0.05 * long)
        cv2.putText(image, site.letter, (right, top), font, scale, 235, thick, cv2.LINE_AA)
