"""A person's two eyes as numbers: disc, cup, macula, pigment, and the lesions of diabetic retinopathy; no pixels.

Coordinates of an eye: x from nasal to temporal, y down, the fovea at (0, 0), 1 = half of a field of 45 degrees. In
these both eyes look alike; the picture of a right eye is mirrored, so that its disc is on the right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfumato_common.phantom.anatomy import MAX_GRADE
from sfumato_common.phantom.vessel_tree import Vessel, grow_tree

LATERALITIES = ("R", "L")


@dataclass(frozen=True)
class Eye:
    """What stays the same over all pictures of one eye; lengths in half fields."""

    laterality: str
    disc: tuple[float, float]
    disc_radius: float
    disc_tall: float
    disc_tilt: float
    cup: float
    cup_shift: float
    macula: float
    vessels: tuple[Vessel, ...]


@dataclass(frozen=True)
class Retina:
    """One person: pigment and haze are the same in both eyes, the vessel trees are not."""

    female: bool
    age_years: int
    pigment: float
    redness: float
    tessellation: float
    haze: float
    eyes: tuple[Eye, Eye]


@dataclass(frozen=True)
class Lesion:
    """One lesion: kind, place in the eye, radii, angle and strength."""

    kind: str
    x: float
    y: float
    radius: float
    ratio: float
    angle: float
    strength: float


@dataclass(frozen=True)
class Gaze:
    """What differs from one picture to the next: where the eye looks, rotation, zoom, light and focus."""

    shift_x: float
    shift_y: float
    rotation: float
    zoom: float
    gain: float
    light_x: float
    light_y: float
    blur: float


def sample_retina(rng: np.random.Generator) -> Retina:
    """Draw a person; the second eye resembles the first in disc and cup, as a person's eyes do."""

    def vary(mean: float, sd: float) -> float:
        return float(mean + sd * np.clip(rng.standard_normal(), -2.5, 2.5))

    size, cup, distance = vary(0.150, 0.012), vary(0.45, 0.11), vary(0.64, 0.025)

    def eye(laterality: str) -> Eye:
        disc = -distance + vary(0.0, 0.012), vary(-0.065, 0.03)
        return Eye(
            laterality=laterality,
            disc=disc,
            disc_radius=size * vary(1.0, 0.03),
            disc_tall=vary(1.10, 0.05),
            disc_tilt=vary(0.0, 0.15),
            cup=float(np.clip(cup + vary(0.0, 0.03), 0.2, 0.8)),
            cup_shift=vary(0.12, 0.05),
            macula=vary(1.0, 0.25),
            vessels=grow_tree(rng, disc, size),
        )

    return Retina(
        female=bool(rng.random() < 0.5),
        age_years=int(rng.integers(19, 91)),
        pigment=vary(0.0, 1.0),
        redness=vary(0.0, 1.0),
        tessellation=float(np.clip(vary(0.30, 0.30), 0.0, 1.0)),
        haze=float(np.clip(vary(0.05, 0.05), 0.0, 0.2)),
        eyes=(eye("R"), eye("L")),
    )


def sample_gaze(rng: np.random.Generator) -> Gaze:
    """Draw one picture's gaze and light."""
    normal = np.clip(rng.standard_normal(8), -2.5, 2.5)
    return Gaze(
        shift_x=float(0.035 * normal[0]),
        shift_y=float(0.030 * normal[1]),
        rotation=float(0.05 * normal[2]),
        zoom=float(1.0 + 0.02 * normal[3]),
        gain=float(np.exp(0.09 * normal[4])),
        light_x=float(0.12 * normal[5]),
        light_y=float(0.12 * normal[6]),
        blur=float(abs(0.004 * normal[7])),
    )


def sample_lesions(rng: np.random.Generator, eye: Eye) -> tuple[tuple[Lesion, ...], ...]:
    """The lesions that each grade 0..3 shows in an eye; what a lower grade shows, a higher one shows too."""
    centre = rng.uniform(-0.30, 0.45), rng.uniform(-0.35, 0.35)
    grades: list[tuple[Lesion, ...]] = [()]
    for grade in range(1, MAX_GRADE + 1):
        found = list(grades[-1])
        for kind, count in _NEW[grade].items():
            found += [_lesion(rng, kind, eye, centre) for _ in range(int(rng.integers(count // 2 + 1, count + 1)))]
        grades.append(tuple(found))
    return tuple(grades)


# after the stages of the international clinical scale: aneurysms; bleedings and hard exudates; many, and soft ones
_NEW: dict[int, dict[str, int]] = {
    1: {"aneurysm": 14, "bleeding": 5, "exudate": 6},
    2: {"aneurysm": 12, "bleeding": 10, "exudate": 34},
    3: {"aneurysm": 20, "bleeding": 22, "exudate": 60, "wool": 6},
}
_RADIUS = {"aneurysm": 0.009, "bleeding": 0.028, "exudate": 0.015, "wool": 0.050}


def _lesion(rng: np.random.Generator, kind: str, eye: Eye, centre: tuple[float, float]) -> Lesion:
    """Exudates gather in a cluster near the macula; the others lie anywhere within the arcades but on the disc."""
    while True:
        if kind == "exudate" and rng.random() < 0.75:
            x, y = centre[0] + 0.15 * rng.standard_normal(), centre[1] + 0.13 * rng.standard_normal()
        else:
            x, y = rng.uniform(-0.75, 0.85), rng.uniform(-0.75, 0.75)
        from_disc = np.hypot(x - eye.disc[0], y - eye.disc[1])
        if from_disc > 1.5 * eye.disc_radius and np.hypot(x, y) > 0.06:
            break
    return Lesion(
        kind,
        float(x),
        float(y),
        float(_RADIUS[kind] * np.exp(0.35 * np.clip(rng.standard_normal(), -2, 2))),
        float(rng.uniform(0.5, 1.0)),
        float(rng.uniform(0, np.pi)),
        float(rng.uniform(0.7, 1.0)),
    )
