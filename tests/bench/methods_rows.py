"""The rows of the methods bench: which item of a release each is, in the order of the papers' tables.

Public settings, fixed before any figure of use was seen. Latent methods release the 64 coarsest coordinates; the radius
is the mean L1 norm of a standard normal of 64 coordinates. PLAN stands there with its elastic term in the walk's own
length and the paper's weights, and in the space's unit, where they bend next to nothing (`bend.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

K = 5
COORDINATES, L1_RADIUS = 64, 51.0
TOTALS = (1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class Row:
    """One line of the table: the release item that makes its set, and what the method's own paper reports."""

    name: str
    item: dict[str, Any]
    paper: str = ""


def _latent(method: str, total: float, **more: Any) -> Row:
    item = {"method": method, "radius": L1_RADIUS, "epsilon": total, "coordinates": COORDINATES, **more}
    papers = {
        ("cadp", 1.0): "X-ray accuracy 81 to 86 for epsilon .5 to 6, real about 88",
        ("dp-glow", 1.0): "no figure in the public text",
    }
    return Row(f"{method} {total:g}", item, papers.get((method, total), ""))


_PLAN = (
    "TB: accuracy 83.9, MIA 50.1, FID 63.2, mmL .159 (real 81.2, 71.4); APTOS: 47.0, 48.5, 90.8, .131 (real 50.7, 73.3)"
)
_LINEAR = "TB: accuracy 82.1, MIA 56.3, FID 63.9, mmL .125; APTOS: 41.6, 50.5, 85.2, .118"

ABSOLUTE = "PLAN, unit of the space"

# To add a row: one line here.
ROWS = [
    Row("dp sampling", {"method": "dp-sampling", "model": "gan"}),
    Row("dp sampling (flow)", {"method": "dp-sampling", "model": "flow"}),
    Row("centroid", {"method": "k-same", "k": K}),
    Row("k-SALSA", {"method": "k-salsa", "k": K}),
    Row("linear walk", {"method": "linear-walk", "k": K}, _LINEAR),
    Row("PLAN", {"method": "plan-walk", "k": K, "elastic": "relative"}, _PLAN),
    Row(ABSOLUTE, {"method": "plan-walk", "k": K, "elastic": "absolute"}),
    Row("dp k-average", {"method": "dp-k-average", "k": 20, "radius": 12.0, "noise_multiplier": 1.0}),
    *(_latent("dp-glow", total) for total in TOTALS),
    *(_latent("cadp", total, label_epsilon=4.0) for total in TOTALS),
]


def row_of(name: str) -> Row:
    """The row of that name."""
    return next(row for row in ROWS if row.name == name)
