"""The plan: held against policy, ledger, keys and the files that it names."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato_client.ledger.head import has_begun
from sfumato_client.site.admission import check_budget, check_policy, forecast_here
from sfumato_client.site.checks.finding import Finding, Subject
from sfumato_client.site.given import given_encoders
from sfumato_client.site.home import SiteHome
from sfumato_client.site.names import require_nameless
from sfumato_client.site.summing import require_own_key
from sfumato_common.errors import PolicyRefusal
from sfumato_common.study.forecast import Forecast, forecast
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.simulated import require_real
from sfumato_common.study.starts import start_path


def plan(subject: Subject) -> Iterator[Finding]:
    """That policy and budget allow the plan, each reason named, and whether it is accepted."""
    policy, asked = subject.home.policy(), _plan_of(subject)
    require_real(asked.study, policy.site)
    try:
        check_policy(asked, policy)
        require_own_key(subject.home, asked, policy.site)
        require_nameless(subject.home, asked)
    except PolicyRefusal as refusal:
        yield Finding("wrong", str(refusal))
    else:
        yield Finding("good", f"the policy allows plan '{asked.study}'")
    try:
        check_budget(asked, policy, forecast_of(subject.home, asked, policy))
    except PolicyRefusal as refusal:
        yield Finding("wrong", str(refusal))
    else:
        yield Finding("good", "the plan fits the budget")
    if any(home.plans.joinpath(f"{asked.digest}.json").exists() for home in subject.home.links):
        yield Finding("good", "the plan is accepted here")
    else:
        yield Finding("note", "the plan is not accepted yet: 'sfumato-site accept' shows what it costs, and asks")


def models(subject: Subject) -> Iterator[Finding]:
    """That the encoders and the public starts that the plan pins are here."""
    policy, asked = subject.home.policy(), _plan_of(subject)
    given_encoders(subject.home, asked, policy).load_all(asked.encoders)
    missing = [
        kind for kind, start in asked.public_starts.items() if not start_path(subject.home.starts, start).exists()
    ]
    if missing:
        yield Finding(
            "note", f"the public start of stage '{missing[0]}' is not here yet: 'accept --start FILE' keeps it"
        )
    else:
        yield Finding("good", "every given model that the plan names is here")


def nominal(subject: Subject) -> Iterator[Finding]:
    """That the site has the patients that the plan counts on."""
    store, asked, policy = subject.store, _plan_of(subject), subject.home.policy()
    if store is None or policy.site not in asked.sites:
        yield Finding("skipped", "how many patients the plan counts on: no images were looked at")
        return
    patients, wanted = store.cohort("train").patients, asked.sites[policy.site].nominal_patients
    said = f"{patients} training patients, the plan's nominal number is {wanted}"
    if patients > wanted:
        yield Finding("note", f"{said}: ask for a larger one; epsilon holds, but batches may exceed their public size")
    elif 2 * patients < wanted:
        yield Finding("note", f"{said}: ask for a smaller one; noise is made for more patients than there are")
    else:
        yield Finding("good", said)


def forecast_of(home: SiteHome, asked: Plan, policy: Policy) -> Forecast:
    """What the plan would cost a patient on top of the ledger; a look begins no ledger."""
    if not has_begun(home.ledger_file):
        return forecast(asked, policy.budget.delta)
    with home.open_ledger() as book:
        return forecast_here(asked, policy, book)


def _plan_of(subject: Subject) -> Plan:
    assert subject.plan is not None, "checks of a plan are asked where there is one"
    return subject.plan
