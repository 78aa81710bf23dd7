"""A study sees one cohort. The attack: copies of patients are made, and then other people's images are judged.

The gate compares candidates with the patients of the store as it is. Between the making of a set and the gate the
site's images were erased, and those of others ingested: the gate found nobody whom a copy was near to, and let it pass.
"""

import dataclasses
import random

import numpy as np
import pytest
from support.federations import make_federation
from support.stopped import stop_before_release
from support.studies import PLAN, POLICY

from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import SiteImage
from sfumato_client.ledger import held
from sfumato_client.site import making
from sfumato_client.site.erasing import erase_store
from sfumato_client.site.handler import Site
from sfumato_client.site.store_key import make_store_key
from sfumato_common.errors import PolicyRefusal
from sfumato_common.phantom import arrays

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
RELEASE = [{"method": "k-same", "images": 4, "encoder_steps": 2, "refinement_steps": 1, "k": 3}]
GATE = {**POLICY["release"]["gate"], "identity_share_limit": 1.0, "copy_share_limit": 0.05}
RULES = {"allowed_methods": ["k-same"], "smallest_group": 2, "gate": GATE}
VALUES = {**PLAN, "stages": PLAN["stages"][:2], "release": RELEASE, "sites": {"alder": PLAN["sites"]["alder"]}}
VALUES = {**VALUES, "federation": {**PLAN["federation"], "quorum": 1, "round_deadline_s": 600}}


class Killed(BaseException):
    """Nothing after it is done."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site that was killed between the making of copies of four patients and the gate; `again` asks once more."""
    policy = {**POLICY, "utility_figure": "withheld", "release": {**POLICY["release"], **RULES}}
    federation = make_federation(tmp_path, VALUES, policy)
    request = stop_before_release(federation)["alder"]
    found, real = Site(federation.home("alder"), lambda data, plan: None), making.anonymise

    def copying(job):
        made, cohort = real(job), job.release.cohort
        copies = np.stack([cohort.image(number) for number in range(len(made.images))])
        return dataclasses.replace(made, images=copies)

    def killed(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(making, "anonymise", copying)
        patch.setattr(making.Maker, "_approve", killed)
        with pytest.raises(Killed):
            found.handle(request)
    found.plan, found.again = federation.plan, lambda: found.handle(request)
    return found


def pictures(seed, prefix="alder", patients=40):
    images, labels, owners = arrays(seed, patients, PLAN["image"]["size"], bits=8, modality="chest")
    rows = zip(images, labels, owners, strict=True)
    return [SiteImage(pixels, int(label), f"{prefix}-{owner}", None) for pixels, label, owner in rows]


def others():
    return pictures(77, "somebody")


def own(site):
    """What the site ingested, as `support.homes` made it."""
    return pictures(sum(b"alder"), patients=40)


def approved(site):
    with site.home.open_ledger() as ledger:
        return list(ledger.approvals(site.plan.digest))


def refused(site, word):
    """The site's reply is a refusal, and `word` is in what its people are told."""
    reply = site.again()
    texts = [path.read_text() for path in (site.home.steward_folder / "errors").iterdir()]
    return reply.status != "ok" and any(word in text for text in texts)


def test_the_gate_finds_copies_of_the_patients_who_are_behind_them(site):
    site.again()
    assert approved(site) == []


def test_without_the_rule_another_cohort_lets_copies_of_the_first_pass(site, monkeypatch):
    monkeypatch.setattr(held, "_known", lambda *_: True)
    erase_store(site.home)
    site.home.ingest(others(), site.plan)
    assert site.again().status == "ok"
    assert approved(site) == ["declared"], "what the rule is for: it may go if this ever fails"
    monkeypatch.undo()
    with site.home.open_ledger() as ledger:  # the release is approved: the next version of the data may have come
        assert site.home.charged_cohorts(site.plan, ledger, "holdout")


def test_another_cohort_is_not_ingested_while_a_study_is_under_way(site):
    erase_store(site.home)
    for wrong in (others(), own(site)[:-1], [dataclasses.replace(one, label=0) for one in own(site)]):
        with pytest.raises(PolicyRefusal, match=r"has begun here with another cohort.*leave tiny"):
            site.home.ingest(wrong, site.plan)
        assert not site.home.store.exists()
    assert refused(site, "no images were ingested here")
    assert approved(site) == []
    # who leaves is free: nothing of the study is made any more, and what was paid stays
    site.home.leave("tiny")
    site.home.ingest(others(), site.plan)
    site.home.pin(site.plan)  # a person who accepts it once more is not let through either
    assert refused(site, "has begun here with another cohort")
    assert approved(site) == []


def test_the_same_images_in_another_order_and_under_another_key_go_on(site):
    before, again = (site.home.store / "store.json").read_bytes(), own(site)
    erase_store(site.home)
    random.Random(1).shuffle(again)
    site.home.ingest(again, site.plan)
    assert (site.home.store / "store.json").read_bytes() != before
    assert site.again().code == "release-refused", "the gate judged: the copies are found"


def test_a_store_put_there_by_hand_is_refused_before_anything_is_charged(site):
    erase_store(site.home)
    keys = (site.home.split_key(), make_store_key(site.home.identity))
    SiteStore.create(site.home.store, others(), site.plan.image, site.plan.labels, *keys)  # asks no ledger
    with site.home.open_ledger() as ledger:
        before = ledger.entries()
    assert refused(site, "has begun here with another cohort")
    with site.home.open_ledger() as ledger:
        assert ledger.entries() == before
        with pytest.raises(PolicyRefusal):
            site.home.charged_cohorts(site.plan, ledger, "train")
    assert approved(site) == []


def test_a_study_that_began_before_the_ledger_said_with_whom_is_asked_about(site, monkeypatch):
    monkeypatch.setattr(held, "_held", lambda *_: None)
    erase_store(site.home)
    with pytest.raises(PolicyRefusal, match="cannot be told"):
        site.home.ingest(own(site), site.plan)
