"""The papers of DP-GLOW and CADP checked as they are: a flow without privacy, all coordinates, any epsilon.

    python tests/bench/local_dp.py [--cohort phantom] [--patients 300] [--totals 1e2,1e3,1e4,1e5,1e6] [--verifier]

One site, each method on its own network: GLOW, and the multi-scale conditional INN. Every set is heuristic; eps_total
is of its noise alone and stands first. Figures: a coordinate's signal-to-noise; AUC of a logistic regression fitted to
the set, on val patients; the share of images that plain correlation with the site's records links to their record, of
which one in as many as there are patients is chance; and, with `--verifier`, the share that an identity verifier takes
for a patient of the site more surely than 95 % of strangers (val patients). Sheets lie in bench-out/local-dp.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace

import numpy as np
from bend import one_site
from cohorts import ROOT, BenchCohort
from in_process import Row, build_plan, federate
from PIL import Image
from placed import anonymise_and_tell
from spaces import auc

from sfumato_client.anonymise import CandidateSet, Job, Release
from sfumato_client.anonymise.latent_report import latent_report
from sfumato_client.audit.attacks.identity import Verifier, re_identification, train_verifier
from sfumato_client.audit.attacks.linkage import correlation_linkage
from sfumato_client.dataset import Cohort
from sfumato_common.files import write_json
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import BareRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.plan import Plan

SHARES = Row({"spectral": 0.6, "flow": 0.4}, "flow")
NETWORKS = {"dp-glow": "glow", "cadp": "multiscale-cinn"}
CLIP, TILES, LEVEL, SEED = 3.0, 12, 0.05, 3


def few(cohort: BenchCohort, patients: int) -> BenchCohort:
    """The first `patients` of each site train."""
    found = {}
    for site, part in cohort.train.items():
        images, labels, index = part.everything()
        rows = index < patients
        found[site] = Cohort(images[rows], labels[rows], index[rows])
    return replace(cohort, parts={**cohort.parts, "train": found})


def sets_of(cohort: BenchCohort, method: str, totals: list[float]) -> list[tuple[Job, CandidateSet, np.ndarray]]:
    """The method's set at each of `totals`, from one flow, with the job that made it and whose the images are."""
    levels = max(2, (cohort.size // 8 - 1).bit_length())
    asked = {"architecture": NETWORKS[method], "levels": levels, "steps_per_level": 4}
    plan = build_plan(cohort, SHARES, math.inf, flow=asked)
    released, _ = federate(plan, cohort.train, SEED)
    ((site, part),) = cohort.train.items()
    found = []
    for total in totals:
        item = {"method": method, "images": part.patients, "clip": "elementwise", "radius": CLIP, "epsilon": total}
        item |= {"label": "public"}
        value = plan.model_copy(update={"release": [item], "private": False}).model_dump(mode="json", warnings=False)
        bare, noise = Plan.model_validate(value), SecureNoise()
        release = Release(bare, site, released, part)
        job = Job(release, bare.release[0], Streams.of(noise), BareRecorder(method, "bench", noise))
        made, whose = anonymise_and_tell(job)
        assert whose is not None
        assert made.guarantee == "heuristic", "nothing of such a plan is anything else"
        found.append((job, made, whose))
    return found


def row_of(job: Job, made: CandidateSet, whose: np.ndarray, val: Cohort, verifier: Verifier | None) -> dict[str, float]:
    """The figures of a set, eps_total first."""
    plan, item = job.plan, job.item
    report = latent_report(item, plan.image.size**2 * plan.image.channels, plan.privacy.delta, len(plan.labels), False)
    gallery, _, index = job.cohort.everything()
    behind = [np.array([patient] if patient >= 0 else [], dtype=np.int64) for patient in whose.tolist()]
    linked = correlation_linkage(made.images, gallery, index, behind)
    row = {
        "eps_total": report.total,
        "signal-to-noise": report.signal_to_noise,
        "AUC": auc(made.images, made.labels, val),
    }
    row |= {"linked": linked.share, "chance": linked.chance}
    if verifier is not None:
        row["re-identified"] = re_identification(verifier, made.images, val.everything()[0]).share(LEVEL)
    return row


def main() -> None:
    """Print a table a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="phantom")
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument(
        "--totals", type=lambda text: [float(one) for one in text.split(",")], default="1e2,1e3,1e4,1e5,1e6"
    )
    parser.add_argument("--verifier", action="store_true")
    options = parser.parse_args()
    cohort = few(one_site(options.cohort), options.patients)
    ((site, part),) = cohort.train.items()
    val, out = cohort.parts["val"][site], ROOT / "bench-out" / "local-dp"
    verifier = train_verifier(part) if options.verifier else None
    result = {"real": {"AUC": auc(part.everything()[0], part.everything()[1], val)}}
    print(f"real: AUC {result['real']['AUC']:.3f}, {part.patients} patients", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for method in NETWORKS:
        began, tiles = time.process_time(), []
        for job, made, whose in sets_of(cohort, method, options.totals):
            row = row_of(job, made, whose, val, verifier)
            if not tiles:
                print("\n| " + method + " | " + " | ".join(row) + " |\n" + "|---" * (len(row) + 1) + "|")
            print("| heuristic | " + " | ".join(f"{value:.4g}" for value in row.values()) + " |", flush=True)
            result[f"{method} {row['eps_total']:g}"] = row
            tiles.append(np.concatenate(list(made.images[:TILES]), axis=1))
        Image.fromarray(np.concatenate(tiles)).save(out / f"{method}.png")
        print(f"{method}: {time.process_time() - began:.0f} s", flush=True)
    write_json(ROOT / "bench-out" / "local_dp.json", result)


if __name__ == "__main__":
    main()
