"""What the methods bench says about one released set: use, likeness, and three attacks with their controls."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from cohorts import BenchCohort, pooled
from judge_scores import judged, nearness
from spaces import gradient_energy
from utility_scores import Reference, fidelity_of, reference_of, utility_of

from sfumato_client.audit.attacks.identity import Verifier, re_identification, train_verifier
from sfumato_client.audit.attacks.intervals import share_interval
from sfumato_client.audit.attacks.linkage import correlation_linkage
from sfumato_client.audit.attacks.membership import group_membership, record_membership
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.generators.device import training_device
from sfumato_common.metrics.network import fit_network
from sfumato_common.types import ByteImages

Figures = dict[str, float]
Indices = npt.NDArray[np.int64]
LEVEL = 0.05
SEED, STEPS = 0, 500  # of the classifier that tells use: releases say how far chance carries it


@dataclass(frozen=True, eq=False)
class Made:
    """What one method made at all sites: images, labels, sites by number, and which image each member's group made.

    `groups` holds, for a site by name, patient numbers and the index of their group's image among that site's; empty
    for methods without groups.
    """

    images: ByteImages
    labels: Indices
    sites: Indices
    groups: dict[str, tuple[Indices, Indices]]
    # the same for methods on single records, whose images are of one patient each
    records: dict[str, tuple[Indices, Indices]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Judge:
    """What has learned from a cohort's patients to judge sets: feature spaces, and an identity verifier a site."""

    reference: Reference
    verifiers: dict[str, Verifier]


def judge_of(cohort: BenchCohort) -> Judge:
    """The judge of a cohort's training patients."""
    return Judge(reference_of(cohort), {site: train_verifier(part) for site, part in cohort.train.items()})


def scores_of(
    cohort: BenchCohort, outsiders: dict[str, Cohort], made: Made, judge: Judge, judges: tuple[str, ...] = ()
) -> Figures:
    """Every figure of a row; `outsiders` are patients of the sites whom no model and no method has seen.

    Use is that of one classifier, on an accelerator where there is one; so are ordinary `judges`, which take longer.
    """
    classes = len(cohort.labels)
    network = fit_network(made.images, made.labels, classes, SEED, STEPS, training_device())
    result = utility_of(cohort, network.probabilities)
    homes = np.array(list(cohort.train))[made.sites]
    result |= judged(cohort, made.images, made.labels, homes, SEED, judges, alone=False)
    result["gradients"] = gradient_energy(made.images) / gradient_energy(pooled(cohort.train)[0])
    result |= fidelity_of(judge.reference, made.images)
    result |= _nearest(cohort, outsiders, made)
    result |= _membership(cohort, outsiders, made)
    result |= _groups(cohort, made)
    result |= _identity(cohort, outsiders, made, judge.verifiers)
    result |= _linkage(cohort, made)
    return {name: float(value) for name, value in result.items()}


def first_images(cohort: Cohort) -> ByteImages:
    """One image a patient."""
    return np.stack([cohort.images_of(patient)[0][0] for patient in range(cohort.patients)])


def _nearest(cohort: BenchCohort, outsiders: dict[str, Cohort], made: Made) -> Figures:
    """Distances to the nearest training images, over those of outsiders: below 1 is nearer than chance."""
    return nearness(made.images, pooled(cohort.train)[0], pooled(outsiders)[0])


def _membership(cohort: BenchCohort, outsiders: dict[str, Cohort], made: Made) -> Figures:
    members, others = (
        np.concatenate([first_images(part) for part in side.values()]) for side in (cohort.train, outsiders)
    )
    told = record_membership(members, others, made.images, np.random.default_rng(0))
    result = {"member auc": told.auc, "member low": told.interval[0], "member high": told.interval[1]}
    result |= {"control auc": told.control, "control low": told.control_interval[0]}
    result["control high"] = told.control_interval[1]
    for rate, (share, (low, high)) in told.found_at.items():
        name = f"TPR at {rate:.1%}"
        result |= {name: share, f"{name} low": low, f"{name} high": high}
    return result


def _groups(cohort: BenchCohort, made: Made) -> Figures:
    """The group attack within each site, members of all sites together."""
    hits, of, chance = 0.0, 0, 0.0
    for number, (site, (patients, images)) in enumerate(made.groups.items()):
        own = made.images[made.sites == number]
        told = group_membership(first_images(cohort.train[site])[patients], images, own)
        hits, of, chance = hits + told.share * len(patients), of + len(patients), chance + told.chance * len(patients)
    return {"group top 5": hits / of, "group chance": chance / of} if of else {}


def _linkage(cohort: BenchCohort, made: Made) -> Figures:
    """Share of images whose most correlated record of their site is of a patient behind them, all sites together."""
    hits, of, chance = 0.0, 0, 0.0
    for number, site in enumerate(cohort.train):
        patients, images = (made.groups | made.records).get(site, (np.zeros(0, np.int64),) * 2)
        if not len(patients):
            continue
        own = made.images[made.sites == number]
        behind = [patients[images == image] for image in range(len(own))]
        gallery, _, patient_index = cohort.train[site].everything()
        found = correlation_linkage(own, gallery, patient_index, behind)
        hits, of = hits + found.share * found.images, of + found.images
        chance += found.chance * found.images
    if not of:
        return {}
    low, high = share_interval(round(hits), of)
    return {"linked": hits / of, "linked low": low, "linked high": high, "linked chance": chance / of}


def _identity(cohort: BenchCohort, outsiders: dict[str, Cohort], made: Made, verifiers: dict[str, Verifier]) -> Figures:
    """Share of images that the independent verifier takes for a training patient of their site; `LEVEL` by chance."""
    shares, weights = [], []
    for number, site in enumerate(cohort.train):
        mine = made.images[made.sites == number]
        if site not in verifiers or not len(mine):
            continue
        matches = re_identification(verifiers[site], mine, outsiders[site].everything()[0])
        shares.append(matches.share(LEVEL))
        weights.append(len(mine))
    return {"re-identified": float(np.average(shares, weights=weights))} if shares else {}
