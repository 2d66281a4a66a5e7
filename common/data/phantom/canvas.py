"""Drawing in body coordinates: posed, anti-aliased shapes and soft masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from common.data.phantom.world import Exposure

Plane = NDArray[np.float32]
Points = NDArray[np.float64]
CIRCLE = np.stack([f(np.arange(40) * (np.pi / 20)) for f in (np.cos, np.sin)], axis=1)
SHIFT = 4
"""Fractional bits of OpenCV's polygon coordinates."""


class Canvas:
    """Turns body coordinates into pixels of one exposure.

    Args:
        width: Pixels.
        height: Pixels.
        pose: Rotation, scale and shift of the patient before the detector.
    """

    def __init__(self, width: int, height: int, pose: Exposure) -> None:
        self.width, self.height = width, height
        self.unit = height / 2
        across = min(width, height) / 2
        c, s = math.cos(pose.rotation) * pose.scale, math.sin(pose.rotation) * pose.scale
        turn = np.array([[c, -s], [s, c]])
        self.matrix = np.diag([across, self.unit]) @ turn
        centre = np.array([width / 2, height / 2])
        self.origin = centre + np.array([across, self.unit]) * np.array(pose.shift)

    def pixels(self, points: Points | Sequence[tuple[float, float]]) -> Points:
        """(n, 2) body coordinates to pixels."""
        return np.asarray(points, dtype=np.float64) @ self.matrix.T + self.origin

    def fill(self, points: Points) -> NDArray[np.uint8]:
        """A filled polygon, 0 to 255."""
        plane = np.zeros((self.height, self.width), np.uint8)
        cv2.fillPoly(plane, [self._fixed(points)], 255, cv2.LINE_AA, SHIFT)
        return plane

    def stroke(self, plane: NDArray[np.uint8], points: Points, *, width: float, value: int) -> None:
        """Draw an open line, or several of equal length (k, n, 2), of `width` body units."""
        thickness = max(1, round(width * self.unit))
        # OpenCV draws no line thinner than a pixel, so those fade instead.
        value = round(value * min(1.0, width * self.unit))
        lines = list(self._fixed(points).reshape(-1, points.shape[-2], 1, 2))
        # Smooth edges cost five times as much; on wide lines the blur that follows makes them.
        kind = cv2.LINE_AA if thickness <= 2 else cv2.LINE_8
        cv2.polylines(plane, lines, False, value, thickness, kind, SHIFT)

    def empty(self) -> NDArray[np.uint8]:
        """A plane to draw strokes into."""
        return np.zeros((self.height, self.width), np.uint8)

    def soft(self, plane: NDArray[np.uint8], sigma: float) -> Plane:
        """`plane` (0 to 255) as 0 to 1, blurred by `sigma` body units.

        Wide blurs work on a smaller copy, and all on whole grey levels; noise hides both.
        """
        radius = sigma * self.unit
        step = 1
        while radius / step > 1.6 and min(plane.shape) // step > 24:
            step *= 2
        small: NDArray[np.uint8] = plane
        if step > 1:
            size = (-(-self.width // step), -(-self.height // step))
            small = np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)
        if radius / step > 0.2:
            blurred = cv2.GaussianBlur(
                small, (0, 0), radius / step, borderType=cv2.BORDER_REPLICATE
            )
            small = np.asarray(blurred, np.uint8)
        soft = small.astype(np.float32)
        soft *= np.float32(1 / 255)
        if step > 1:
            whole = cv2.resize(soft, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
            soft = np.asarray(whole, np.float32)
        return soft

    def texture(self, rng: np.random.Generator, grain: float) -> Plane:
        """Smooth noise with features of `grain` body units, mean 0, deviation 1."""
        cells = max(4, round(2 / grain))
        coarse = rng.standard_normal((cells, cells)).astype(np.float32)
        grown = cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(grown, np.float32)

    def _fixed(self, points: Points) -> NDArray[np.int32]:
        scaled = self.pixels(np.reshape(points, (-1, 2))) * (1 << SHIFT)
        return np.rint(scaled).astype(np.int32).reshape(-1, 1, 2)


def ellipse(x: float, y: float, rx: float, ry: float, *, tilt: float = 0.0) -> Points:
    """A closed ellipse of 40 points; `tilt` in radians turns it clockwise on screen."""
    c, s = math.cos(tilt), math.sin(tilt)
    return CIRCLE @ np.array([[rx * c, rx * s], [-ry * s, ry * c]]) + (x, y)


def curve(knots: Sequence[tuple[float, float]] | Points, n: int = 24) -> Points:
    """A smooth line through `knots`, with n points (Catmull-Rom); (k, m, 2) gives k lines."""
    points = np.asarray(knots, dtype=np.float64)
    return np.asarray(_basis(points.shape[-2], n) @ points)


@cache
def _basis(knots: int, n: int) -> Points:
    """(n, knots) weights of the knots in each point; the ends are extended straight."""
    extend = np.zeros((knots + 2, knots))
    extend[1:-1] = np.eye(knots)
    extend[0, :2], extend[-1, -2:] = (2, -1), (-1, 2)
    t = np.linspace(0, knots - 1, n)
    i = np.minimum(t.astype(int), knots - 2)
    u = (t - i)[:, None] ** np.arange(4)
    spline = 0.5 * np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]])
    weights = np.zeros((n, knots + 2))
    weights[np.arange(n)[:, None], i[:, None] + np.arange(4)] = u @ spline
    return weights @ extend


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) of the true pixels, None where there are none."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
