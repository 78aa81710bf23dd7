"""A site's noised release read as sums in patients and feature units, and how those of several sites add up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from sfumato_common.generators.spectral.denoise import symmetric
from sfumato_common.generators.spectral.layout import TAIL_GUESS
from sfumato_common.generators.spectral.moment_layout import Float64, MomentLayout
from sfumato_common.generators.spectral.sums import centre_of, charged_norm, class_counts, main_noise, own_layout
from sfumato_common.types import Arrays


@dataclass(frozen=True)
class Sums:
    """Noised sums of one or several sites in patients and feature units: counts [K], sums [K, d], seconds [K, d, d].

    `*_noise` are the known standard deviations of their coordinates (on the diagonal, for `seconds`). First moments
    were clipped to `radius` about `centre` [d], second ones about the class means. `tail` is the amplitude above the
    band in units of the power law, where it was measured.
    """

    counts: Float64
    sums: Float64
    seconds: Float64
    sum_noise: float
    second_noise: float
    centre: Float64
    radius: float
    tail: float | None = None

    def __add__(self, other: Sums) -> Sums:
        part = float(self.counts.sum() / (self.counts.sum() + other.counts.sum()))
        return Sums(
            self.counts + other.counts,
            self.sums + other.sums,
            self.seconds + other.seconds,
            math.hypot(self.sum_noise, other.sum_noise),
            math.hypot(self.second_noise, other.second_noise),
            part * self.centre + (1.0 - part) * other.centre,
            part * self.radius + (1.0 - part) * other.radius,
            self._tail_with(other),
        )

    def _tail_with(self, other: Sums) -> float | None:
        if self.tail is None or other.tail is None:
            return None
        weights = self.counts.sum(), other.counts.sum()
        return math.sqrt((weights[0] * self.tail**2 + weights[1] * other.tail**2) / sum(weights))

    def first_moments(self) -> Sums:
        """The same without `seconds`, which take almost all of its memory."""
        return replace(self, seconds=np.zeros((0, 0, 0)))

    @property
    def means(self) -> Float64:
        """Class means [K, d]; each coordinate has noise of standard deviation `sum_noise / sizes`."""
        return np.asarray(self.sums / self.counts[:, None])


def read_sums(layout: MomentLayout, release: Arrays, noise_multiplier: float) -> Sums:
    """The sums of one site's release."""
    centre, sums, moments = (release[name].astype(np.float64) for name in ("centre", "sums", "moments"))
    layout, sigma = own_layout(layout, release, noise_multiplier), main_noise(layout, noise_multiplier)
    norms = release["norms"].astype(np.float64) if layout.charged_radii else None
    counts, about = class_counts(layout, sums, sigma), centre_of(layout, centre, sigma)
    sum_unit, second_unit = layout.spread_radius / layout.weights.sum, layout.spread_radius**2 / layout.weights.moment
    return Sums(
        counts,
        counts[:, None] * about + sums[:, 1:] * sum_unit,
        symmetric(moments, layout.features) * second_unit,
        sigma * sum_unit,
        sigma * second_unit,
        about,
        layout.spread_radius,
        None if norms is None or len(norms) < 3 else charged_norm(norms[2], TAIL_GUESS, noise_multiplier),
    )
