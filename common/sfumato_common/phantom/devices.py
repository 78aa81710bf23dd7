"""Three made-up X-ray systems: what makes hospitals' images differ before any patient does.

Sizes are small (a real DX image has some 3000 x 3000 pixels): the study's images are at most 256 pixels square.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Device:
    """One X-ray system: matrix, how it stores values, and how its processing renders attenuation.

    `contrast` and `level` shape the display curve 1 / (1 + exp(-contrast (a - level))) over attenuation a; `noise` is
    the standard deviation of the quantum noise at full matrix, in display units (0..1); `zoom` is the field of view
    (above 1: closer). Stored values lie in [stored_low, stored_high]; `slope` and `intercept` are the Modality LUT
    (DICOM PS3.3 C.11.1).
    """

    name: str
    manufacturer: str
    model: str
    rows: int
    columns: int
    bits_stored: int
    photometric: Literal["MONOCHROME1", "MONOCHROME2"]
    modality: Literal["DX", "CR"]
    stored_low: int
    stored_high: int
    slope: float
    intercept: float
    contrast: float
    level: float
    noise: float
    zoom: float
    marker: bool


DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        device.name: device
        for device in (
            Device("aurora", "PHANTOM AURORA", "A-1 flat panel", 176, 176, 12, "MONOCHROME2", "DX",
                   180, 3900, 1.0, 0.0, contrast=6.0, level=0.50, noise=0.028, zoom=1.00, marker=True),
            Device("borealis", "PHANTOM BOREALIS", "B-200 plate reader", 192, 160, 10, "MONOCHROME2", "CR",
                   40, 960, 2.0, -64.0, contrast=4.2, level=0.40, noise=0.040, zoom=0.92, marker=False),
            Device("cirrus", "PHANTOM CIRRUS", "C-7 mobile", 160, 192, 12, "MONOCHROME1", "DX",
                   300, 3300, 1.0, 0.0, contrast=5.0, level=0.58, noise=0.034, zoom=1.10, marker=True),
        )
    }
)  # fmt: skip
