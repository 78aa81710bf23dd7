"""Tables of the methods bench, on the terminal and as Markdown, and whether what the papers claim was found."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from methods_claims import MARGIN, UNMEASURED, claims
from methods_rows import ROWS, SPACES
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

Run = dict[str, Any]
Figures = Mapping[str, float]
# column: figure, digits, and the figure of chance that stands in brackets
COLUMNS: dict[str, tuple[str, int, str]] = {
    "AUC": ("auc", 3, ""),
    "CNN AUC, kept apart": ("cnn val", 3, ""),
    "FD random": ("FD random", 1, ""),
    "FD trained": ("FD trained", 1, ""),
    "precision": ("precision", 2, ""),
    "recall": ("recall", 2, ""),
    "coverage": ("coverage", 2, ""),
    "gradients kept": ("gradients", 2, ""),
    "nearest": ("nearest", 2, ""),
    "member AUC": ("member auc", 3, ""),
    "TPR at 1 %": ("TPR at 1.0%", 3, ""),
    "own group in top 5": ("group top 5", 2, "group chance"),
    "linked by correlation": ("linked", 2, "linked chance"),
    "re-identified": ("re-identified", 3, ""),
}
LEVEL = 0.95


def merged(found: Sequence[Run]) -> Run:
    """Several runs as one: of a row of a release that more than one has, the last that did not fail."""
    results: dict[tuple[str, int, str], Run] = {}
    for one in found:
        for result in one["runs"]:
            key = (result["cohort"], result["release"], result["row"])
            if "failed" not in result or "failed" in results.get(key, {"failed": ""}):
                results[key] = result
    commands = " and ".join(dict.fromkeys(one["command"] for one in found))
    rows = [f"{cohort}, release {release}, {row}" for cohort, release, row in results]
    missing = [text for one in found for text in one.get("missing", [])]
    missing = [text for text in dict.fromkeys(missing) if text.split(":")[0] not in rows]
    measured = {(cohort, row) for cohort, _, row in results}
    missing = [text for text in missing if tuple(text.split(":")[0].split(", ", 1)) not in measured]
    seconds = sum(one.get("seconds", 0) for one in found)
    return {**found[0], "command": commands, "runs": list(results.values()), "missing": missing, "seconds": seconds}


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean over releases (Student's t); nan for one release."""
    if len(values) < 2:
        return math.nan
    quantile = float(student.ppf((1.0 + LEVEL) / 2.0, len(values) - 1))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def cell(scores: Sequence[Figures], name: str, digits: int, chance: str = "") -> str:
    """Mean over releases, plus or minus half its interval, and chance in brackets; - where it was not measured."""
    values = [one[name] for one in scores if name in one]
    if not values:
        return "-"
    half = interval(values)
    text = f"{statistics.mean(values):.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
    if chance:
        text += f" ({statistics.mean(one[chance] for one in scores if chance in one):.{digits}f})"
    return text.replace("0.", ".") if digits > 1 else text


def by_cohort(run: Run) -> dict[str, dict[str, list[Run]]]:
    """Results by cohort and row, in the order of `ROWS`, those of real images first."""
    places = {row.name: place for place, row in enumerate(ROWS)}
    found: dict[str, dict[str, list[Run]]] = {}
    for result in sorted(run["runs"], key=lambda one: (places.get(one["row"], -1), one["release"])):
        found.setdefault(result["cohort"], {}).setdefault(result["row"], []).append(result)
    return {name: found[name] for name in dict.fromkeys(one["cohort"] for one in run["runs"])}


def columns_of(rows: Mapping[str, Sequence[Run]]) -> list[str]:
    """The columns that some row has."""
    present = {name for own in rows.values() for one in own for name in one.get("scores", {})}
    return ["set", "word", "releases", "images", *(name for name, (key, _, _) in COLUMNS.items() if key in present)]


def line(row: str, results: Sequence[Run], columns: Sequence[str]) -> list[str]:
    """One row of a table; a release that failed is said, and counts in no mean."""
    good = [one for one in results if "scores" in one]
    failed = f", {len(results) - len(good)} failed" if len(good) < len(results) else ""
    if not good:
        return [row, "failed", str(len(results)), *[""] * (len(columns) - 3)]
    scores = [one["scores"] for one in good]
    cells = [cell(scores, *COLUMNS[name]) for name in columns[4:]]
    return [row, good[0]["word"], f"{len(good)}{failed}", str(good[0]["images"]), *cells]


def releases_of(rows: Mapping[str, Sequence[Run]]) -> list[dict[str, Figures]]:
    """Figures by row of each release."""
    numbers = sorted({one["release"] for own in rows.values() for one in own})
    every = [one for own in rows.values() for one in own if "scores" in one]
    return [{one["row"]: one["scores"] for one in every if one["release"] == number} for number in numbers]


def means_of(rows: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, float]]:
    """Figures by row, means over the releases that have them."""
    found = {}
    for row, own in rows.items():
        scores = [one["scores"] for one in own if "scores" in one]
        shared = [name for name in scores[0] if all(name in one for one in scores)] if scores else []
        if shared:
            found[row] = {name: statistics.mean(one[name] for one in scores) for name in shared}
    return found


def claim_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: a claim and a space each, what was found a cohort; none that no cohort could answer."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    cohorts = by_cohort(run)
    for cohort, rows in cohorts.items():
        for claim, space, verdict in claims(releases_of(rows), means_of(rows)):
            found.setdefault((claim, space), {})[cohort] = verdict
    lines = [[claim, space, *own.values()] for (claim, space), own in found.items() if {*own.values()} != {UNMEASURED}]
    return ["claimed", "space", *cohorts], lines


def inversions(run: Run) -> tuple[list[str], list[list[str]]]:
    """What a code keeps of the images of strangers: correlation (RMSE of a range of 2), and records a second."""
    cohorts, lines = by_cohort(run), []
    for space in SPACES:
        cells = []
        for rows in cohorts.values():
            costs = [
                own[0]["inversion"] for own in rows.values() if own[0].get("inversion") and _space(own[0]) == space
            ]
            if not costs:
                cells.append("-")
                continue
            last = [list(steps.values())[-1] for steps in costs[0]["errors"].values()]
            rmse, like = (statistics.mean(one[part] for one in last) for part in (0, 1))
            cells.append(f"{like:.3f} ({rmse:.3f}), {costs[0]['images'] / max(1e-9, costs[0]['seconds']):.1f}")
        if any(text != "-" for text in cells):
            lines.append([space, *cells])
    return ["space", *cohorts], lines


def _space(result: Run) -> str:
    return next((row.source for row in ROWS if row.name == result["row"]), "")


def tables(run: Run) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, columns and rows of every table."""
    found = []
    for name, rows in by_cohort(run).items():
        columns = columns_of(rows)
        epsilon = next((one["epsilon"] for own in rows.values() for one in own if one.get("epsilon")), math.nan)
        title = f"{name}: private models at epsilon {epsilon:.2f}, delta {run['delta']:g}"
        found.append((title, columns, [line(row, own, columns) for row, own in rows.items()]))
    found.append((f"What the papers claim (margin {MARGIN})", *claim_table(run)))
    found.append(("What a code keeps of strangers' images: correlation (RMSE), images/s", *inversions(run)))
    papers = [[row.name, row.paper] for row in ROWS if row.paper]
    found.append(("The papers' own figures, on other data", ["set", "reported"], papers))
    return found


def print_tables(run: Run) -> None:
    """Everything on the terminal."""
    console = Console(width=260)
    for title, columns, lines in tables(run):
        table = Table(*columns, title=title)
        for cells in lines:
            table.add_row(*cells)
        console.print(table)
    for text in run.get("missing", []):
        console.print(f"not run: {text}")


def markdown(run: Run) -> str:
    """The same for docs/methods.md."""
    texts = [f"Printed by `{run['command']}` in {run.get('seconds', 0) / 60:.0f} min.\n"]
    for title, columns, lines in tables(run):
        texts.append(f"### {title}\n\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
        texts += ["| " + " | ".join(cells) + " |" for cells in lines]
        texts.append("")
    if run.get("missing"):
        texts.append(f"Not run: {'; '.join(run['missing'])}.")
    return "\n".join(texts) + "\n"
