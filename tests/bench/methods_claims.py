"""What the seeds' papers claim, as questions to the methods bench: a verdict a release, and one of all releases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from methods_rows import CENTROID, LINEAR, PLAN, ROWS, SALSA, SAMPLING, SPACES, TOTALS, name_in

Figures = Mapping[str, float]
Rows = Mapping[str, Figures]
Difference = Callable[[Rows], float]
MARGIN = 0.02  # of an AUC, an accuracy, a share or a ratio: what rows of a few hundred images cannot tell apart
FOUND, NOT_FOUND, OPEN, UNMEASURED = "found", "not found", "not told apart", "-"


@dataclass(frozen=True)
class Relation:
    """One claim as a question to the figures of a release; its differences raise KeyError where a row is missing.

    `better` are differences that it says are positive, `no_worse` such as it says are not negative.
    """

    claim: str
    space: str
    better: Sequence[Difference]
    no_worse: Sequence[Difference] = ()

    def verdict(self, rows: Rows) -> str:
        """found | not found | not told apart."""
        gains, costs = [of(rows) for of in self.better], [of(rows) for of in self.no_worse]
        if min(gains + costs) < -MARGIN:
            return NOT_FOUND
        return FOUND if not gains or min(gains) > MARGIN else OPEN

    def over(self, releases: Iterable[Rows], means: Rows) -> str:
        """The verdict of the means, and of how many releases it is the own one; - where a row is missing."""
        try:
            whole = self.verdict(means)
        except KeyError:
            return UNMEASURED
        own = [verdict for rows in releases if (verdict := self._try(rows))]
        return f"{whole} {own.count(whole)}/{len(own)}"

    def _try(self, rows: Rows) -> str:
        try:
            return self.verdict(rows)
        except KeyError:
            return ""


def _more(figure: str, row: str, other: str) -> Difference:
    return lambda rows: rows[row][figure] - rows[other][figure]


def _less(figure: str, row: str, other: str) -> Difference:
    return _more(figure, other, row)


def _nearer(space: str, row: str, other: str) -> Difference:
    return lambda rows: 1.0 - rows[row][f"FD {space}"] / rows[other][f"FD {space}"]


def _both(row: str, other: str) -> list[Difference]:
    return [_nearer(space, row, other) for space in ("random", "trained")]


def _walks(space: str) -> list[Relation]:
    centroid, salsa, linear, plan = (name_in(name, space) for name in (CENTROID, SALSA, LINEAR, PLAN))
    use = [_more(figure, plan, linear) for figure in ("bal. acc.", "auc")]
    linked = [_less(figure, salsa, centroid) for figure in ("group top 5", "linked", "re-identified")]
    return [
        Relation("k-SALSA is nearer to real images than the centroid (both FD)", space, _both(salsa, centroid)),
        Relation("k-SALSA serves better than the centroid (accuracy)", space,
                 [_more("bal. acc.", salsa, centroid)]),
        Relation("k-SALSA is no easier to link than the centroid (own group, correlation, verifier)", space,
                 [], linked),
        Relation("walks are safer than centroids (verifier; member AUC no higher)", space,
                 [_less("re-identified", linear, centroid)], [_less("member auc", linear, centroid)]),
        Relation("PLAN is farther from records than the straight walk, at no worse use (accuracy, AUC)", space,
                 [_more("nearest", plan, linear)], use),
        Relation("PLAN is re-identified less than the straight walk, at no worse use", space,
                 [_less("re-identified", plan, linear)], use),
    ]  # fmt: skip


def _latents() -> list[Relation]:
    first, last, middle = TOTALS[0], TOTALS[-1], TOTALS[1]
    found = [
        Relation(f"{name}: use (AUC) falls with epsilon, {last:g} against {first:g}", "flow",
                 [_more("auc", f"{name} {last:g}", f"{name} {first:g}")])
        for name in ("dp-glow", "cadp")
    ]  # fmt: skip
    cadp, glow = f"cadp {middle:g}", f"dp-glow {middle:g}"
    found.append(Relation(f"{cadp} is nearer to real images than {glow} (both FD)", "flow", _both(cadp, glow)))
    found.append(Relation(f"{cadp} serves better than {glow} (AUC)", "flow", [_more("auc", cadp, glow)]))
    return found


RELATIONS = [*sorted((one for space in SPACES for one in _walks(space)), key=lambda one: one.claim), *_latents()]
FORMAL_SAMPLING = [row.name for row in ROWS if row.item["method"] == "dp-sampling" and row.source != "stylegan2"]
_RISKS = ("member auc", "re-identified")


def best_sampling(rows: Rows) -> str:
    """The row of formal DP sampling with the highest AUC. Raises KeyError where there is none."""
    there = [name for name in FORMAL_SAMPLING if name in rows]
    if not there:
        raise KeyError(SAMPLING)
    return max(there, key=lambda name: rows[name]["auc"])


def rivals(space: str) -> list[str]:
    """The rows of a space that are no formal DP sampling."""
    return [row.name for row in ROWS if row.space == space and row.name not in FORMAL_SAMPLING]


def beats(row: str, rows: Rows, *, safe: bool) -> bool:
    """Whether a row serves a classifier clearly better than the best DP sampling and, if `safe`, shows no more.

    What DP sampling shows of who is behind an image is chance: nobody is.
    """
    other = best_sampling(rows)
    if row not in rows or rows[row]["auc"] - rows[other]["auc"] <= MARGIN:
        return False
    own = rows[row]
    shown = [own[name] - rows[other][name] for name in _RISKS if name in own and name in rows[other]]
    shown += [own[name] - own[chance] for name, chance in _LINKS if name in own]
    return not safe or max(shown, default=0.0) <= MARGIN


_LINKS = (("group top 5", "group chance"), ("linked", "linked chance"))


def unbeaten(space: str, releases: Sequence[Rows], means: Rows, *, safe: bool) -> str:
    """Whether nothing of a space beats DP sampling, or what does, by the means, and in how many releases."""
    try:
        best_sampling(means)
        usable = [rows for rows in releases if best_sampling(rows)]
    except KeyError:
        return UNMEASURED
    names = [name for name in rivals(space) if name in means]
    if not names:
        return UNMEASURED
    test = partial(beats, safe=safe)
    better = [name for name in names if test(name, means)]
    if not better:
        own = sum(not any(test(name, rows) for name in names) for rows in usable)
        return f"{FOUND} {own}/{len(usable)}"
    counts = [f"{name} {sum(test(name, rows) for rows in usable)}/{len(usable)}" for name in better]
    return f"{NOT_FOUND}: {', '.join(counts)}"


def claims(releases: Sequence[Rows], means: Rows) -> list[tuple[str, str, str]]:
    """(claim, space, what was found) of one cohort."""
    found = [
        (text, space, unbeaten(space, releases, means, safe=safe))
        for text, safe in (
            ("nothing serves clearly better than the best DP sampling (AUC)", False),
            ("nothing serves clearly better at no more risk (member AUC, verifier, links)", True),
        )
        for space in (*SPACES, "flow")
    ]
    return found + [(one.claim, one.space, one.over(releases, means)) for one in RELATIONS]
