"""What a site claims that its release cost, held against what the plan costs: no less, no more, nothing else.

Everything in a certificate that is no text follows from the plan: which mechanisms ran and how often, what they cost,
which disclosures no epsilon covers. A site that says otherwise is mistaken or lies.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfumato_common.accounting.accountant import Cost, count_mechanisms, json_epsilon
from sfumato_common.accounting.events import Cohort
from sfumato_common.errors import VerificationError
from sfumato_common.study.certificate import Certificate, StatedCost, StatedReach, stated_reach, stated_tally
from sfumato_common.study.costs import declared_disclosures, study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan

COHORTS: tuple[Cohort, ...] = ("train", "holdout")
# rounding of a certificate to four decimals, and what the accountants' own grids differ by between versions
_ABSOLUTE, _RELATIVE = 2e-4, 2e-3
_COSTS: dict[str, tuple[Cost, Cost, Cost]] = {}  # by plan: a forecast takes seconds
_REACHES: dict[str, StatedReach] = {}


def check_claims(stated: Certificate, plan: Plan) -> None:
    """Raise VerificationError unless `stated` claims what `plan` costs a patient, no less and no more."""
    _require(stated.delta == plan.privacy.delta, "states its epsilons at another delta than the plan's")
    _require(stated.private == plan.private, "says something else about privacy than the plan")
    _require(stated.starts == plan.public_starts, "names other public starts than the plan")
    for cohort in COHORTS:
        paid = count_mechanisms(study_events(plan, cohort))
        found = stated_tally(stated.mechanisms.get(cohort, []))
        _require(found == paid, f"lists other mechanisms for the {cohort} cohort than the plan's")
    declared = {(item.what, item.bits) for item in stated.declared}
    missing = [event for event in declared_disclosures(plan) if (event.what, event.bits) not in declared]
    _require(not missing, "leaves out a declared disclosure of the plan")
    given = (stated.epsilon.train, stated.epsilon.holdout, stated.epsilon.patient)
    for cost, claim in zip(_costs(plan), given, strict=True):
        for paid_epsilon, claimed in _pairs(cost, claim):
            if paid_epsilon is None or claimed is None:
                _require(paid_epsilon == claimed, "claims an epsilon where the plan has none, or none where it has")
                continue
            allowed = _ABSOLUTE + _RELATIVE * paid_epsilon
            _require(claimed >= paid_epsilon - allowed, "claims less than the plan costs")
            _require(claimed <= paid_epsilon + allowed, "claims more than the plan costs")
    _check_reach(stated, plan)
    if stated.site_total is not None:
        own, total = stated.epsilon.patient.add_remove, stated.site_total.patient.add_remove
        _require(total is None or (own is not None and total >= own), "states a total below its own epsilon")


def _check_reach(stated: Certificate, plan: Plan) -> None:
    """The ceilings follow from the plan too: a lower one would promise what was not proved."""
    _require((stated.reach is not None) == plan.private, "states ceilings of attacks where there are none, or none")
    if stated.reach is None:
        return
    least = _reach(plan)
    for found, claim in zip(_ceilings(least), _ceilings(stated.reach), strict=False):
        _require(claim[0] == found[0], "states its ceilings at other points than this version")
        if found[1] is not None and claim[1] is not None:
            allowed = _ABSOLUTE + _RELATIVE * found[1]
            _require(claim[1] >= found[1] - allowed, "claims a lower ceiling than was proved")
        _require(found[1] is not None or claim[1] is None, "claims a ceiling where there is none")
    _require(len(_ceilings(least)) == len(_ceilings(stated.reach)), "leaves out a ceiling of an attack")


def _ceilings(stated: StatedReach) -> list[tuple[str, float | None]]:
    return [
        ("mu", stated.mu),
        ("auc", stated.auc),
        ("pair", stated.pair),
        *((f"epsilon at {item.delta:g}", item.epsilon) for item in stated.epsilons),
        *((f"tpr at {item.fpr:g}", item.tpr) for item in stated.attack),
    ]


def _reach(plan: Plan) -> StatedReach:
    if plan.digest not in _REACHES:
        _REACHES[plan.digest] = stated_reach(
            study_events(plan, "train"), study_events(plan, "holdout"), plan.privacy.delta
        )
    return _REACHES[plan.digest]


def _pairs(cost: Cost, claim: StatedCost) -> Iterator[tuple[float | None, float | None]]:
    yield json_epsilon(cost.add_remove), claim.add_remove
    yield json_epsilon(cost.add_remove_rdp), claim.add_remove_rdp
    yield json_epsilon(cost.replace_one), claim.replace_one


def _costs(plan: Plan) -> tuple[Cost, Cost, Cost]:
    if plan.digest not in _COSTS:
        totals = forecast(plan, plan.privacy.delta).totals
        _COSTS[plan.digest] = (totals.train, totals.holdout, totals.patient)
    return _COSTS[plan.digest]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise VerificationError(f"the certificate {what}")
