"""What an anonymised table is worth, and how near it comes to anyone: scikit-learn's breast-cancer and diabetes tables.

    python tests/bench/tabular.py [--table NAME ...] [--epsilon E ...] [--seeds N] [--hidden H] [--quick]

Every row is a whole run of `sfumato-site tabular` at a site of its own, its figures those of the local report: a
predictor trained on synthetic rows and tested on holdout patients (accuracy of the diagnosis, R^2 of the progression),
mean total variation of marginals, mean difference of correlations, and the median distance of a row to its nearest
training record over that of holdout patients. Each figure stands beside that of the training records themselves.
Bounds are round numbers above each column's largest value: a hospital has to know them without looking. --quick: one
seed, epsilon 10, small networks. Prints a table and, after each row, writes bench-out/tabular.json.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from sklearn.datasets import load_breast_cancer, load_diabetes

from sfumato_client.site.home import SiteHome
from sfumato_client.tabular.run import run_tabular
from sfumato_client.tabular.schema import TableSchema
from sfumato_common.crypto.identity import create_identity
from sfumato_common.files import write_json
from sfumato_common.strict import parse

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 4  # of a bound's round number: a column takes some 10,000 to 50,000 values
POLICY = {
    "site": "alder",
    "budget": {"epsilon": 1000.0, "delta": 1e-5},
    "allowed_stages": ["spectral"],
    "minimum_patients": 10,
    "release": {"allowed_methods": ["cadp"], "largest_set": 1000},
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


TABLES: dict[str, Callable[[], tuple[Columns, list[list[str]], dict[str, str]]]] = {
    "breast-cancer": breast_cancer,
    "diabetes": diabetes,
}


def numeric(values: Any) -> dict[str, Any]:
    """A column from zero to the next of 1, 2, 5, 10, ... above all values."""
    top = float(np.max(values))
    ten = math.floor(math.log10(top))
    high = next(step * 10.0**ten for step in (1, 2, 5, 10) if step * 10.0**ten > top)
    digits = max(0, DIGITS - ten - 1)
    return {"kind": "numeric", "low": 0.0, "high": round(high, digits), "digits": digits}


def measured(name: str, epsilon: float, seed: int, hidden: int) -> dict[str, Any]:
    """One run's figures; a seed has a split and noise of its own."""
    columns, rows, terms = TABLES[name]()
    value = {
        "table": f"seed-{seed}",
        "rows": 400,
        "privacy": {"epsilon": epsilon},
        "rows_are_patients": True,
        "columns": columns,
        "training": {"hidden": hidden, "nominal_patients": 400},
        **terms,
    }
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home, source = Path(folder) / "home", Path(folder) / "in.csv"
        (home / "identity").mkdir(parents=True)
        create_identity(home / "identity", POLICY["site"])
        (home / "identity" / "split.key").write_text(f"{seed:064x}")
        (home / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        with source.open("w", newline="") as stream:
            csv.writer(stream).writerows([list(columns), *rows])
        schema = parse(value, TableSchema, name)
        outcome = run_tabular(SiteHome(home), source, schema, Path(folder) / "out", report=True)
        assert outcome.report is not None
        report = json.loads(outcome.report.read_text())
    figure = "accuracy" if terms["target"] == "diagnosis" else "r2"
    prediction = report["prediction"]
    return {
        "table": name,
        "asked": epsilon,
        "seed": seed,
        "epsilon": outcome.certificate.epsilon.train.add_remove,
        "signal": outcome.certificate.signal,
        "tstr": prediction["synthetic"][figure],
        "real": prediction["real"][figure],
        "variation": report["mean_total_variation"],
        "correlation": report["correlation_difference"],
        "distance_ratio": report["distance_to_train"]["ratio"],
        "seconds": round(time.perf_counter() - began, 1),
    }


def line(rows: list[dict[str, Any]]) -> str:
    """One line of the table: means over seeds, and the range of the predictor's figure."""

    def mean(pick: Callable[[dict[str, Any]], float]) -> float:
        return float(np.mean([pick(row) for row in rows]))

    scores = [row["tstr"] for row in rows]
    return (
        f"| {rows[0]['table']} | {mean(lambda row: row['epsilon']):.2f} | {mean(lambda row: row['tstr']):.2f} "
        f"({min(scores):.2f} to {max(scores):.2f}) | {mean(lambda row: row['real']):.2f} "
        f"| {mean(lambda row: row['variation']['synthetic']):.2f} / {mean(lambda row: row['variation']['train']):.2f} "
        f"| {mean(lambda row: row['correlation']['synthetic']):.2f} / "
        f"{mean(lambda row: row['correlation']['train']):.2f} | {mean(lambda row: row['distance_ratio']):.2f} |"
    )


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(description="what an anonymised table is worth")
    parser.add_argument("--table", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--epsilon", nargs="+", type=float, default=[0.1, 1.0, 10.0, 100.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.epsilon, options.seeds, options.hidden = [10.0], 1, 16
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="TestNoise is in use")
    found: list[dict[str, Any]] = []
    print("| table | epsilon | synthetic, tested on holdout (range) | real | marginals | correlations | distance |")
    print("|---|---|---|---|---|---|---|")
    for name in options.table:
        for epsilon in options.epsilon:
            own = [measured(name, epsilon, seed, options.hidden) for seed in range(options.seeds)]
            print(line(own), flush=True)
            found += own
            (ROOT / "bench-out").mkdir(exist_ok=True)
            write_json(ROOT / "bench-out" / "tabular.json", {"hidden": options.hidden, "rows": found})


if __name__ == "__main__":
    main()
