"""The report that goes with a published set: one HTML file that needs nothing from outside, no script, prints well."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jinja2 import Environment

from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.generators.settings import WhiteningStage
from sfumato_common.pages import html_templates
from sfumato_common.study.lineage import sources_of
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import GuaranteeLevel, has_epsilon, is_fill
from sfumato_server.pool import Pool
from sfumato_server.publish.cards.facts import SetFacts
from sfumato_server.publish.cards.words import covering, left_out_images
from sfumato_server.publish.chart import RIGHT, TICKS, WIDTH, Outside, draw, place
from sfumato_server.publish.features import features_card, has_features
from sfumato_server.publish.guarantee import Guarantee, guarantees, pooled_costs
from sfumato_server.publish.manifest import PublishedManifest
from sfumato_server.publish.sheets import contact_sheets
from sfumato_server.publish.tables import NO_GUARANTEE

AXIS = (0.4, 1.0)  # of the AUC bars


@dataclass(frozen=True)
class ReleaseRow:
    """One line of the release table."""

    site: str
    model: str
    method: str
    guarantee: str
    count: int


@dataclass(frozen=True)
class StageRow:
    """All exchanges of one stage together: seconds of wall time, bytes to and from the sites."""

    stage: str
    exchanges: int
    seconds: float
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True)
class UtilityRow:
    """One AUC with its interval (None: the noise left none); `start`, `width`, `mark` place the bar, in percent."""

    name: str
    auc: float | None
    low: float | None = None
    high: float | None = None
    start: float = 0.0
    width: float = 0.0
    mark: float = 0.0


def render_report(
    pool: Pool,
    plan: Plan,
    manifest: PublishedManifest,
    facts: SetFacts,
    run_info: Mapping[str, Any],
    utility: Mapping[str, Any] | None,
) -> str:
    """The report as HTML text; every value from a site or a file is escaped."""
    environment = _environment()
    stated = guarantees(pool.certificates)
    pooled = pooled_costs(stated)
    stages = stage_rows(run_info.get("exchanges", []))
    return environment.get_template("report.html.j2").render(
        plan=plan,
        manifest=manifest,
        coordinator=fingerprint(facts.coordinator_key),
        site_keys={site: fingerprint(key) for site, key in sorted(pool.site_keys.items())},
        covering=covering(facts),
        **_chart_values(facts),
        sections=sections(bool(stages), bool(run_info.get("training")), has_features(plan)),
        sheets=contact_sheets(pool, plan),
        guarantees=stated,
        without_guarantee=sorted(site for item in stated if not item.formal for site in item.sites),
        # a plan without privacy is one, whatever certificates say of themselves
        bare=not plan.private or any(not item.certificate.private for item in stated),
        starts=plan.public_starts,
        encoders=plan.encoders,
        vectors=features_card(plan) if has_features(plan) else None,
        pooled=pooled,
        worst=pooled[0].add_remove,
        release=release_rows(pool, plan, stated),
        uncovered=uncovered_images(pool),
        filled=sorted({source.method for source in pool.counts if is_fill(source.method)}),
        foreign_detail=foreign_details(pool, plan),
        stages=stages,
        seconds=run_info.get("seconds"),
        versions=run_info.get("versions", {}),
        training=run_info.get("training", []),
        utility=utility,
        choice=run_info.get("choice"),
        utility_rows=utility_rows(utility),
        axis=AXIS,
        ticks=[(value, _percent(value)) for value in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)],
        # beyond a few hundred the list is in the index files of shards/
        duplicates=list(islice(pool.duplicates, 200)),
        left_lines=left_out_images(facts),
    )


def chart_section(facts: SetFacts, outside: Outside) -> str:
    """The section of the first picture alone, with figures that somebody measured afterwards."""
    return _environment().get_template("chart.html.j2").render(**_chart_values(facts, outside))


def _chart_values(facts: SetFacts, outside: Outside | None = None) -> dict[str, Any]:
    return {"chart": draw(facts, outside), "chart_width": WIDTH, "chart_right": RIGHT, "chart_ticks": TICKS}


def _environment() -> Environment:
    environment = html_templates("sfumato_server.publish")
    environment.filters["size"] = size
    environment.filters["figures"] = figures
    environment.filters["place"] = place
    environment.filters["unbroken"] = lambda text: text.replace("e-", "e-\u2060")  # no line ends inside 1e-05
    return environment


def sections(made: bool, trained: bool, vectors: bool) -> list[tuple[str, str]]:
    """(anchor, name) of the page's sections in their order; some stand only where there is something to say."""
    every = [
        ("limits", "Limits", True),
        ("chart", "Privacy against use", True),
        ("pictures", "Images", True),
        ("cost", "Epsilons", True),
        ("release", "Release", True),
        ("use", "Use", True),
        ("run", "How it was made", made),
        ("training", "Training", trained),
        ("vectors", "Vectors", vectors),
        ("check", "Check it", True),
    ]
    return [(place, name) for place, name, there in every if there]


def uncovered_images(pool: Pool) -> list[tuple[str, str, int]]:
    """(method, level, images) of what no epsilon covers, in the order of the levels."""
    counts: Counter[tuple[str, str]] = Counter()
    for source, images in pool.counts.items():
        counts[source.guarantee, source.method] += images if source.guarantee != "formal" else 0
    counts = +counts
    return [(method, level, count) for (level, method), count in sorted(counts.items(), reverse=True)]


def foreign_details(pool: Pool, plan: Plan) -> list[tuple[str, str]]:
    """(model, sentences) of the released models whose images hold what is not the patients'.

    Where methods on groups made images in the model's space, what is the patients' in those is no class statistic.
    """
    found = []
    for model in sorted({source.model for source in pool.counts} & set(plan.candidates)):
        text, own = _detail_of(plan, model), [source for source in pool.counts if source.model == model]
        averaged = sorted({source.method for source in own if not has_epsilon(source.guarantee)})
        if text is not None and averaged:
            text += f" In images by {', '.join(averaged)} what is the patients' is the average of a group of them, and"
            text += " no epsilon covers it; lines are nobody's there too."
        if text is not None:
            found.append((model, text))
    return found


def _detail_of(plan: Plan, model: str) -> str | None:
    """What the model's stage adds, and the plan's first one where it draws that stage's images."""
    stage = plan.stage(model)
    drawn_by = [plan.stage(plan.base)] if isinstance(stage, WhiteningStage) else []
    said = [own.foreign_detail for own in (*drawn_by, stage)]
    return " ".join(text for text in said if text is not None) or None


def release_rows(pool: Pool, plan: Plan, stated: Sequence[Guarantee]) -> list[ReleaseRow]:
    """Images by site, model and method, with the guarantee level that is left.

    The sites trained one model together: an image of any of them tells of the patients of all. So one site's test noise
    takes the formal guarantee from every row.
    """
    formal = all(item.formal for item in stated)
    counts: Counter[tuple[str, str, str, GuaranteeLevel]] = Counter()
    for source, images in pool.counts.items():
        counts[source.site, source.model, source.method, source.guarantee] += images
    sources = sources_of(plan)
    lines = sorted(counts.items(), key=lambda line: (line[0][0], sources.index((line[0][2], line[0][1]))))
    return [
        ReleaseRow(site, model, method, level if formal or not has_epsilon(level) else NO_GUARANTEE, count)
        for (site, model, method, level), count in lines
    ]


def stage_rows(exchanges: Sequence[Mapping[str, Any]]) -> list[StageRow]:
    """The exchanges of the run summed by stage, in the order in which the stages began."""
    rows: dict[str, StageRow] = {}
    for item in exchanges:
        name = str(item["stage"])
        before = rows.get(name, StageRow(name, 0, 0.0, 0, 0))
        rows[name] = StageRow(
            name,
            before.exchanges + 1,
            before.seconds + float(item.get("seconds", 0.0)),
            before.bytes_down + int(item.get("bytes_down", 0)),
            before.bytes_up + int(item.get("bytes_up", 0)),
        )
    return list(rows.values())


def utility_rows(utility: Mapping[str, Any] | None) -> list[UtilityRow]:
    """Pooled figure first, then the sites'."""
    if not utility:
        return []
    named = {"all sites, pooled": utility.get("pooled"), **utility.get("sites", {})}
    return [_utility_row(name, figure or {}) for name, figure in named.items()]


def size(count: float) -> str:
    """Bytes for people: 4 digits at most."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def figures(value: float | None) -> str:
    """An epsilon or delta for people: three decimals, rounded up, so that nothing reads better than it is.

    JSON's null stands for an infinite epsilon.
    """
    if value is None or math.isinf(value):
        return "infinite"
    if 0 < value < 1e-3:
        return f"{value:g}".replace("e-0", "e-")
    return f"{math.ceil(value * 1e3 - 1e-9) / 1e3:.3f}"


def _utility_row(name: str, figure: Mapping[str, float | None]) -> UtilityRow:
    auc, low, high = figure.get("auc"), figure.get("low"), figure.get("high")
    if auc is None:
        return UtilityRow(name, None)
    left = _percent(auc if low is None else low)
    right = _percent(auc if high is None else high)
    return UtilityRow(name, auc, low, high, left, max(right - left, 0.5), _percent(auc))


def _percent(value: float) -> float:
    low, high = AXIS
    return round(100 * (min(max(value, low), high) - low) / (high - low), 2)
