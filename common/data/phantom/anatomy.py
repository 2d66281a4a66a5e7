"""Normal anatomy of a frontal phantom radiograph: outlines, bones, vessels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.data.phantom.canvas import Canvas, Plane, Points, curve, ellipse
from common.data.phantom.world import Body

SIDES = (-1, 1)
"""Of the image: -1 is the patient's right."""
LUNG_TOP = -0.78


def lung_edge(body: Body, y: NDArray[np.floating], side: int) -> tuple[Points, Points]:
    """Medial and lateral x of a lung at heights `y`, signed."""
    base = body.diaphragm[0 if side < 0 else 1] + 0.05
    v = np.clip((y - LUNG_TOP) / (base - LUNG_TOP), 0, 1)
    width = body.lung_width / 0.36
    medial = 0.10 + 0.06 * (1 - v) ** 2
    lateral = 0.16 + 0.60 * (1 - np.clip(1 - v / 0.78, 0, 1) ** 2.3) ** 0.58
    return body.turn + side * medial, body.turn * 0.5 + side * lateral * width


def lung_outline(body: Body, side: int) -> Points:
    """A lung as a polygon: dome-shaped apex, concave base over the diaphragm."""
    base = body.diaphragm[0 if side < 0 else 1]
    y = LUNG_TOP + (base + 0.05 - LUNG_TOP) * np.linspace(0, 1, 36) ** 1.6
    medial, lateral = lung_edge(body, y, side)
    u = np.linspace(1, 0, 24)[1:-1]
    dome = np.stack(
        [
            medial[-1] + (lateral[-1] - medial[-1]) * u,
            base + 0.05 - 0.19 * (1 - (2 * u - 0.9) ** 2),
        ],
        axis=1,
    )
    dome[:, 1] = np.minimum(dome[:, 1], base + 0.05)
    down, up = np.stack([lateral, y], axis=1), np.stack([medial, y], axis=1)[::-1]
    return np.concatenate([down, dome, up])


def body_outline() -> Points:
    """Neck, sloping shoulders, chest walls; open below and at the arms."""
    half = curve(
        [
            (0.24, -1.4),
            (0.24, -1.0),
            (0.42, -0.88),
            (0.78, -0.82),
            (1.05, -0.66),
            (1.16, -0.30),
            (1.02, -0.12),
            (0.93, 0.05),
            (0.90, 0.5),
            (0.92, 1.4),
        ],
        60,
    )
    return np.concatenate([half, half[::-1] * [-1, 1]])


def heart_outline(body: Body) -> Points:
    """The heart: its width follows the cardiothoracic ratio, the apex points to the left."""
    reach, x = body.heart_ratio * 0.78, 0.10 + body.turn
    knots = [
        (0.02 + body.turn, -0.22),
        (x - 0.62 * reach, -0.02),
        (x - 0.98 * reach, 0.27),
        (x - 0.80 * reach, 0.52),
        (x - 0.10 * reach, 0.64),
        (x + 0.72 * reach, 0.62),
        (x + 1.02 * reach, 0.46),
        (x + 0.82 * reach, 0.20),
        (x + 0.42 * reach, -0.04),
        (0.12 + body.turn, -0.22),
    ]
    return curve([*knots, knots[0]], 60)


def ribs(body: Body) -> Points:
    """Posterior arcs (18, 20, 2): nine a side, from the spine down to the lateral wall."""
    k = np.arange(9.0)
    y = -0.74 + 0.148 * k
    lines = []
    for side in SIDES:
        wall = np.abs(lung_edge(body, y + 0.10 + 0.012 * k, side)[1]) + 0.03
        x = [np.full(9, 0.07), np.full(9, 0.16), 0.07 + 0.55 * (wall - 0.07), wall - 0.04, wall]
        down = [y + 0.02, y - 0.035, y - 0.02, y + 0.07, y + 0.17 + 0.01 * k]
        lines.append(np.stack([side * np.stack(x, axis=1), np.stack(down, axis=1)], axis=2))
    return curve(np.concatenate(lines), 20)


def front_ribs(body: Body) -> Points:
    """Anterior arcs (10, 14, 2): five a side, from the lateral wall down to the cartilage."""
    k = np.arange(5.0)
    y = -0.50 + 0.17 * k
    lines = []
    for side in SIDES:
        wall = np.abs(lung_edge(body, y, side)[1])
        x = side * np.stack([wall, wall * 0.78, 0.30 + 0.02 * k], axis=1)
        lines.append(np.stack([x, np.stack([y, y + 0.13, y + 0.19], axis=1)], axis=2))
    return curve(np.concatenate(lines), 14)


def bones(canvas: Canvas, body: Body, *, portable: bool) -> Plane:
    """Ribs, clavicles, shoulder blades, humeral heads and spine, as attenuation."""
    plane = canvas.empty()
    lift = 0.10 if portable else 0.0
    knots = [(0.07, -0.50), (0.26, -0.60 - lift), (0.52, -0.66 - lift), (0.80, -0.78)]
    blade = curve([(0.92, -0.62), (0.80, -0.30), (0.84, 0.06), (1.0, -0.2)])
    canvas.stroke(plane, _mirrored(blade), width=0.02, value=40)
    canvas.stroke(plane, _mirrored(ellipse(1.03, -0.60, 0.06, 0.06)), width=0.13, value=60)
    _tubes(canvas, plane, front_ribs(body), width=0.05, rim=70, marrow=48)
    _tubes(canvas, plane, ribs(body), width=0.05, rim=170, marrow=105)
    _tubes(canvas, plane, _mirrored(curve(knots)), width=0.06, rim=200, marrow=150)
    return canvas.soft(plane, 0.007) * np.float32(0.17) + _spine(canvas, body)


def _mirrored(line: Points) -> Points:
    """A line and its mirror image, (2, n, 2)."""
    return np.stack([line, line * (-1, 1)])


def _tubes(
    canvas: Canvas, plane: NDArray[np.uint8], lines: Points, *, width: float, rim: int, marrow: int
) -> None:
    """Bones as tubes: bright rim, darker inside."""
    canvas.stroke(plane, lines, width=width, value=rim)
    canvas.stroke(plane, lines, width=width * 0.55, value=marrow)


def _spine(canvas: Canvas, body: Body) -> Plane:
    column = np.array([[-0.085, -1.3], [0.085, -1.3], [0.095, 1.3], [-0.095, 1.3]])
    plane = (canvas.fill(column) * 0.55).astype(np.uint8)
    y = np.arange(-1.0, 1.0, 0.135)
    discs = y[:, None, None] * (0, 1) + [[-0.08 - body.turn, 0], [0.08 - body.turn, 0]]
    canvas.stroke(plane, discs, width=0.025, value=85)
    middle = y[:, None, None] * (0, 1) + [[-body.turn, 0.04], [-body.turn, 0.09]]
    canvas.stroke(plane, middle, width=0.02, value=225)
    return canvas.soft(plane, 0.014) * np.float32(0.075)


def mediastinum(canvas: Canvas, body: Body) -> Plane:
    """Great vessels, aortic knob, hila, less the air of the trachea."""
    w, x = body.mediastinum / 0.12, body.turn
    right = curve([(-0.10, -1.2), (-0.13, -0.75), (-0.15, -0.45), (-0.13, -0.1), (-0.08, 0.9)], 20)
    left = curve(
        [(0.10, -1.2), (0.10, -0.75), (0.13, -0.40), (0.10, -0.1), (0.14, 0.4), (0.12, 0.9)], 20
    )
    band = np.concatenate([right, left[::-1]]) * [w, 1] + [x, 0]
    plane = (canvas.fill(band) * 0.6).astype(np.uint8)
    knob = canvas.fill(ellipse(0.10 * w + x, -0.36, 0.085, 0.10))
    plane = np.maximum(plane, (knob * 0.8).astype(np.uint8))
    field = canvas.soft(plane, 0.024) * np.float32(0.165)
    hila, depth = canvas.empty(), np.random.default_rng([body.seed, 4]).uniform(0.06, 0.16)
    for side in SIDES:
        centre = (side * 0.18 + x, -0.02 if side < 0 else -0.06)
        hila = np.maximum(hila, canvas.fill(ellipse(*centre, 0.055, 0.13, tilt=-side * 0.35)))
    field += canvas.soft(hila, 0.03) * np.float32(depth)
    air = canvas.empty()
    canvas.stroke(air, np.array([[0.0, -1.2], [0.0, -0.30]]), width=0.065, value=255)
    canvas.stroke(air, np.array([[0.0, -0.30], [-0.15, -0.10]]), width=0.04, value=150)
    canvas.stroke(air, np.array([[0.0, -0.30], [0.19, -0.12]]), width=0.035, value=150)
    return field - canvas.soft(air, 0.012) * np.float32(0.10)


def vessels(canvas: Canvas, body: Body) -> Plane:
    """Branching lung vessels, 0 to 1, strong at the hila and fading outwards."""
    rng = np.random.default_rng(body.seed)
    side = np.repeat(SIDES, 9)
    angle = np.tile(np.linspace(-1.35, 1.45, 9), 2) + rng.normal(0, 0.10, 18)
    length = rng.uniform(0.34, 0.56, 18) * np.where(angle > 0.5, 1.2, 1.0)
    start = np.stack([side * 0.17 + body.turn, rng.uniform(-0.14, 0.08, 18)], axis=1)
    stems = _branches(rng, start, angle, length=length, side=side)
    twigs = [stems]
    for at in (3, 5, 7):
        turn = rng.choice([-1, 1], 18) * rng.uniform(0.35, 0.8, 18)
        twig = _branches(rng, stems[:, at], angle + turn, length=length * 0.5, side=side)
        tip = _branches(rng, twig[:, 4], angle - turn * 0.4, length=length * 0.35, side=side)
        twigs += [twig, tip]
    plane = canvas.empty()
    for lines in twigs[2::2]:
        canvas.stroke(plane, lines, width=0.005, value=100)
    for lines in twigs[1::2]:
        canvas.stroke(plane, lines, width=0.008, value=120)
    canvas.stroke(plane, stems[:, 4:], width=0.012, value=140)
    canvas.stroke(plane, stems[:, 1:5], width=0.022, value=190)
    return canvas.soft(plane, 0.006) * np.float32(rng.uniform(0.65, 1.4))


def _branches(
    rng: np.random.Generator,
    start: Points,
    angle: Points,
    *,
    length: Points,
    side: NDArray[np.int_],
) -> Points:
    """Gently bending lines of 9 points (k, 9, 2); angle 0 points outwards, positive down."""
    bend = angle[:, None] + np.cumsum(rng.normal(0, 0.08, (len(angle), 8)), axis=1)
    steps = (
        np.stack([side[:, None] * np.cos(bend), np.sin(bend)], axis=2) * (length / 8)[:, None, None]
    )
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(steps, axis=1)], axis=1)
