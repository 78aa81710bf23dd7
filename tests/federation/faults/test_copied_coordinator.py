"""Two copies of one coordinator both go on, against what its commands allow: what sites let them have.

The attack is on a secure sum. One copy goes on while a site is away, and uncovers the sum of four; the other goes on
with all five, and would uncover the sum of five: their difference is the fifth site's own value.
"""

import copy
import shutil
from collections import Counter

import pytest
from support.federations import make_federation, with_keys
from support.stopped import run_until
from support.studies import PLAN, POLICY

from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.study import run_study

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")

OTHERS = ("alder", "birch", "cedar", "dahlia")


def charges(federation):
    found = {}
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            ledger.verify()
            found[site] = Counter((entry.purpose, entry.round) for entry in ledger.entries())
    return found


def test_two_copies_of_a_coordinator_uncover_one_sum_and_charge_once(tmp_path):
    values = {**copy.deepcopy(PLAN), "stages": PLAN["stages"][:1], "release": PLAN["release"][:1]}
    values["sites"] = {site: {"nominal_patients": 40} for site in (*OTHERS, "elder")}
    values["federation"] = {**PLAN["federation"], "quorum": 4}
    federation = make_federation(tmp_path, with_keys(tmp_path, values), {**POLICY, "secure_sum": "allowed"})
    run_until(federation, "sum-values", 1)
    other = CoordinatorHome(shutil.copytree(federation.coordinator.root, tmp_path / "other"))
    exchange = federation.exchange

    def without_elder(requests, *rest):
        federation.down = {"elder"}
        return exchange(requests, *rest)

    federation.exchange = without_elder
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "completed"
    before, heard = charges(federation), len(federation.sent)
    federation.exchange, federation.down, federation.coordinator = exchange, set(), other
    assert run_study(other, federation, classifier_steps=5) == "stopped"
    asked = [(site, request.kind, reply.status) for site, request, reply in federation.sent[heard:]]
    assert ("elder", "sum-values", "ok") in asked, "its part is under masks that nobody takes away"
    consents = {(site, status) for site, kind, status in asked if kind == "sum-consent"}
    assert consents
    assert not {(site, "ok") for site in OTHERS} & consents
    assert not [site for site, kind, _ in asked if kind == "sum-unmask"]
    after = charges(federation)
    assert all(count == 1 for found in after.values() for count in found.values())
    assert all(after[site] == before[site] for site in OTHERS)
