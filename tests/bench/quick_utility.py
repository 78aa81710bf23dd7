"""Quick utility: an in-process federation with real DP noise; TSTR of every model beside TRTR, bits a dimension, time.

    python tests/bench/quick_utility.py [PLAN.yaml] [--data INDEX.csv] [--seeds N]

Without --data the phantom cohort serves. Prints a table; writes a contact sheet a model and a JSON file to bench-out/.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import TRAINERS, StageJob
from sfumato_common.config.loader import load_yaml
from sfumato_common.config.plan import Plan
from sfumato_common.metrics.utility import auc, score, train_classifier
from sfumato_common.models.build import from_arrays, spectral_model
from sfumato_common.models.components import component_shares, condition
from sfumato_common.models.sampling import sample_images
from sfumato_common.models.whitening import bits_per_dim, dequantise, standard_normal_log_prob
from sfumato_common.phantom.patient import arrays as phantom_arrays
from sfumato_common.privacy.accountant import forecast
from sfumato_common.privacy.meter import Meter
from sfumato_common.privacy.noise import SecureNoise
from sfumato_common.types import to_unit_range
from sfumato_server.rounds.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[2]
SYNTHETIC = 1500
DEVICES = ("aurora", "borealis", "cirrus")


def phantom_sites(plan: Plan) -> tuple[dict[str, Cohort], dict[str, Cohort]]:
    """Nominal patients of every site for training and 150 others held out."""
    train, test = {}, {}
    for device, (site, terms) in zip(DEVICES, plan.sites.items(), strict=True):
        size = plan.image.size
        train[site] = Cohort(*phantom_arrays(7, terms.nominal_patients, size, site, device))
        test[site] = Cohort(*phantom_arrays(7, 150, size, site, device, first=terms.nominal_patients + 1))
    return train, test


def real_sites(plan: Plan, index: Path) -> tuple[dict[str, Cohort], dict[str, Cohort]]:
    """Sites of an index CSV (set,row,site,patient_id,split,abnormal): `train` rows, and `val` and `test` held out."""
    with index.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    images = {name: np.load(index.parent / f"{name}.npz")["images"] for name in {row["set"] for row in rows}}
    parts: list[dict[str, Cohort]] = []
    for splits in ({"train"}, {"val", "test"}):
        cohorts = {}
        for site in plan.sites:
            mine = [row for row in rows if row["site"] == site and row["split"] in splits]
            owners = np.unique([row["patient_id"] for row in mine], return_inverse=True)[1]
            pixels = np.stack([images[row["set"]][int(row["row"])] for row in mine])
            cohorts[site] = Cohort(pixels, np.array([int(row["abnormal"]) for row in mine]), owners)
        parts.append(cohorts)
    return parts[0], parts[1]


def federate(
    plan: Plan, train: dict[str, Cohort], seed: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, float]]:
    """Every stage of the plan with secure noise at the sites; gives released arrays and seconds by kind."""
    released: dict[str, dict[str, np.ndarray]] = {}
    seconds: dict[str, float] = {}
    rng = torch.Generator().manual_seed(seed)
    for stage in plan.stages:
        strategy = STRATEGIES[stage.kind](plan, released)
        for number in range(1, stage.rounds + 1):
            replies = {}
            for site, cohort in train.items():
                began = time.perf_counter()
                noise = SecureNoise()
                outbound, meter = strategy.outbound(number, site), Meter(noise, "bench")
                job = StageJob(plan, site, stage.kind, number, outbound, cohort, noise, meter)
                replies[site] = dict(TRAINERS[stage.kind](job).arrays)
                name = f"{stage.kind} slowest site-round"
                seconds[name] = max(seconds.get(name, 0.0), time.perf_counter() - began)
            began = time.perf_counter()
            strategy.absorb(number, replies, rng)
            name = f"{stage.kind} coordinator round"
            seconds[name] = max(seconds.get(name, 0.0), time.perf_counter() - began)
        released[stage.kind] = strategy.released()
    return released, {name: round(value, 2) for name, value in seconds.items()}


def aucs(plan: Plan, images: np.ndarray, labels: np.ndarray, test: dict[str, Cohort], seed: int) -> dict[str, float]:
    """AUC by site, and over all sites' held-out images, of a classifier trained on `images`."""
    classifier = train_classifier(plan, images, labels, seed)
    scores = {site: score(plan, classifier, cohort.everything()[0]) for site, cohort in test.items()}
    result = {site: auc(scores[site], cohort.labels) for site, cohort in test.items()}
    everyone = np.concatenate([cohort.labels for cohort in test.values()])
    return {**result, "pooled": auc(np.concatenate(list(scores.values())), everyone)}


def held_out_bits(plan: Plan, kind: str, arrays: dict[str, np.ndarray], test: dict[str, Cohort]) -> float:
    """Bits per dimension of held-out images under the spectral model or the flow."""
    spectral = spectral_model(plan, arrays)
    x = torch.from_numpy(to_unit_range(np.concatenate([cohort.everything()[0] for cohort in test.values()])))
    y = torch.from_numpy(np.concatenate([cohort.labels for cohort in test.values()]))
    with torch.no_grad():
        u, log_det = spectral.encode(dequantise(x, torch.Generator().manual_seed(0)), y)
        if kind == "flow":
            u, more = from_arrays("flow", plan, arrays)(u, condition(plan, y))
            log_det = log_det + more
        return float(bits_per_dim(standard_normal_log_prob(u) + log_det, x[0].numel()).mean())


def contact_sheet(path: Path, images: np.ndarray, labels: np.ndarray, classes: int) -> None:
    """Two rows of ten a class, enlarged."""
    rows = [np.concatenate(list(images[labels == k][i : i + 10]), axis=1) for k in range(classes) for i in (0, 10)]
    sheet = Image.fromarray(np.concatenate(rows))
    factor = max(1, 96 // images.shape[1])
    path.parent.mkdir(exist_ok=True)
    sheet.resize((sheet.width * factor, sheet.height * factor), Image.Resampling.NEAREST).save(path)


def main() -> None:
    """Run the bench and print its table."""
    parser = argparse.ArgumentParser(description="TSTR of every model of a plan in an in-process federation")
    parser.add_argument("plan", nargs="?", type=Path, default=ROOT / "configs" / "demo.yaml")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = load_yaml(options.plan, Plan)
    train, test = real_sites(plan, options.data) if options.data else phantom_sites(plan)
    out = ROOT / "bench-out"
    cost = forecast(plan, plan.privacy.delta)
    runs: list[dict[str, object]] = []

    def note(
        model: str, epsilon: float | None, seed: int, images: np.ndarray, labels: np.ndarray, bits: float | None
    ) -> None:
        result = {name: round(value, 3) for name, value in aucs(plan, images, labels, test, seed).items()}
        runs.append({"model": model, "epsilon": epsilon, "seed": seed, "auc": result, "bits_per_dim": bits})
        spent = f"{epsilon:.2f}" if epsilon is not None else "-"
        print(f"{model:10} eps {spent:>6} seed {seed} bits {bits or float('nan'):.3f} ", result, flush=True)
        contact_sheet(out / f"quick_utility-{plan.study}-{model}.png", images, labels, len(plan.labels))

    everything = [cohort.everything() for cohort in train.values()]
    for seed in range(options.seeds):
        note(
            "real",
            None,
            seed,
            np.concatenate([e[0] for e in everything]),
            np.concatenate([e[1] for e in everything]),
            None,
        )
    seconds: dict[str, float] = {}
    for seed in range(options.seeds):
        released, seconds = federate(plan, train, seed)
        rng = torch.Generator().manual_seed(seed)
        for line in cost.stages:
            shares = component_shares(plan, released["spectral"])
            labels = np.random.default_rng(seed).choice(len(shares), SYNTHETIC, p=shares).astype(np.int64)
            images = sample_images(plan, line.stage, released[line.stage], labels, rng)
            bits = None if line.stage == "gan" else held_out_bits(plan, line.stage, released[line.stage], test)
            note(line.stage, line.epsilon_after, seed, images, labels, bits)
    print(f"epsilon {cost.epsilon_train:.2f} at delta {cost.delta:g} (patient, add/remove); seconds {seconds}")
    out.mkdir(exist_ok=True)
    report = {"study": plan.study, "delta": cost.delta, "epsilon": cost.epsilon_train, "runs": runs, "seconds": seconds}
    (out / f"quick_utility-{plan.study}.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
