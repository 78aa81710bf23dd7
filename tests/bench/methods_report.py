"""Tables of the methods bench, on the terminal and as Markdown, and whether what the papers claim was found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judge_report import VIEWS, release_interval
from methods_rows import ABSOLUTE, ROWS, TOTALS
from rich.console import Console
from rich.table import Table

from sfumato_client.audit.attacks.membership import share_interval
from sfumato_common.metrics.judges import JUDGES

Figures = Mapping[str, float]
Rows = Mapping[str, Figures]
COLUMNS = (
    *("set", "word", "images", "AUC", "accuracy", "CNN AUC, kept apart", "ResNet-18 AUC, kept apart", "own sites"),
    *("FD random", "FD trained", "FD given", "structure", "precision", "recall", "density", "coverage", "nearest"),
    *("member AUC", "TPR at 1 %", "TPR at 0.1 %", "control AUC", "own group in top 5", "re-identified"),
    "linked by correlation",
    *("images/s", "MiB"),
)
MARGIN = 0.02  # of an AUC, an accuracy, or a ratio: what rows of a few hundred images cannot tell apart

Difference = Callable[[Rows], float]


@dataclass(frozen=True)
class Relation:
    """One claim of a paper as a question to the figures of a cohort; raises KeyError where a row is missing.

    `better` are differences that it says are positive, `no_worse` such as it says are not negative.
    """

    claim: str
    better: Sequence[Difference]
    no_worse: Sequence[Difference] = ()

    def verdict(self, rows: Rows) -> str:
        """found | not found | not told apart."""
        gains, costs = [of(rows) for of in self.better], [of(rows) for of in self.no_worse]
        if min(gains + costs) < -MARGIN:
            return "not found"
        return "found" if min(gains) > MARGIN else "not told apart"


def _more(figure: str, row: str, other: str) -> Difference:
    return lambda rows: rows[row][figure] - rows[other][figure]


def _nearer(space: str, row: str, other: str) -> Difference:
    return lambda rows: 1.0 - rows[row][f"FD {space}"] / rows[other][f"FD {space}"]


def _bends(row: str) -> Relation:
    claim = f"{row}: farther from real records than the linear walk, and use (accuracy, AUC) is no worse"
    use = [_more(figure, row, "linear walk") for figure in ("bal. acc.", "auc")]
    return Relation(claim, [_more("nearest", row, "linear walk")], use)


def _falls(method: str) -> Relation:
    least, most = f"{method} {TOTALS[0]:g}", f"{method} {TOTALS[-1]:g}"
    return Relation(f"{method}: use (AUC) falls with epsilon, {most} against {least}", [_more("auc", most, least)])


RELATIONS = [
    Relation("k-SALSA: nearer to real images than the centroid (Frechet distance, both spaces)",
             [_nearer(space, "k-SALSA", "centroid") for space in ("random", "trained")]),
    Relation("k-SALSA: serves a classifier better than the centroid (accuracy)",
             [_more("bal. acc.", "k-SALSA", "centroid")]),
    _bends("PLAN"),
    _bends(ABSOLUTE),
    _falls("dp-glow"),
    _falls("cadp"),
]  # fmt: skip


def verdicts(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(claim, its verdict, or that it was not measured) for the runs of one cohort."""
    rows = {run["row"]: run["scores"] for run in runs if "scores" in run}
    result = []
    for relation in RELATIONS:
        try:
            result.append((relation.claim, relation.verdict(rows)))
        except KeyError:
            result.append((relation.claim, "not measured"))
    return result


def line(run: dict[str, Any]) -> list[str]:
    """One row of the table, a cell a column."""
    if "failed" in run:
        return [run["row"], "failed", *[""] * (len(COLUMNS) - 2)]
    found, seconds = run["scores"], run.get("seconds")
    return [
        run["row"],
        run["word"],
        str(run["images"]),
        f"{found['auc']:.3f} [{found['auc low']:.2f}, {found['auc high']:.2f}]",
        f"{found['bal. acc.']:.3f}",
        *(_judge(found, f"{name} val") for name in JUDGES),
        ", ".join(f"{value:.2f}" for name, value in found.items() if name.startswith("cnn val own ")) or "-",
        f"{found['FD random']:.1f}",
        f"{found['FD trained']:.1f}",
        f"{found['FD given']:.1f}" if "FD given" in found else "-",
        f"{found['structure']:.3f}" if "structure" in found else "-",
        *(f"{found[name]:.2f}" if name in found else "-" for name in ("precision", "recall", "density", "coverage")),
        f"{found['nearest']:.2f}",
        f"{found['member auc']:.3f} [{found['member low']:.2f}, {found['member high']:.2f}]",
        *(
            f"{found[name]:.3f} [{found[f'{name} low']:.3f}, {found[f'{name} high']:.3f}]"
            for name in ("TPR at 1.0%", "TPR at 0.1%")
        ),
        f"{found['control auc']:.3f} [{found['control low']:.2f}, {found['control high']:.2f}]",
        f"{found['group top 5']:.3f} ({found['group chance']:.3f})" if "group top 5" in found else "-",
        _share(found["re-identified"], run["images"]) if "re-identified" in found else "-",
        _linked(found),
        f"{run['images'] / seconds:.2f}" if seconds else "-",
        f"{run['peak_mib']:.0f}" if "peak_mib" in run else "-",
    ]


def _linked(found: Figures) -> str:
    if "linked" not in found:
        return "-"
    return (
        f"{found['linked']:.3f} [{found['linked low']:.2f}, {found['linked high']:.2f}] ({found['linked chance']:.3f})"
    )


def _judge(found: Figures, name: str) -> str:
    return f"{found[name]:.3f} [{found[f'{name} low']:.2f}, {found[f'{name} high']:.2f}]" if name in found else "-"


def _share(share: float, of: int) -> str:
    low, high = share_interval(round(share * of), of)
    return f"{share:.3f} [{low:.2f}, {high:.2f}]"


def by_cohort(run: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each cohort in the order of `ROWS`, those of real images first."""
    places = {row.name: place for place, row in enumerate(ROWS)}
    ordered = sorted(run["runs"], key=lambda result: places.get(result["row"], -1))
    names = dict.fromkeys(result["cohort"] for result in run["runs"])
    return {name: _over_releases([result for result in ordered if result["cohort"] == name]) for name in names}


def _over_releases(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One result a row: figures are means over its releases, and the intervals of use hold the chance of a release.

    A row that failed in one release has failed.
    """
    merged = []
    for row in dict.fromkeys(result["row"] for result in results):
        own = [result for result in results if result["row"] == row]
        failed = [result for result in own if "failed" in result]
        if failed or len(own) == 1:
            merged.append((failed or own)[0])
            continue
        scores = [result["scores"] for result in own]
        shared = [name for name in scores[0] if all(name in one for one in scores)]
        figures = {name: statistics.mean(one[name] for one in scores) for name in shared}
        for name in ("auc", *(f"{judge} {view}" for judge in JUDGES for view in VIEWS)):
            if name in shared:
                ends = [[one[key] for one in scores] for key in (name, f"{name} low", f"{name} high")]
                figures[f"{name} low"], figures[f"{name} high"] = release_interval(*ends)
        costs = {key: statistics.mean(one[key] for one in own) for key in ("seconds", "peak_mib") if key in own[0]}
        merged.append({**own[0], **costs, "scores": figures})
    return merged


def inversion(runs: list[dict[str, Any]]) -> list[str]:
    """What turning all training records of a cohort into codes took, and how near codes of set-aside records come."""
    cost = runs[0]["inversion"]
    lines = [
        f"Inversion, once for all rows that start from codes: {cost['images']} images, "
        f"{cost['images'] / cost['seconds']:.1f} images/s, {cost['peak_mib']:.0f} MiB."
    ]
    for site, steps in cost["errors"].items():
        parts = [f"{step} {rmse:.4f} ({correlation:.3f})" for step, (rmse, correlation) in steps.items()]
        lines.append(f"{site}: RMSE in [-1, 1] (correlation) of records set aside: {', '.join(parts)}.")
    return lines


def print_tables(run: dict[str, Any]) -> None:
    """Everything on the terminal."""
    console = Console(width=260)
    for name, runs in by_cohort(run).items():
        table = Table(*COLUMNS, title=f"{name}: models at epsilon {runs[0]['epsilon']:.2f}, delta {run['delta']:g}")
        for result in runs:
            table.add_row(*line(result))
        console.print(table)
        for text in inversion(runs):
            console.print(text)
        for claim, verdict in verdicts(runs):
            console.print(f"{verdict:>12}: {claim}")


def markdown(run: dict[str, Any]) -> str:
    """The same for docs/methods.md, with the papers' own figures."""
    texts = [f"Printed by `{run['command']}` in {run.get('seconds', 0) / 60:.0f} min.\n"]
    for name, runs in by_cohort(run).items():
        texts.append(f"### {name}: models at epsilon {runs[0]['epsilon']:.2f}, delta {run['delta']:g}\n")
        texts.append("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
        texts += ["| " + " | ".join(line(result)) + " |" for result in runs]
        texts += ["", *(f"- {text}" for text in inversion(runs))]
        texts.append(f"\n| claimed | here (margin {MARGIN}) |\n|---|---|")
        texts += [f"| {claim} | {verdict} |" for claim, verdict in verdicts(runs)]
        texts.append("")
    texts.append("| set | its own paper reports, on other data |\n|---|---|")
    texts += [f"| {row.name} | {row.paper} |" for row in ROWS if row.paper]
    return "\n".join(texts) + "\n"
