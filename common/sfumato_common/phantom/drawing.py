"""The radiograph as a sum of attenuations (Beer-Lambert: log exposure is a line integral), then a display curve.

Densities are in attenuation units in which unobstructed soft tissue is about 0.6 and lung about 0.25.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sfumato_common.phantom.anatomy import RIBS, Anatomy, Opacity, Pose
from sfumato_common.phantom.canvas import Canvas, Field, add_ball, sides, step, tube

_FINE = 0.008  # half field heights a pixel; the devices' own matrices have 0.0095 to 0.0114


def _diaphragm(anatomy: Anatomy, pose: Pose, canvas: Canvas) -> Field:
    """[1, W]: height of the two domes; a deep breath lowers and flattens them."""
    width = sides(canvas, anatomy.lung_width)
    centre = (np.abs(canvas.x) - 0.45 * width) / width
    dome = sides(canvas, anatomy.dome) * np.float32(1.25 - 0.35 * pose.breath)
    base = sides(canvas, anatomy.diaphragm) + np.float32(0.16 * (pose.breath - 0.6))
    out: Field = base + dome * (3.6 * centre**2 - 0.8)
    return out


def _wall(anatomy: Anatomy, canvas: Canvas) -> Field:
    """[H, 1]: half-width of the rib cage in lung widths: a superellipse above, slightly tapering below."""
    middle = 0.30
    upper = np.clip((middle - canvas.y) / np.float32(middle - anatomy.lung_apex), 0.0, 1.0)
    dome = np.clip(1.0 - upper**anatomy.lung_roundness, 0.0, 1.0) ** np.float32(0.5)
    out: Field = dome - 0.10 * np.clip(canvas.y - middle, 0.0, None)
    return out


def lungs(anatomy: Anatomy, pose: Pose, canvas: Canvas) -> Field:
    """Lung mask [H, W] in 0..1: lateral wall, apex, domes of the diaphragm, mediastinal border."""
    x = np.abs(canvas.x)
    wall = _wall(anatomy, canvas) * np.float32(1.0 + 0.03 * (pose.breath - 0.6))
    mask = step((wall * sides(canvas, anatomy.lung_width) - x) * np.float32(1 / 0.06))
    border = np.float32(anatomy.mediastinum - 0.03) + 0.05 * step((canvas.y + 0.1) / 0.5)
    mask *= step((x - border) * np.float32(1 / 0.09))
    mask *= step((_diaphragm(anatomy, pose, canvas) - canvas.y) * np.float32(1 / 0.05))
    return mask


def _trunk(anatomy: Anatomy, canvas: Canvas) -> Field:
    """Body thickness [H, W] in 0..1: torso, shoulders, neck; 0 is air."""
    x, y = np.abs(canvas.x), canvas.y
    outward = np.clip(x - np.float32(anatomy.neck_width), 0.0, None)
    # the trapezius rises steeply at the neck, the shoulder falls gently outwards
    top = np.float32(anatomy.shoulder_height - 0.10) + anatomy.shoulder_slope * outward - 0.28 * np.exp(-outward / 0.07)
    top = top - 2.0 * step((anatomy.neck_width - x) / 0.06)
    flank = np.float32(anatomy.torso_width) + 0.40 * step((0.55 - y) / 1.1) + 0.05 * step((y - 0.3) / 0.6)
    depth = np.minimum(np.maximum((flank - x) * np.float32(1 / 0.30), 0.0), 1.0)
    depth *= 2.0 - depth
    depth *= step((y - top) * np.float32(1 / 0.09))
    return np.sqrt(depth)


def _ribs(anatomy: Anatomy, canvas: Canvas) -> Field:
    """Posterior (falling outwards) and anterior (falling inwards, fainter) ribs [H, W], as two phase fields."""
    x = np.abs(canvas.x)
    width = sides(canvas, anatomy.lung_width)
    near = np.clip(x / (width + 0.03), 0.0, 1.15)
    y = canvas.y - np.float32(anatomy.lung_apex + anatomy.rib_start)
    rows = y / np.float32(anatomy.rib_spacing)
    rows = rows - 0.020 * rows * np.abs(rows)
    fall = np.float32(anatomy.rib_drop / anatomy.rib_spacing)
    phase = rows - fall * (1.15 * near**2 - 0.30 * near)
    index = np.clip(phase + 1.0, 0, RIBS - 1).astype(np.int32)
    index += np.where(canvas.x < 0, 0, RIBS).astype(np.int32)
    phase += np.asarray(anatomy.rib_shift, dtype=np.float32).take(index)
    posterior = tube(phase, anatomy.rib_width)
    anterior = tube(0.92 * rows + fall * (1.6 * near - 0.5), anatomy.rib_width * 1.1)
    posterior += anterior * (0.65 * step((near - 0.35) / 0.35))
    # the beam runs along the rib at the chest wall; nothing outside the cage, and little under the diaphragm
    cage = step((_wall(anatomy, canvas) * (width + 0.045) - x) * np.float32(1 / 0.05))
    cage *= step((near - 0.10) / 0.12) * (1.0 + 0.35 * step((near - 0.70) / 0.3))
    cage *= step((y + 0.14) / 0.10) * (1.0 - 0.7 * step((y - 1.10) / 0.40))
    posterior *= cage
    return posterior


def _spine(anatomy: Anatomy, canvas: Canvas) -> Field:
    """Vertebral column [H, W]: a band with disc spaces, slightly curved."""
    bend = anatomy.spine_curve * np.sin(3.0 * canvas.y + 6.28 * anatomy.spine_phase)
    column = step((0.105 - np.abs(canvas.x - bend)) * np.float32(1 / 0.035))
    discs = 1.0 - 0.45 * np.clip(np.cos((canvas.y + 0.1 * anatomy.spine_phase) * 42.0) - 0.2, 0.0, None)
    column *= discs + 0.3 * step((canvas.y + 0.1) / 1.0)
    return column


def _clavicles(anatomy: Anatomy, canvas: Canvas) -> Field:
    """Two S-shaped rods [H, W], falling towards the midline."""
    x = np.abs(canvas.x)
    middle = sides(canvas, anatomy.clavicle_height) - np.float32(anatomy.clavicle_slope) * (x - 0.12)
    middle = middle + 0.022 * np.sin(8.0 * x)
    rods = step((0.044 - np.abs(canvas.y - middle)) * np.float32(1 / 0.024))
    rods *= step((x - 0.07) / 0.05) * step((0.78 - x) / 0.12)
    return rods


def skeleton(anatomy: Anatomy, canvas: Canvas) -> tuple[Field, Field]:
    """What does not move with the breath, drawn once a patient: (trunk thickness, density at rest), both [H, W]."""
    density = _ribs(anatomy, canvas)
    density *= np.float32(0.14 * anatomy.bone)
    density += np.float32(0.085 * anatomy.bone) * _clavicles(anatomy, canvas)
    density += np.float32(0.085 * anatomy.bone) * _spine(anatomy, canvas)
    centre = step((np.float32(anatomy.mediastinum) - np.abs(canvas.x - 0.015)) / 0.09) * step((0.5 - canvas.y) / 0.4)
    trachea = step((0.045 - np.abs(canvas.x)) / 0.03) * step((-0.32 - canvas.y) / 0.15)
    density += 0.15 * centre - 0.10 * trachea
    add_ball(density, canvas, 0.12, (0.11, -0.36), (anatomy.aortic_knob, anatomy.aortic_knob * 1.2))
    if anatomy.breast:
        for side in (-1, 1):
            add_ball(density, canvas, anatomy.breast, (side * 0.42, 0.34), (0.31, 0.27))
    if anatomy.pacemaker:
        box = step((0.085 - np.abs(canvas.x - 0.46)) / 0.015) * step((0.060 - np.abs(canvas.y + 0.44)) / 0.015)
        lead = step((0.022 - np.abs(canvas.x - 0.20 - 0.1 * np.sin(3 * canvas.y))) / 0.02)
        density += 0.6 * box + 0.25 * lead * (step((canvas.y + 0.46) / 0.05) * step((0.30 - canvas.y) / 0.05))
    density += np.float32(0.60 + anatomy.soft_tissue)
    return _trunk(anatomy, canvas), density


def _add_heart(density: Field, anatomy: Anatomy, pose: Pose, canvas: Canvas) -> None:
    """Ventricle and atrium; the heart sits on the diaphragm and is wider breathed out."""
    breath = pose.breath - 0.6
    size = 1.0 + pose.heart_phase - 0.10 * breath
    base = (anatomy.diaphragm[0] + anatomy.diaphragm[1]) / 2 + 0.10 * breath
    half = (anatomy.heart_width * size, anatomy.heart_height)
    add_ball(density, canvas, 0.30, (anatomy.heart_left, base - 0.22), half, -anatomy.heart_tilt)
    add_ball(density, canvas, 0.17, (-0.08, base - 0.28), (0.18 * size, 0.28), 0.1)


def _add_abdomen(density: Field, anatomy: Anatomy, pose: Pose, canvas: Canvas) -> None:
    """Liver and stomach: dense below the domes, gas under the left one."""
    surface = _diaphragm(anatomy, pose, canvas)
    top = int(np.searchsorted(canvas.y[:, 0], float(surface.min())))
    density[top:] += 0.17 * step((canvas.y[top:] - surface) * np.float32(1 / 0.35))
    add_ball(density, canvas, -anatomy.gas, (0.34, anatomy.diaphragm[1] + 0.12), (0.17, 0.075), 0.15)


def vessels(anatomy: Anatomy, rng: np.random.Generator, canvas: Canvas, twigs: np.random.Generator) -> Field:
    """Bronchovascular tree [H, W]: branches that thin out from each hilum; drawn once a patient.

    A matrix that is finer than the devices' own shows twigs too, from a stream of their own.
    """
    height, width = canvas.shape
    unit = float(canvas.x[0, 1] - canvas.x[0, 0])
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)

    def pixel(x: float, y: float) -> tuple[float, float]:
        return x / unit + (width - 1) / 2, y / unit + (height - 1) / 2

    for side in (-1.0, 1.0):
        for angle in np.linspace(-1.35, 1.35, 8) + 0.15 * rng.standard_normal(8):
            x, y, thick, heading = side * 0.15, -0.02 - 0.03 * side, 0.040, float(angle)
            for _ in range(5):
                length = 0.11 + 0.03 * rng.random()
                heading += 0.28 * float(rng.standard_normal())
                x2, y2 = x + side * length * np.cos(heading), y + length * np.sin(heading)
                shade = int(70 + 1600 * thick)
                pen.line((pixel(x, y), pixel(x2, y2)), fill=shade, width=max(1, round(thick / unit)))
                if unit < _FINE:
                    _add_twigs(pen, pixel, twigs, (x2, y2, thick, heading), unit)
                x, y, thick = x2, y2, thick * 0.72
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.010 / unit)), dtype=np.float32) * np.float32(1 / 255)
    hilum = np.exp(-(((np.abs(canvas.x) - 0.20) / 0.11) ** 2)) * np.exp(-((canvas.y / 0.17) ** 2))
    out: Field = (0.17 * soft + 0.085 * hilum) * np.float32(anatomy.vessels)
    return out


def _add_twigs(
    pen: ImageDraw.ImageDraw,
    pixel: Callable[[float, float], tuple[float, float]],
    rng: np.random.Generator,
    start: tuple[float, float, float, float],
    unit: float,
) -> None:
    """Two wavering branches of a vessel's end (x, y, thickness, heading), each of a third of its calibre."""
    for turn in (-0.7, 0.7):
        x, y, thick, heading = start
        heading, thick = heading + turn + 0.2 * float(rng.standard_normal()), 0.35 * thick
        for _ in range(8):
            heading += 0.18 * float(rng.standard_normal())
            x2, y2 = x + 0.02 * np.cos(heading), y + 0.02 * np.sin(heading)
            pen.line((pixel(x, y), pixel(x2, y2)), fill=int(60 + 2500 * thick), width=max(1, round(thick / unit)))
            x, y, thick = x2, y2, thick * 0.93


def consolidation(
    opacities: tuple[Opacity, ...], anatomy: Anatomy, pose: Pose, texture: Field, canvas: Canvas
) -> Field:
    """Fluffy patches of denser lung [H, W]; the places move with the breath."""
    total = np.zeros(canvas.shape, dtype=np.float32)
    for patch in opacities:
        sign = 1 if patch.side else -1
        width = anatomy.lung_width[patch.side]
        bottom = anatomy.diaphragm[patch.side] + 0.16 * (pose.breath - 0.6) - 0.05
        centre_x = sign * (0.16 + patch.across * (width - 0.22))
        centre_y = anatomy.lung_apex + 0.22 + patch.down * (bottom - anatomy.lung_apex - 0.30)
        dx = (canvas.x - np.float32(centre_x)) / np.float32(patch.radius_x)
        dy = (canvas.y - np.float32(centre_y)) / np.float32(patch.radius_y)
        total += np.float32(patch.density) * (np.exp(-0.5 * dx * dx) * np.exp(-0.5 * dy * dy))
    shape = np.clip(1.0 + 0.45 * texture, 0.0, None)
    out: Field = total * shape
    return out


def attenuation(anatomy: Anatomy, pose: Pose, still: tuple[Field, Field], inside: Field, canvas: Canvas) -> Field:
    """Line integral of attenuation [H, W] through the whole patient.

    `still` is `skeleton(...)`; `inside` (vessels and disease) counts inside the lungs only.
    """
    trunk, rest = still
    air = inside - np.float32(0.40 + 0.05 * pose.breath)
    air *= lungs(anatomy, pose, canvas)
    air += rest
    _add_heart(air, anatomy, pose, canvas)
    _add_abdomen(air, anatomy, pose, canvas)
    air *= trunk
    return air
