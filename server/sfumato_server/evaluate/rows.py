"""One line of an evaluation: a figure of the set, the same of real data, and how the two compare, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sfumato_common.metrics.ranks import percentile_interval

Float64 = npt.NDArray[np.float64]
Comparison = Literal["", "ratio", "difference"]
_NORMAL = np.array([NormalDist().inv_cdf((at + 0.5) / 400) for at in range(400)])


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure and its values in samples of patients [D], the same samples for figures that are compared."""

    value: float
    draws: Float64

    @property
    def interval(self) -> tuple[float, float]:
        """The middle 95 % of the samples; nan without any."""
        return percentile_interval(self.draws)

    def __truediv__(self, other: Estimate) -> Estimate:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = self.value / other.value if other.value else math.nan
            return Estimate(ratio, self.draws / other.draws)

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, self.draws - other.draws)


def jackknifed(value: float, left_out: Sequence[float]) -> Estimate:
    """A figure with a normal sample about it, as wide as the delete-a-group jackknife says (Kott 2001, section 2).

    `left_out` are its values without each group in turn. For figures that drawing with replacement would bias: a record
    that is drawn twice is its own nearest neighbour.
    """
    values = np.array(left_out)
    count = len(values)
    deviation = math.sqrt((count - 1) / count * float(((values - values.mean()) ** 2).sum()))
    return Estimate(value, value + deviation * _NORMAL)


@dataclass(frozen=True)
class Row:
    """`of` says what of which images; numbers are None where there is none, and `note` then says why."""

    figure: str
    of: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    real: float | None = None
    real_low: float | None = None
    real_high: float | None = None
    comparison: Comparison = ""
    compared: float | None = None
    compared_low: float | None = None
    compared_high: float | None = None
    note: str = ""
    # what the line is about, by itself, where a program is to find it
    subject: str = ""

    def as_json(self) -> dict[str, Any]:
        """Stable names for scripts."""
        return dict(vars(self))


def row(
    figure: str,
    of: str,
    made: Estimate,
    real: Estimate | None = None,
    comparison: Comparison = "",
    compared: Estimate | None = None,
    note: str = "",
    subject: str = "",
) -> Row:
    """A line of estimates; what is not finite becomes None. `compared` is of samples of both where it is not given."""
    if real is not None and comparison and compared is None:
        compared = made / real if comparison == "ratio" else made - real
    return Row(figure, of, *_numbers(made), *_numbers(real), comparison, *_numbers(compared), note, subject)


def _numbers(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    if estimate is None:
        return None, None, None
    low, high = estimate.interval
    return _finite(estimate.value), _finite(low), _finite(high)


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def jackknifed_row(
    figure: str,
    of: str,
    values: tuple[float, float],
    left_out: Sequence[tuple[float, float]],
    comparison: Comparison = "ratio",
    note: str = "",
) -> Row:
    """A line of a figure of the set and of real data, `values`, which are `left_out` without each group in turn."""

    def against(pair: tuple[float, float]) -> float:
        if comparison == "difference":
            return pair[0] - pair[1]
        return pair[0] / pair[1] if pair[1] else math.nan

    made, real = (jackknifed(values[at], [pair[at] for pair in left_out]) for at in (0, 1))
    compared = jackknifed(against(values), [against(pair) for pair in left_out])
    return row(figure, of, made, real, comparison, compared, "; ".join(filter(None, (note, "jackknife"))))
