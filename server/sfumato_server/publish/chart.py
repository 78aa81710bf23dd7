"""The report's first picture: what every method promises against how well a classifier does on its images.

Rows stand in bands by guarantee, the strongest on top; across goes the AUC with its interval. Formal methods share one
epsilon: it is composed over all that left under the plan, so that an axis of epsilons would tell them apart wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

from sfumato_common.study.words import GuaranteeLevel
from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.tables import NO_GUARANTEE

LEVELS: tuple[str, ...] = (*get_args(GuaranteeLevel), NO_GUARANTEE)
WIDTH, LEFT, RIGHT = 360.0, 6.0, 354.0  # of the drawing, in its own units; the axis
AXIS = (0.4, 1.0)
TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_TOP, _HEADING, _ROW, _LINE, _FOOT = 20.0, 22.0, 32.0, 14.0, 18.0
_LONG = 24  # letters of a name beside which a figure has no room
SET = "the whole set"


@dataclass(frozen=True)
class Figure:
    """An AUC with its interval, None where it is not known."""

    auc: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Outside:
    """What somebody measured afterwards: who, on what, by which classifier; by `METHOD (MODEL)`, and of real images."""

    by: str
    on: str
    classifier: str
    methods: Mapping[str, Figure]
    real: Figure | None


@dataclass(frozen=True)
class Row:
    """One method, model or the whole set: AUC with its interval, None where nobody measured it by itself.

    `tested` says on whom: holdout patients, the training patients whose scores chose the model, or somebody's own
    (`outside`). Places are in the drawing's units.
    """

    name: str
    tested: str
    auc: float | None
    low: float | None = None
    high: float | None = None
    y: float = 0.0

    @property
    def label_y(self) -> float:
        """Where the figure stands: beside the name, or below a long one."""
        return self.y + 11 + (_LINE if len(self.name) > _LONG else 0)

    @property
    def bar_y(self) -> float:
        """Where the interval and the mark stand."""
        return self.label_y + 9

    @property
    def height(self) -> float:
        """How high the row is."""
        return self.label_y - self.y - 11 + _ROW

    @property
    def label(self) -> str:
        """The figure with its interval in words."""
        if self.auc is None:
            return "not measured alone"
        if self.low is None or self.high is None:
            return f"{self.auc:.3f} (interval unknown)"
        return f"{self.auc:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Band:
    """A guarantee level: its heading, where it begins, how high it is, and its rows."""

    title: str
    y: float
    height: float
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Chart:
    """The drawing: bands from top to bottom, its height, and the figure of real images where there is one."""

    bands: tuple[Band, ...]
    height: float
    real: Row | None
    outside: Outside | None = None

    @property
    def description(self) -> str:
        """All of it in words, for whoever does not see it."""
        said = [f"{band.title}: " + "; ".join(map(_said, band.rows)) for band in self.bands]
        real = f"Trained on real images: {self.real.label}." if self.real else "Real images were not measured."
        return " ".join((*(f"{line}." for line in said), real))


def draw(facts: SetFacts, outside: Outside | None = None) -> Chart | None:
    """The chart of a set, with what was measured `outside` of its study; None where no figure of use was computed."""
    if not (facts.run.get("utility") or facts.run.get("choice") or outside):
        return None
    found: dict[str, list[Row]] = {level: [] for level in LEVELS}
    for level, row in _rows(facts, outside):
        found[level].append(row)
    real = _figure("real images", "holdout", (facts.run.get("utility") or {}).get("real"))
    if outside and outside.real and real.auc is None:
        real = _figure("real images", "outside", asdict(outside.real))
    bands, y = [], _TOP if real.auc is not None else 0.0
    for level, rows in found.items():
        if rows:
            placed, at = [], y + _HEADING
            for row in rows:
                placed.append(replace(row, y=at))
                at += row.height
            bands.append(Band(_title(facts, level), y, at - y, tuple(placed)))
            y = at
    return Chart(tuple(bands), y + _FOOT, real if real.auc is not None else None, outside)


def place(auc: float) -> float:
    """Where an AUC stands across; beyond the axis, at its end."""
    low, high = AXIS
    return round(LEFT + (RIGHT - LEFT) * (min(max(auc, low), high) - low) / (high - low), 2)


def _rows(facts: SetFacts, outside: Outside | None) -> Iterator[tuple[str, Row]]:
    """(level, row): the set under its weakest level, every method of it, every model that was looked at."""
    utility, choice = (facts.run.get(name) or {} for name in ("utility", "choice"))
    methods = [names for names, _ in facts.by("method", "model", "guarantee")]
    if utility:
        weakest = max((level for _, _, level in methods), key=LEVELS.index)
        yield weakest, _figure(SET, "holdout", utility.get("pooled"))
    measured: Mapping[str, Any] = utility.get("methods") or {}
    candidates: Sequence[Mapping[str, Any]] = choice.get("candidates") or []
    looked_at = {str(own["model"]) for own in candidates}
    for method, model, level in methods:
        alone = outside.methods.get(f"{method} ({model})") if outside else None
        if alone is not None:
            yield level, _figure(f"{method} ({model})", "outside", asdict(alone))
            continue
        if method == "dp-sampling" and method not in measured and model in looked_at:
            continue  # its model has a row of its own
        yield level, _figure(f"{method} ({model})", "holdout", measured.get(method))
    for own in candidates:
        yield "formal" if facts.cover else NO_GUARANTEE, _figure(f"model {own['model']}", "training", own)


def _figure(name: str, tested: str, figure: Mapping[str, Any] | None) -> Row:
    own = figure or {}
    return Row(name, tested, own.get("auc"), own.get("low"), own.get("high"))


def _said(row: Row) -> str:
    """A row in words."""
    on = {"training": " on training patients", "outside": " measured afterwards"}.get(row.tested, "")
    return f"{row.name} {row.label}{on if row.auc is not None else ''}"


def _title(facts: SetFacts, level: str) -> str:
    cover = facts.cover
    paid = f"epsilon {cover.epsilon:.3f}" if cover else "no epsilon"
    return {
        "formal": f"Formal: {paid}",
        "formal, labels public": f"Formal for pixels, labels public: {paid}",
        "syntactic": "Syntactic: groups of k patients, no epsilon",
        "heuristic": "Heuristic: measured by attacks, no epsilon",
        "none": "No guarantee",
    }[level]
