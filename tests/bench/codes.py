"""Flows and diffusion on codes, beside the releases that they start from, at the same epsilon.

    python tests/bench/codes.py [--cohort phantom|sites] [--codec FOLDER] [--patients N] [--epsilon 10,1] [--rows A,B]

Phantoms of 64 px from three devices, or the three real sites at 64 px; so many patients a site at most, scored on val
patients whom nobody trained on. `codec` is a folder that `sfumato model pretrain codec --size 64` wrote; without it its
rows have the lowest 256 cosines as codes, of which nothing was learned. The diffusion starts from public images, never
of the cohort's own kind. One release each. Prints a table and writes bench-out/codes-COHORT.json, and a sheet beside.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cohorts import ROOT, BenchCohort, few_of, few_phantoms, pooled, sites
from in_process import RATES, Row, build_plan, federate, keep_weights, synthetic_set
from utility_scores import NEIGHBOURS

from sfumato_common.codec.folder import read_codec, weights_of
from sfumato_common.files import write_atomic, write_json
from sfumato_common.metrics.features import random_features, random_grid
from sfumato_common.metrics.fidelity import frechet_distance
from sfumato_common.metrics.prdc import neighbourhood
from sfumato_common.metrics.tstr import fit_linear, macro_auc
from sfumato_common.pictures import mosaic, png
from sfumato_common.types import ByteImages

SIZE, BATCH, SHOWN = 64, 48, 8
FIRSTS = ("spectral", "appearance", "codec")
LATER = ("flow", "diffusion")
ROWS = {first: Row({first: 1.0}, first) for first in FIRSTS} | {
    f"{later} on {first}": Row({first: 0.6, later: 0.4}, later) for later in LATER for first in FIRSTS
}
PLAIN = {"size": SIZE, "cosines": 256, "kept": 128, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
LEVELS, WIDTH = 2, 64
FIGURES = ("linear auc", "FD random", "precision", "recall", "coverage")


def small_cohort(name: str, patients: int) -> BenchCohort:
    """The cohort with so many training patients a site at most, and val in the place of test."""
    return few_of(sites(SIZE), patients) if name == "sites" else few_phantoms(SIZE, patients)


def settings_of(row: Row, codec: Path | None) -> dict[str, Any]:
    """Public settings of the row's stages, beside the utility bench's."""
    found: dict[str, Any] = {"codec": {"form": PLAIN}, "flow": {"levels": LEVELS}}
    found["diffusion"] = {"patch": 8 if "spectral" in row.shares else 4, "width": WIDTH, "depth": 2}
    if codec is not None:
        network, config = read_codec(codec)
        start = {"source": "checkpoint", "sha256": keep_weights(weights_of(network))}
        found["codec"] = {"form": config.form.model_dump(), "start": start}
    return {kind: own for kind, own in found.items() if kind in row.shares}


def scores_of(cohort: BenchCohort, images: ByteImages, labels: npt.NDArray[np.int64]) -> dict[str, float]:
    """By a linear classifier and random features, which cost seconds: no network is trained to judge."""
    real, truth, _ = pooled(cohort.test)
    linear = fit_linear(random_grid(images), labels, len(cohort.labels))
    reference = random_features(pooled(cohort.train)[0])
    centre, scale = reference.mean(axis=0), reference.std(axis=0)
    own, there = ((random_features(part) - centre) / scale for part in (images, real))
    near = asdict(neighbourhood(there, own, NEIGHBOURS))
    return {
        "linear auc": macro_auc(linear.probabilities(random_grid(real)), truth),
        "FD random": frechet_distance(own, there),
        **{name: near[name] for name in ("precision", "recall", "coverage")},
    }


def made(
    cohort: BenchCohort, name: str, target: float, options: argparse.Namespace
) -> dict[str, tuple[ByteImages, npt.NDArray[np.int64]]]:
    """Images of one release of the row, and their labels; and of the part of it that a trained model went on from."""
    row = ROWS[name]
    plan = build_plan(cohort, row, target, **settings_of(row, options.codec))
    released, _ = federate(plan, cohort.train, 0)
    kinds = {name: row.model} if row.model == plan.base else {name: row.model, f"its {plan.base}": plan.base}
    return {shown: synthetic_set(plan, kind, released, options.images, 0) for shown, kind in kinds.items()}


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="phantom", choices=["phantom", "sites"])
    parser.add_argument("--codec", type=Path, help="folder of a codec of 64 px")
    parser.add_argument("--patients", type=int, default=400, help="training patients a site, at most")
    parser.add_argument("--images", type=int, default=400, help="synthetic images a row")
    parser.add_argument("--epsilon", type=lambda text: [float(part) for part in text.split(",")], default=[10.0, 1.0])
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS), help="of " + ",".join(ROWS))
    options = parser.parse_args()
    cohort = small_cohort(options.cohort, options.patients)
    RATES[options.cohort] = min(0.5, BATCH / options.patients)
    print(f"| {options.cohort} | epsilon | {' | '.join(FIGURES)} | s |\n|{'---|' * (3 + len(FIGURES))}")
    found: dict[str, Any] = {}
    images, labels, _ = pooled(cohort.train)
    scores = scores_of(cohort, images[::3], labels[::3])
    real = pooled(cohort.test)[0][:: max(1, len(pooled(cohort.test)[0]) // SHOWN)][:SHOWN]
    found["real"] = scores
    print(f"| real | | {' | '.join(f'{scores[figure]:.3f}' for figure in FIGURES)} | |", flush=True)
    sheet = [list(real)]
    for target in options.epsilon:
        for name in options.rows:
            began = time.perf_counter()
            for shown, (images, labels) in made(cohort, name, target, options).items():
                scores = scores_of(cohort, images, labels)
                found[f"{name}: {shown}, {target:g}"] = scores
                sheet.append(list(images[:SHOWN]))
                figures = " | ".join(f"{scores[figure]:.3f}" for figure in FIGURES)
                print(f"| {shown} | {target:g} | {figures} | {time.perf_counter() - began:.0f} |", flush=True)
            asked = {**vars(options), "codec": options.codec is not None}
            write_json(ROOT / "bench-out" / f"codes-{options.cohort}.json", {"options": asked, "rows": found})
            picture = png(mosaic([np.stack(part) for part in sheet], columns=SHOWN, least_width=0))
            write_atomic(ROOT / "bench-out" / f"codes-{options.cohort}.png", picture)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
