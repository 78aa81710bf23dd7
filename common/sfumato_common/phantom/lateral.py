"""The chest from its side (left lateral; the patient faces the image's left), of the same anatomy as the frontal film.

Coordinates as in `anatomy`, but x runs from front to back. Depths that the frontal film does not show (of an opacity,
of the spine's curve) are drawn from `hidden`, a stream of the patient's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sfumato_common.phantom.anatomy import Anatomy, Opacity, Pose
from sfumato_common.phantom.canvas import Canvas, Field, add_ball, step, tube


@dataclass(frozen=True)
class Profile:
    """What is seen from the side only: chest depth, the spine's curve, the depth of each opacity (0 front, 1 back)."""

    depth: float
    kyphosis: float
    slant: float
    opacities: tuple[float, ...]


def side_canvas(canvas: Canvas) -> Canvas:
    """The grid in front-to-back units: from the side a chest is wider than this module's numbers by a fifth."""
    return Canvas(canvas.x * np.float32(1 / 1.2), canvas.y)


def sample_profile(hidden: np.random.Generator, opacities: int) -> Profile:
    """Draw what a frontal film does not show of a patient."""
    normal = np.clip(hidden.standard_normal(3), -2.5, 2.5)
    places = tuple(float(v) for v in hidden.uniform(0.12, 0.88, opacities))
    return Profile(
        float(1.0 + 0.06 * normal[0]), float(0.10 + 0.03 * normal[1]), float(0.50 + 0.06 * normal[2]), places
    )


def _front(anatomy: Anatomy, profile: Profile, canvas: Canvas) -> Field:
    """[H, 1]: the chest wall in front, nearer to the spine at the neck; breasts add to it in `still_side`."""
    fall = 0.30 * step((-0.05 - canvas.y) / 0.95)
    return np.asarray(-0.60 * profile.depth - 0.6 * anatomy.soft_tissue + fall, dtype=np.float32)


def _spine_at(profile: Profile, y: Field) -> Field:
    """[H, 1]: middle of the vertebral bodies."""
    return np.asarray(0.30 + profile.kyphosis * (1.0 - ((y + 0.05) / 0.85) ** 2), dtype=np.float32)


def _back(anatomy: Anatomy, profile: Profile, canvas: Canvas) -> Field:
    """[H, 1]: the skin of the back, behind the spinous processes."""
    return np.asarray(_spine_at(profile, canvas.y) + 0.27 + 0.5 * anatomy.soft_tissue, dtype=np.float32)


def _domes(anatomy: Anatomy, pose: Pose, canvas: Canvas) -> tuple[Field, Field]:
    """[1, W] each: the right and the left half of the diaphragm, which fall steeply to the back."""
    found = []
    for side in (0, 1):
        base = anatomy.diaphragm[side] + 0.16 * (pose.breath - 0.6) - 0.06
        back, front = np.clip(canvas.x + 0.12, 0.0, None), np.clip(-0.12 - canvas.x, 0.0, None)
        found.append(np.asarray(base + 0.95 * back**2 + 0.35 * front**2 - 0.05 * side, dtype=np.float32))
    return found[0], found[1]


def air(anatomy: Anatomy, profile: Profile, pose: Pose, canvas: Canvas) -> Field:
    """How much of the way through the chest is lung [H, W], 0..1."""
    front = _front(anatomy, profile, canvas) + np.float32(0.085)
    back = _back(anatomy, profile, canvas) - np.float32(0.10)
    mask = step((canvas.x - front) * np.float32(1 / 0.07)) * step((back - canvas.x) * np.float32(1 / 0.10))
    top = np.float32(anatomy.lung_apex + 0.05) + 0.9 * (canvas.x - 0.12) ** 2
    mask *= step((canvas.y - top) * np.float32(1 / 0.16))
    right, left = _domes(anatomy, pose, canvas)
    mask *= 0.5 * (step((right - canvas.y) * np.float32(1 / 0.04)) + step((left - canvas.y) * np.float32(1 / 0.04)))
    return np.asarray(mask * (1.0 - 0.30 * step((canvas.x - 0.22) / 0.2)), dtype=np.float32)


def _bones(anatomy: Anatomy, profile: Profile, canvas: Canvas) -> Field:
    """Vertebral bodies with their discs, ribs of both sides falling forward, sternum, shoulder blades [H, W]."""
    off = canvas.x - _spine_at(profile, canvas.y)
    rows = (canvas.y + 0.1 * anatomy.spine_phase) / np.float32(0.150)
    behind = np.asarray(rows + 0.55 + 2.0 * off, dtype=np.float32)
    body = step((0.088 - np.abs(off)) / 0.03) * (0.55 + 0.75 * tube(rows, 0.40))
    arches = step((0.16 - np.abs(off - 0.15)) / 0.06) * tube(behind, 0.28)
    density = np.float32(0.16) * body + np.float32(0.08) * arches
    inside = step((canvas.x - _front(anatomy, profile, canvas) - 0.05) / 0.06) * step((0.20 - off) / 0.08)
    inside = inside * step((canvas.y + 0.72) / 0.15) * (1.0 - 0.6 * step((canvas.y - 0.45) / 0.3))
    slope = np.float32(profile.slant)
    for shift, weight in ((0.0, 0.055), (0.42, 0.040)):  # the far side's ribs are larger and fainter
        phase = (canvas.y + slope * (canvas.x + 0.35 * canvas.x**2)) / np.float32(anatomy.rib_spacing) + shift
        ribs = tube(np.asarray(phase, dtype=np.float32), anatomy.rib_width)
        density += np.float32(weight) * inside * ribs
    sternum = canvas.x - _front(anatomy, profile, canvas) - np.float32(0.055)
    density += (
        0.10 * step((0.028 - np.abs(sternum)) / 0.014) * step((canvas.y + 0.60) / 0.05) * step((0.30 - canvas.y) / 0.1)
    )
    blade = canvas.x - np.float32(0.34) - 0.10 * canvas.y
    density += (
        0.06 * step((0.05 - np.abs(blade)) / 0.04) * step((canvas.y + 0.80) / 0.1) * step((-0.10 - canvas.y) / 0.2)
    )
    return np.asarray(np.float32(anatomy.bone) * density, dtype=np.float32)


def still_side(anatomy: Anatomy, profile: Profile, canvas: Canvas) -> tuple[Field, Field]:
    """What does not move with the breath: (trunk thickness, density at rest), both [H, W]."""
    density = _bones(anatomy, profile, canvas)
    windpipe = canvas.x - (np.float32(-0.04) + 0.16 * (canvas.y + 0.6))
    density -= (
        0.14 * step((0.042 - np.abs(windpipe)) / 0.03) * step((-0.26 - canvas.y) / 0.10) * step((canvas.y + 0.95) / 0.1)
    )
    # both shoulders lie over the top of the lungs; the arms are raised
    density += 0.26 * step((-0.48 - canvas.y) / 0.32)
    aorta = canvas.x - _spine_at(profile, canvas.y) + np.float32(0.13)
    density += 0.05 * step((0.06 - np.abs(aorta)) / 0.05) * step((canvas.y + 0.35) / 0.1)
    add_ball(density, canvas, 0.13, (0.08, -0.40), (anatomy.aortic_knob * 1.6, anatomy.aortic_knob))
    density += np.float32(0.60 + anatomy.soft_tissue)
    front, back = _front(anatomy, profile, canvas), _back(anatomy, profile, canvas)
    if anatomy.breast:
        front = front - np.float32(1.9 * anatomy.breast) * np.exp(-(((canvas.y - 0.30) / 0.22) ** 2))
    depth = np.minimum(np.clip((canvas.x - front) / 0.26, 0.0, 1.0), np.clip((back - canvas.x) / 0.30, 0.0, 1.0))
    depth = depth * (2.0 - depth)
    return np.sqrt(depth, dtype=np.float32), density


def hilar_vessels(anatomy: Anatomy, rng: np.random.Generator, canvas: Canvas) -> Field:
    """Both lungs' vessels over one another [H, W]: branches that thin out from the hilum, and its density."""
    height, width = canvas.shape
    across, unit = float(canvas.x[0, 1] - canvas.x[0, 0]), float(canvas.y[1, 0] - canvas.y[0, 0])
    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    for angle in np.linspace(-np.pi, np.pi, 15)[1:] + 0.2 * rng.standard_normal(14):
        x, y, thick, heading = 0.02, -0.10, 0.036, float(angle)
        for _ in range(9):
            heading += 0.20 * float(rng.standard_normal())
            x2, y2 = x + 0.055 * np.cos(heading), y + 0.055 * np.sin(heading)
            ends = [(p / across + (width - 1) / 2, q / unit + (height - 1) / 2) for p, q in ((x, y), (x2, y2))]
            pen.line(ends, fill=int(70 + 1600 * thick), width=max(1, round(thick / unit)))
            x, y, thick = x2, y2, thick * 0.84
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(0.010 / unit)), dtype=np.float32) * np.float32(1 / 255)
    hilum = np.exp(-(((canvas.x - 0.02) / 0.10) ** 2)) * np.exp(-(((canvas.y + 0.10) / 0.13) ** 2))
    return np.asarray((0.15 * soft + 0.10 * hilum) * np.float32(anatomy.vessels), dtype=np.float32)


def consolidation_side(
    opacities: tuple[Opacity, ...], anatomy: Anatomy, profile: Profile, pose: Pose, texture: Field, canvas: Canvas
) -> Field:
    """The frontal film's opacities seen from the side [H, W]: the same heights, depths of their own."""
    total = np.zeros(canvas.shape, dtype=np.float32)
    for patch, place in zip(opacities, profile.opacities, strict=False):
        bottom = anatomy.diaphragm[patch.side] + 0.16 * (pose.breath - 0.6) - 0.05
        y = anatomy.lung_apex + 0.22 + patch.down * (bottom - anatomy.lung_apex - 0.30)
        x = -0.45 + 0.85 * place
        dx, dy = (
            (canvas.x - np.float32(x)) / np.float32(patch.radius_x),
            (canvas.y - np.float32(y)) / np.float32(patch.radius_y),
        )
        total += np.float32(patch.density) * (np.exp(-0.5 * dx * dx) * np.exp(-0.5 * dy * dy))
    return np.asarray(total * np.clip(1.0 + 0.45 * texture, 0.0, None), dtype=np.float32)


def attenuation_side(
    anatomy: Anatomy, profile: Profile, pose: Pose, still: tuple[Field, Field], inside: Field, canvas: Canvas
) -> Field:
    """Line integral of attenuation [H, W] from side to side; `inside` counts in the lungs only."""
    trunk, rest = still
    field = inside - np.float32(0.42 + 0.05 * pose.breath)
    field *= air(anatomy, profile, pose, canvas)
    field += rest
    breath = pose.breath - 0.6
    base = (anatomy.diaphragm[0] + anatomy.diaphragm[1]) / 2 + 0.10 * breath
    size = 1.0 + pose.heart_phase - 0.10 * breath
    add_ball(field, canvas, 0.27, (-0.25, base - 0.24), (0.27 * size, anatomy.heart_height * 0.95), 0.5)
    below = np.maximum(*_domes(anatomy, pose, canvas))
    field += 0.14 * step((canvas.y - below) * np.float32(1 / 0.30))
    add_ball(field, canvas, -anatomy.gas, (-0.18, anatomy.diaphragm[1] + 0.16), (0.14, 0.07), 0.1)
    field *= trunk
    return field
