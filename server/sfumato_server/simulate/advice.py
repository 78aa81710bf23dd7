"""What simulated studies of several sizes say of a plan: figures by size, and sentences by a stated rule.

Pure functions of the runs: nothing is computed here that the table does not show.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from sfumato_common.count_text import count_text

# deviations of a guess's AUC that a figure must be above a half
_SURE = 2.0
RULE = (
    "a size has no figure where the median AUC is not above what a guess reaches on these judges (a half and two "
    "standard deviations); best is the highest median; advised is the smallest cohort whose median is within the "
    "spread of the best, that is at least the lowest of the best's runs"
)


@dataclass(frozen=True)
class Size:
    """The runs of one size: AUC by repeat of the plan and of real images, of one run without noise, or why none ran."""

    sites: int
    patients: int
    figures: Sequence[float] = ()
    real: Sequence[float] = ()
    noiseless: float | None = None
    models: Sequence[str] = ()
    refused: str = ""

    @property
    def cohort(self) -> int:
        """Patients of all sites."""
        return self.sites * self.patients

    @property
    def median(self) -> float:
        """Of the plan's figures; there is one at least."""
        return statistics.median(self.figures)

    def __str__(self) -> str:
        return f"{count_text(self.sites, 'site')} of {self.patients} patients"


def guess_limit(ill: int, well: int) -> float:
    """The AUC that a guess stays below on so many judges, by two standard deviations of the Mann-Whitney statistic."""
    return 0.5 + _SURE * math.sqrt((ill + well + 1) / (12.0 * ill * well))


def drowned(size: Size, limit: float) -> bool:
    """Whether the plan's figure is no better than a guess."""
    return bool(size.figures) and size.median <= limit


def advised(sizes: Sequence[Size], limit: float) -> tuple[Size, Size] | None:
    """(the advised size, the best one) by `RULE`; None where no size has a figure."""
    shown = [size for size in sizes if size.figures and not drowned(size, limit)]
    if not shown:
        return None
    best = max(shown, key=lambda size: (size.median, -size.cohort))
    within = [size for size in shown if size.median >= min(best.figures)]
    return min(within, key=lambda size: (size.cohort, size.sites)), best


def sentences(sizes: Sequence[Size], limit: float) -> list[str]:
    """The advice, in the order of its reading."""
    reasons: dict[str, list[str]] = {}
    for size in sizes:
        if size.refused:
            reasons.setdefault(size.refused, []).append(str(size))
    said = [f"{', '.join(refused)}: cannot be run: {why}" for why, refused in reasons.items()]
    said += [_why_none(size, limit) for size in sizes if drowned(size, limit)]
    found = advised(sizes, limit)
    if found is None:
        ran = any(size.figures for size in sizes)
        none = "No size that ran gives a figure: more patients, more sites or a larger epsilon may."
        return [*said, none] if ran else said
    chosen, best = found
    beside = "the best of all" if chosen is best else f"within the spread of the best, {best}: {_spread(best)}"
    said.append(f"Ask for {chosen}, {chosen.cohort} in all: AUC {_spread(chosen)}, {beside}.")
    if chosen.real:
        lost = f"; the plan's models without noise gave {chosen.noiseless:.3f}" if chosen.noiseless is not None else ""
        said.append(f"Real images of as many patients as train there gave {statistics.median(chosen.real):.3f}{lost}.")
    if chosen.cohort == max(size.cohort for size in sizes if not size.refused):
        said.append("It is the largest cohort that ran: what a larger one gives is not known.")
    return said


def _why_none(size: Size, limit: float) -> str:
    reached = f"AUC {size.median:.3f}, and a guess reaches {limit:.3f} on these judges"
    if size.noiseless is None:
        return f"{size}: no figure: {reached}."
    if size.noiseless > limit:
        return f"{size}: no figure: noise drowns it ({reached}; without noise {size.noiseless:.3f})."
    return (
        f"{size}: no figure, nor without noise ({size.noiseless:.3f}): its models do not learn the labels ({reached})."
    )


def _spread(size: Size) -> str:
    return f"{size.median:.3f} [{min(size.figures):.3f}, {max(size.figures):.3f}]"
