"""The public pool of phantom radiographs: template of the alignment, centre of the features, source of detail.

Nothing here is about anybody. Every party draws the same pool from the same constants, so that a plan's digest pins it;
a test holds its hash. Patients carry no side marker and are never mirrored: the heart stays on its side.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from sfumato_common.imaging import fit_square
from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.phantom.patient import shrink_device
from sfumato_common.types import ByteImages

_SEED, _SITE, _VISITS = 11, "appearance", 2


@lru_cache(maxsize=2)
def phantom_pool(size: int, patients: int) -> ByteImages:
    """Images uint8 [P, S, S] of the first two visits of so many phantom patients, on each device in turn."""
    kinds = [DEVICES[name] for name in sorted(DEVICES)]
    devices = [replace(shrink_device(device, 2 * size), marker=False) for device in kinds]
    drawn = [
        image
        for number in range(patients)
        for image in draw_patient(_SEED, _SITE, 1 + number, devices[number % len(devices)]).images[:_VISITS]
    ]
    return np.stack([np.rint(fit_square(image, size) * 255).astype(np.uint8) for image in drawn])
