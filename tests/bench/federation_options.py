"""Which way of federating helps: server optimisers, the proximal term, discriminators by site; one noise for all.

    python tests/bench/federation_options.py [--cohort phantom|sites] [--epsilon 10] [--seeds 2] [--quick]

The phantom's sites differ in class shares (one has a quarter of the abnormal patients, another a quarter of the normal
ones) and in exposure, on top of their devices. All options of a seed start from one spectral release and pay the same
epsilon: none of them costs privacy. TSTR by site and pooled, Frechet distance in the site-trained space, holdout bits
per dimension of the flow. Prints a table and writes bench-out/federation_options-COHORT.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from cohorts import ROOT, BenchCohort, load
from in_process import Released, build_plan, spent, synthetic_set
from utility_scores import fidelity_of, held_out_bits, reference_of, utility_of

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.features import random_grid
from sfumato_common.metrics.tstr import fit_linear
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.rounds.strategies import strategy_of

# To add an option: one line here, with what it changes in the stage.
OPTIONS: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "per-site D": {"discriminators": "per-site"},
    "FedAvgM 0.5": {"server": {"kind": "momentum", "momentum": 0.5}},
    "FedAvgM 0.9, rate 0.5": {"server": {"kind": "momentum", "momentum": 0.9, "learning_rate": 0.5}},
    "FedAdam 0.003": {"server": {"kind": "adam", "learning_rate": 0.003}},
    "FedAdam 0.01": {"server": {"kind": "adam", "learning_rate": 0.01}},
    "FedProx 0.1": {"proximal": 0.1},
    "FedProx 1": {"proximal": 1.0},
}
GAMMAS = {"alder": 0.75, "birch": 1.0, "cedar": 1.3}
SCARCE = {"alder": 1, "cedar": 0}  # the label of which a site keeps a quarter of its patients
NOMINAL = {"alder": 430, "birch": 700, "cedar": 430}


def shifted(cohort: BenchCohort) -> BenchCohort:
    """The phantom with class shares of training patients, and exposure of all images, that differ between sites."""
    parts = {
        split: {site: _exposed(_thinned(part, site) if split == "train" else part, site) for site, part in own.items()}
        for split, own in cohort.parts.items()
    }
    return replace(cohort, name="phantom", nominal=NOMINAL, parts=parts)


def _thinned(cohort: Cohort, site: str) -> Cohort:
    images, labels, patient_index = cohort.everything()
    first = {owner: labels[patient_index == owner][0] for owner in np.unique(patient_index)}
    kept = [owner for owner, label in first.items() if label != SCARCE.get(site) or owner % 4 == 0]
    rows = np.isin(patient_index, kept)
    return Cohort(images[rows], labels[rows], np.unique(patient_index[rows], return_inverse=True)[1])


def _exposed(cohort: Cohort, site: str) -> Cohort:
    images, labels, patient_index = cohort.everything()
    curve = np.rint(255.0 * (np.arange(256) / 255.0) ** GAMMAS[site]).astype(np.uint8)
    return Cohort(curve[images], labels, patient_index)


def trained(plan: Plan, kind: str, cohort: BenchCohort, released: Released, seed: int) -> dict[str, Any]:
    """The released arrays of one stage, with secure noise at every site."""
    strategy, rng = strategy_of(plan, plan.stage(kind), released), torch.Generator().manual_seed(seed)
    for number in range(1, plan.stage(kind).rounds + 1):
        replies = {}
        for site, part in cohort.train.items():
            noise = SecureNoise()
            job = StageJob(
                plan, site, kind, number, strategy.outbound(number, site), part, noise, NoiseRecorder(noise, "bench")
            )
            replies[site] = dict(train(job))
        strategy.absorb(number, replies, rng)
    return strategy.released()


def with_option(plan: Plan, kind: str, option: dict[str, Any]) -> Plan:
    """The plan with that option in stage `kind`; noise and cost stay what they are."""
    value = plan.model_dump(mode="json")
    for stage in value["stages"]:
        if stage["kind"] == kind:
            stage.update(option)
    return parse(value, Plan, "bench")


def scored(plan: Plan, kind: str, cohort: BenchCohort, released: Released, seed: int, count: int) -> dict[str, float]:
    """Linear TSTR by site and pooled (a CNN's spread hides the options), Frechet distance, and bits of a likelihood."""
    images, labels = synthetic_set(plan, kind, released, count, seed)
    linear = fit_linear(random_grid(images), labels, len(cohort.labels))
    found = utility_of(cohort, lambda shown: linear.probabilities(random_grid(shown)))
    result = {name: found[name] for name in ("auc", *(f"auc {site}" for site in cohort.test)) if name in found}
    result["FD trained"] = fidelity_of(reference_of(cohort), images[:500])["FD trained"]
    if kind != "gan":
        result["bits"] = held_out_bits(plan, kind, released[kind], cohort)
    return {name: round(float(value), 4) for name, value in result.items()}


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(description="Ways of federating one DP stage, at one epsilon")
    parser.add_argument("--cohort", choices=("phantom", "sites"), default="phantom")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--models", nargs="+", choices=("flow", "gan"), default=["flow", "gan"])
    parser.add_argument("--quick", action="store_true", help="one seed, one round a stage, the first options only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cohort = load(options.cohort)
    if options.cohort == "phantom":
        cohort = shifted(cohort)
    runs: list[dict[str, Any]] = []
    for kind in options.models:
        overrides = {kind: {"rounds": 1}} if options.quick else {}
        plan = build_plan(cohort, kind, options.epsilon, **overrides)
        for seed in range(1 if options.quick else options.seeds):
            spectral = {"spectral": trained(plan, "spectral", cohort, {}, seed)}
            note = {"model": kind, "seed": seed, "epsilon": round(spent(plan), 3)}
            runs.append({**note, "option": "start", **scored(plan, "spectral", cohort, spectral, seed, 1500)})
            for name, option in list(OPTIONS.items())[: 3 if options.quick else None]:
                if "discriminators" in option and kind != "gan":
                    continue
                began, own = time.perf_counter(), with_option(plan, kind, option)
                released = {**spectral, kind: trained(own, kind, cohort, spectral, seed)}
                found = scored(own, kind, cohort, released, seed, 1500)
                runs.append({**note, "option": name, **found, "seconds": round(time.perf_counter() - began, 1)})
                print(json.dumps(runs[-1]), flush=True)
    print(table(runs))
    out = ROOT / "bench-out" / f"federation_options-{options.cohort}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(runs, indent=2) + "\n")


def table(runs: list[dict[str, Any]]) -> str:
    """Means over seeds, with the largest difference between seeds behind them, one line an option."""
    figures = [name for name in runs[0] if name.startswith("auc") or name in ("FD trained", "bits")]
    figures += [name for name in ("bits",) if name not in figures]
    lines = [" | ".join(["model", "option", *figures])]
    for model, option in dict.fromkeys((run["model"], run["option"]) for run in runs):
        own = [run for run in runs if (run["model"], run["option"]) == (model, option)]
        cells = []
        for name in figures:
            values = [run[name] for run in own if name in run]
            cells.append(f"{np.mean(values):.3f} ({np.ptp(values):.3f})" if values else "-")
        lines.append(" | ".join([model, option, *cells]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
