"""Tables of the methods bench, on the terminal and as Markdown, and whether what the papers claim was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from methods_rows import BENT, ROWS, TOTALS
from rich.console import Console
from rich.table import Table

from sfumato_client.audit.attacks.membership import share_interval

Figures = Mapping[str, float]
Rows = Mapping[str, Figures]
COLUMNS = ("set", "word", "images", "AUC", "accuracy", "FD random", "FD trained", "precision", "recall", "density",
           "coverage", "nearest", "member AUC", "TPR at 1 %", "TPR at 0.1 %", "control AUC", "own group in top 5",
           "re-identified", "images/s", "MiB")  # fmt: skip
MARGIN = 0.02  # in accuracy: what two papers' rows of 300 to 600 test images cannot tell apart


@dataclass(frozen=True)
class Relation:
    """One claim of a paper as a question to the figures of a cohort; `holds` says yes, no, or raises KeyError."""

    claim: str
    holds: Callable[[Rows], bool]


def _falls(method: str) -> Callable[[Rows], bool]:
    def found(rows: Rows) -> bool:
        aucs = [rows[f"{method} {total:g}"]["auc"] for total in TOTALS]
        return aucs[0] < aucs[-1] and all(low <= high + MARGIN for low, high in pairwise(aucs))

    return found


def _bends(row: str) -> Callable[[Rows], bool]:
    def found(rows: Rows) -> bool:
        bent, straight = rows[row], rows["linear walk"]
        return bent["nearest"] > straight["nearest"] and bent["bal. acc."] > straight["bal. acc."] - MARGIN

    return found


RELATIONS = [
    Relation("k-SALSA is nearer to real images than the centroid (Frechet distance, both spaces)",
             lambda rows: all(rows["k-SALSA"][f"FD {space}"] < rows["centroid"][f"FD {space}"]
                              for space in ("random", "trained"))),
    Relation("k-SALSA serves a classifier better than the centroid (balanced accuracy)",
             lambda rows: rows["k-SALSA"]["bal. acc."] > rows["centroid"]["bal. acc."]),
    *(Relation(f"{row} is farther from real records than the linear walk, at the same accuracy or better"
               f" (margin {MARGIN})", _bends(row)) for row in ("PLAN", BENT)),
    Relation("DP-GLOW's use falls as its total epsilon falls (AUC)", _falls("dp-glow")),
    Relation("CADP's use falls as its total epsilon falls (AUC)", _falls("cadp")),
]  # fmt: skip


def verdicts(runs: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(claim, found | not found | not measured) for the runs of one cohort."""
    rows = {run["row"]: run["scores"] for run in runs if "scores" in run}
    result = []
    for relation in RELATIONS:
        try:
            result.append((relation.claim, "found" if relation.holds(rows) else "not found"))
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
        f"{found['FD random']:.1f}",
        f"{found['FD trained']:.1f}",
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
        f"{run['images'] / seconds:.2f}" if seconds else "-",
        f"{run['peak_mib']:.0f}" if "peak_mib" in run else "-",
    ]


def _share(share: float, of: int) -> str:
    low, high = share_interval(round(share * of), of)
    return f"{share:.3f} [{low:.2f}, {high:.2f}]"


def by_cohort(run: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of each cohort in the order of `ROWS`, those of real images first."""
    places = {row.name: place for place, row in enumerate(ROWS)}
    ordered = sorted(run["runs"], key=lambda result: places.get(result["row"], -1))
    names = dict.fromkeys(result["cohort"] for result in run["runs"])
    return {name: [result for result in ordered if result["cohort"] == name] for name in names}


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
        texts.append("\n| claimed | here |\n|---|---|")
        texts += [f"| {claim} | {verdict} |" for claim, verdict in verdicts(runs)]
        texts.append("")
    texts.append("| set | its own paper reports, on other data |\n|---|---|")
    texts += [f"| {row.name} | {row.paper} |" for row in ROWS if row.paper]
    return "\n".join(texts) + "\n"
