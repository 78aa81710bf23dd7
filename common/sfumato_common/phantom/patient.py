"""Phantom patients: the same person over one to four exposures, with follow-up of the same disease.

Everything derives from SeedSequence([seed, sha256(site), number]): a patient never depends on how many others there
are, and the anatomy never on the detector.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sfumato_common.imaging import fit_square
from sfumato_common.phantom import canvas as grid
from sfumato_common.phantom import drawing
from sfumato_common.phantom.anatomy import (
    MAX_GRADE,
    Anatomy,
    Pose,
    opacity_count,
    sample_anatomy,
    sample_disease,
    sample_pose,
)
from sfumato_common.phantom.devices import DEVICES, Device
from sfumato_common.types import ByteImages, pixel_dtype

LABELS = ("normal", "opacity")
_DENSITY = (0.0, 0.105, 0.130, 0.160)  # attenuation of one opacity, by grade


@dataclass(frozen=True)
class PhantomPatient:
    """One fictional person: images are float32 [H, W] in 0..1, dense structures bright (as MONOCHROME2 shows them)."""

    patient_id: str
    name: str
    anatomy: Anatomy
    images: tuple[npt.NDArray[np.float32], ...]
    grades: tuple[int, ...]

    @property
    def labels(self) -> tuple[int, ...]:
        """0 normal, 1 opacity (any grade above 0), one an image."""
        return tuple(int(grade > 0) for grade in self.grades)


def draw_patient(seed: int, site: str, number: int, device: Device) -> PhantomPatient:
    """Draw patient `number` of `site` on `device`; deterministic in all four."""
    site_key = int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "big")
    person, course, texture, noise = (
        np.random.default_rng(child) for child in np.random.SeedSequence([seed, site_key, number]).spawn(4)
    )
    anatomy = sample_anatomy(person)
    worst, opacities = sample_disease(course)
    count = int(course.choice((1, 2, 3, 4), p=(0.40, 0.30, 0.20, 0.10)))
    canvas = grid.make_canvas(device.rows, device.columns, device.zoom)
    tree, patches = drawing.vessels(anatomy, texture, canvas), grid.fluff(texture, canvas)
    still = drawing.skeleton(anatomy, canvas)
    images, grades = [], []
    for index in range(count):
        grade = _follow_up(worst, index, course)
        pose = sample_pose(course)
        # the disease never looks the same twice: each visit has its own amount, also between the grades
        amount = np.float32(_DENSITY[grade] * course.uniform(0.8, 1.2))
        inside = tree
        if grade:
            inside = tree + amount * drawing.consolidation(
                opacities[: opacity_count(grade)], anatomy, pose, patches, canvas
            )
        field = drawing.attenuation(anatomy, pose, still, inside, canvas)
        images.append(_render(grid.expose(field, pose, device.rows, device.columns), pose, device, noise))
        grades.append(grade)
    patient_id = f"{site}-P{number:04d}"
    return PhantomPatient(patient_id, f"PHANTOM^P{number:04d}", anatomy, tuple(images), tuple(grades))


def _follow_up(worst: int, index: int, rng: np.random.Generator) -> int:
    """Grade of image `index`: the worst first, then it stays or heals by a grade or two; the healthy stay healthy."""
    drop = int(rng.choice(3, p=(0.6, 0.3, 0.1)))
    return max(0, worst - drop) if index else worst


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


def arrays(
    seed: int, patients: int, size: int, site: str = "public", device: str = "aurora", first: int = 1, bits: int = 8
) -> tuple[ByteImages, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A cohort without DICOM: images [N, size, size] uint8 (uint16 for 16 bits), labels and patient_index int64 [N].

    Drawn at twice `size` (at most the device's own matrix, with its noise scaled to match) and area-averaged, so it
    looks as the same patients' DICOM files do after ingest.
    """
    small = _shrink(DEVICES[device], 2 * size)
    drawn = [draw_patient(seed, site, first + index, small) for index in range(patients)]
    dtype = pixel_dtype(bits)
    shown = [fit_square(image, size) for person in drawn for image in person.images]
    images = [np.rint(image * np.iinfo(dtype).max).astype(dtype) for image in shown]
    labels = [label for person in drawn for label in person.labels]
    patient_index = [index for index, person in enumerate(drawn) for _ in person.images]
    return np.stack(images), np.array(labels, dtype=np.int64), np.array(patient_index, dtype=np.int64)


def _shrink(device: Device, longer: int) -> Device:
    scale = min(1.0, longer / max(device.rows, device.columns))
    rows, columns = round(device.rows * scale), round(device.columns * scale)
    return replace(device, rows=rows, columns=columns, noise=device.noise * scale)


assert len(_DENSITY) == MAX_GRADE + 1
