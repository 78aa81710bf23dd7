"""What real images allow: classifiers of real training patients on real patients, by steps, pooled and site by site.

    python tests/bench/ceiling.py INDEX.csv SIZE [--trainings cnn:600,resnet18:600] [--own cnn:600]

INDEX.csv has a row an image (docs/researcher.md) with sites and the splits train, val and test; labels are 0 and 1.
Steps are to be chosen by val alone. `--own` trains a site's own images too, and asks about that site's own patients.
Prints AUC with 95 % intervals over patients, and writes bench-out/ceiling.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cohorts import ROOT
from rich.console import Console
from rich.table import Table

from sfumato_common.files import write_json
from sfumato_common.generators.device import training_device
from sfumato_common.metrics.judges import fit_judge
from sfumato_common.metrics.tstr import macro_auc, patient_interval
from sfumato_common.study.terms import ImageForm
from sfumato_server.evaluate.images import Images
from sfumato_server.evaluate.index import read_real

LABELS = ("0", "1")
Figures = dict[str, tuple[float, float, float]]


def auc_of(probabilities: Any, images: Images) -> tuple[float, float, float]:
    """AUC and its interval over patients."""
    found = patient_interval(
        lambda rows: macro_auc(probabilities[rows], images.labels[rows]), images.patients, np.random.default_rng(0), 300
    )
    return (macro_auc(probabilities, images.labels), *found)


def measured(training: str, train: Images, views: dict[str, Images]) -> Figures:
    """A training such as `cnn:600`, on every view: pooled, and by site where its patients have both labels."""
    family, steps = training.split(":")
    judge = fit_judge(family, train.pixels, train.labels, len(LABELS), 0, int(steps), training_device())
    result: Figures = {}
    for view, images in views.items():
        found = judge.probabilities(images.pixels)
        result[view] = auc_of(found, images)
        for site in sorted(set(images.groups["site"])):
            rows = np.flatnonzero(images.groups["site"] == site)
            if len(np.unique(images.labels[rows])) == len(LABELS):
                result[f"{view} {site}"] = auc_of(found[rows], images.part(rows))
    return result


def own(training: str, train: Images, views: dict[str, Images]) -> Figures:
    """Every site's own images on its own patients, where both have both labels."""
    result: Figures = {}
    for site in sorted(set(train.groups["site"])):
        mine, theirs = (
            {name: images.part(images.groups["site"] == site) for name, images in sets.items()}
            for sets in ({"train": train}, views)
        )
        if all(len(np.unique(images.labels)) == len(LABELS) for images in (*mine.values(), *theirs.values())):
            found = measured(training, mine["train"], theirs)
            result |= {f"{view} {site}": found[view] for view in views}
    return result


def main() -> int:
    """Train, print and write."""
    parser = argparse.ArgumentParser(description="What real images allow")
    parser.add_argument("index", type=Path)
    parser.add_argument("size", type=int, help="pixels a side")
    parser.add_argument("--trainings", default="cnn:600,resnet18:600", help="FAMILY:STEPS, ...")
    parser.add_argument("--own", default="cnn:600", help="FAMILY:STEPS of each site alone, or empty")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out")
    options = parser.parse_args()
    sets = {split: read_real(options.index, LABELS, ImageForm(size=options.size), split) for split in ("val", "test")}
    views, train = {split: found.test for split, found in sets.items()}, sets["val"].train
    rows: dict[str, Figures] = {}
    began = time.process_time()
    for training in options.trainings.split(","):
        rows[training] = measured(training, train, views)
        print(training, {name: round(value[0], 3) for name, value in rows[training].items()}, flush=True)
    if options.own:
        rows[f"{options.own}, each site alone"] = own(options.own, train, views)
    names = list(dict.fromkeys(name for found in rows.values() for name in found))
    table = Table("trained", *names)
    for name, found in rows.items():
        texts = ["{:.3f} [{:.3f}, {:.3f}]".format(*found[column]) if column in found else "" for column in names]
        table.add_row(name, *texts)
    Console(width=180).print(table)
    write_json(options.out / "ceiling.json", {"seconds": round(time.process_time() - began), "rows": rows})
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
