"""Phantom patients: the same person over one to four exposures, with follow-up of the same disease.

A patient never depends on how many others there are, and the anatomy never on the detector. Frontal and lateral films
of a number are of the same person.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from sfumato_common.phantom import canvas as grid
from sfumato_common.phantom import drawing, lateral
from sfumato_common.phantom.anatomy import (
    MAX_GRADE,
    Anatomy,
    Opacity,
    Pose,
    opacity_count,
    sample_anatomy,
    sample_disease,
    sample_pose,
)
from sfumato_common.phantom.devices import Device
from sfumato_common.phantom.person import PhantomPatient, follow_up, person_seed

LABELS = ("normal", "opacity")
_Draws = tuple[np.random.Generator, np.random.Generator]  # of texture, and of what a frontal film does not show
_DENSITY = (0.0, 0.105, 0.130, 0.160)  # attenuation of one opacity, by grade


def draw_patient(seed: int, site: str, number: int, device: Device, view: str = "PA") -> PhantomPatient:
    """Draw patient `number` of `site` on `device` from the front (PA) or the side (LL); deterministic in all five."""
    # the fifth stream is for what a frontal film does not show
    person, course, texture, noise, hidden = (
        np.random.default_rng(child) for child in person_seed(seed, site, number).spawn(5)
    )
    anatomy = sample_anatomy(person)
    worst, opacities = sample_disease(course)
    count = int(course.choice((1, 2, 3, 4), p=(0.40, 0.30, 0.20, 0.10)))
    canvas = grid.make_canvas(device.rows, device.columns, device.zoom)
    film = (_Frontal if view == "PA" else _Lateral)(anatomy, opacities, canvas, (texture, hidden))
    images, grades = [], []
    for index in range(count):
        grade = follow_up(worst, index, course)
        pose = sample_pose(course)
        # the disease never looks the same twice: each visit has its own amount, also between the grades
        amount = np.float32(_DENSITY[grade] * course.uniform(0.8, 1.2))
        field = film.attenuation(pose, grade, amount)
        images.append(_render(grid.expose(field, pose, device.rows, device.columns), pose, device, noise))
        grades.append(grade)
    patient_id = f"{site}-P{number:04d}"
    return PhantomPatient(patient_id, f"PHANTOM^P{number:04d}", anatomy, tuple(images), tuple(grades), (view,) * count)


class _Film(ABC):
    """A projection of a patient: what is drawn once, and what differs from one exposure to the next."""

    _tree: grid.Field  # vessels

    def __init__(self, anatomy: Anatomy, opacities: tuple[Opacity, ...], canvas: grid.Canvas) -> None:
        self._anatomy, self._opacities, self._canvas = anatomy, opacities, canvas

    def attenuation(self, pose: Pose, grade: int, amount: np.float32) -> grid.Field:
        """Line integral of attenuation [H, W] of one exposure with opacities of `grade` and `amount`."""
        inside = self._tree
        if grade:
            inside = inside + amount * self._consolidation(self._opacities[: opacity_count(grade)], pose)
        return self._projection(inside, pose)

    @abstractmethod
    def _consolidation(self, shown: tuple[Opacity, ...], pose: Pose) -> grid.Field: ...

    @abstractmethod
    def _projection(self, inside: grid.Field, pose: Pose) -> grid.Field: ...


class _Frontal(_Film):
    def __init__(self, anatomy: Anatomy, opacities: tuple[Opacity, ...], canvas: grid.Canvas, draws: _Draws) -> None:
        super().__init__(anatomy, opacities, canvas)
        texture, hidden = draws
        self._tree, self._patches = drawing.vessels(anatomy, texture, canvas, hidden), grid.fluff(texture, canvas)
        self._still = drawing.skeleton(anatomy, canvas)

    def _consolidation(self, shown: tuple[Opacity, ...], pose: Pose) -> grid.Field:
        return drawing.consolidation(shown, self._anatomy, pose, self._patches, self._canvas)

    def _projection(self, inside: grid.Field, pose: Pose) -> grid.Field:
        return drawing.attenuation(self._anatomy, pose, self._still, inside, self._canvas)


class _Lateral(_Film):
    def __init__(self, anatomy: Anatomy, opacities: tuple[Opacity, ...], canvas: grid.Canvas, draws: _Draws) -> None:
        super().__init__(anatomy, opacities, lateral.side_canvas(canvas))
        texture, hidden = draws
        self._profile = lateral.sample_profile(hidden, len(opacities))
        self._tree, self._patches = lateral.hilar_vessels(anatomy, texture, self._canvas), grid.fluff(texture, canvas)
        self._still = lateral.still_side(anatomy, self._profile, self._canvas)

    def _consolidation(self, shown: tuple[Opacity, ...], pose: Pose) -> grid.Field:
        return lateral.consolidation_side(shown, self._anatomy, self._profile, pose, self._patches, self._canvas)

    def _projection(self, inside: grid.Field, pose: Pose) -> grid.Field:
        return lateral.attenuation_side(self._anatomy, self._profile, pose, self._still, inside, self._canvas)


def _render(
    field: npt.NDArray[np.float32], pose: Pose, device: Device, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Attenuation -> display values 0..1 [H, W]: display curve, quantum noise (less where dense), side marker."""
    contrast, level = np.float32(device.contrast * pose.gain), np.float32(device.level + pose.level)
    image = 1.0 / (1.0 + np.exp(contrast * (level - field)))
    floor = np.float32(1.0 / (1.0 + np.exp(contrast * level)))
    image = (image - floor) / (1.0 - floor)  # air is black on every device
    image += np.float32(device.noise) * (1.0 - 0.6 * image) * rng.standard_normal(image.shape, dtype=np.float32)
    if device.marker:
        unit = max(1, device.rows // 64)
        top, left = 4 * unit, device.columns - 7 * unit
        image[top : top + 4 * unit, left : left + unit] = 0.95
        image[top + 3 * unit : top + 4 * unit, left : left + 3 * unit] = 0.95
    shown: npt.NDArray[np.float32] = np.clip(image, 0.0, 1.0)
    return shown


assert len(_DENSITY) == MAX_GRADE + 1
