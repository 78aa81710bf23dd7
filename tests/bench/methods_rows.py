"""The rows of the methods bench: a release item in a latent space each, in the order of the papers' tables.

Public settings, fixed before any figure of use was seen. Latent methods release the 64 coarsest coordinates; their
radius is the mean L1 norm of a standard normal of 64 coordinates. Radii of averages are about a code's own length in
its space. PLAN stands there with its elastic term in the walk's own length and the paper's weights, and in W also in
the space's unit, where they bend next to nothing (`bend.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

K = 5
COORDINATES, L1_RADIUS = 64, 51.0
TOTALS = (1.0, 10.0, 100.0, 1000.0)
# the latent spaces, and how a record gets its code there: what a fixed map makes of it, or so many steps of Adam more
SPACES: dict[str, dict[str, int]] = {
    "gan": {},
    "appearance": {},
    "codec": {"encoder_steps": 0, "refinement_steps": 0},
    "stylegan2": {"encoder_steps": 0, "refinement_steps": 30},
}
RADII = {"gan": 12.0, "appearance": 12.0, "codec": 32.0}
CENTROID, SALSA, LINEAR, PLAN, AVERAGE = "centroid", "k-SALSA", "linear walk", "PLAN", "dp k-average"
SAMPLING = "dp sampling"
ABSOLUTE = "PLAN, unit of the space"
SLOW = {"k-salsa", "plan-walk"}  # methods that move every image by steps of Adam


@dataclass(frozen=True)
class Row:
    """One line of the table: models of which federation (`methods_models.py`), the release item that makes its set.

    `space` is the model whose space or prior it is, `paper` what the method's own paper reports.
    """

    name: str
    source: str
    item: dict[str, Any]
    paper: str = ""

    @property
    def space(self) -> str:
        """gan (W), flow, appearance, codec or stylegan2."""
        return str(self.item["model"])

    @property
    def slow(self) -> bool:
        """Whether its images are moved by steps of Adam."""
        return self.item["method"] in SLOW


def name_in(name: str, space: str) -> str:
    """What a row on averages is called in a space: W is the one that is not said."""
    return name if space == "gan" else f"{name} ({space})"


def _sampling(model: str, source: str) -> Row:
    return Row(name_in(SAMPLING, model), source, {"method": "dp-sampling", "model": model})


def _averages(space: str) -> list[Row]:
    own = {"model": space, **SPACES[space]}
    items = {
        CENTROID: {"method": "k-same", "k": K},
        SALSA: {"method": "k-salsa", "k": K},
        LINEAR: {"method": "linear-walk", "k": K},
        PLAN: {"method": "plan-walk", "k": K, "elastic": "relative"},
    }
    if space == "gan":
        items[ABSOLUTE] = {"method": "plan-walk", "k": K, "elastic": "absolute"}
    if space in RADII:  # a formal method: refused without privacy, as the StyleGAN2 is
        items[AVERAGE] = {"method": "dp-k-average", "k": 20, "radius": RADII[space], "noise_multiplier": 1.0}
    papers = {LINEAR: _LINEAR, PLAN: _PLAN} if space == "gan" else {}
    return [Row(name_in(name, space), space, {**item, **own}, papers.get(name, "")) for name, item in items.items()]


def _latent(method: str, source: str, total: float, **more: Any) -> Row:
    item = {"method": method, "radius": L1_RADIUS, "epsilon": total, "coordinates": COORDINATES, "model": "flow"}
    papers = {
        ("cadp", 1.0): "X-ray accuracy 81 to 86 for epsilon .5 to 6, real about 88",
        ("dp-glow", 1.0): "no figure in the public text",
    }
    return Row(f"{method} {total:g}", source, {**item, **more}, papers.get((method, total), ""))


_PLAN = (
    "TB: accuracy 83.9, MIA 50.1, FID 63.2, mmL .159 (real 81.2, 71.4); APTOS: 47.0, 48.5, 90.8, .131 (real 50.7, 73.3)"
)
_LINEAR = "TB: accuracy 82.1, MIA 56.3, FID 63.9, mmL .125; APTOS: 41.6, 50.5, 85.2, .118"

# To add a row: one line here.
ROWS = [
    _sampling("gan", "gan"),
    _sampling("flow", "glow"),
    _sampling("appearance", "appearance"),
    _sampling("stylegan2", "stylegan2"),
    *(row for space in SPACES for row in _averages(space)),
    *(_latent("dp-glow", "glow", total) for total in TOTALS),
    *(_latent("cadp", "cinn", total, label_epsilon=4.0) for total in TOTALS),
]


def row_of(name: str) -> Row:
    """The row of that name."""
    return next(row for row in ROWS if row.name == name)
