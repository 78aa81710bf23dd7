"""What a public start is worth: flow and GAN with and without one, at the same epsilon and the same plan otherwise.

    python tests/bench/public_start.py [--cohort pneumonia|sites|phantom] [--epsilon E] [--seeds N] [--quick]

Starts are pretrained on the phantom and on textures. Prints holdout bits a dimension (lower is better; the spectral
model's beside it) and AUC of a classifier trained on synthetic images; writes bench-out/public_start.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from cohorts import COHORTS, ROOT, BenchCohort
from in_process import Released, build_plan, spent, synthetic_set
from utility_scores import held_out_bits, utility_of

from sfumato_client.training import StageJob, train
from sfumato_common.generators.starts import start_key
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.network import fit_network
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import fingerprint
from sfumato_server.coordinator.pretraining import pretrain
from sfumato_server.rounds.strategies import strategy_of

STARTS = ("none", "phantom", "textures")


def with_start(plan: Plan, kind: str, source: str, steps: int) -> tuple[Plan, Released]:
    """The plan that pins a start of stage `kind`, and the start; both as they were for 'none'."""
    if source == "none":
        return plan, {}
    weights, _ = pretrain(plan, kind, source, steps=steps, patients=300)
    values = plan.model_dump(mode="json")
    for stage in values["stages"]:
        if stage["kind"] == kind:
            stage["start"] = {"source": source, "sha256": fingerprint(weights)}
    return parse(values, Plan, "bench"), {start_key(kind): weights}


def study(plan: Plan, cohort: BenchCohort, released: Released, seed: int) -> Released:
    """Every stage of the plan with secure noise at the sites, on top of what was released or brought before."""
    rng = torch.Generator().manual_seed(seed)
    for stage in plan.stages:
        if stage.kind in released:
            continue
        strategy = strategy_of(plan, stage, released)
        for number in range(1, stage.rounds + 1):
            replies = {}
            for site, own in cohort.train.items():
                noise = SecureNoise()
                recorder = NoiseRecorder(noise, "bench")
                job = StageJob(plan, site, stage, number, strategy.outbound(number, site), own, noise, recorder)
                replies[site] = dict(train(job))
            strategy.absorb(number, replies, rng)
        released[stage.kind] = dict(strategy.released())
    return released


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="pneumonia", choices=("pneumonia", "sites", "phantom"))
    parser.add_argument("--epsilon", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400, help="pretraining steps")
    parser.add_argument("--quick", action="store_true", help="one seed, 100 pretraining steps")
    arguments = parser.parse_args()
    seeds, steps = (1, 100) if arguments.quick else (arguments.seeds, arguments.steps)
    cohort = COHORTS[arguments.cohort]()
    rows = []
    for kind in ("flow", "gan"):
        plan = build_plan(cohort, kind, arguments.epsilon)
        brought = {source: with_start(plan, kind, source, steps) for source in STARTS}
        for seed in range(seeds):
            # one spectral release for all starts of a seed: what differs is the start, and the stage's own noise
            first = study(plan.model_copy(update={"stages": plan.stages[:1]}), cohort, {}, seed)
            for source, (own, start) in brought.items():
                began = time.perf_counter()
                released = study(own, cohort, {**first, **start}, seed)
                images, labels = synthetic_set(own, kind, released, 1500, seed)
                scores = utility_of(cohort, fit_network(images, labels, len(cohort.labels), seed).probabilities)
                row = {"model": kind, "start": source, "seed": seed, "epsilon": spent(own), "auc": scores["auc"]}
                if kind == "flow":
                    row["bits"] = held_out_bits(own, "flow", released["flow"], cohort)
                    row["spectral bits"] = held_out_bits(own, "spectral", released["spectral"], cohort)
                rows.append({**row, "seconds": round(time.perf_counter() - began, 1)})
                print(rows[-1], flush=True)
    _table(rows, arguments.cohort, steps)
    out = ROOT / "bench-out" / "public_start.json"
    out.parent.mkdir(exist_ok=True)
    settings = {"cohort": arguments.cohort, "epsilon": arguments.epsilon, "steps": steps, "seeds": seeds}
    out.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n")


def _table(rows: list[dict], cohort: str, steps: int) -> None:
    print(
        f"\n{cohort}, epsilon {rows[0]['epsilon']:.2f}, pretraining {steps} steps; mean over seeds (standard deviation)"
    )
    print("| model | start | bits/dim | spectral bits/dim | TSTR AUC |\n|---|---|---|---|---|")
    for kind in ("flow", "gan"):
        for source in STARTS:
            mine = [row for row in rows if (row["model"], row["start"]) == (kind, source)]
            cells = [_cell(mine, name) for name in ("bits", "spectral bits", "auc")]
            print(f"| {kind} | {source} | {' | '.join(cells)} |")


def _cell(rows: list[dict], name: str) -> str:
    values = [row[name] for row in rows if name in row]
    if not values:
        return ""
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
