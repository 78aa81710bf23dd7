"""A coordinator, or a site, that cheats in a secure sum: refused by name, and no single site's value comes of it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from support.federations import make_federation, with_keys
from support.studies import PLAN, POLICY

from sfumato_client.site.summing import require_own_key
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.errors import PolicyRefusal
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_common.protocol.summed import (
    CONSENT,
    CONSENTS,
    MASKED,
    OFFER,
    OFFERS,
    SHARES,
    WHO,
    byte_rows,
    read_rows,
    sum_terms,
    value_request,
    who_rows,
)
from sfumato_common.secure_sum.site import SiteSum
from sfumato_common.secure_sum.terms import Offer
from sfumato_common.study.summed import phases_of
from sfumato_server.coordinator.study import run_study

SITES = ("alder", "birch", "cedar", "dogwood", "elm")
QUORUM = 4


@pytest.fixture
def federation(tmp_path):
    values = copy.deepcopy(PLAN)
    values["sites"] = {site: {"nominal_patients": 40} for site in SITES}
    values["stages"] = values["stages"][:1]
    values["release"] = [{"model": "spectral", "images": 12}]
    values["federation"]["quorum"] = QUORUM
    values["utility"] = None
    policy = {**POLICY, "allowed_stages": ["spectral"], "secure_sum": "allowed"}
    return make_federation(tmp_path, with_keys(tmp_path, values), policy)


class Coordinator:
    """Asks sites whatever it likes; what it does not alter is as it should be."""

    def __init__(self, federation):
        self.federation, self.plan = federation, federation.plan
        self.terms = sum_terms(self.plan, "spectral")

    def ask(self, site, kind, number, arrays=None):
        request = Request(PROTOCOL, self.plan.digest, kind, "spectral", number, arrays or {})
        return self.federation.answer(site, request)

    def offers(self, attempt=1, sites=SITES):
        return {site: self.ask(site, "sum-keys", attempt).arrays[OFFER].tobytes() for site in sites}

    def share(self, site, offers, attempt=1):
        rows = byte_rows(self.terms, offers, Offer.size(self.terms.phases))
        return self.ask(site, "sum-shares", attempt, {WHO: who_rows(self.terms, offers), OFFERS: rows})

    def shares(self, offers, attempt=1):
        everybody = who_rows(self.terms, SITES)
        replies = {site: self.share(site, offers, attempt) for site in offers}
        return {site: read_rows(self.terms, everybody, reply.arrays[SHARES]) for site, reply in replies.items()}

    def value(self, site, shares, number=1, sums=None, answered=()):
        came = {other: own[site] for other, own in shares.items() if other != site}
        return self.ask(site, "sum-values", number, value_request(self.terms, came, answered, sums or {}))

    def consent(self, site, answered, number=1):
        return self.ask(site, "sum-consent", number, {WHO: who_rows(self.terms, answered)})

    def unmask(self, site, answered, consents, number=1):
        rows = byte_rows(self.terms, consents, 64)
        return self.ask(site, "sum-unmask", number, {WHO: who_rows(self.terms, answered), CONSENTS: rows})

    def ready(self):
        """All sites shared, and gave their value in the first phase."""
        shares = self.shares(self.offers())
        return shares, {site: self.value(site, shares) for site in SITES}

    def why(self, site, reply):
        """What the site's own people read of a refusal; nothing of it left."""
        assert reply.status == "refused"
        assert not reply.arrays
        folder = self.federation.home(site).steward_folder / "errors"
        return (folder / f"{reply.reference}.txt").read_text()

    def charges(self, site):
        with self.federation.home(site).open_ledger() as ledger:
            return len(ledger.entries())


def test_sites_that_the_coordinator_enrolled_for_itself_are_nobody(federation, tmp_path):
    """Its CA may sign any certificate: a plan pins keys, and those of its phantoms are others."""
    coordinator = Coordinator(federation)
    offers = coordinator.offers()
    phantom = create_identity(tmp_path / "phantom", "birch")
    terms = coordinator.terms
    fingerprints = {**terms.fingerprints, "birch": _fingerprint(phantom)}
    forged = SiteSum(type(terms)(**{**vars(terms), "fingerprints": fingerprints}), "birch", None)
    offers["birch"] = forged.offer(1, phantom.signing_public, phantom.sign_sum)
    reply = coordinator.share("alder", offers)
    assert "'birch' are signed by another key than the plan pins" in coordinator.why("alder", reply)


def _fingerprint(identity):
    from sfumato_common.crypto.signatures import fingerprint

    return fingerprint(identity.signing_public)


def test_keys_of_an_earlier_attempt_are_not_taken_again(federation):
    coordinator = Coordinator(federation)
    first = coordinator.offers()
    second = coordinator.offers(attempt=2)
    reply = coordinator.share("alder", {**second, "birch": first["birch"]}, attempt=2)
    assert "signature does not hold" in coordinator.why("alder", reply)
    assert "earlier attempt" in coordinator.why("alder", coordinator.ask("alder", "sum-keys", 1))
    assert "no keys for that attempt" in coordinator.why("alder", coordinator.share("alder", first, attempt=1))


def test_two_views_of_the_keys_are_refused(federation):
    coordinator = Coordinator(federation)
    offers = coordinator.offers()
    coordinator.share("alder", offers)
    fewer = {site: offer for site, offer in offers.items() if site != "elm"}
    assert "another view" in coordinator.why("alder", coordinator.share("alder", fewer))


def test_no_site_is_both_in_a_sum_and_out_of_it(federation):
    """Its mask's key and its own mask together would show its value: the list decides which of the two is told."""
    coordinator = Coordinator(federation)
    coordinator.ready()
    consents = {site: coordinator.consent(site, SITES).arrays[CONSENT].tobytes() for site in SITES}
    assert coordinator.unmask("alder", SITES, consents).status == "ok"
    without = SITES[:-1]
    assert "two lists" in coordinator.why("alder", coordinator.consent("alder", without))
    assert "two lists" in coordinator.why("alder", coordinator.unmask("alder", without, consents))


def test_half_of_the_sites_for_one_list_and_half_for_another_uncover_neither(federation):
    coordinator = Coordinator(federation)
    coordinator.ready()
    one, other = SITES, SITES[:-1]
    first = {site: coordinator.consent(site, one).arrays[CONSENT].tobytes() for site in SITES[:3]}
    second = {site: coordinator.consent(site, other).arrays[CONSENT].tobytes() for site in SITES[3:4]}
    # the colluding site signs both
    for site, consents, lists in (("alder", first, one), ("dogwood", second, other)):
        reply = coordinator.unmask(site, lists, consents)
        assert "sites signed the list of who is in the sum" in coordinator.why(site, reply)


def test_a_list_of_fewer_than_the_quorum_is_refused_at_every_step(federation):
    coordinator = Coordinator(federation)
    offers = coordinator.offers()
    few = {site: offers[site] for site in SITES[:3]}
    assert "fewer than 4 hides nobody" in coordinator.why("alder", coordinator.share("alder", few))
    shares = coordinator.shares(offers)
    narrow = {site: shares[site] for site in SITES[:3]}
    assert "fewer than 4 hides nobody" in coordinator.why("alder", coordinator.value("alder", narrow))
    assert coordinator.charges("alder") == 0
    coordinator.value("alder", shares)
    assert "fewer than 4 hides nobody" in coordinator.why("alder", coordinator.consent("alder", SITES[:3]))


def test_a_phase_asked_again_about_another_centre_is_charged_once_and_answered_once(federation):
    coordinator = Coordinator(federation)
    shares, values = coordinator.ready()
    centre = np.zeros(phases_of(federation.plan, "spectral")[0].size)
    first = coordinator.value("alder", shares, 2, {"centre": centre}, [5])
    assert first.status == "ok"
    again = coordinator.value("alder", shares, 2, {"centre": centre + 1.0}, [5])
    assert "charged before" in coordinator.why("alder", again)
    same = coordinator.value("alder", shares, 2, {"centre": centre}, [5])
    assert (same.arrays[MASKED] == first.arrays[MASKED]).all()
    assert (coordinator.value("alder", shares).arrays[MASKED] == values["alder"].arrays[MASKED]).all()
    assert coordinator.charges("alder") == 2


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_a_centre_that_is_no_sum_of_patients_is_refused_before_the_charge(federation, wrong):
    coordinator = Coordinator(federation)
    shares = coordinator.shares(coordinator.offers())
    centre = np.full(phases_of(federation.plan, "spectral")[0].size, wrong)
    reply = coordinator.value("alder", shares, 2, {"centre": centre}, [5])
    coordinator.why("alder", reply)
    assert coordinator.charges("alder") == 0


def test_a_huge_centre_moves_no_patient_beyond_the_sensitivity(federation):
    """A lying coordinator costs use alone: whatever the centre, a value's noise and clipping are the same."""
    coordinator = Coordinator(federation)
    shares = coordinator.shares(coordinator.offers())
    centre = np.full(phases_of(federation.plan, "spectral")[0].size, 1e11)
    assert coordinator.value("alder", shares, 2, {"centre": centre}, [5]).status == "ok"
    assert coordinator.charges("alder") == 1


def test_after_a_value_no_attempt_begins_anew(federation):
    coordinator = Coordinator(federation)
    coordinator.ready()
    assert "in no second one" in coordinator.why("alder", coordinator.ask("alder", "sum-keys", 2))


def test_a_site_that_lost_its_keys_gives_nothing(federation):
    coordinator = Coordinator(federation)
    shares, values = coordinator.ready()
    for path in federation.home("alder").sums(federation.plan).glob("*.json"):
        path.unlink()
    assert coordinator.why("alder", coordinator.consent("alder", SITES))
    centre = np.zeros(phases_of(federation.plan, "spectral")[0].size)
    assert coordinator.why("alder", coordinator.value("alder", shares, 2, {"centre": centre}, [5]))
    # what it gave before it gives again: those very bytes
    assert (coordinator.value("alder", shares).arrays[MASKED] == values["alder"].arrays[MASKED]).all()


def test_a_plan_that_pins_another_key_is_not_accepted(federation):
    plan = federation.plan
    other = {**plan.sites, "alder": plan.sites["birch"]}
    with pytest.raises(PolicyRefusal, match="pins another key for 'alder'"):
        require_own_key(federation.home("alder"), plan.model_copy(update={"sites": other}), "alder")
    require_own_key(federation.home("alder"), plan, "alder")
    assert load_identity(federation.home("alder").identity).site == "alder"


def cheating(monkeypatch, federation, site, kind, change):
    """Let `site` answer `kind` by `change` of what it should."""
    answer = federation.answer

    def changed(name, request):
        reply = answer(name, request)
        if (name, request.kind) == (site, kind):
            arrays = {key: change(key, value.copy()) for key, value in reply.arrays.items()}
            object.__setattr__(reply, "arrays", arrays)
        return reply

    monkeypatch.setattr(federation, "answer", changed)


def flip(name, value):
    """Every number another one, where there is room for it."""
    return value if name in ("held", "who") else value ^ value.dtype.type(0x55)


def test_a_site_with_wrong_masks_ends_the_stage_and_shows_nobodys_value(federation, monkeypatch):
    cheating(monkeypatch, federation, "elm", "sum-values", lambda name, value: value ^ np.int64(1 << 58))
    run_study(federation.coordinator, federation, seed=1, release=False)
    reason = federation.result()["reason"]
    assert "is none that patients lead to" in reason
    assert "a sum does not show which" in reason


@pytest.mark.parametrize("kind", ["sum-keys", "sum-consent", "sum-unmask"])
def test_a_site_with_wrong_keys_signatures_or_shares_is_left_out(federation, monkeypatch, kind):
    cheating(monkeypatch, federation, "elm", kind, flip)
    assert run_study(federation.coordinator, federation, seed=1, release=False) == "completed", federation.result()


def test_a_site_that_shares_garbage_and_then_falls_is_named(federation, monkeypatch):
    cheating(monkeypatch, federation, "elm", "sum-shares", flip)
    exchange = federation.exchange

    def fallen(requests, deadline, on_reply, waited_for):
        asked = dict(requests)
        if asked and next(iter(asked.values())).kind == "sum-values":
            asked.pop("elm", None)
        exchange(asked, deadline, on_reply, waited_for & set(asked))

    monkeypatch.setattr(federation, "exchange", fallen)
    run_study(federation.coordinator, federation, seed=1, release=False)
    reason = federation.result()["reason"]
    assert "secrets of 'elm' cannot be put together" in reason
    assert "no site's value is seen" in reason
