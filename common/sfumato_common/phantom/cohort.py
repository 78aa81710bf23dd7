"""The kinds of pictures that the phantom draws, and a cohort of any of them as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from sfumato_common.errors import ConfigError
from sfumato_common.imaging import LARGEST_SIDE, fit_square
from sfumato_common.phantom.cameras import CAMERAS, Camera
from sfumato_common.phantom.devices import DEVICES, Device
from sfumato_common.phantom.eyes import draw_eyes
from sfumato_common.phantom.patient import LABELS, draw_patient
from sfumato_common.phantom.person import PhantomPatient
from sfumato_common.types import ByteImages, pixel_dtype


@dataclass(frozen=True)
class Modality:
    """A kind of picture: its labels (healthy first), the systems that take it, and who draws a patient on one."""

    labels: tuple[str, str]
    systems: Mapping[str, Device | Camera]
    draw: Callable[..., PhantomPatient]
    channels: int

    def system(self, name: str | None, longer: int | None = None) -> Any:
        """The system of that name (the first without one), its matrix at `longer` pixels on its longer side.

        Raises ConfigError for a name or size that the phantom does not draw.
        """
        found = self.systems.get(name or next(iter(self.systems)))
        if found is None:
            raise ConfigError(f"unknown phantom device '{name}'; choose one of {', '.join(self.systems)}")
        if longer is None:
            return found
        if not 1 <= longer <= LARGEST_SIDE:
            raise ConfigError(f"the phantom draws at most {LARGEST_SIDE} pixels a side; choose a smaller size")
        return resize(found, longer)


MODALITIES: Mapping[str, Modality] = MappingProxyType(
    {
        "chest": Modality(LABELS, DEVICES, draw_patient, 1),
        "chest-lateral": Modality(LABELS, DEVICES, partial(draw_patient, view="LL"), 1),
        "fundus": Modality(("normal", "retinopathy"), CAMERAS, draw_eyes, 3),
    }
)


def modality_of(name: str) -> Modality:
    """The modality of that name. Raises ConfigError."""
    if name not in MODALITIES:
        raise ConfigError(f"unknown modality '{name}'; choose one of {', '.join(MODALITIES)}")
    return MODALITIES[name]


def resize(system: Any, longer: int) -> Any:
    """The same device or camera with another matrix.

    A pixel of a smaller matrix averages noise away; one of a larger matrix gets no more than the system's own.
    """
    scale = longer / max(system.rows, system.columns)
    rows, columns = round(system.rows * scale), round(system.columns * scale)
    return replace(system, rows=rows, columns=columns, noise=system.noise * min(1.0, scale))


def arrays(
    seed: int,
    patients: int,
    size: int,
    site: str = "public",
    device: str | None = None,
    first: int = 1,
    bits: int = 8,
    modality: str = "chest",
) -> tuple[ByteImages, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """A cohort without DICOM: images [N, S, S] or, of fundi, [N, S, S, 3], labels and patient_index int64 [N].

    uint8, or uint16 for 16 bits. Drawn at twice `size` (where the device's own matrix or `size` is smaller, at the
    larger of them; with noise to match) and area-averaged, so it looks as the same patients' DICOM files do after
    ingest. Raises ConfigError for what the phantom does not draw.
    """
    kind = modality_of(modality)
    system = kind.system(device)
    fitted = kind.system(device, min(2 * size, max(system.rows, system.columns, size)))
    drawn = [kind.draw(seed, site, first + index, fitted) for index in range(patients)]
    dtype = pixel_dtype(bits)
    shown = [fit_square(image, size) for person in drawn for image in person.images]
    images = [np.rint(image * np.iinfo(dtype).max).astype(dtype) for image in shown]
    labels = [label for person in drawn for label in person.labels]
    patient_index = [index for index, person in enumerate(drawn) for _ in person.images]
    return np.stack(images), np.array(labels, dtype=np.int64), np.array(patient_index, dtype=np.int64)
