"""A plan costs no more than it says itself: refused at accept, at every charge, and with a delta that means nothing.

The attack: a plan that states epsilon 1 and whose stages cost 6 was accepted by a site with a budget of 10.
"""

import pytest
from support.homes import make_home
from support.studies import POLICY

from sfumato_client.ledger import Ledger, Terms
from sfumato_client.site.admission import admit, check_policy
from sfumato_client.site.handler import Site
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.terms import resolve_terms
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.errors import BudgetExceeded, ConfigError, PolicyRefusal
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Budget, Policy

VALUES = {
    "study": "cheap",
    "image": {"size": 16},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 40}},
    "privacy": {"epsilon": 1.0, "delta": 1e-5},
    "stages": [{"kind": "spectral", "bandwidth": 4, "clip_radius": 2.0, "noise_multiplier": 0.8}],
    "release": [{"model": "spectral", "images": 4}],
    "federation": {"quorum": 1},
}
# a look at the holdout patients that costs epsilon 4.4, beside training that costs less than 1
HOLDOUT = {
    "stages": [{**VALUES["stages"][0], "noise_multiplier": 4.0}],
    "utility": {"noise_multiplier": 1.0},
}


def plan_of(**changes) -> Plan:
    return parse({**VALUES, **changes}, Plan, "plan")


@pytest.mark.parametrize(("changes", "who"), [({}, "train"), (HOLDOUT, "holdout")])
def test_a_plan_that_costs_more_than_its_own_epsilon_is_refused(tmp_path, changes, who):
    plan, policy = plan_of(**changes), Policy(site="alder", **POLICY)
    with Ledger.open(tmp_path / "ledger.sqlite", policy.budget, site="alder") as ledger:
        with pytest.raises(BudgetExceeded, match=rf"costs {who} patients .* its own privacy\.epsilon says at most 1"):
            admit(plan, policy, ledger)
        admit(plan_of(**changes, privacy={"epsilon": 7.0, "delta": 1e-5}), policy, ledger)


def test_a_plan_that_was_pinned_all_the_same_is_refused_at_its_first_charge(tmp_path):
    plan = plan_of()
    home = make_home(tmp_path, "alder", plan, POLICY, 40)
    reply = Site(home, lambda data, plan: None).handle(Request(PROTOCOL, plan.digest, "stage", "spectral", 1, {}))
    assert (reply.status, reply.code) == ("refused", BudgetExceeded.wire_code)
    with home.open_ledger() as ledger:
        assert ledger.entries() == []


def test_charges_of_a_plan_never_add_up_to_more_than_it_says(tmp_path):
    """Rounds that are charged one by one, without telling what is to come; other plans count for the site's budget."""
    release, limit = GaussianRelease(2.0), Budget(epsilon=2.5, delta=1e-5)  # one costs 1.993, two 2.96
    other = Budget(epsilon=9.0, delta=1e-6)
    with Ledger.open(tmp_path / "ledger.sqlite", Budget(epsilon=20.0, delta=1e-5), site="alder") as ledger:

        def charge(number, plan_hash="ab" * 32, most=limit):
            with ledger.charged(Terms("s", plan_hash, "gan", number, "train", most), [release], SecureNoise()):
                pass

        def paid():
            return [entry.plan_hash for entry in ledger.entries()]

        for number, plan_hash, most in ((1, "ab" * 32, limit), (1, "cd" * 32, other), (2, "cd" * 32, other)):
            with pytest.raises(Exception, match="nothing was sealed"):
                charge(number, plan_hash, most)
        assert len(paid()) == 3
        with pytest.raises(BudgetExceeded, match=r"what this plan takes .* promises at most 2\.5"):
            charge(2)
        assert len(paid()) == 3
        # what was found to fit at one delta, or under a larger promise, serves no other
        with pytest.raises(BudgetExceeded, match=r"promises at most 2\.5"):
            charge(3, "cd" * 32)


def test_a_delta_that_one_record_in_the_cohort_could_hide_in_is_refused():
    sites = {"alder": {"nominal_patients": 40}, "birch": {"nominal_patients": 200}}
    with pytest.raises(ConfigError, match=r"not below 1 / 200, the nominal patients of 'birch'"):
        plan_of(sites=sites, privacy={"epsilon": 7.0, "delta": 0.005})
    plan = plan_of(sites=sites, privacy={"epsilon": 7.0, "delta": 0.0049})
    with pytest.raises(PolicyRefusal, match=r"budget\.delta is not below 1 / 200"):
        check_policy(plan, Policy(site="birch", **{**POLICY, "budget": {"epsilon": 60.0, "delta": 0.005}}))
    columns = {name: {"kind": "numeric", "low": 0.0, "high": 9.0, "digits": 0} for name in ("a", "b")}
    table = {"table": "t", "rows": 200, "rows_are_patients": True, "columns": columns}
    schema = parse({**table, "privacy": {"epsilon": 5.0, "delta": 0.005}}, TableSchema, "schema")
    with pytest.raises(ConfigError, match="not below 1 / 200"):
        resolve_terms(schema)
