"""One patient's stable anatomy, one exposure's pose, and the graded opacities: numbers only, no pixels.

Coordinates: x right, y down, (0, 0) the middle of the chest, 1 = half the field's height at zoom 1; the patient faces
the detector, so the patient's left (heart apex) is on the right of the image. Sides: 0 = image left, 1 = image right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RIBS = 12
MAX_GRADE = 3


@dataclass(frozen=True)
class Anatomy:
    """What stays the same over a patient's images. Lengths in half field heights; densities in attenuation units."""

    female: bool
    age_years: int
    lung_width: tuple[float, float]
    lung_apex: float
    lung_roundness: float
    diaphragm: tuple[float, float]
    dome: tuple[float, float]
    torso_width: float
    shoulder_height: float
    shoulder_slope: float
    neck_width: float
    heart_width: float
    heart_height: float
    heart_tilt: float
    heart_left: float
    aortic_knob: float
    mediastinum: float
    spine_curve: float
    spine_phase: float
    bone: float
    rib_spacing: float
    rib_start: float
    rib_drop: float
    rib_width: float
    rib_shift: tuple[float, ...]
    clavicle_height: tuple[float, float]
    clavicle_slope: float
    soft_tissue: float
    breast: float
    vessels: float
    gas: float
    pacemaker: bool


@dataclass(frozen=True)
class Pose:
    """What differs from one exposure to the next: breath (0 out, 1 in), position, rotation (radians), exposure."""

    breath: float
    shift_x: float
    shift_y: float
    rotation: float
    zoom: float
    gain: float
    level: float
    heart_phase: float


@dataclass(frozen=True)
class Opacity:
    """One patch of consolidated lung: side, place within the lung (0..1 medial to lateral, 0..1 top to bottom)."""

    side: int
    across: float
    down: float
    radius_x: float
    radius_y: float
    density: float


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw a patient."""

    def vary(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2.5, 2.5))

    female = bool(rng.random() < 0.5)
    build = vary(0.0, 1.0)
    lung = vary(0.66, 0.035)
    base, apex = vary(0.50, 0.07), vary(-0.74, 0.05)
    return Anatomy(
        female=female,
        age_years=int(rng.integers(19, 91)),
        lung_width=(lung * vary(1.0, 0.03), lung * vary(0.97, 0.03)),
        lung_apex=apex,
        lung_roundness=vary(2.5, 0.3),
        diaphragm=(base - 0.03, base + vary(0.03, 0.03)),
        dome=(vary(0.17, 0.04), vary(0.15, 0.04)),
        torso_width=lung + 0.20 + 0.04 * build,
        shoulder_height=apex + vary(-0.02, 0.05),
        shoulder_slope=vary(0.38, 0.10),
        neck_width=vary(0.27, 0.03),
        heart_width=vary(0.37, 0.045),
        heart_height=vary(0.36, 0.035),
        heart_tilt=vary(0.45, 0.15),
        heart_left=vary(0.13, 0.03),
        aortic_knob=vary(0.105, 0.02),
        mediastinum=vary(0.15, 0.02),
        spine_curve=vary(0.0, 0.022),
        spine_phase=vary(0.0, 1.0),
        bone=vary(1.0, 0.16),
        rib_spacing=vary(0.175, 0.012),
        rib_start=vary(0.0, 0.05),
        rib_drop=vary(0.26, 0.05),
        rib_width=vary(0.23, 0.025),
        rib_shift=tuple(float(v) for v in 0.05 * rng.standard_normal(2 * RIBS)),
        clavicle_height=(apex + vary(0.13, 0.03), apex + vary(0.13, 0.03)),
        clavicle_slope=vary(0.20, 0.07),
        soft_tissue=vary(0.0, 0.035) + 0.02 * build,
        breast=max(0.0, vary(0.075, 0.03)) if female else 0.0,
        vessels=float(np.exp(vary(0.0, 0.3))),
        gas=max(0.0, vary(0.10, 0.10)),
        pacemaker=bool(rng.random() < 0.04),
    )


def sample_pose(rng: np.random.Generator) -> Pose:
    """Draw one exposure's breath, position and exposure."""
    normal = np.clip(rng.standard_normal(7), -2.5, 2.5)
    return Pose(
        breath=float(rng.uniform(0.25, 1.0)),
        shift_x=float(0.022 * normal[0]),
        shift_y=float(0.025 * normal[1]),
        rotation=float(0.018 * normal[2]),
        zoom=float(1.0 + 0.020 * normal[3]),
        gain=float(1.0 + 0.09 * normal[4]),
        level=float(0.030 * normal[5]),
        heart_phase=float(0.03 * normal[6]),
    )


def sample_disease(rng: np.random.Generator) -> tuple[int, tuple[Opacity, ...]]:
    """Draw a patient's worst grade (0 none, 1 mild .. 3 severe; half of the patients have none) and its opacities.

    The list is ordered: grade g shows the first `shown(g)` of them, so a follow-up image has the same places.
    """
    worst = int(rng.choice(MAX_GRADE + 1, p=(0.5, 0.17, 0.18, 0.15)))
    first_side = int(rng.integers(2))
    opacities = []
    for number in range(opacity_count(MAX_GRADE)):
        side = first_side if number % 2 == 0 else int(rng.integers(2))
        opacities.append(
            Opacity(
                side=side,
                across=float(rng.uniform(0.25, 0.85)),
                down=float(rng.beta(2.2, 1.6)),
                radius_x=float(rng.uniform(0.13, 0.26)),
                radius_y=float(rng.uniform(0.13, 0.26)),
                density=float(rng.uniform(0.8, 1.2)),
            )
        )
    return worst, tuple(opacities)


def opacity_count(grade: int) -> int:
    """how many opacities a grade shows: 0, 2, 3, 5."""
    return (0, 2, 3, 5)[grade]
