"""The public pool of phantom radiographs or fundus photographs: template, centre of the features, source of detail.

Nothing here is about anybody. Every party draws the same pool from the same constants, so that a plan's digest pins it;
a test holds its hash. Chests carry no side marker and no pacemaker, which synthetic images would then show, and are
never mirrored: the heart stays on its side. Eyes are photographed by the phantom's cameras in turn, both of a patient;
left ones are mirrored, so that the pool shows right ones. The detector's matrix is twice as fine as the images.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sfumato_common.imaging import fit_square
from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.phantom.anatomy import Anatomy
from sfumato_common.phantom.cameras import CAMERAS
from sfumato_common.phantom.cohort import resize
from sfumato_common.phantom.eyes import draw_eyes
from sfumato_common.types import ByteImages

_SEED, _SITE, _DEVICE, _VISITS = 11, "appearance", DEVICES["aurora"], 2
_FINEST = 1024
Pixels = npt.NDArray[np.float32]


@lru_cache(maxsize=2)
def phantom_pool(kind: str, size: int, patients: int) -> ByteImages:
    """Images uint8 [P, S, S] or [P, S, S, 3] of two visits, or both eyes, of `patients` phantom patients.

    `kind` is chest or fundus. Chests with a pacemaker are left out.
    """
    images = (_eyes if kind == "fundus" else _chests)(min(2 * size, _FINEST), patients)
    return np.stack([np.rint(fit_square(image, size) * 255).astype(np.uint8) for image in images])


def _eyes(matrix: int, patients: int) -> list[Pixels]:
    cameras = [resize(CAMERAS[name], matrix) for name in sorted(CAMERAS)]
    drawn = [draw_eyes(_SEED, _SITE, 1 + number, cameras[number % len(cameras)]) for number in range(patients)]
    pictures = [pair for person in drawn for pair in list(zip(person.images, person.views, strict=True))[:_VISITS]]
    return [image if side == "R" else image[:, ::-1] for image, side in pictures]


def _chests(matrix: int, patients: int) -> list[Pixels]:
    noise = _DEVICE.noise * min(1.0, matrix / _DEVICE.rows)
    device = replace(_DEVICE, rows=matrix, columns=matrix, noise=noise, marker=False)
    drawn = [draw_patient(_SEED, _SITE, 1 + number, device) for number in range(patients)]
    chests = [person for person in drawn if isinstance(person.anatomy, Anatomy) and not person.anatomy.pacemaker]
    return [image for person in chests for image in person.images[:_VISITS]]
