"""The attacks of the gate: what they find of planted leaks, how often they cry wolf, and what they cost.

    make bench NAME=audit [ARGS="--quick"] [ARGS="--part power|real|bounds|runtime"]

Power: 10 splits of phantom patients, 64 px, 100 members, 50 holdout patients, 120 candidates (20 averages of five); 2
of `re-identification`, which takes minutes. A split is told when the 95 % interval of the AUC is above 0.5, or somebody
stands out. `none` and `averages of others` are releases that depend on nobody: what is told of them is a false alarm.
`fine` are strangers with members' fine structure.
Hostile: what is told of releases whose factors a coordinator crafted (`audit_hostile.py`).
Real: the default report on splits of open sets beside the checkout: what is told there is a false alarm.
Bounds: a shadow attack on the spectral release of the product, with its noise and without; and of sums of clipped rows,
what is claimed, what one run with 1,000 canaries proves, and what a white-box attack on many runs proves.
Runtime: what the policy's default report takes on 300 training and 100 holdout patients, by number of candidates, in a
process of its own with one thread under SFUMATO_MEMORY=1G: wall and processor seconds (of a busy machine the second);
memory is what the attacks add to their images at the peak; `re-identification`, which the report leaves out, beside.

Prints tables and writes bench-out/audit.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from audit_hostile import hostile
from audit_targets import SITE, Quiet, plan_of
from cohorts import DATA
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from sfumato_client.audit.attacks import ATTACKS, AttackResult, Known, People, measure
from sfumato_client.audit.attacks.canaries import one_run
from sfumato_client.audit.attacks.intervals import area, area_interval
from sfumato_client.audit.attacks.shadow import shadow_scores
from sfumato_client.audit.attacks.white_box import gaussian_mu
from sfumato_client.dataset import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.calibration import gaussian_epsilon
from sfumato_common.files import write_json
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.phantom import arrays
from sfumato_common.study.gate_rules import TOLD
from sfumato_common.types import ByteImages

OUT = Path("bench-out/audit.json")
SIZE, MEMBERS, HOLDOUT, FRESH, K = 64, 100, 50, 120, 5
LEAKS = (
    "none",
    "averages of others",
    "copies 1 %",
    "copies 5 %",
    "copies",
    "memorised",
    "fine 5 %",
    "fine",
    "averages",
)
REPEATS = {"re-identification": 2}
DELTA, CLAIMED = 1e-5, 1.5  # of the sums; their noise multiplier


def clip(values: Any) -> ByteImages:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def softened(images: ByteImages) -> Any:
    blur = ImageFilter.GaussianBlur(images.shape[1] / 40)
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images]).astype(np.float64)


def split(pool: tuple[Any, ...], seed: int, leak: str) -> tuple[People, People, Known]:
    """Members, holdout patients and a release with a leak."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(int(pool[2].max()) + 1)
    members, holdout = people_of(*pool, order[:MEMBERS]), people_of(*pool, order[MEMBERS : MEMBERS + HOLDOUT])
    others = people_of(*pool, order[MEMBERS + HOLDOUT : MEMBERS + HOLDOUT + FRESH])
    first = np.unique(others.patient_index, return_index=True)[1]
    made, classes = others.images[first].copy(), others.labels[first].copy()
    if leak.startswith("averages"):
        source, rows = (made, np.arange(FRESH)) if leak == "averages of others" else (members.images, None)
        rows = np.unique(members.patient_index, return_index=True)[1] if rows is None else rows
        groups = rng.permutation(MEMBERS).reshape(-1, K)
        made = clip(np.stack([source[rows[group]].mean(axis=0) for group in groups]))
        return members, holdout, Known(made, classes[: len(made)], behind=list(groups))
    if leak == "memorised":
        who, beside = rng.integers(0, len(members.images), (2, FRESH))
        made = clip(0.7 * members.images[who] + 0.3 * members.images[beside] + rng.normal(0, 8, made.shape))
        classes = members.labels[who]
    elif leak != "none":
        share = {"1 %": 0.01, "5 %": 0.05}.get(leak.split(" ", 1)[-1], 1.0)
        count = max(1, round(share * FRESH))
        who = rng.choice(len(members.images), count, replace=count > len(members.images))
        known = members.images[who]
        if leak.startswith("fine"):
            known = clip(softened(made[:count]) + known - softened(known))
        made[:count], classes[:count] = known, members.labels[who]
    return members, holdout, Known(made, classes)


def power(quick: bool, console: Console) -> list[dict[str, Any]]:
    """Every attack on every leak."""
    images, grades, patients = arrays(0, 400, SIZE)
    pool = images, (grades > 0).astype(np.int64), patients
    rows = []
    for name, attack in ATTACKS.items():
        for leak in LEAKS:
            results, began = [], time.monotonic()
            for seed in range(2 if quick else REPEATS.get(name, 10)):
                members, holdout, known = split(pool, seed, leak)
                if attack.obstacle(members, holdout, known):
                    break
                results.append(measure(attack, leak, members, holdout, known))
            if results:
                told = sum(result.auc_interval[0] > 0.5 or result.stand_out > 0 for result in results)
                auc = float(np.mean([result.auc for result in results]))
                out = float(np.mean([result.stand_out for result in results]))
                seconds = (time.monotonic() - began) / len(results)
                rows.append(
                    {"attack": name, "leak": leak, "told": told, "of": len(results), "auc": auc, "stand_out": out}
                    | {"seconds": seconds}
                )
                console.print(f"{name}, {leak}: {told} of {len(results)}, AUC {auc:.2f}", markup=False)
    return rows


def real(quick: bool) -> list[dict[str, Any]]:
    """False alarms on real images: random splits of the patients of open sets, of whom nobody is behind the others."""
    rows = []
    for name in ("fundus_open_128", "nih_128", "kermany_64", "hannover_64"):
        path = DATA / f"{name}.npz"
        if not path.is_file():
            Console().print(f"no {path.name} beside the checkout: left out")
            continue
        read = np.load(path)
        images, labels = read["images"], np.unique(read["labels"], return_inverse=True)[1]
        patients = np.unique(read["patient_id"], return_inverse=True)[1]
        found: dict[str, list[AttackResult]] = {attack: [] for attack in TOLD}
        for seed in range(1 if quick else 5):
            order = np.random.default_rng(seed).permutation(int(patients.max()) + 1)[:900]
            ends = int(0.4 * len(order)), int(0.6 * len(order))
            members, holdout, others = (
                people_of(images, labels, patients, ids)
                for ids in (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :])
            )
            for attack in TOLD:
                result = measure(ATTACKS[attack], name, members, holdout, Known(others.images, others.labels))
                found[attack].append(result)
        for attack, results in found.items():
            above = sum(result.auc_interval[0] > 0.5 for result in results)
            out = sum(result.stand_out > 0 for result in results)
            sizes = {"members": results[0].members, "holdout": results[0].holdout}
            rows.append({"set": name, "attack": attack, "splits": len(results), "auc_above": above, "out": out} | sizes)
    return rows


def people_of(images: Any, labels: Any, patients: Any, ids: Any) -> People:
    """The people of these numbers, numbered anew."""
    mine = np.isin(patients, ids)
    return People(images[mine], np.unique(patients[mine], return_inverse=True)[1], labels[mine])


def bounds(quick: bool) -> list[dict[str, Any]]:
    """Shadow attack on the product's spectral release, and lower bounds on sums of clipped rows."""
    return [*(shadow(noised, 60 if quick else 300) for noised in (True, False)), *map(canaries, (1.0, 0.5, 0.001))]


def shadow(noised: bool, fits: int) -> dict[str, Any]:
    """AUC of a shadow attack on the spectral stage: 40 of a pool of 80 phantom patients are behind it."""
    images, grades, patients = arrays(3, 80, 16)
    first = np.unique(patients, return_index=True)[1]
    images, labels = images[first], (grades[first] > 0).astype(np.int64)
    plan = plan_of()

    def release(rows: Any, quiet: bool = not noised) -> Any:
        noise = SecureNoise()
        recorder = Quiet() if quiet else NoiseRecorder(noise, "bench")
        some = Cohort(images[rows], labels[rows], np.arange(len(rows)))
        sent = train(StageJob(plan, SITE, plan.stage("spectral"), 1, {}, some, noise, recorder))
        return np.concatenate([np.asarray(sent[name], np.float64).ravel() for name in sorted(sent)])

    rng, began = np.random.default_rng(1), time.monotonic()
    scores = shadow_scores(release, lambda rows: release(rows, True), release(np.arange(40)), 80, 40, rng, fits)
    low, high = area_interval(scores[:40], scores[40:], rng)
    found = {"auc": area(scores[:40], scores[40:]), "low": low, "high": high, "fits": fits}
    return {"bound": f"shadow attack on the spectral release, {'noised' if noised else 'noise off'}", **found} | {
        "seconds": time.monotonic() - began
    }


def canaries(factor: float, count: int = 1000, width: int = 4096, runs: int = 400) -> dict[str, Any]:
    """Claimed epsilon of a Gaussian sum of clipped rows; what one run, and many with one canary, prove at 95 %.

    The noise that is drawn is `factor` times the noise that the claim is for.
    """
    multiplier = CLAIMED * factor
    rng, recorder = np.random.default_rng(2), NoiseRecorder(SecureNoise(), "bench")
    rows = rng.normal(0, 1, (count, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    coins = rng.random(count) < 0.5
    released = recorder.gaussian(rows[coins].sum(axis=0), 1.0, multiplier)
    once = one_run(rows @ released, coins, 200, DELTA)
    alone = np.array(
        [[recorder.gaussian(rows[0] * there, 1.0, multiplier) @ rows[0] for _ in range(runs)] for there in (0.0, 1.0)]
    )
    mu = gaussian_mu(alone[0], alone[1], 0.95)
    return {
        "bound": f"sum of clipped rows, {factor:g} of the noise",
        "claimed": gaussian_epsilon(1.0 / CLAIMED, DELTA),
        "one_run": once.epsilon,
        "right": once.right,
        "guesses": once.guesses,
        "white_box": gaussian_epsilon(mu.at_least, DELTA),
        "mu": mu.estimate,
    }


def runtime(quick: bool, console: Console) -> list[dict[str, Any]]:
    """The default report by number of candidates, each in a process of its own."""
    rows = []
    for size, counts in ((128, (200,)),) if quick else ((128, (1000, 5000, 20_000)), (256, (5000,))):
        for count in counts:
            words = [sys.executable, __file__, "--worker", str(size), str(count)]
            found = subprocess.run(
                words,
                env={**os.environ, "SFUMATO_MEMORY": "1G"},
                check=True,
                capture_output=True,
                text=True,
                timeout=3000,
            )
            rows.append(json.loads(found.stdout.splitlines()[-1]))
            console.print(rows[-1], markup=False)
    return rows


def worker(size: int, count: int) -> None:
    """One row of `runtime`, printed as JSON."""
    torch.set_num_threads(1)
    images, grades, patients = arrays(0, 400, size)
    labels, first = (grades > 0).astype(np.int64), int(np.searchsorted(patients, 300))
    members = People(images[:first], patients[:first], labels[:first])
    holdout = People(images[first:], patients[first:] - 300, labels[first:])
    fresh, grades, _ = arrays(1, 100, size)
    rng = np.random.default_rng(0)
    made = np.empty((count, size, size), np.uint8)
    # thousands of strangers of a few: moved, and with grain of their own
    for at in range(count):
        moved = np.roll(fresh[at % len(fresh)], rng.integers(-8, 9, 2), (0, 1))
        made[at] = clip(moved + rng.normal(0, 6, moved.shape))
    known = Known(made, (grades[np.arange(count) % len(fresh)] > 0).astype(np.int64))
    for attack in TOLD:  # what is loaded once is no part of what grows
        measure(ATTACKS[attack], "", members, holdout, Known(made[:32], known.labels[:32]))
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {}
    wall = time.monotonic()
    for attack in TOLD:
        began = time.process_time()
        measure(ATTACKS[attack], "", members, holdout, known)
        seconds[attack] = time.process_time() - began
    wall = time.monotonic() - wall
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    row = {"size": size, "candidates": count, "mib_added": peak, "wall": wall, "load": os.getloadavg()[0]}
    row |= {"processor": sum(seconds.values()), "processor_by_attack": seconds}
    if count <= 5000:  # it trains a network, which costs the same for any number of candidates
        began = time.process_time()
        measure(ATTACKS["re-identification"], "", members, holdout, known)
        row["re_identification"] = time.process_time() - began
    sys.stdout.write(json.dumps(row) + "\n")


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    """All rows under the names of their values."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    made = Table(title=title)
    for name in names:
        made.add_column(name)
    for row in rows:
        made.add_row(*(_said(row.get(name, "")) for name in names))
    return made


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(part)}" for name, part in value.items())
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Run what was asked for, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two splits, few candidates")
    parser.add_argument("--part", choices=["power", "hostile", "real", "bounds", "runtime"], help="one part alone")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(*given.worker)
        return
    torch.set_num_threads(2)
    console, found = Console(width=150), json.loads(OUT.read_text()) if given.part and OUT.exists() else {}
    parts = {"power": lambda: power(given.quick, console), "hostile": lambda: hostile(given.quick, console)}
    parts["real"] = lambda: real(given.quick)
    parts["bounds"] = lambda: bounds(given.quick)
    parts["runtime"] = lambda: runtime(given.quick, console)
    for name in [given.part] if given.part else parts:
        found[name] = parts[name]()
        console.print(table(name, found[name]))
        found["load"] = os.getloadavg()[0]
        write_json(OUT, found)


if __name__ == "__main__":
    main()
