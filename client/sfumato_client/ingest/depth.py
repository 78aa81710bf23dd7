"""How many bits a 16-bit file really holds: detectors give 10 to 14, what writes PNG or npz
often keeps them so, and some of it writes 8.

Told from one image alone, never from the others: what one patient's image looks like must not depend on who else is
there. The whole set is only looked at to say where images differ (`whole_set`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.dicom.elements import Note
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.imaging import depth_of
from sfumato_common.types import AnyArray

DEPTH_NOTE = "a 16-bit file that holds"


def shown(samples: AnyArray, bits: int | None, note: Note) -> npt.NDArray[np.float32]:
    """Unsigned samples of 8 or 16 bits -> display values 0..1, those of 16 by the depth that they hold, or `bits`.

    Raises UnreadableError for values that `bits` does not hold.
    """
    if samples.dtype.itemsize == 1:
        return samples.astype(np.float32) / np.float32(255)
    depth = bits or depth_of(samples)
    if bits and int(samples.max()) >= 2**bits:
        raise UnreadableError(f"it holds values of more than the {bits} bits that the source says")
    if not bits and depth < 16:
        note(f"{DEPTH_NOTE} {depth} bits: shown by these")
    return samples.astype(np.float32) / np.float32(2**depth - 1)
