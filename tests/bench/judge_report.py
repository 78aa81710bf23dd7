"""The judges' table: what ordinary networks trained on a set reach on real patients, and the interval of a release."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from judge_scores import BENCH
from scipy.stats import t as student

from sfumato_common.metrics.judges import JUDGES

LEVEL = 0.95
VIEWS = {"val": "patients kept apart (val)", "test": "the official test set"}


def release_interval(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> tuple[float, float]:
    """Where the figure of ONE release may lie: by the chance of the release and its judge, and of who the patients are.

    The first is the prediction interval of one more release (Hahn and Meeker 1991, section 4.7: Student's t, n - 1
    degrees of freedom, s sqrt(1 + 1/n)), the second the mean half width of the patients' intervals `lows` to `highs`;
    they are independent, so their squares are added. nan for fewer than two releases: one says nothing of the next.
    """
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    quantile = float(student.ppf((1.0 + LEVEL) / 2.0, count - 1))
    release = quantile * statistics.stdev(values) * math.sqrt(1.0 + 1.0 / count)
    patients = statistics.mean((high - low) / 2.0 for low, high in zip(lows, highs, strict=True))
    centre, half = statistics.mean(values), math.hypot(release, patients)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval_text(scores: Sequence[dict[str, float]], name: str) -> str:
    """The release's interval of the score `name`, or empty."""
    found = [one for one in scores if name in one]
    low, high = release_interval(*([one[key] for one in found] for key in (name, f"{name} low", f"{name} high")))
    return "" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]"


def judge_columns(results: list[dict[str, Any]], view: str) -> list[str]:
    """The judges' scores of a view that some result has: judge by judge, pooled, by site, and of sites alone."""
    present = dict.fromkeys(name for result in results for name in result["scores"])
    columns = []
    for head in (f"{name} {view}" for name in (BENCH, *JUDGES)):
        tail = [name for name in sorted(present) if name.startswith(f"{head} ")]
        columns += [head, *(name for name in tail if name.removeprefix(f"{head} ") not in {"low", "high"})]
    return [name for name in columns if name in present]


def judge_rows(results: list[dict[str, Any]], cells: Any, text: Any, view: str) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the judges' table of a view; after each pooled figure the interval of a release."""
    names = judge_columns(results, view)
    pooled = {f"{name} {view}" for name in (BENCH, *JUDGES)}
    columns, rows = ["row", "epsilon", "releases"], []
    for name in names:
        columns += [name, "a release's 95 %"] if name in pooled else [name]
    for row, epsilon in cells:
        own = [one["scores"] for one in results if (one["row"], one["epsilon"]) == (row, epsilon) and one["scores"]]
        if not any(name in one for one in own for name in names):
            continue
        line = [row, "-" if epsilon is None else f"{epsilon:g}", str(len(own))]
        for name in names:
            line += [text(cells[row, epsilon].get(name), 3)]
            line += [interval_text(own, name)] if name in pooled else []
        rows.append(line)
    return columns, rows
