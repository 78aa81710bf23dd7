"""What the gate and the attacks found as small drawings: where a figure lies, its interval, and what bounds it.

Places are in the drawing's own units, from 0 to WIDTH; a template draws them as SVG with words beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = 200.0
_AXIS = (0.4, 1.0)  # of an AUC: .5 is chance


@dataclass(frozen=True)
class Drawing:
    """One row: its words, the result in a word or two, whether it asks for a second look, and where its marks lie."""

    name: str
    question: str
    of: str
    words: str
    result: str
    alarming: bool
    at: float
    low: float
    high: float
    bound: float
    note: str = ""


def finding_drawing(finding: Mapping[str, Any]) -> Drawing:
    """A rule of the gate: its figure beside its limit."""
    value, limit = float(finding["value"]), float(finding["limit"])
    most = 1.25 * max(value, limit, 1e-9)
    place = WIDTH * max(0.0, min(1.0, value / most))
    words = f"{value:.4g}, {finding['bound']} {limit:.4g}"
    return Drawing(
        str(finding["rule"]), str(finding["compares"]), str(finding["of"]), words,
        "passed" if finding["passed"] else "not passed", not finding["passed"],
        at=place, low=0.0, high=place, bound=WIDTH * min(1.0, limit / most),
    )  # fmt: skip


def attack_drawing(result: Mapping[str, Any]) -> Drawing:
    """An attack: the AUC of telling training patients from holdout ones, with its 95 % interval; .5 is chance."""
    auc, (low, high) = float(result["auc"]), (float(end) for end in result["auc_interval"])
    rates = [f"{float(found['share']):.3f} at {float(rate):g} false ones" for rate, found in result["found_at"].items()]
    apart = int(result.get("stand_out", 0))
    words = f"AUC {auc:.3f} ({low:.3f} to {high:.3f}); found: {', '.join(rates)}; {apart} stand out"
    note = f"{result['members']} training and {result['holdout']} holdout patients"
    if result["underpowered"]:
        note += f"; underpowered: {result['underpowered']}"
    return Drawing(
        str(result["name"]), str(result["question"]), str(result["of"]), words,
        *_told(low, apart, bool(result["underpowered"])),
        at=_place(auc), low=_place(low), high=_place(high), bound=_place(0.5), note=note,
    )  # fmt: skip


def _told(low: float, apart: int, underpowered: bool) -> tuple[str, bool]:
    """What an attack says: it tells patients apart, or some of them, it does not, or so few cannot say."""
    if low > 0.5 or apart:
        return "above chance" if low > 0.5 else "some stand out", True
    return ("too few to tell", True) if underpowered else ("at chance", False)


def _place(auc: float) -> float:
    return WIDTH * max(0.0, min(1.0, (auc - _AXIS[0]) / (_AXIS[1] - _AXIS[0])))
