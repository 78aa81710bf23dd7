"""The public pool of phantom radiographs: template of the alignment, centre of the features, source of detail.

Nothing here is about anybody. Every party draws the same pool from the same constants, so that a plan's digest pins it;
a test holds its hash. Patients carry no side marker and no pacemaker, which synthetic images would then show, and are
never mirrored: the heart stays on its side. The detector's matrix is square and twice as fine as the images.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from sfumato_common.imaging import fit_square
from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.phantom.anatomy import Anatomy
from sfumato_common.types import ByteImages

_SEED, _SITE, _DEVICE, _VISITS = 11, "appearance", DEVICES["aurora"], 2
_FINEST = 1024


@lru_cache(maxsize=2)
def phantom_pool(size: int, patients: int) -> ByteImages:
    """Images uint8 [P, S, S] of two visits of `patients` phantom patients, less those with a pacemaker."""
    matrix = min(2 * size, _FINEST)
    noise = _DEVICE.noise * min(1.0, matrix / _DEVICE.rows)
    device = replace(_DEVICE, rows=matrix, columns=matrix, noise=noise, marker=False)
    drawn = [draw_patient(_SEED, _SITE, 1 + number, device) for number in range(patients)]
    chests = [person for person in drawn if isinstance(person.anatomy, Anatomy) and not person.anatomy.pacemaker]
    images = [image for person in chests for image in person.images[:_VISITS]]
    return np.stack([np.rint(fit_square(image, size) * 255).astype(np.uint8) for image in images])
