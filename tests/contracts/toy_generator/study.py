"""Run by test_recipe.py where the toy generator was added to a copy of the packages: a study of two sites, whole.

It trains, chooses between both models, releases images of the toy through gate, seal, intake and pool, publishes and
verifies; then it draws from the checkpoint. What it saw is printed as JSON.
"""

import json
import sys
from pathlib import Path

from support.federations import make_federation
from support.studies import PLAN, POLICY

import sfumato_common
from sfumato_common.study.costs import study_events
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.rounds.draws import draw_model
from sfumato_server.rounds.strategies import choice

KIND, SITES, IMAGES = "class-mean", ("alder", "birch"), 12


def values():
    spectral = PLAN["stages"][0]
    return {
        **PLAN,
        "sites": {site: PLAN["sites"][site] for site in SITES},
        "privacy": {"epsilon": 40.0, "delta": 1.0e-5},
        "stages": [
            spectral,
            {"kind": KIND, "noise_multiplier": 0.5},
            {"kind": "choice", "noise_multiplier": 2.0, "bins": 4, "images": 60},
        ],
        "release": [{"model": KIND, "images": IMAGES}],
        "utility": None,
    }


def main(root):
    choice._STEPS = 5
    federation = make_federation(root, values(), {**POLICY, "allowed_stages": ["spectral", KIND, "choice"]})
    outcome = run_study(federation.coordinator, federation, seed=1, classifier_steps=5)
    result, plan, home = federation.result(), federation.plan, federation.coordinator.root
    if outcome != "completed":
        raise SystemExit(f"{result['reason']}: {result['exchanges'][-1:]}")
    charged = {}
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            charged[site] = [entry.purpose for entry in ledger.entries()]
            events = ledger.events("train", plan.digest)
        assert events[: len(plan.stages)] == study_events(plan, "train")
    pool = pool_packages(home, plan, Registry(home))
    published = publish(pool, plan, root / "out", load_authority(home), {"exchanges": []}, None)
    report = verify_dataset(published.folder, None)
    drawn = draw_model(next(home.rglob(f"{KIND}-model.safetensors")), plan, "", "", "", 4, 0)
    return {
        "package": str(Path(sfumato_common.__file__).parents[2]),
        "stages": [item["stage"] for item in result["exchanges"]],
        "candidates": [item["model"] for item in result["choice"]["candidates"]],
        "charged": charged,
        "images": sorted([item.facts.model, item.facts.method, item.facts.guarantee] for item in pool.items),
        "report": report.summary(),
        "drawn": [drawn.kind, *drawn.images.shape],
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
