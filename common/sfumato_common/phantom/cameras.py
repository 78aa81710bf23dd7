"""Three made-up fundus cameras: field, crop, light and colour differ between hospitals before any patient does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Camera:
    """One fundus camera. `field` is the radius of the round field over half the frame's height (above 1: cut off above
    and below), `centre` how far the field's middle lies from the fovea towards the disc, `zoom` above 1 is closer.

    `colour` are gains of red, green and blue, `falloff` how much light the rim loses, `noise` a standard deviation at
    full matrix in display units (0..1).
    """

    name: str
    manufacturer: str
    model: str
    rows: int
    columns: int
    field: float
    centre: float
    zoom: float
    colour: tuple[float, float, float]
    falloff: float
    noise: float
    notch: bool

    @property
    def density(self) -> float:
        """Pixels a half field of the eye."""
        return self.rows * self.field * self.zoom / 2.0


CAMERAS: Mapping[str, Camera] = MappingProxyType(
    {
        camera.name: camera
        for camera in (
            Camera("dawn", "PHANTOM DAWN", "D-45 mydriatic", 192, 192, 0.985, 0.16, 1.0, (0.95, 1.00, 0.95),
                   falloff=0.36, noise=0.012, notch=False),
            Camera("ember", "PHANTOM EMBER", "E-3 non-mydriatic", 144, 192, 1.30, 0.05, 1.0, (0.92, 0.88, 1.45),
                   falloff=0.22, noise=0.015, notch=True),
            Camera("flint", "PHANTOM FLINT", "F-30 hand-held", 176, 176, 0.985, 0.50, 1.12, (0.98, 0.96, 0.62),
                   falloff=0.52, noise=0.022, notch=False),
        )
    }
)  # fmt: skip
