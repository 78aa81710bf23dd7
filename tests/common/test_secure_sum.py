"""The protocol of secure sums in one process: dropouts at every step, and whoever lies is refused by name."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.damaged import flipped

from sfumato_common.crypto import signatures
from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.secure_sum.coordinator import check_consent, uncover_sum
from sfumato_common.secure_sum.masks import derived_key, mask_words, public_of, seal, shared_key, unseal
from sfumato_common.secure_sum.shamir import PRIME, SHARE_BYTES, join_shares, split_secret
from sfumato_common.secure_sum.site import SiteState, SiteSum
from sfumato_common.secure_sum.terms import Offer, SumTerms, offer_text
from sfumato_common.study.summed import least_sites

LENGTH = 50


class Party:
    """Sites of one stage, with keys of their own, and a coordinator that does as it should unless a test says else."""

    def __init__(self, count, quorum, colluding=1, phases=2):
        self.names = [f"site-{place:03d}" for place in range(count)]
        self.keys = {name: Ed25519PrivateKey.generate() for name in self.names}
        pins = {name: signatures.fingerprint(self.pem(name)) for name in self.names}
        self.terms = SumTerms("ab" * 32, "spectral", phases, pins, quorum, least_sites(count, colluding))
        self.sites = {name: SiteSum(self.terms, name, None) for name in self.names}
        draws = np.random.default_rng(0)
        self.values = {name: draws.integers(-(2**50), 2**50, LENGTH) for name in self.names}

    def pem(self, name):
        return signatures.public_pem(self.keys[name].public_key())

    def sign(self, name):
        return lambda text: signatures.sign(self.keys[name], "secure-sum", text)

    def offers(self, names=None, attempt=1):
        return {name: self.sites[name].offer(attempt, self.pem(name), self.sign(name)) for name in names or self.names}

    def share(self, offers, names=None):
        """Let `names` share, and each of them receive what the others made for it."""
        names = names or list(offers)
        sealed = {name: self.sites[name].share(1, offers) for name in names}
        for name in names:
            self.sites[name].receive({other: sealed[other][name] for other in names if other != name})
        return sealed

    def masked(self, phase, names):
        return {name: self.values[name].view(np.uint64) + self.sites[name].mask(phase, LENGTH) for name in names}

    def consents(self, phase, answered, names=None):
        return {name: self.sites[name].consent(phase, answered, self.sign(name)) for name in names or answered}

    def shares(self, phase, answered, consents, names=None):
        return {name: self.sites[name].unmask(phase, answered, consents) for name in names or answered}

    def whole(self, names):
        return sum(self.values[name] for name in names)


@pytest.mark.parametrize(("count", "quorum"), [(3, 3), (4, 3), (10, 6), (25, 14)])
def test_the_sum_comes_out_whoever_falls_and_when(count, quorum):
    party = Party(count, quorum)
    offering = party.names if count == quorum else party.names[:-1]
    offers = party.offers(offering)
    sharing = offering if len(offering) == quorum else offering[:-1]
    sealed = party.share(offers, sharing)
    assert set(sealed) == set(sharing)
    for phase in (1, 2):
        answering = sharing[: max(quorum, len(sharing) - phase)]
        masked = party.masked(phase, answering)
        consents = party.consents(phase, answering, answering[:quorum])
        shares = party.shares(phase, answering, consents, answering[-quorum:])
        found = uncover_sum(party.terms, 1, phase, offers, sharing, masked, shares)
        assert (found == party.whole(answering)).all()


def test_a_hundred_sites():
    party = Party(100, 60, colluding=5, phases=1)
    offers = party.offers()
    party.share(offers)
    answering = party.names[:90]
    masked = party.masked(1, answering)
    consents = party.consents(1, answering, answering[:60])
    found = uncover_sum(party.terms, 1, 1, offers, party.names, masked, party.shares(1, answering, consents))
    assert (found == party.whole(answering)).all()


def test_a_masked_value_and_sums_of_some_say_nothing():
    """Words under masks look uniform: the top bits of small values would be all alike."""
    party = Party(4, 3, phases=1)
    party.values = {name: np.zeros(LENGTH, dtype=np.int64) for name in party.names}
    party.share(party.offers())
    masked = party.masked(1, party.names)
    for some in (party.names[:1], party.names[:2], party.names[:3], party.names):
        top = np.sum([masked[name] for name in some], axis=0, dtype=np.uint64) >> np.uint64(60)
        assert len(set(top.tolist())) > 5


def test_what_is_said_once_is_said_again_and_nothing_else():
    party = Party(4, 3)
    offers = party.offers()
    assert party.offers() == offers
    sealed = party.share(offers)
    site = party.sites["site-000"]
    assert site.share(1, offers) == sealed["site-000"]
    assert SiteState.model_validate_json(site.state.model_dump_json()) == site.state
    first = site.mask(1, LENGTH)
    assert (first == site.mask(1, LENGTH)).all()
    assert not (first == site.mask(2, LENGTH)).any()
    once = site.consent(1, party.names, party.sign("site-000"))
    assert once == site.consent(1, party.names, party.sign("site-000"))


def refused(match):
    return pytest.raises(VerificationError, match=match)


def test_two_views_of_the_keys_are_refused():
    party = Party(5, 4)
    offers = party.offers()
    party.share(offers, party.names[:4])
    with refused("another view"):
        party.sites["site-000"].share(1, {name: offers[name] for name in party.names[:4]})


def test_two_views_of_the_keys_agree_on_no_list():
    """Two sites are shown other keys of a colluding third: no list that they sign is one that the others sign."""
    party, twin = Party(4, 3), None
    offers = party.offers()
    twin = SiteSum(party.terms, "site-003", None)
    others = {**offers, "site-003": twin.offer(1, party.pem("site-003"), party.sign("site-003"))}
    shown = {"site-000": offers, "site-001": offers, "site-002": others}
    sealed = {name: party.sites[name].share(1, view) for name, view in shown.items()}
    party.sites["site-003"].share(1, offers)
    twin.share(1, others)
    for name in shown:
        source = twin if name == "site-002" else party.sites["site-003"]
        came = {other: sealed[other][name] for other in shown if other != name}
        party.sites[name].receive({**came, "site-003": bytes.fromhex(source.state.sealed[name])})
    answered = party.names
    consents = {name: party.sites[name].consent(1, answered, party.sign(name)) for name in shown}
    with refused("signed the list"):
        party.sites["site-000"].unmask(1, answered, consents)


def test_two_lists_of_who_is_in_a_sum_are_refused():
    party = Party(5, 4)
    party.share(party.offers())
    party.masked(1, party.names)
    everybody = party.consents(1, party.names)
    with refused("two lists"):
        party.sites["site-000"].consent(1, party.names[:4], party.sign("site-000"))
    # a site that the coordinator claims to have lost is told of as either, never as both
    shares = party.sites["site-000"].unmask(1, party.names, everybody)
    with refused("two lists"):
        party.sites["site-000"].unmask(1, party.names[:4], everybody)
    assert len(shares) == 5


def test_no_signatures_of_few_or_of_others_uncover_anything():
    party = Party(5, 4)
    party.share(party.offers())
    everybody, few = party.consents(1, party.names), party.names[:4]
    site = party.sites["site-004"]
    with refused("3 sites signed"):
        site.unmask(1, party.names, {name: everybody[name] for name in party.names[:3]})
    stranger = Ed25519PrivateKey.generate()
    forged = {name: signatures.sign(stranger, "secure-sum", b"any") for name in party.names}
    with refused("0 sites signed"):
        site.unmask(1, party.names, forged)
    other = Party(5, 4)
    with refused("0 sites signed"):
        site.unmask(1, party.names, dict.fromkeys(other.names, b"\0" * 64))
    with refused("two lists"):
        site.unmask(1, few, everybody)


def test_a_list_of_fewer_than_the_quorum_or_of_phantoms_is_refused():
    party = Party(5, 4)
    offers = party.offers()
    with refused("fewer than 4"):
        party.sites["site-000"].share(1, {name: offers[name] for name in party.names[:3]})
    with refused("which the plan does not"):
        party.sites["site-000"].share(1, {**offers, "phantom": offers["site-001"]})
    party.share(offers, party.names[:4])
    with refused("fewer than 4"):
        party.sites["site-000"].consent(1, party.names[:3], party.sign("site-000"))
    with refused("never shared"):
        party.sites["site-000"].consent(1, party.names, party.sign("site-000"))


def test_keys_of_another_signer_or_attempt_are_refused():
    party = Party(4, 3)
    offers, stranger = party.offers(), Party(4, 3)
    phantom = SiteSum(stranger.terms, "site-001", None)
    foreign = phantom.offer(1, stranger.pem("site-001"), stranger.sign("site-001"))
    with refused("another key than the plan pins"):
        party.sites["site-000"].share(1, {**offers, "site-001": foreign})
    late = SiteSum(party.terms, "site-001", None).offer(2, party.pem("site-001"), party.sign("site-001"))
    with refused("signature does not hold"):
        party.sites["site-000"].share(1, {**offers, "site-001": late})
    with refused("no keys for that attempt"):
        party.sites["site-000"].share(2, offers)
    party.offers(attempt=2)
    with refused("earlier attempt"):
        party.offers(["site-000"], attempt=1)


def test_after_a_value_no_attempt_begins_anew():
    party = Party(4, 3)
    party.share(party.offers())
    party.masked(1, party.names)
    with refused("in no second one"):
        party.offers(attempt=2)


def test_the_keys_of_somebody_else_are_refused_under_another_name():
    """A colluding site signs an honest one's masking key as its own, so that the masks between them would be known."""
    party = Party(4, 3)
    offers = party.offers()
    victim = Offer.from_bytes(offers["site-000"], 2)
    bare = Offer(signatures.raw_of(party.pem("site-003")), victim.sealing, victim.masking, victim.commitments, b"")
    signature = party.sign("site-003")(offer_text(party.terms, 1, "site-003", bare))
    with refused("offered twice"):
        party.sites["site-000"].share(1, {**offers, "site-003": bare.to_bytes() + signature})


def test_a_site_that_the_plan_pins_another_key_for_offers_nothing():
    party = Party(4, 3)
    party.keys["site-000"] = Ed25519PrivateKey.generate()
    with refused("pins another key"):
        party.offers(["site-000"])


def test_wrong_shares_are_left_out_where_others_suffice_and_named_where_not():
    party = Party(5, 4)
    offers = party.offers()
    party.share(offers)
    masked, consents = party.masked(1, party.names), party.consents(1, party.names)
    shares = party.shares(1, party.names, consents)
    lying = {**shares, "site-002": {name: bytes(SHARE_BYTES) for name in party.names}}
    found = uncover_sum(party.terms, 1, 1, offers, party.names, masked, lying)
    assert (found == party.whole(party.names)).all()
    few = {name: lying[name] for name in party.names[:4]}
    with pytest.raises(FederationError, match="'site-000' cannot be put together"):
        uncover_sum(party.terms, 1, 1, offers, party.names, masked, few)


def test_shares_that_were_sealed_wrongly_are_named_when_they_are_needed():
    party = Party(5, 4)
    offers = party.offers()
    sealed = {name: party.sites[name].share(1, offers) for name in party.names}
    for name in party.names:
        came = {other: sealed[other][name] for other in party.names if other != name}
        party.sites[name].receive({**came, **({"site-004": b"\1" * 148} if name == "site-000" else {})})
    answered = party.names[:4]
    masked, consents = party.masked(1, answered), party.consents(1, party.names[:4])
    # the fifth falls: its masking key is put together from the four that hold its shares
    with pytest.raises(FederationError, match="'site-004'"):
        uncover_sum(party.terms, 1, 1, offers, party.names, masked, party.shares(1, answered, consents))


def test_a_consent_is_checked_by_the_coordinator_too():
    party = Party(4, 3)
    offers = party.offers()
    party.share(offers)
    signature = party.consents(1, party.names)["site-001"]
    lists = (party.names, party.names)
    check_consent(party.terms, 1, 1, "site-001", offers, lists, signature)
    for wrong in ((1, 2, "site-001"), (1, 1, "site-000"), (2, 1, "site-001")):
        with refused("signature"):
            check_consent(party.terms, *wrong, offers, lists, signature)


@pytest.mark.parametrize(("sites", "colluding", "least"), [(3, 1, 3), (4, 1, 3), (5, 1, 4), (10, 1, 6), (100, 9, 55)])
def test_of_two_signed_lists_an_honest_site_would_have_signed_both(sites, colluding, least):
    assert least_sites(sites, colluding) == least
    honest = sites - colluding
    assert 2 * (least - colluding) > honest
    assert 2 * (least - 1 - colluding) <= honest


def test_shares_of_a_secret_give_it_back_at_the_threshold_and_nothing_below():
    secret = bytes(range(224, 256))
    shares = split_secret(secret, 3, [2, 5, 7, 9])
    for some in ([2, 5, 7], [5, 7, 9], [2, 7, 9]):
        assert join_shares({at: shares[at] for at in some}) == secret
    # any two shares fit every secret: a third can be found for each
    assert all(int.from_bytes(share, "big") < PRIME for share in shares.values())
    tries = set()
    for _ in range(20):
        again = split_secret(secret, 3, [2, 5, 7, 9])
        tries.add(again[2])
    assert len(tries) == 20
    with pytest.raises(VerificationError):
        join_shares({1: PRIME.to_bytes(33, "big")})


def test_known_answers():
    """RFC 7748, section 6.1 (X25519); RFC 5869, A.3 (HKDF); RFC 8439, A.1, first vector (ChaCha20)."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert public_of(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    agreed = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert (
        shared_key(alice, public_of(bob), b"x") == derived_key(agreed, b"x") == shared_key(bob, public_of(alice), b"x")
    )
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert derived_key(b"\x0b" * 22, b"").hex() == okm
    stream = "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    assert mask_words(bytes(32), 4).astype("<u8").tobytes().hex() == stream


def test_a_key_that_shares_its_secret_with_everybody_is_refused():
    with refused("no key"):
        shared_key(bytes(range(32)), bytes(32), b"x")


def test_a_seal_holds_for_its_purpose_alone():
    sealed = seal(bytes(32), b"shares", b"one")
    assert unseal(bytes(32), sealed, b"one") == b"shares"
    assert unseal(bytes(32), sealed, b"two") is None
    assert unseal(bytes(32), flipped(sealed), b"one") is None
