"""What robust means cost, and what they are worth: held-out nats of a flow that five sites train, one of them hostile.

    python tests/bench/robust.py [--rounds N] [--patients N]

The hostile site moves every weight against the honest mean as far as the coordinator lets a reply move it. Nats a
dimension of whitened phantom images of 16 px, less is better; the spectral model stands at the flow's start. Prints a
table and writes bench-out/robust.json; a minute.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import Any

import numpy as np
import torch
from cohorts import ROOT

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.files import write_json
from sfumato_common.generators.components import condition
from sfumato_common.generators.displacement import update_displacement
from sfumato_common.generators.flow.displacement import BETAS
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.sampler import released_flow
from sfumato_common.generators.flow.schemas import returned
from sfumato_common.generators.spectral.whitening import dequantise, spectral_model
from sfumato_common.generators.update import UPDATE
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_unit_range
from sfumato_server.rounds.strategies import strategy_of

SITES = ("alder", "birch", "cedar", "dogwood", "elm")
HOSTILE = "elm"
COMBINE = ("mean", "trimmed-mean", "norm-bound")
FLOW = {
    "kind": "flow",
    "local_steps": 10,
    "sampling_rate": 0.2,
    "clipping_norm": 0.3,
    "noise_multiplier": 1.0,
    "learning_rate": 0.005,
    "levels": 1,
    "steps_per_level": 2,
    "hidden": 8,
}
SPECTRAL = {"kind": "spectral", "bandwidth": 8, "clip_radius": 2.0, "spread_radius": 1.0, "noise_multiplier": 0.1}


def plan_of(combine: str, rounds: int, patients: int) -> Plan:
    """A study of five sites whose flow joins updates by `combine`."""
    values = {
        "study": "robust",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {site: {"nominal_patients": patients} for site in SITES},
        "privacy": {"epsilon": 100.0, "delta": 1e-5},
        "stages": [SPECTRAL, {**FLOW, "rounds": rounds, "server": {"combine": combine}}],
        "release": [{"model": "flow", "images": 4}],
        "federation": {"quorum": 3},
    }
    return parse(values, Plan, "plan")


def cohort_of(site: str, patients: int) -> Cohort:
    """A phantom cohort of its own."""
    return Cohort(*arrays(sum(site.encode()), patients, 16, site=site))


def answer(plan: Plan, kind: str, number: int, site: str, sent: Any, cohort: Cohort) -> dict[str, Any]:
    """What an honest site returns."""
    noise = TestNoise(1000 * sorted(SITES).index(site) + number)  # the same for every way to combine
    job = StageJob(plan, site, plan.stage(kind), number, sent, cohort, noise, NoiseRecorder(noise, "bench"))
    return dict(train(job))


def opposite(plan: Plan, replies: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The largest update that is let through, against the honest mean of every weight."""
    spec = returned(plan)[UPDATE]
    floats = [(reply[UPDATE].astype(np.uint32) << np.uint32(16)).view(np.float32) for reply in replies.values()]
    furthest = np.float32(0.99 * update_displacement(plan.stage("flow"), BETAS))
    worst = np.where(np.mean(floats, axis=0) > 0, -furthest, furthest).astype(np.float32)
    worst[spec.filled :] = 0.0
    return {UPDATE: (worst.view(np.uint32) >> np.uint32(16)).astype(np.uint16)}


def nats(plan: Plan, model: dict[str, Any], test: Cohort) -> float:
    """Held-out negative log-likelihood of whitened images under the flow, in nats a dimension."""
    images, labels, _ = test.everything()
    x, y = torch.from_numpy(to_unit_range(images)), torch.from_numpy(labels)
    spread = dequantise(x, TorchDraws(torch.Generator().manual_seed(0)), 8)
    with torch.no_grad():
        white = spectral_model(plan, model).encode(spread, y)[0]
        return float(flow_loss(released_flow(plan, model), white, condition(plan, y)).mean())


def run(combine: str, hostile: bool, arguments: argparse.Namespace, cohorts: dict[str, Cohort]) -> dict[str, Any]:
    """One study; the figures before and after the flow's rounds."""
    plan, released = plan_of(combine, arguments.rounds, arguments.patients), {}
    test, found = cohort_of("held out", 60), {"combine": combine, "hostile": hostile}
    for stage in plan.stages:
        strategy = strategy_of(plan, stage, released)
        if stage.kind == "flow":
            found["before"] = nats(plan, strategy.released(), test)
        for number in range(1, stage.rounds + 1):
            honest = [site for site in SITES if not (hostile and site == HOSTILE and stage.kind == "flow")]
            replies = {
                site: answer(plan, stage.kind, number, site, strategy.outbound(number, site), cohorts[site])
                for site in honest
            }
            if len(honest) < len(SITES):
                replies[HOSTILE] = opposite(plan, replies)
            strategy.absorb(number, copy.deepcopy(replies), torch.Generator().manual_seed(number))
        released[stage.kind] = strategy.released()
    return {**found, "after": nats(plan, released["flow"], test)}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--patients", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started, rows = time.monotonic(), []
    cohorts = {site: cohort_of(site, arguments.patients) for site in SITES}
    print(f"{'combine':14} {'a hostile site':15} {'before':>9} {'after':>9} {'gained':>9}")
    for hostile in (False, True):
        for combine in COMBINE:
            row = run(combine, hostile, arguments, cohorts)
            rows.append(row)
            said = "one of five" if hostile else "none"
            print(
                f"{combine:14} {said:15} {row['before']:9.4f} {row['after']:9.4f} {row['before'] - row['after']:9.4f}",
                flush=True,
            )
    print(f"{time.monotonic() - started:.0f} s")
    (ROOT / "bench-out").mkdir(exist_ok=True)
    write_json(ROOT / "bench-out" / "robust.json", {"rows": rows, "settings": vars(arguments)})


if __name__ == "__main__":
    main()
