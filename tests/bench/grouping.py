"""Who shares a group: what each `distance` is worth to a classifier and to an attacker, for k-same on the phantom.

One site, the models nearly without noise: what differs between rows is the grouping alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sfumato_client.anonymise import Job, Release, anonymise
from sfumato_client.anonymise.groups import Chosen
from sfumato_client.audit.attacks.membership import group_membership
from sfumato_client.audit.verdict import judge
from sfumato_client.dataset import Cohort
from sfumato_common.files import write_json
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, to_unit_range

ROOT = Path(__file__).resolve().parents[2]
SIZE, SIGMA, HELD_OUT = 32, 0.3, 0.2


def plan_of(method: str, k: int, images: int, distance: str) -> Plan:
    """A plan of one site and one item; its noise is far below any that a policy would take."""
    inverting = {"encoder_steps": 150, "refinement_steps": 10}
    gan = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": 1.0, "learning_rate": 0.001}
    spectral = {"bandwidth": 16, "clip_radius": 1.8, "spread_radius": 0.9, "radii": "charged"}
    value = {
        "study": "bench",
        "image": {"size": SIZE},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 1000}},
        "privacy": {"epsilon": 1e4, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "noise_multiplier": SIGMA, **spectral},
            {"kind": "gan", "noise_multiplier": 1.0, **gan},
        ],
        "release": [{"method": method, "images": images, "k": k, "distance": distance, **inverting}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "bench")


def split(patients: int) -> tuple[Cohort, Cohort]:
    """Training and held-out patients of the phantom."""
    images, labels, patient_index = phantom_arrays(7, patients, SIZE)
    numbers = np.unique(patient_index, return_inverse=True)[1]
    first = round(patients * (1.0 - HELD_OUT))
    train = numbers < first
    return (
        Cohort(images[train], labels[train], numbers[train]),
        Cohort(images[~train], labels[~train], numbers[~train] - first),
    )


def fitted(plan: Plan, cohort: Cohort) -> dict[str, Arrays]:
    """Spectral arrays of the cohort, and a generator that was not trained."""
    images, labels, patient_index = cohort.everything()
    rng, weights = np.random.default_rng(0), 1.0 / np.bincount(patient_index)[patient_index]

    def mechanism(part: Any, sensitivity: float, multiplier: float) -> Any:
        return part + rng.normal(size=part.shape) * sensitivity * multiplier

    sums = noised_release(Layout.of(plan), SIGMA, images, labels, weights, mechanism)
    spectral = {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": sums}).items()}
    return {"spectral": spectral, "gan": {**spectral, **to_arrays("generator", initial_model("generator", plan))}}


def measured(plan: Plan, train: Cohort, test: Cohort) -> dict[str, Any]:
    """One row."""
    noise = TestNoise(0)
    release = Release(plan, "alder", fitted(plan, train), train)
    job = Job(release, plan.release[0], Streams.of(noise), NoiseRecorder(noise, "bench"))
    began = time.process_time()
    found = anonymise(job)
    seconds = time.process_time() - began
    (chosen,) = (value for (kind, _), value in release.shared.items() if kind is Chosen)
    members = np.concatenate([group.members for group in chosen.groups])
    groups = np.repeat(np.arange(len(chosen.groups)), [len(group.members) for group in chosen.groups])
    shown = np.stack([train.images_of(patient)[0][0] for patient in members.tolist()])
    pixels, wanted = (to_unit_range(images).reshape(len(images), -1) for images in (found.images, test.images))
    classifier = LogisticRegression(C=0.01, max_iter=500).fit(pixels, found.labels)
    verdict = judge([found], train, test, GateRules())
    return {
        "auc": float(roc_auc_score(test.labels, classifier.decision_function(wanted))),
        "own_group_in_top_5": float(group_membership(shown, groups, found.images).share),
        "gate": {finding.rule: [finding.value, finding.limit] for finding in verdict.findings},
        "seconds": seconds,
    }


def main() -> None:
    """Print a row for every distance."""
    parser = argparse.ArgumentParser(description="who shares a group: use, and what an attacker gets")
    parser.add_argument("--method", default="k-same", choices=["k-same", "k-salsa"])
    parser.add_argument("--k", type=int, default=5)
    parser.add_argument("--images", type=int, default=90)
    parser.add_argument("--patients", type=int, default=700)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = split(options.patients)
    rows = {}
    print(f"{'distance':>10}{'AUC':>8}{'own group':>11}{'re-identified':>15}{'limit':>8}{'seconds':>9}")
    for distance in ("image", "embedding", "random"):
        row = measured(plan_of(options.method, options.k, options.images, distance), train, test)
        rows[distance], (share, limit) = row, row["gate"]["identity"]
        print(
            f"{distance:>10}{row['auc']:8.3f}{row['own_group_in_top_5']:11.3f}{share:15.3f}{limit:8.3f}"
            f"{row['seconds']:9.1f}",
            flush=True,
        )
    (ROOT / "bench-out").mkdir(exist_ok=True)
    write_json(ROOT / "bench-out" / "grouping.json", {**vars(options), "rows": rows})


if __name__ == "__main__":
    main()
