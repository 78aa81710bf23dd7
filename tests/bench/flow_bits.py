"""Is a flow worth its budget? Holdout bits a dimension of the spectral release with all of it, and of a flow on part.

    python tests/bench/flow_bits.py [--cohort NAME ...] [--epsilon E ...] [--seeds N] [--quick] [--flow KEY=VALUE ...]

Both plans cost a training patient the same epsilon (delta 1e-5, add/remove, unit patient), by the program's own
accountant; `in_process.py` holds the flow's share. --flow changes its stage. Lower bits are better. Prints a
table and, after each row, writes bench-out/flow_bits-COHORT.json. --quick: one seed, the phantom, epsilon 10.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
import yaml
from cohorts import ROOT, BenchCohort, load
from in_process import Released, build_plan, federate, spent
from utility_scores import held_out_bits

from sfumato_common.files import write_json
from sfumato_common.generators.starts import initial_model
from sfumato_common.study.plan import Plan

# Chosen on the phantom at epsilon 10, one run a setting: clipping norm of 0.1, 0.3 and 1.0; learning rate of 0.002,
# 0.005 and 0.02, of which the largest gives the fewest bits but samples that stray; in_process.py takes the middle one.
FLOW = {
    "rounds": 3,
    "local_steps": 10,
    "clipping_norm": 0.3,
    "steps_per_level": 2,
    "hidden": 16,
}


def measured(cohort: BenchCohort, epsilon: float, seed: int, flow: dict[str, Any]) -> dict[str, Any]:
    """One row: bits of the whole-budget spectral release, of the smaller one under the flow, and of the flow."""
    plans = {
        "spectral": build_plan(cohort, "spectral", epsilon),
        "flow": build_plan(cohort, "flow", epsilon, flow=flow),
    }
    released: dict[str, Released] = {}
    began = time.perf_counter()
    for row, plan in plans.items():
        released[row], _ = federate(plan, cohort.train, seed)

    def bits(row: str, kind: str) -> float:
        return held_out_bits(plans[row], kind, released[row][kind], cohort)

    whole, part, trained = bits("spectral", "spectral"), bits("flow", "spectral"), bits("flow", "flow")
    return {
        "cohort": cohort.name,
        "size": cohort.size,
        "epsilon": epsilon,
        "seed": seed,
        "spent": {row: round(spent(plan), 4) for row, plan in plans.items()},
        "noise": {stage.kind: stage.noise_multiplier for stage in plans["flow"].stages},
        "weights": _weights(plans["flow"]),
        "bits": {"spectral": whole, "spectral part": part, "flow": trained},
        "gain": whole - trained,
        "seconds": round(time.perf_counter() - began, 1),
    }


def _weights(plan: Plan) -> int:
    return sum(parameter.numel() for parameter in initial_model("flow", plan).parameters())


def _line(row: dict[str, Any]) -> str:
    bits = row["bits"]
    return (
        f"{row['cohort']:10} {row['size']:3} px  eps {row['epsilon']:g}  seed {row['seed']}  spectral "
        f"{bits['spectral']:.3f} (with the flow's share taken: {bits['spectral part']:.3f})  flow {bits['flow']:.3f}"
        f"  gain {row['gain']:+.3f}  {row['seconds']:.0f} s"
    )


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(description="holdout bits a dimension: spectral release against flow")
    parser.add_argument("--cohort", nargs="+", default=["pneumonia", "sites"])
    parser.add_argument("--epsilon", nargs="+", type=float, default=[10.0, 3.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--flow", nargs="+", default=[], help="settings of the flow stage, KEY=VALUE")
    options = parser.parse_args()
    if options.quick:
        options.cohort, options.epsilon, options.seeds = ["phantom"], [10.0], 1
    torch.set_num_threads(1)
    flow = {**FLOW, **{key: yaml.safe_load(value) for key, value in (item.split("=", 1) for item in options.flow)}}
    for name in options.cohort:
        cohort, rows = load(name), []
        for seed in range(options.seeds):
            for epsilon in options.epsilon:
                rows.append(measured(cohort, epsilon, seed, flow))
                print(_line(rows[-1]), flush=True)
                out = ROOT / "bench-out"
                out.mkdir(exist_ok=True)
                write_json(out / f"flow_bits-{name}.json", {"flow": flow, "rows": rows})


if __name__ == "__main__":
    main()
