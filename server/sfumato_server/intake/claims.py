"""What a site claims that its release cost, held against what the plan costs: no less, no more, nothing else.

Everything in a certificate that is no text follows from the plan: which mechanisms ran and how often, what they cost,
which disclosures no epsilon covers. A site that says otherwise is mistaken or lies.
"""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_common.accounting.accountant import cohort_costs, count_mechanisms, expand_tally
from sfumato_common.accounting.events import Cohort, Event
from sfumato_common.errors import VerificationError
from sfumato_common.study.certificate import (
    Certificate,
    StatedCosts,
    StatedReach,
    stated_costs,
    stated_reach,
    stated_sums,
    stated_tally,
)
from sfumato_common.study.costs import declared_disclosures, release_total, stated_training, study_events
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan

COHORTS: tuple[Cohort, ...] = ("train", "holdout")
Figures = Mapping[str, float | None]


def check_claims(stated: Certificate, plan: Plan) -> None:
    """Raise VerificationError unless `stated` claims what `plan` costs a patient, no less and no more."""
    _require(stated.delta == plan.privacy.delta, "states its epsilons at another delta than the plan's")
    _require(stated.private == plan.private, "says something else about privacy than the plan")
    _require(stated.starts == plan.public_starts, "names other public starts than the plan")
    _require(stated.encoders == plan.encoders, "names other given encoders than the plan")
    train, holdout = (_claimed_events(stated, plan, cohort) for cohort in COHORTS)
    declared = {(item.what, item.bits) for item in stated.declared}
    missing = [event for event in declared_disclosures(plan) if (event.what, event.bits) not in declared]
    _require(not missing, "leaves out a declared disclosure of the plan")
    costs = _epsilons(stated_costs(cohort_costs(train, holdout, plan.privacy.delta)))
    claimed = _epsilons(stated.epsilon)
    _check_least(costs, claimed, "claims less than the plan costs")
    for name, cost in costs.items():
        claim = claimed[name]
        within = cost is None or (claim is not None and claim <= cost + slack(cost))
        _require(within, "claims more than the plan costs")
    _require((stated.reach is not None) == plan.private, "states ceilings of attacks where there are none, or none")
    if stated.reach is not None:
        ceilings = _ceilings(stated_reach(train, holdout, plan.privacy.delta))
        _check_least(ceilings, _ceilings(stated.reach), "claims a lower ceiling than was proved")
    _require((stated.summed is not None) == (plan.secure_sum is not None), "says something else of sums than the plan")
    if stated.summed is not None and plan.secure_sum is not None:
        sites, colluding = plan.federation.quorum, plan.secure_sum.colluding
        proved = stated_sums(train, holdout, plan.privacy.delta, sites, colluding)
        _require((stated.summed.sites, stated.summed.colluding) == (sites, colluding), "counts on other sites in sums")
        for own, least in ((stated.summed.coordinator, proved.coordinator), (stated.summed.alone, proved.alone)):
            _check_least(_epsilons(least), _epsilons(own), "claims less of sums than the plan costs")
    given = bool(given_models(plan))
    _require((stated.trained is not None) == given, "says something else of given models than the plan")
    if stated.trained is not None:
        proof = stated_training(plan)
        same = (stated.trained.plan_hash, stated.trained.delta) == (proof.plan_hash, proof.delta)
        _require(same, "names another study that trained the given models than the plan")
        _check_least(_epsilons(proof.epsilon), _epsilons(stated.trained.epsilon), "claims less than training cost")
    if stated.site_total is not None:
        spent, total = stated.epsilon.patient.add_remove, stated.site_total.patient.add_remove
        _require(total is None or (spent is not None and total >= spent), "states a total below its own epsilon")


def _claimed_events(stated: Certificate, plan: Plan, cohort: Cohort) -> list[Event]:
    """What the certificate lists for `cohort`: the plan's mechanisms; a site that came later ran fewer in training."""
    whole = study_events(plan, cohort)
    found, paid = stated_tally(stated.mechanisms.get(cohort, [])), count_mechanisms(whole)
    other = f"lists other mechanisms for the {cohort} cohort than the plan's"
    if not plan.joining or cohort == "holdout":
        _require(found == paid, other)
        return whole
    _require(count_mechanisms(release_total(plan)) <= found <= paid, other)
    return expand_tally(found)


def _check_least(proved: Figures, claimed: Figures, less: str) -> None:
    """Every figure is there, and none is below what was proved; null is infinite."""
    _require(claimed.keys() == proved.keys(), "states its ceilings at other points than this version")
    for name, figure in proved.items():
        claim = claimed[name]
        enough = claim is None or (figure is not None and claim >= figure - slack(figure))
        _require(enough, less)


def slack(figure: float) -> float:
    """Rounding of a certificate to four decimals, and what the accountants' own grids differ by between versions."""
    return 2e-4 + 2e-3 * figure


def _epsilons(stated: StatedCosts) -> Figures:
    fields = stated.model_dump()
    return {f"{who}: {name}": value for who, cost in fields.items() for name, value in cost.items()}


def _ceilings(stated: StatedReach) -> Figures:
    return {
        "mu": stated.mu,
        "auc": stated.auc,
        "pair": stated.pair,
        **{f"epsilon at {item.delta:g}": item.epsilon for item in stated.epsilons},
        **{f"tpr at {item.fpr:g}": item.tpr for item in stated.attack},
    }


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise VerificationError(f"the certificate {what}")
