"""Whether this site takes part in a plan: the plan held against the site's own policy and ledger, before any data.

Checked when the steward accepts the plan and again at every message, because policy and ledger may have changed since.
"""

from __future__ import annotations

import math

from sfumato_client.anonymise.groups import most_images
from sfumato_client.audit.rules import FEWEST_CONTROLS
from sfumato_client.dataset import SiteStore, require_patients
from sfumato_client.ledger import Ledger
from sfumato_common.accounting.events import Declared
from sfumato_common.errors import BudgetExceeded, DataError, PolicyRefusal
from sfumato_common.generators.replies import PATIENT_SLACK, most_patients
from sfumato_common.metrics.nearest import is_flat
from sfumato_common.study.budget import check_own_epsilon
from sfumato_common.study.costs import WITHOUT_PRIVACY, release_events, stated_training
from sfumato_common.study.forecast import Forecast, forecast
from sfumato_common.study.latents import Latent
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.release import DpKAverage, Grouped
from sfumato_common.study.words import way_of


def check_policy(plan: Plan, policy: Policy) -> None:
    """Raise PolicyRefusal naming everything in `plan` that `policy` forbids; budgets are checked by `admit`."""
    wrong: list[str] = []
    if not plan.private and plan.study not in policy.nonprivate_studies:
        wrong.append(f"it says 'private: false' ({WITHOUT_PRIVACY}), and nonprivate_studies does not name it")
    if policy.site not in plan.sites:
        wrong.append(f"the plan has no site '{policy.site}'")
    if forbidden := [stage.kind for stage in plan.stages if stage.kind not in policy.allowed_stages]:
        wrong.append(f"stage '{forbidden[0]}' is not in allowed_stages")
    own = plan.sites.get(policy.site)
    here = plan.release_at(policy.site, plan.choices[0]) if own is not None else plan.release
    if methods := [found for found in (way_of(i.method) for i in here) if found not in policy.release.allowed_methods]:
        wrong.append(f"method '{methods[0]}' is not in release.allowed_methods")
    grouped = [item for item in plan.release if isinstance(item, Grouped | DpKAverage)]
    if small := [item for item in grouped if item.k < policy.release.smallest_group]:
        wrong.append(f"'{small[0].method}' makes groups smaller than release.smallest_group")
    if sum(item.at(policy.site) for item in plan.release) > policy.release.largest_set:
        wrong.append(f"the release is larger than release.largest_set = {policy.release.largest_set}")
    if policy.labels != "public" and any(isinstance(item, Latent) and item.tells_labels for item in plan.release):
        wrong.append("images would carry the labels of their records, which no epsilon covers; 'labels' must allow it")
    told = [stone for stone in plan.lineage.tombstones if stone.what == "patient-withdrew"] if plan.lineage else []
    if policy.withdrawals == "withheld" and any(stone.site == policy.site for stone in told):
        wrong.append("it says in public that a patient of this site withdrew; 'withdrawals' must allow it")
    if plan.secure_sum is not None and policy.secure_sum == "refused":
        wrong.append("its releases are sums whose epsilon counts on other sites' noise; 'secure_sum' must allow it")
    parts = plan.parts_at(policy.site) if own is not None else plan.parts
    if policy.release.gate.formal == "private" and "formal" in parts and plan.formal_gate is None:
        wrong.append("it has no 'formal_gate', and release.gate.formal asks for a private one")
    if "declared" in parts and not policy.release.gate.declare_verdict:
        wrong.append("the gate's verdict is one data-dependent bit; release.gate.declare_verdict must allow it")
    judging = policy.release.gate.encoder
    if judging is not None and judging.sha256 in {terms.sha256 for terms in plan.encoders.values()}:
        wrong.append("its methods would compare images by the encoder of release.gate, which is to judge them")
    if plan.private and own is not None and policy.budget.delta * own.nominal_patients >= 1.0:
        wrong.append(f"budget.delta is not below 1 / {own.nominal_patients}, the plan's nominal patients of this site")
    if plan.privacy.delta > policy.budget.delta:
        wrong.append(f"delta {plan.privacy.delta:g} is larger than budget.delta = {policy.budget.delta:g}")
    if wrong:
        raise PolicyRefusal(f"plan '{plan.study}' is refused by this site's policy: " + "; ".join(wrong))


def admit(plan: Plan, policy: Policy, ledger: Ledger) -> Forecast:
    """Forecast of `plan` on top of what the ledger holds. Raises PolicyRefusal or BudgetExceeded when it does not fit.

    A plan that is accepted again is not counted twice: its own earlier rounds are left out of what was spent.
    """
    check_policy(plan, policy)
    cost = forecast_here(plan, policy, ledger)
    check_budget(plan, policy, cost)
    return cost


def check_cohorts(plan: Plan, policy: Policy, store: SiteStore) -> None:
    """Raise DataError when the store has not what the plan's training, release, gate and figure need, or too much.

    Once, when the steward accepts: later messages are answered whatever the number of patients is then, because a
    refusal that one patient decides would tell of that patient. Messages have no exact count.
    """
    if missing := wanting(plan, policy, store):
        raise DataError("; ".join(missing))


def wanting(plan: Plan, policy: Policy, store: SiteStore) -> list[str]:
    """All for which the store cannot serve `plan`, a sentence each, for the steward alone."""
    missing: list[str] = []
    try:
        require_patients(store.patients, policy)
    except DataError as error:
        missing.append(str(error))
    train, holdout = store.cohort("train"), store.cohort("holdout")
    if not given_models(plan) and train.patients > most_patients(plan, policy.site):
        missing.append(
            f"this site has {train.patients} training patients, the plan's nominal number of it is "
            f"{plan.sites[policy.site].nominal_patients}, and the coordinator takes no answer of more than "
            f"{PATIENT_SLACK:g} times that: patients would pay for nothing; ask for a larger nominal "
            "number, or ingest fewer"
        )
    if "declared" in plan.parts_at(policy.site):
        if train.patients < 2:
            missing.append("the gate's identity verifier needs at least two training patients; ingest more")
        if (~is_flat(holdout.everything()[0])).sum() < FEWEST_CONTROLS:
            few = f"the gate's control needs at least {FEWEST_CONTROLS} holdout images; ingest more patients"
            missing.append(few)
    figure = plan.utility is not None and policy.utility_figure == "noised"
    if figure and holdout.patients == 0:
        missing.append("the utility figure needs holdout patients, and there is none; ingest more patients")
    for item in plan.release_at(policy.site, plan.choices[0]):
        if isinstance(item, Grouped) and most_images(train, item, len(plan.labels)) < item.images:
            missing.append(
                f"this site has too few training patients for {item.images} groups of {item.k} by "
                f"'{item.method}': ask for fewer images here, by 'images_at', or let the model alone draw some, by "
                "'filled_at'"
            )
    return missing


def release_notes(plan: Plan) -> list[str]:
    """What the steward should know of the release: whatever no epsilon covers."""
    events = [event for item in plan.release for event in release_events(plan, item) if isinstance(event, Declared)]
    return [
        *_lineage_notes(plan),
        *(f"declared, covered by no epsilon: {event.what} ({event.bits:,} bits at most)" for event in events),
    ]


def _lineage_notes(plan: Plan) -> list[str]:
    """What a later version takes over, and says in public."""
    if plan.lineage is None:
        return []
    said = [f"this is version {plan.lineage.version} of the set '{plan.study}'"]
    if given_models(plan):
        before = stated_training(plan)
        cost = f"epsilon {before.epsilon.patient.add_remove} at delta {before.delta:g}"
        said.append(
            f"its models are given: the study {before.plan_hash[:16]}... trained them, at {cost}, add/remove, a "
            "patient; who was in it has paid that, and nothing is charged for them now"
        )
    return said + [f"it says in public: {one.site}: {one.what} since {one.since}" for one in plan.lineage.tombstones]


def forecast_here(plan: Plan, policy: Policy, ledger: Ledger) -> Forecast:
    """Forecast of `plan` on top of all else that this site's ledger holds, at the budget's delta; fitting or not.

    What other accepted plans under way will still charge counts as held.

    What the plan itself was charged already is part of its forecast, and left out of what was spent.
    """
    train = ledger.committed("train", plan.digest)
    holdout = ledger.committed("holdout", plan.digest)
    return forecast(plan, policy.budget.delta, train, holdout)


def check_budget(plan: Plan, policy: Policy, cost: Forecast) -> None:
    """Raise BudgetExceeded when `cost` passes the site's budget, or the plan alone what it says itself.

    A plan without privacy has policy's leave instead.
    """
    if not plan.private:
        return
    check_own_epsilon(plan)
    worst, budget = cost.totals.patient.add_remove, policy.budget
    if math.isinf(worst):
        raise BudgetExceeded(
            f"plan '{plan.study}' would leave a patient at an infinite epsilon: it adds next to no noise, or a study "
            "without differential privacy ran here, after which no further study fits any budget"
        )
    if not worst <= budget.epsilon:  # written so that a NaN is refused
        raise BudgetExceeded(
            f"plan '{plan.study}' would bring a patient to epsilon {worst:.2f} at delta {budget.delta:g}; this site's "
            f"budget is {budget.epsilon:g}: ask for a plan with more noise or fewer steps"
        )
