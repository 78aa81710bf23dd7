"""What an anonymised table is worth, and how near it comes to anyone: breast-cancer, diabetes and an election survey.

    python tests/bench/tabular.py [--table NAME ...] [--epsilon E ...] [--way NAME ...] [--seeds N] [--quick]

Two tables are scikit-learn's; anes96 is statsmodels', which is no dependency: without it that table is left out. Every
row but `histograms` is a whole run of `sfumato-site tabular` at a site of its own, its figures those of the local
report: a predictor trained on synthetic rows and tested on holdout patients (accuracy of the diagnosis, R^2 of the
progression, area under the curve of the vote), mean total variation of marginals, mean difference of correlations, and
the median distance of a row to its nearest training record over that of holdout patients. `histograms` is the baseline:
noisy histograms of every column under each level of the condition, with all of the budget, clipped at zero; columns
are drawn on their own. Each figure stands beside that of the training records themselves. Bounds are round numbers
above each column's largest value: a hospital has to know them without looking. --quick: one seed, epsilon 10, small
networks. Prints medians, and writes bench-out/tabular.json after each row.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sklearn.datasets import load_breast_cancer, load_diabetes

from sfumato_client.site.home import SiteHome
from sfumato_client.tabular.histograms import Bins
from sfumato_client.tabular.report import local_report
from sfumato_client.tabular.run import run_tabular
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.table import read_table, split
from sfumato_common.accounting.calibration import gaussian_mu
from sfumato_common.crypto.identity import create_identity
from sfumato_common.files import write_json
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.streams import SecretStream
from sfumato_common.strict import parse

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 4  # of a bound's round number: a column takes some 10,000 to 50,000 values
POLICY = {
    "site": "alder",
    "budget": {"epsilon": 1000.0, "delta": 1e-5},
    "allowed_stages": ["spectral"],
    "minimum_patients": 10,
    "release": {"allowed_methods": ["cadp", "marginals", "copula"], "largest_set": 1000},
    "noise": "test",
}
Columns = dict[str, dict[str, Any]]


def breast_cancer() -> tuple[Columns, list[list[str]], dict[str, str]]:
    """569 x 30 numbers; the diagnosis is the condition, and what is predicted."""
    data = load_breast_cancer()
    columns = {str(name): numeric(data.data[:, i]) for i, name in enumerate(data.feature_names)}
    columns["diagnosis"] = {"kind": "categorical", "levels": [str(name) for name in data.target_names]}
    rows = [[*map(repr, map(float, x)), str(data.target_names[y])] for x, y in zip(data.data, data.target, strict=True)]
    return columns, rows, {"condition": "diagnosis", "target": "diagnosis"}


def diabetes() -> tuple[Columns, list[list[str]], dict[str, str]]:
    """442 x 10; the sex is the condition, and the progression after a year is what is predicted."""
    data = load_diabetes(scaled=False)
    columns = {str(name): numeric(data.data[:, i]) for i, name in enumerate(data.feature_names)}
    columns["sex"] = {"kind": "categorical", "levels": ["1.0", "2.0"]}
    columns["progression"] = numeric(data.target)
    rows = [[*map(repr, map(float, x)), repr(float(y))] for x, y in zip(data.data, data.target, strict=True)]
    return columns, rows, {"condition": "sex", "target": "progression"}


def anes96() -> tuple[Columns, list[list[str]], dict[str, str]]:
    """944 x 9 numbers and answers in order; the vote is the condition, and what is predicted."""
    spec = find_spec("statsmodels")
    assert spec is not None and spec.submodule_search_locations, "`available` said that it is there"
    source = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "anes96" / "anes96.csv"
    header, *rows = [text.split() for text in source.read_text().splitlines()]
    names = [name.strip("'") for name in header]
    ends = {"TVnews": (0, 7), "PID": (0, 6), "income": (1, 24), "vote": (0, 1)}
    columns: Columns = {}
    for name in names:
        low, high = ends.get(name, (1, 7))
        kind = "categorical" if name == "vote" else "ordinal"
        columns[name] = {"kind": kind, "levels": [str(level) for level in range(low, high + 1)]}
    columns["popul"] = {"kind": "numeric", "low": 0.0, "high": 10_000.0, "digits": 0}
    columns["age"] = {"kind": "numeric", "low": 0.0, "high": 100.0, "digits": 0}
    return columns, rows, {"condition": "vote", "target": "vote"}


def available() -> list[str]:
    """The tables that are installed."""
    return [name for name in TABLES if name != "anes96" or find_spec("statsmodels") is not None]


TABLES: dict[str, Callable[[], tuple[Columns, list[list[str]], dict[str, str]]]] = {
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
    "anes96": anes96,
}


def numeric(values: Any) -> dict[str, Any]:
    """A column from zero to the next of 1, 2, 5, 10, ... above all values."""
    top = float(np.max(values))
    ten = math.floor(math.log10(top))
    high = next(step * 10.0**ten for step in (1, 2, 5, 10) if step * 10.0**ten > top)
    digits = max(0, DIGITS - ten - 1)
    return {"kind": "numeric", "low": 0.0, "high": round(high, digits), "digits": digits}


WAYS = ("cadp", "marginals", "star", "copula", "histograms")
FIGURES = {"breast-cancer": "accuracy", "diabetes": "r2", "anes96": "auc"}


def schema_of(name: str, way: str, columns: Columns, terms: dict[str, str], epsilon: float, hidden: int) -> TableSchema:
    """What is asked for: the tool's defaults, at a nominal number of 400 patients and 400 rows."""
    value: dict[str, Any] = {
        "table": name,
        "rows": 400,
        "privacy": {"epsilon": epsilon},
        "rows_are_patients": True,
        "columns": columns,
        "target": terms["target"],
        "training": {"nominal_patients": 400},
    }
    if way == "cadp":
        value |= {"condition": terms["condition"], "training": {"hidden": hidden, "nominal_patients": 400}}
    elif way == "copula":
        value |= {"method": "copula"}
    else:
        value |= {"method": "marginals", "tree": {"star": terms["target"]} if way == "star" else {}}
    return parse(value, TableSchema, name)


def measured(name: str, way: str, epsilon: float, seed: int, hidden: int) -> dict[str, Any]:
    """One run's figures; a seed has a split and noise of its own."""
    columns, rows, terms = TABLES[name]()
    schema = schema_of(f"seed-{seed}", way, columns, terms, epsilon, hidden)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home, source = Path(folder) / "home", Path(folder) / "in.csv"
        (home / "identity").mkdir(parents=True)
        create_identity(home / "identity", POLICY["site"])
        (home / "identity" / "split.key").write_text(f"{seed:064x}")
        (home / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        with source.open("w", newline="") as stream:
            csv.writer(stream).writerows([list(columns), *rows])
        if way == "histograms":
            report, paid = baseline(source, schema, terms["condition"], epsilon, seed), epsilon
        else:
            outcome = run_tabular(SiteHome(home), source, schema, Path(folder) / "out", report=True)
            assert outcome.report is not None
            report, paid = json.loads(outcome.report.read_text()), float(outcome.certificate.epsilon.train.add_remove)
    prediction = report["prediction"]
    return {
        "table": name,
        "way": way,
        "asked": epsilon,
        "seed": seed,
        "epsilon": paid,
        "tstr": prediction["synthetic"][FIGURES[name]],
        "real": prediction["real"][FIGURES[name]],
        "variation": report["mean_total_variation"],
        "correlation": report["correlation_difference"],
        "distance_ratio": report["distance_to_train"]["ratio"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def baseline(source: Path, schema: TableSchema, condition: str, epsilon: float, seed: int) -> dict[str, Any]:
    """The report on columns drawn from their noisy histograms under each level of the condition."""
    parts = split(read_table(source, schema), bytes.fromhex(f"{seed:064x}"), SecretStream(TestNoise(seed)))
    names, rng = list(schema.columns), np.random.default_rng(seed)
    own = names.index(condition)
    classes = schema.columns[condition].cells
    scale = math.sqrt(len(names) - 1) / gaussian_mu(epsilon, schema.privacy.delta)
    bins = [Bins(column) for column in schema.columns.values()]
    levels = [parts.train[parts.train[:, own] == level] for level in range(classes)]
    noisy = {
        place: np.stack(
            [np.maximum(b.counts(rows[:, place]) + rng.normal(0.0, scale, b.count), 0.0) for rows in levels]
        )
        for place, b in enumerate(bins)
        if place != own
    }
    weights = np.mean([counts.sum(axis=1) for counts in noisy.values()], axis=0)
    made = np.zeros((schema.rows, len(names)), dtype=np.int64)
    made[:, own] = rng.choice(classes, schema.rows, p=weights / weights.sum())
    for place, counts in noisy.items():
        for level in range(classes):
            rows = np.flatnonzero(made[:, own] == level)
            drawn = rng.choice(bins[place].count, len(rows), p=counts[level] / counts[level].sum())
            made[rows, place] = bins[place].cells_at(drawn + rng.random(len(rows)))
    return local_report(schema, made, parts.train, parts.holdout)


def line(rows: list[dict[str, Any]]) -> str:
    """One line of the table: medians over seeds, and the range of the predictor's figure."""

    def middle(pick: Callable[[dict[str, Any]], float]) -> float:
        return float(np.median([pick(row) for row in rows]))

    scores = [row["tstr"] for row in rows]
    return (
        f"| {rows[0]['table']} | {rows[0]['asked']:g} | {rows[0]['way']} | {middle(lambda row: row['tstr']):.3f} "
        f"({min(scores):.2f} to {max(scores):.2f}) | {middle(lambda row: row['real']):.3f} "
        f"| {middle(lambda row: row['variation']['synthetic']):.3f} / "
        f"{middle(lambda row: row['variation']['train']):.3f} "
        f"| {middle(lambda row: row['correlation']['synthetic']):.2f} / "
        f"{middle(lambda row: row['correlation']['train']):.2f} | {middle(lambda row: row['distance_ratio']):.2f} |"
    )


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(description="what an anonymised table is worth")
    parser.add_argument("--table", nargs="+", choices=available(), default=available())
    parser.add_argument("--way", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--epsilon", nargs="+", type=float, default=[0.1, 1.0, 10.0, 100.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.epsilon, options.seeds, options.hidden = [10.0], 1, 16
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="TestNoise is in use")
    found: list[dict[str, Any]] = []
    print(
        "| table | epsilon | way | synthetic, tested on holdout (range) | real | marginals | correlations | distance |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in options.table:
        for epsilon, way in product(options.epsilon, options.way):
            own = [measured(name, way, epsilon, seed, options.hidden) for seed in range(options.seeds)]
            print(line(own), flush=True)
            found += own
            (ROOT / "bench-out").mkdir(exist_ok=True)
            write_json(ROOT / "bench-out" / "tabular.json", {"hidden": options.hidden, "rows": found})


if __name__ == "__main__":
    main()
