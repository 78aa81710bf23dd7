"""The diffusion stage beside flow and GAN at the same epsilon, by the public start that it is tuned from.

    python tests/bench/diffusion.py [--cohort phantom|pneumonia] [--patients N] [--steps N] [--epsilon E] [--rows A,B]

Phantoms of 16 px, or PneumoniaMNIST; at most that many patients a site, scored on val patients whom nobody trained on.
`untuned` draws from the public start as it is, whitened by the same spectral release. One release each. Prints a table
and writes bench-out/diffusion-COHORT.json. Uses an accelerator for training where there is one.
"""

from __future__ import annotations

import argparse
from typing import Any

from cohorts import ROOT, BenchCohort, few_of, few_phantoms, pneumonia
from in_process import RATES, START_PATIENTS, build_plan, federate, pin_start, synthetic_set
from utility_scores import Scores, scores_of

from sfumato_common.files import write_json
from sfumato_common.types import AnyArray
from sfumato_server.coordinator.pretraining import SOURCES, pretrain

ROWS = ("spectral", "flow", "gan", *(f"diffusion {source}" for source in SOURCES))
FIGURES = ("auc", "linear auc", "FD random", "FD trained", "precision", "recall", "coverage")
SIZE, BATCH = 16, 48
STAGE = {"width": 64, "depth": 2}
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "phantom": {"spectral": {"bandwidth": 8}, "diffusion": {"patch": 4, **STAGE}},
    "pneumonia": {"spectral": {}, "diffusion": {"patch": 7, **STAGE}},
}


def small_cohort(name: str, patients: int) -> BenchCohort:
    """The cohort with so many training patients a site, and val in the place of test."""
    return few_of(pneumonia(), patients) if name == "pneumonia" else few_phantoms(SIZE, patients)


def scores_of_row(cohort: BenchCohort, row: str, options: argparse.Namespace) -> dict[str, Scores]:
    """Scores of a row's release, and of its start as it is where it has one."""
    kind, _, source = row.partition(" ")
    forms, weights = FORMS[cohort.name], {}
    if source:
        bare = {"start": {"source": source, "sha256": "0" * 64}}
        plan = build_plan(cohort, kind, options.epsilon, **{**forms, kind: {**forms[kind], **bare}})
        weights, _ = pretrain(plan, kind, source, steps=options.steps, patients=START_PATIENTS)
        plan = pin_start(plan, source, weights)
    else:
        plan = build_plan(cohort, kind, options.epsilon, **forms)
    released, _ = federate(plan, cohort.train, 0)
    drawn = {row: released}
    if source:
        drawn = {f"{row}, untuned": {**released, kind: {**released["spectral"], **weights}}, **drawn}
    return {name: _scores(cohort, plan, kind, arrays, options.images) for name, arrays in drawn.items()}


def _scores(cohort: BenchCohort, plan: Any, kind: str, arrays: dict[str, dict[str, AnyArray]], count: int) -> Scores:
    images, labels = synthetic_set(plan, kind, arrays, count, 0)
    found = scores_of(cohort, images, labels, 0, count)
    return {name: found[name] for name in FIGURES}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="phantom", choices=sorted(FORMS))
    parser.add_argument("--patients", type=int, default=400, help="training patients a site, at most")
    parser.add_argument("--steps", type=int, default=400, help="pretraining steps of a start")
    parser.add_argument("--images", type=int, default=400, help="synthetic images a row")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS), help="of " + ",".join(ROWS))
    options = parser.parse_args()
    cohort = small_cohort(options.cohort, options.patients)
    RATES[options.cohort] = min(0.5, BATCH / options.patients)
    print(f"| {options.cohort}, epsilon {options.epsilon:g} | {' | '.join(FIGURES)} |\n|{'---|' * (1 + len(FIGURES))}")
    found: dict[str, Scores] = {}
    for row in options.rows:
        for name, scores in scores_of_row(cohort, row, options).items():
            found[name] = scores
            print(f"| {name} | {' | '.join(f'{scores[figure]:.3f}' for figure in FIGURES)} |", flush=True)
    write_json(ROOT / "bench-out" / f"diffusion-{options.cohort}.json", {"options": vars(options), "rows": found})


if __name__ == "__main__":
    main()
