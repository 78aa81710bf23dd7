"""How far PLAN bends walks: the same walks straight, with the elastic term in the space's unit, and in the walk's own.

    python tests/bench/bend.py [--cohorts phantom,sites-64] [--spaces gan,appearance] [--walks 12] [--steps 500]
    python tests/bench/bend.py --cohorts sites-64 --spaces stylegan2 --stylegan2 FILE

One site a cohort (the phantom's first, Guangzhou), at most 500 patients, and the published weights. The W space is that
of a generator at its start, which draws what the spectral release draws; StyleGAN2's that of a generator of three sites
(see `space_models.py`). Figures: how far the points lie from the
straight line, as a share of the walk's length; how far the images are from the straight walk's (root mean square, of a
range of 2); KL of the classifier that bends them, from calling an image anybody's, in nats; the same of a second
classifier, which no walk has seen; cross-entropy of the label; and the longest of a walk's strides over the shortest.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from cohorts import ROOT, BenchCohort, load
from space_models import Models, cohort_of, job_of, released
from torch import Tensor
from torch.nn import functional

from sfumato_client.anonymise import Job
from sfumato_client.anonymise.identities import Identities, anonymity, fit_recogniser, identities_of
from sfumato_client.anonymise.inversion import space_of
from sfumato_client.anonymise.linear_walk import Walks, walks_of
from sfumato_client.anonymise.plan_walk import bend_on_all_cores
from sfumato_common.files import write_json
from sfumato_common.latent.space import LatentSpace, Noise
from sfumato_common.study.release import PlanWalk

K, POINTS, MOST = 5, 6, 500


def one_site(name: str) -> BenchCohort:
    """The cohort with its first site alone."""
    found = load(name) if name == "phantom" else cohort_of(name, MOST)
    site = next(iter(found.train))
    parts = {split: {site: part[site]} for split, part in found.parts.items() if site in part}
    return replace(found, nominal={site: found.nominal[site]}, parts=parts)


def walking_job(cohort: BenchCohort, space: str, options: argparse.Namespace) -> Job[PlanWalk]:
    """The job of PLAN at the published weights."""
    plan, models = released(cohort, space, Models(detail="mixed", stylegan2=options.stylegan2))
    item = {"method": "plan-walk", "model": space, "k": K, "points": POINTS, "images": POINTS * options.walks}
    item |= {"steps": options.steps, "distance": "image"}
    if space == "gan":
        item |= {"encoder_steps": 100, "refinement_steps": 5}
    if space == "stylegan2":
        item |= {"encoder_steps": 300, "refinement_steps": 20}
    site, part = next(iter(cohort.train.items()))
    return job_of(plan, site, models, part, **item)


def judge_of(job: Job[PlanWalk]) -> Identities:
    """Classifiers as those that bend, from weights and batches of their own."""
    images, labels, patients = job.cohort.everything()
    rng, steps = torch.Generator().manual_seed(77), job.item.classifier_steps
    return Identities(
        fit_recogniser(images, torch.from_numpy(patients), job.cohort.patients, steps, rng),
        fit_recogniser(images, torch.from_numpy(labels), len(job.plan.labels), steps, rng),
    )


def figures(
    space: LatentSpace, walks: Walks, noise: Noise, points: Tensor, own: Identities, judge: Identities
) -> dict[str, float]:
    """The figures of `points` [W, T, D] on `walks`."""
    components = walks.components_of_points()
    labels = walks.labels.repeat_interleave(points.shape[1])
    with torch.no_grad():
        straight = space.decode(walks.linear().flatten(0, 1), components, noise)
        seen = space.decode(points.flatten(0, 1), components, noise)
        length = (walks.ends[:, 1] - walks.ends[:, 0]).norm(dim=1)
        path = torch.cat([walks.ends[:, :1], points, walks.ends[:, 1:]], dim=1)
        strides = (path[:, 1:] - path[:, :-1]).norm(dim=2)
        return {
            "off the line": float(((points - walks.linear()).norm(dim=2) / length[:, None]).mean()),
            "images moved": float((seen - straight).square().mean().sqrt()),
            "KL": float(anonymity(own.who(seen)).mean()),
            "KL, another": float(anonymity(judge.who(seen)).mean()),
            "CE": float(functional.cross_entropy(own.what(seen), labels)),
            "CE, another": float(functional.cross_entropy(judge.what(seen), labels)),
            "strides": float((strides.amax(dim=1) / strides.amin(dim=1)).mean()),
            "length": float(length.mean()),
        }


def main() -> None:
    """Print a table a cohort and space."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohorts", default="phantom,sites-64")
    parser.add_argument("--spaces", default="gan,appearance")
    parser.add_argument("--walks", type=int, default=12)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--stylegan2", type=Path, help="generator.safetensors of three sites at 64 px")
    options = parser.parse_args()
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name in options.cohorts.split(","):
        for kind in options.spaces.split(","):
            # a generator of three sites is told which one
            cohort = cohort_of(name, MOST) if kind == "stylegan2" else one_site(name)
            job = walking_job(cohort, kind, options)
            space, walks = space_of(job), walks_of(job)
            own, judge = identities_of(job, job.item.classifier_steps), judge_of(job)
            noise = space.draw_noise(walks.components_of_points(), job.streams.published)
            rows = {"straight": {**figures(space, walks, noise, walks.linear(), own, judge), "seconds": 0.0}}
            for elastic in ("absolute", "relative"):
                began = time.process_time()
                item = job.item.model_copy(update={"elastic": elastic})
                points = bend_on_all_cores(space, walks, noise, own, item).cpu()
                rows[elastic] = figures(space, walks, noise, points, own, judge)
                rows[elastic]["seconds"] = round(time.process_time() - began, 1)
            print(f"\n### {name}, {kind}\n")
            print("| | " + " | ".join(rows["relative"]) + " |")
            print("|---" * (len(rows["relative"]) + 1) + "|")
            for row, found in rows.items():
                print(f"| {row} | " + " | ".join(f"{value:.3f}" for value in found.values()) + " |", flush=True)
            result[f"{name} {kind}"] = rows
    write_json(ROOT / "bench-out" / "bend.json", result)


if __name__ == "__main__":
    main()
