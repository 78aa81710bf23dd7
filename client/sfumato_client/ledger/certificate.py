"""What a release package says about its price: the plan's events at this site, their epsilons, and what those cover.

Only public, data-independent numbers: mechanisms and their parameters come from the plan, epsilons from the accountant.
The site's own budget and what it spent on other studies stay in the site.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from sfumato_client.ledger.chain import Reservation
from sfumato_common.accounting.accountant import cohort_costs, count_mechanisms, expand_tally
from sfumato_common.accounting.events import (
    Cohort,
    Declared,
    Event,
    Mechanism,
    SampledGaussian,
    event_to_json,
)
from sfumato_common.errors import LedgerError
from sfumato_common.study.certificate import (
    Certificate,
    Noise,
    StatedCosts,
    StatedDisclosure,
    StatedSums,
    stated_costs,
    stated_reach,
    stated_sums,
)
from sfumato_common.study.costs import (
    WITHOUT_PRIVACY,
    declared_disclosures,
    release_total,
    stated_training,
    study_events,
)
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan

COHORTS: tuple[Cohort, ...] = ("train", "holdout")
COVERS = (
    "Unit: the patient, with all of the patient's images. Covered: everything that left this site under this plan, "
    "charges still to come included. add_remove: with or without one patient, its distribution changes by at most "
    "(epsilon, delta). replace_one: the same with another patient of this site in the patient's place. add_remove_rdp"
    " is a looser bound by another accountant that cross-checks add_remove. Train and holdout patients are different "
    "people, so a patient pays the larger. Sites compose in parallel where their patients are disjoint: a patient of "
    "one site pays that site's epsilon, at most the largest of all sites. {two_sites} Not covered: the declared "
    "disclosures, each named with its bits, which depend on the data and have no epsilon; this site's other studies, "
    "which its ledger adds up; who took part; and what is true of most patients, which these images are meant to "
    "show. reach: ceilings for any attack on one patient, under add/remove; its mu says nothing of deltas below the "
    "stated one."
)
TWO_SITES = "A patient present at two sites pays the SUM of both (basic composition: epsilons add and deltas add)."
# one sum hides both of its contributions with one noise, so that they compose as two patients in one cohort do
TWO_SITES_IN_A_SUM = (
    "A patient present at two sites moves the same sum twice, which is not composition: at the stated delta such a "
    "patient pays reach.pair, as two patients do who come or go together, and not the sum of both sites' epsilons."
)
NO_PRIVACY = (
    f"NO PRIVACY: {WITHOUT_PRIVACY}. No noise was added and no gradient clipped, every epsilon is infinite (null), "
    "and nothing below is promised. "
)
CHOSEN = (
    "The released model was chosen by a charged look at the training patients: their scores under one classifier a "
    "model, noised histograms of which are the last mechanism listed for that cohort. "
)
SUMMED = (
    "One-shot releases left this site under masks, and were seen as a sum over sites alone. epsilon is against the "
    "coordinator together with as many colluding sites as summed says, and rests on the noise of the other honest "
    "sites in the sum; summed has the figures against the coordinator alone, and against the coordinator and all other "
    "sites together, all at the same delta, unit and adjacency. They count on the cryptography of the masks, which no "
    "epsilon covers. "
)
GIVEN = (
    "The models behind this release were trained by an earlier study, of which trained has the plan hash, and were "
    "given to this one: what their training took stands in that study's certificates, and trained has it again, at its "
    "own delta. No epsilon of this certificate covers it. A patient of both studies pays both, and the ledger of the "
    "site composes them. "
)
TEST_NOISE = "TEST NOISE: no guarantee. The noise can be predicted, and every epsilon here is void. "


def certificate(
    plan: Plan,
    train: Sequence[Event],
    holdout: Sequence[Event],
    noise: Noise,
    site_total: StatedCosts | None = None,
    planned: Mapping[Cohort, Sequence[Event]] | None = None,
) -> Certificate:
    """What the manifest carries, from the events charged to each cohort under `plan`; at the plan's delta.

    `noise` is 'secure' or 'test'; `site_total` is what policy publishes of all studies; `planned` is all that the site
    will have been charged, with what is still to come (None: the whole plan; see `planned_events`). Raises LedgerError
    for any other word, and when the accountants contradict.
    """
    if noise not in get_args(Noise):
        raise LedgerError("a certificate says 'secure' or 'test' about its noise, nothing else")
    planned = planned or {cohort: study_events(plan, cohort) for cohort in COHORTS}
    # what was charged, and what the plan has not charged yet: a figure computed after the release is covered too
    whole = {
        "train": count_mechanisms(train) | count_mechanisms(planned["train"]),
        "holdout": count_mechanisms(holdout) | count_mechanisms(planned["holdout"]),
    }
    events = expand_tally(whole["train"]), expand_tally(whole["holdout"])
    costs = cohort_costs(*events, plan.privacy.delta)
    if plan.private and not math.isfinite(costs.patient.replace_one):
        raise LedgerError("this plan costs a patient more than a certificate can state; it needs more noise")
    return Certificate(
        epsilon=stated_costs(costs),
        delta=plan.privacy.delta,
        unit=plan.privacy.unit,
        adjacency=plan.privacy.adjacency,
        mechanisms={"train": mechanism_lines(whole["train"]), "holdout": mechanism_lines(whole["holdout"])},
        # what is still to come as well: the parts of a release are sealed one after the other, and state the same
        declared=disclosures([*declared_disclosures(plan), *train, *holdout]),
        noise=noise,
        covers=("" if plan.private else NO_PRIVACY)
        + (TEST_NOISE if noise == "test" else "")
        + (CHOSEN if plan.chooses else "")
        + (SUMMED if plan.secure_sum else "")
        + (GIVEN if given_models(plan) else "")
        + COVERS.format(two_sites=TWO_SITES_IN_A_SUM if plan.secure_sum else TWO_SITES),
        protection="differential privacy" if plan.private else WITHOUT_PRIVACY,
        starts=plan.public_starts,
        encoders=plan.encoders,
        reach=stated_reach(*events, plan.privacy.delta) if plan.private else None,
        site_total=site_total,
        summed=_sums(plan, *events),
        trained=stated_training(plan) if given_models(plan) else None,
    )


def certificate_of(plan: Plan, entries: Sequence[Reservation], noise: Noise, publish_total: bool) -> Certificate:
    """The certificate from a ledger's charges; with `publish_total` also what all studies cost, at the plan's delta."""
    planned = {cohort: planned_events(plan, cohort, entries) for cohort in COHORTS}

    def paid(cohort: Cohort, own: bool) -> list[Event]:
        return [item.event for item in entries if item.cohort == cohort and (item.plan_hash == plan.digest) == own]

    total = None
    if publish_total:
        train, holdout = ([*paid(cohort, own=False), *planned[cohort]] for cohort in COHORTS)
        total = stated_costs(cohort_costs(train, holdout, plan.privacy.delta))
    return certificate(plan, paid("train", own=True), paid("holdout", own=True), noise, total, planned)


def planned_events(plan: Plan, cohort: Cohort, entries: Iterable[Reservation]) -> list[Event]:
    """All that `cohort` will have paid under `plan`; where sites join later, of its stages what was charged alone.

    One that came late has paid for fewer rounds, and its stages are asked nothing more once its release has begun.
    """
    if not plan.joining or cohort == "holdout":
        return study_events(plan, cohort)
    kinds = {stage.kind for stage in plan.stages}
    mine = [entry for entry in entries if entry.plan_hash == plan.digest and entry.cohort == cohort]
    return [*(entry.event for entry in mine if entry.purpose in kinds), *release_total(plan)]


def _sums(plan: Plan, train: Sequence[Event], holdout: Sequence[Event]) -> StatedSums | None:
    """The figures by who looks, where the plan's one-shot releases leave as sums."""
    if plan.secure_sum is None:
        return None
    return stated_sums(train, holdout, plan.privacy.delta, plan.federation.quorum, plan.secure_sum.colluding)


def mechanism_lines(tally: Mapping[Mechanism, int]) -> list[dict[str, Any]]:
    """Every mechanism with how often it ran: `times` releases, or `steps` of DP-SGD."""
    return [
        {**event_to_json(event), "steps" if isinstance(event, SampledGaussian) else "times": times}
        for event, times in tally.items()
    ]


def disclosures(events: Iterable[Event]) -> list[StatedDisclosure]:
    """Each declared disclosure among `events`, once."""
    declared = dict.fromkeys(event for event in events if isinstance(event, Declared))
    return [StatedDisclosure(what=event.what, bits=event.bits) for event in declared]
