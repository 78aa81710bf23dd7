"""What stewards said, and what they were shown, against a changed policy and against a patient who withdrew since."""

import base64

import pytest
from support.reviewed import PASSPHRASES, policy

from sfumato_client.review.pages import Pages
from sfumato_client.site.desk import find, queue, take_decision
from sfumato_client.site.withdrawing import withdraw
from sfumato_common.accounting.members import pseudonym
from sfumato_common.errors import ConfigError
from sfumato_common.imaging import encode_png

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")


@pytest.fixture
def site(waiting, tmp_path):
    found = waiting.copy(tmp_path / "alder")
    found.hire("ada", "grace")
    return found


def say(site, part, verdict="approve", ground=""):
    name = f"tiny/{part}"
    return take_decision(site.home.root, name, verdict, "ada", PASSPHRASES["ada"], "I looked", ground)


def test_a_stewards_no_holds_when_policy_asks_nobody_any_more(site):
    """Said before the coordinator asked again; then the policy is turned to 'auto'."""
    say(site, "formal", "refuse", "quality")
    site.rule(policy("auto"))
    assert site.ask("make").status == "ok"
    assert site.ask("send").status == "ok"
    with site.home.open_ledger() as ledger:
        assert set(ledger.approvals(site.plan.digest)) == {"declared"}
    assert len(site.uploads) == 1
    assert [entry.words for entry in queue(site.home.root)] == ["refused by a steward", "approved by policy"]


def test_a_page_that_stays_open_shows_nobody_who_withdrew_since(site):
    say(site, "formal")
    site.ask("make")
    pages, plan = Pages(site.home.root), site.plan.digest[:16]
    first = pages.candidate(plan, "declared", 0, 0)["beside"][0]["uri"]
    say(site, "declared")
    assert site.ask("make").status == "ok"
    nearest = base64.b64decode(first.partition(",")[2])
    store, key = site.home.open_store(), site.home.split_key()
    everybody, gone = store.members("train").train, []
    for name in (f"alder-{number}" for number in range(200)):
        if pseudonym(key, name) in everybody:
            gone.append(name)
    pages.forget()
    assert pages.candidate(plan, "declared", 0, 0)["beside"][0]["uri"] == first, "it is there to be looked at"
    for name in gone:
        withdraw(site.home, [name])
        left, _, _ = site.home.open_store().cohort("train").everything()
        if nearest not in {encode_png(image) for image in left}:
            break
    with pytest.raises(ConfigError, match="erased at a withdrawal"):  # the candidates went with the patient
        pages.candidate(plan, "declared", 0, 0)
    assert find(site.home.root, "tiny/declared").state == "approved"
