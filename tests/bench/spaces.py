"""What an average is worth in each latent space: k-same centroids of the same groups, as pixels and in every space.

    python tests/bench/spaces.py [--cohorts sites-64,sites-128,fundus-64,fundus-128] [--patients 250] [--sheet FILE]
    python tests/bench/spaces.py --cohorts sites-128 --codec FOLDER
    python tests/bench/spaces.py --cohorts sites-64 --stylegan2 FILE --refinement 20

Releases are made at the stated epsilon, each site with secure noise of its own. The W space is that of a generator at
its start, which draws what the spectral release draws, with codes in closed form. With `--codec` (a folder, as `sfumato
model pretrain codec` writes it, of the cohort's size) there is a row of its space; its moments are not fitted, because
no centroid needs them. With `--stylegan2` (weights as `make bench NAME=stylegan2` leaves them, trained on these sites
without privacy) there is one of its W space, where `--refinement` steps of Adam find a code. Groups are formed once,
and every space averages the same.

Figures: the share of the members' gradient energy that the set keeps, the Frechet distance in random features to val
patients, the AUC of a logistic regression fitted to the set on val patients of each site, and how often a member's own
image has its group's among the five most like it. Fundi are too few for anything but gradients and the sheet, and are
one site. Sheets are made of records: those of open collections may stand in docs.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cohorts import ROOT, BenchCohort
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from space_models import Models, cohort_of, job_of, released
from torch.nn import functional

from sfumato_client.anonymise import Job, anonymise
from sfumato_client.anonymise.groups import Chosen, Grouping
from sfumato_client.anonymise.influence import averages_without
from sfumato_client.audit.attacks.membership import group_membership
from sfumato_client.dataset import Cohort
from sfumato_common.files import write_json
from sfumato_common.metrics.features import random_features
from sfumato_common.metrics.fidelity import frechet_distance
from sfumato_common.pictures import mosaic
from sfumato_common.study.release import KSame
from sfumato_common.types import ByteImages, to_bytes, to_unit_range

K = 5
TILES, GAP = 8, 4
_COLUMNS = ("pixels", "gan", "appearance", "codec", "stylegan2")


@dataclass(frozen=True, eq=False)
class Made:
    """A set of centroids: images, labels and sites [N]."""

    images: ByteImages
    labels: npt.NDArray[np.int64]
    homes: npt.NDArray[np.int64]


def jobs_of(
    cohort: BenchCohort, space: str, models: Models, distance: str = "image", refinement: int = 20
) -> dict[str, Job[KSame]]:
    """The k-same job of every site."""
    plan, arrays = released(cohort, space, models)
    counts = {site: max(1, int(0.8 * part.patients / K)) for site, part in cohort.train.items()}
    terms = {"method": "k-same", "model": space, "k": K, "distance": distance}
    if space != "appearance":
        terms |= {"encoder_steps": 0, "refinement_steps": refinement if space == "stylegan2" else 0}
    return {
        site: job_of(plan, site, arrays, part, **terms, images=1, images_at=counts)
        for site, part in cohort.train.items()
    }


def sets_of(cohort: BenchCohort, options: argparse.Namespace) -> tuple[dict[str, Made], dict[str, Chosen], Any]:
    """Sets by space, and of averages of pixels; the groups of every site; processor seconds by space."""
    found, seconds, chosen = {}, {}, {}
    kept: dict[str, dict[Any, Any]] = {}
    for space in options.models.spaces:
        began, parts = time.process_time(), []
        for site, job in jobs_of(cohort, space, options.models, options.distance, options.refinement).items():
            key = (Chosen, (KSame, space))
            if site in kept:
                job.release.shared.update({**kept[site], key: chosen[site]})
            parts.append(anonymise(job))
            shared = job.release.shared
            chosen[site] = shared[key]
            kept[site] = {name: value for name, value in shared.items() if isinstance(value, Grouping)}
        found[space] = _joined([part.images for part in parts], [part.labels for part in parts])
        seconds[space] = round(time.process_time() - began, 1)
        print(f"{cohort.name} {cohort.size} px, {space}: {seconds[space]} s", flush=True)
    pixels = [
        np.stack([to_bytes(averages_without(part, group.members)[:1])[0] for group in chosen[site].groups])
        for site, part in cohort.train.items()
    ]
    labels = [np.array([group.label for group in chosen[site].groups]) for site in cohort.train]
    return {"pixels": _joined(pixels, labels), **found}, chosen, seconds


def _joined(images: list[ByteImages], labels: list[npt.NDArray[np.int64]]) -> Made:
    homes = np.repeat(np.arange(len(images)), [len(part) for part in images])
    return Made(np.concatenate(images), np.concatenate(labels), homes)


def members_of(cohort: BenchCohort, chosen: dict[str, Chosen]) -> tuple[ByteImages, Any, Any]:
    """One image of every member of every group, the group's number, and the member's label."""
    shown, groups, labels, number = [], [], [], 0
    for site, part in cohort.train.items():
        for group in chosen[site].groups:
            for patient in group.members.tolist():
                shown.append(part.images_of(patient)[0][0])
                groups.append(number)
                labels.append(group.label)
            number += 1
    return np.stack(shown), np.array(groups), np.array(labels)


def gradient_energy(images: ByteImages) -> float:
    """Mean square of differences between neighbours."""
    pixels = to_unit_range(images)
    return float(np.square(np.diff(pixels, axis=2)).mean() + np.square(np.diff(pixels, axis=3)).mean())


def scores(cohort: BenchCohort, made: Made, real: tuple[ByteImages, Any, Any]) -> dict[str, float]:
    """The figures of a set; `real` are its groups' members."""
    shown, groups, _ = real
    row = {"gradients": gradient_energy(made.images) / gradient_energy(shown)}
    row["own_group_in_top_5"] = float(group_membership(shown, groups, made.images).share)
    if "val" in cohort.parts:
        val = cohort.parts["val"]
        everybody = np.concatenate([part.everything()[0] for part in val.values()])
        row["frechet"] = frechet_distance(random_features(everybody), random_features(made.images))
        for number, (site, part) in enumerate(cohort.train.items()):
            own = made.homes == number
            if site in val and len(set(part.labels)) > 1:
                row[f"auc {site}"] = auc(made.images[own], made.labels[own], val[site])
    return row


def auc(images: ByteImages, labels: Any, val: Cohort) -> float:
    """Of a logistic regression of pixels, at most 64 a side."""
    wanted, truth, _ = val.everything()
    flat = []
    for some in (images, wanted):
        pixels = torch.from_numpy(to_unit_range(some))
        flat.append(functional.avg_pool2d(pixels, max(1, pixels.shape[-1] // 64)).flatten(1).numpy())
    classifier = LogisticRegression(C=0.01, max_iter=500).fit(flat[0], labels)
    return float(roc_auc_score(truth, classifier.decision_function(flat[1])))


def sheet(sets: dict[str, Made], real: tuple[ByteImages, Any, Any]) -> ByteImages:
    """A row a group: five members, then the average of pixels, and the centroid in each space."""
    count = len(sets["pixels"].images)
    rows = []
    for number in np.linspace(0, count - 1, min(TILES, count)).astype(int).tolist():
        members = list(real[0][real[1] == number][:K])
        tiles = members + [sets[name].images[number] for name in _COLUMNS if name in sets]
        rows.append([tile if tile.ndim == 3 else np.repeat(tile[..., None], 3, axis=2) for tile in tiles])
    return mosaic(rows, columns=len(rows[0]), gap=GAP, ground=255, least_width=0)


def main() -> None:
    """Print a table a cohort."""
    parser = argparse.ArgumentParser(description="k-same centroids in each latent space")
    parser.add_argument("--cohorts", type=lambda text: text.split(","), default=["sites-64", "sites-128"])
    parser.add_argument("--patients", type=int, default=250, help="the most of one site")
    parser.add_argument("--phantoms", type=int, help="of the appearance release's pool; without it as a plan has them")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--distance", default="image", choices=["image", "random"])
    parser.add_argument("--detail", default="phantom", choices=["phantom", "mixed", "noise"])
    parser.add_argument("--codec", type=Path, help="folder of a codec of the cohorts' size")
    parser.add_argument("--stylegan2", type=Path, help="generator.safetensors of three sites at 64 px")
    parser.add_argument("--refinement", type=int, default=20, help="steps of Adam from an image to its code there")
    parser.add_argument("--sheet", type=Path, help="where to draw groups and their centroids")
    options = parser.parse_args()
    torch.set_num_threads(1)
    named = ("epsilon", "detail", "phantoms", "codec", "stylegan2")
    options.models = Models(**{name: getattr(options, name) for name in named})
    tables, sheets = {}, []
    for name in options.cohorts:
        cohort = cohort_of(name, options.patients)
        sets, chosen, seconds = sets_of(cohort, options)
        real = members_of(cohort, chosen)
        homes = np.concatenate([np.full(len(chosen[s].groups), n) for n, s in enumerate(cohort.train)])[real[1]]
        everybody = Made(real[0], real[2], homes)
        rows = {"real members": everybody, **sets}
        tables[name] = {row: scores(cohort, made, real) for row, made in rows.items() if row != "real members"}
        tables[name]["real members"] = {
            key: value for key, value in scores(cohort, everybody, real).items() if key != "own_group_in_top_5"
        }
        print(f"{name}, {len(sets['pixels'].images)} groups, seconds {seconds}", flush=True)
        for row, found in tables[name].items():
            print(f"  {row:>14}", {key: round(value, 3) for key, value in found.items()}, flush=True)
        sheets.append(sheet(sets, real))
    out = ROOT / "bench-out"
    out.mkdir(exist_ok=True)
    asked = {name: getattr(options, name) for name in ("patients", "phantoms", "epsilon", "distance", "detail")}
    write_json(out / "spaces.json", {**asked, "tables": tables})
    if options.sheet:
        width = max(part.shape[1] for part in sheets)
        padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=255) for p in sheets]
        Image.fromarray(np.concatenate(padded)).save(options.sheet, optimize=True)


if __name__ == "__main__":
    main()
