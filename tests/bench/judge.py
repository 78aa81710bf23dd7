"""Score a published folder with ordinary judges against real patients of an index.

    python tests/bench/judge.py PUBLISHED INDEX.csv test [--judges cnn,resnet18] [--seeds 3] [--own 1] [--real]

PUBLISHED holds `labels.csv` (file,label,site,...) and its images, as `sfumato` publishes them; INDEX.csv has a row an
image (set,row,site,patient_id,split,abnormal; docs/coordinator.md), brought into the published form. Each judge is
trained on the published images alone, once a seed, and tested on the index's patients of that split: pooled and by
site; for the first `--own` seeds also one of each site's own images on that site's own patients. `--real` adds the
index's own training images as the reference. Below it the figures of likeness: shape (0 for real images against real
ones), and nearness to training patients (1 for strangers). Prints a table and writes bench-out/judge.json. One
published folder is one release: its spread is the judges' alone.

Patients of a split that trained the release are not kept apart: a study of the same index trains on train AND val (see
docs/hospital.md), so its folder is judged by test, or made from an index without the rows of val.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cohorts import ROOT, BenchCohort, pooled, site_parts
from judge_scores import BENCH, Scores, judged, nearness
from PIL import Image
from rich.console import Console
from rich.table import Table

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.ingest.records import to_form
from sfumato_common.files import write_json
from sfumato_common.metrics.judges import JUDGES
from sfumato_common.metrics.structure import structure_distance
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import ByteImages

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Labelled:
    """A set to be judged: images, labels and the site that each stands for."""

    images: ByteImages
    labels: npt.NDArray[np.int64]
    homes: npt.NDArray[np.str_]


def form_of(images: ByteImages) -> ImageForm:
    """The form of images [N, S, S] or [N, S, S, 3]."""
    return ImageForm(size=images.shape[1], channels=1 if images.ndim == 3 else 3, bits=8 * images.dtype.itemsize)


def read_published(folder: Path, names: tuple[str, ...]) -> Labelled:
    """A published set; its labels by their place in `names`. Raises ValueError for a label that is none of them."""
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if unknown := {row["label"] for row in rows} - set(names):
        raise ValueError(f"{len(unknown)} labels of the set are not among those given with --labels")
    images = np.stack([np.asarray(Image.open(folder / row["file"])) for row in rows])
    labels = np.array([names.index(row["label"]) for row in rows], dtype=np.int64)
    return Labelled(images, labels, np.array([row["site"] for row in rows]))


def read_index(path: Path, names: tuple[str, ...], split: str, form: ImageForm) -> BenchCohort:
    """The index's real images in the published ones' form, as a cohort of the benches; `split` its only view.

    Raises ValueError where the split has no patients.
    """
    with path.open(newline="") as stream:
        sites = tuple(dict.fromkeys(row["site"] for row in csv.DictReader(stream)))
    parts = {part: site_parts(path, sites, part) for part in ("train", split)}
    if not parts[split]:
        raise ValueError(f"{path.name} has no patients of the split '{split}'; name another")
    fitted = {part: {site: _in_form(own, form) for site, own in found.items()} for part, found in parts.items()}
    return BenchCohort(path.stem, form.size, form.channels, names, dict.fromkeys(sites, 0), fitted, (split,))


def _in_form(part: Cohort, form: ImageForm) -> Cohort:
    """A site's part with its images as ingest brings them into a study's form."""
    top = np.float32(np.iinfo(part.images.dtype).max)
    images = np.stack([to_form(image.astype(np.float32) / top, form) for image in part.images])
    return Cohort(images, part.labels, part.patient_index)


def real_set(cohort: BenchCohort) -> Labelled:
    """The index's own training images."""
    images, labels, _ = pooled(cohort.train)
    return Labelled(images, labels, np.repeat(list(cohort.train), [len(part.labels) for part in cohort.train.values()]))


def judge_all(cohort: BenchCohort, shown: Labelled, names: tuple[str, ...], seeds: int, own: int) -> Iterator[Scores]:
    """The judges' figures, seed by seed; those of each site's own images for the first `own` of them."""
    for seed in range(seeds):
        yield judged(cohort, shown.images, shown.labels, shown.homes, seed, names, alone=seed < own)


def likeness(cohort: BenchCohort, shown: Labelled, split: str) -> Scores:
    """Shape and nearness of the set, and the shape figure of the real training images, which is what 0 means here."""
    real, train = pooled(cohort.parts[split])[0], pooled(cohort.train)[0]
    result = {"structure": structure_distance(shown.images, real), "structure, real": structure_distance(train, real)}
    return result | nearness(shown.images, train, real)


def spread_of(scores: list[Scores], name: str) -> str:
    """Mean and deviation over seeds of a figure."""
    values = [one[name] for one in scores if name in one]
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation}"


def show(found: dict[str, list[Scores]]) -> None:
    """A table with a line a figure and a column a set."""
    table = Table("AUC", *found)
    for name in dict.fromkeys(name for scores in found.values() for one in scores for name in one):
        if not name.endswith((" low", " high")):
            texts = [spread_of(scores, name) if any(name in one for one in scores) else "" for scores in found.values()]
            table.add_row(name, *texts)
    print("trained on the set alone, tested on real patients: mean ± deviation over seeds")
    Console(width=120).print(table)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Score a published folder with ordinary judges")
    parser.add_argument("published", type=Path, help="folder with labels.csv and images")
    parser.add_argument("index", type=Path, help="index CSV of real images")
    parser.add_argument("split", choices=SPLITS[1:], help="whose patients judge")
    parser.add_argument("--labels", default="normal,abnormal", help="names of the index's labels 0, 1, ...")
    parser.add_argument("--judges", default=",".join((BENCH, *JUDGES)), help="of " + ",".join((BENCH, *JUDGES)))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--own", type=int, default=1, help="seeds that judge each site's own images too")
    parser.add_argument("--real", action="store_true", help="judge the index's own training images too")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out")
    options = parser.parse_args()
    if unknown := set(options.judges.split(",")) - {BENCH, *JUDGES}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    """Judge, print and write."""
    options = parse_arguments()
    names = tuple(options.labels.split(","))
    published = read_published(options.published, names)
    cohort = read_index(options.index, names, options.split, form_of(published.images))
    sets = {"published": published} | ({"real": real_set(cohort)} if options.real else {})
    began, found = time.perf_counter(), {}
    for name, shown in sets.items():
        found[name] = []
        for scores in judge_all(cohort, shown, tuple(options.judges.split(",")), options.seeds, options.own):
            found[name].append(scores)
            # a network takes minutes: nobody waits before a silent console
            heads = ", ".join(f"{key} {value:.3f}" for key, value in scores.items() if key.endswith(options.split))
            print(f"{name}, seed {len(found[name])} of {options.seeds}: {heads}", flush=True)
    like = likeness(cohort, published, options.split)
    show(found)
    print(", ".join(f"{name} {value:.3f}" for name, value in like.items()))
    seconds = round(time.perf_counter() - began)
    write_json(options.out / "judge.json", {"split": options.split, "seconds": seconds, "judged": found, "like": like})
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
