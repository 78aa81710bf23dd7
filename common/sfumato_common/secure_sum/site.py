"""A site's side of a secure sum as a state machine (Bonawitz et al. 2017, section 6.2, figure 4); it does no I/O.

    offer -> share -> (mask, consent, unmask) once a phase

One set of keys and shares serves all phases of a stage; each phase has its own masking key and self-mask seed, so that
what is told to unmask one says nothing of another. Whoever calls keeps `state` on disk before an answer leaves: an
answer once made is given again, and a question that contradicts it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Annotated

import numpy as np
from pydantic import Field

from sfumato_common.crypto import signatures
from sfumato_common.errors import VerificationError
from sfumato_common.mechanisms.summed import Words
from sfumato_common.secure_sum.masks import (
    commitment,
    derived_key,
    mask_words,
    public_of,
    seal,
    shared_key,
    unseal,
)
from sfumato_common.secure_sum.shamir import SECRET_BYTES, SHARE_BYTES, split_secret
from sfumato_common.secure_sum.terms import (
    Offer,
    SumTerms,
    check_offers,
    consent_text,
    offer_text,
    offers_digest,
)
from sfumato_common.strict import Strict

Hex = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]
Sign = Callable[[bytes], bytes]


class SiteState(Strict):
    """What a site knows of one attempt at a stage, all of it in hexadecimal; none of it leaves.

    `sealing`, `masking` and `seeds` are its secrets, `offers` the keys of all sites that it took, `sealed` the shares
    that it made by receiver, `came` those that came to it by sender; `begun` is the last phase that it made a value
    for, `lists` the sites that it agreed are in each phase's sum.
    """

    attempt: Annotated[int, Field(ge=1, le=1000)]
    sealing: Hex
    masking: list[Hex]
    seeds: list[Hex]
    offer: Hex
    offers: dict[str, Hex] = Field(default_factory=dict)
    sealed: dict[str, Hex] = Field(default_factory=dict)
    own: list[Hex] = Field(default_factory=list)
    came: dict[str, Hex] | None = None
    begun: int = 0
    lists: dict[int, list[str]] = Field(default_factory=dict)


class SiteSum:
    """One site in one stage: `state` is None before its first offer."""

    def __init__(self, terms: SumTerms, site: str, state: SiteState | None) -> None:
        self._terms, self._site, self.state = terms, site, state

    def offer(self, attempt: int, public_key: bytes, sign: Sign) -> bytes:
        """Fresh keys for `attempt`, signed by the key (PEM) that the plan pins; the same again when asked again.

        Raises VerificationError for an earlier attempt, and for a later one once a value was made: with other masks it
        would be in two sums, whose difference shows it.
        """
        state = self.state
        if state is not None and state.attempt == attempt:
            return bytes.fromhex(state.offer)
        if state is not None and attempt < state.attempt:
            raise VerificationError("keys of an earlier attempt at this sum are asked for; they serve no more")
        if state is not None and state.begun:
            raise VerificationError("a value was made for this sum before: it is in no second one")
        if not signatures.is_fingerprint(self._terms.fingerprints[self._site], public_key):
            raise VerificationError(f"the plan pins another key for '{self._site}' than this site has")
        phases = range(1, self._terms.phases + 1)
        sealing, *masking = (os.urandom(32) for _ in (0, *phases))
        seeds = [os.urandom(SECRET_BYTES) for _ in phases]
        told = [commitment(seed, self._text("seed", attempt, phase)) for seed, phase in zip(seeds, phases, strict=True)]
        bare = Offer(
            signatures.raw_of(public_key), public_of(sealing), tuple(map(public_of, masking)), tuple(told), b""
        )
        signature = sign(offer_text(self._terms, attempt, self._site, bare))
        data = bare.to_bytes() + signature
        self.state = SiteState(
            attempt=attempt,
            sealing=sealing.hex(),
            masking=[key.hex() for key in masking],
            seeds=[seed.hex() for seed in seeds],
            offer=data.hex(),
        )
        return data

    def share(self, attempt: int, offers: Mapping[str, bytes]) -> dict[str, bytes]:
        """Shares of this site's secrets for each other site of `offers`, encrypted to it.

        Raises VerificationError where an offer is not its site's own, this site's is missing or altered, few are there,
        or other offers came before.
        """
        state, offers = self._at(attempt), dict(offers)
        if state.offers:
            if offers != _plain(state.offers):
                raise VerificationError("two lists of keys for one attempt: somebody is shown another view of the sum")
            return _plain(state.sealed)
        if offers.get(self._site) != bytes.fromhex(state.offer):
            raise VerificationError("the list of offered keys lacks this site's own; nothing was shared")
        found = check_offers(self._terms, attempt, offers)
        points = {site: self._terms.point(site) for site in found}
        secrets = [bytes.fromhex(secret) for secret in (*state.masking, *state.seeds)]
        shares = [split_secret(secret, self._terms.threshold, points.values()) for secret in secrets]
        plain = {site: b"".join(share[point] for share in shares) for site, point in points.items()}
        sealed = {
            site: seal(
                self._sealing_key(state, offer, self._site, site), plain[site], self._way(state, self._site, site)
            )
            for site, offer in found.items()
            if site != self._site
        }
        own = plain[self._site]
        self.state = state.model_copy(
            update={"offers": _hex(offers), "sealed": _hex(sealed), "own": [piece.hex() for piece in _pieces(own)]}
        )
        return sealed

    def receive(self, came: Mapping[str, bytes]) -> None:
        """Take the shares of the other sites by sender: they, and this one, are who may be in the sum.

        Raises VerificationError where few shared, one that offered no keys did, or others came before.
        """
        state = self._shared()
        if state.came is not None:
            if dict(came) != _plain(state.came):
                raise VerificationError("two lists of who shared secrets: somebody is shown another view of the sum")
            return
        if self._site in came or not set(came) <= set(state.offers):
            raise VerificationError("shares came from a site that offered no keys")
        self._terms.check_many({self._site, *came}, "the list of who shared secrets")
        self.state = state.model_copy(update={"came": _hex(came)})

    def mask(self, phase: int, length: int) -> Words:
        """What is added to this site's value [length] in that phase, modulo 2^64; marks the phase as begun."""
        state = self._received()
        if not 1 <= phase <= self._terms.phases:
            raise VerificationError("the sum has no such phase")
        seed = bytes.fromhex(state.seeds[phase - 1])
        total = self_mask(self._terms, state.attempt, phase, self._site, seed, length)
        for site in sorted(state.came or {}):
            key = Offer.from_bytes(bytes.fromhex(state.offers[site]), self._terms.phases).masking[phase - 1]
            private = bytes.fromhex(state.masking[phase - 1])
            total += pair_mask(self._terms, state.attempt, phase, (self._site, site), private, key, length)
        self.state = state.model_copy(update={"begun": max(state.begun, phase)})
        return total

    def consent(self, phase: int, answered: Collection[str], sign: Sign) -> bytes:
        """This site's signature that the sum of `phase` is of `answered`: of one list a phase.

        Raises VerificationError for a second list, and one of too few sites or of such as never shared secrets.
        """
        return sign(self._agree(phase, answered))

    def unmask(self, phase: int, answered: Collection[str], consents: Mapping[str, bytes]) -> dict[str, bytes]:
        """Shares by site that uncover the sum of `answered`, and nothing else.

        Of each site in it the share of its self-mask, of the others that of their masking key; never both of one.
        Raises VerificationError unless enough sites signed this very list.
        """
        state = self._received()
        text = self._agree(phase, answered)
        signed = [
            site
            for site, signature in sorted(consents.items())
            if site in state.offers and _holds(bytes.fromhex(state.offers[site]), self._terms, text, signature)
        ]
        if len(signed) < self._terms.threshold:
            raise VerificationError(
                f"{len(signed)} sites signed the list of who is in the sum, and it takes {self._terms.threshold}; "
                "nothing is uncovered"
            )
        place = {site: phase - 1 + (self._terms.phases if site in answered else 0) for site in self._everybody(state)}
        held = {site: self._held(state, site) for site in place}
        return {site: pieces[place[site]] for site, pieces in held.items() if pieces}

    def _agree(self, phase: int, answered: Collection[str]) -> bytes:
        """The text of that list, which from now on is the only one of its phase."""
        state, asked = self._received(), sorted(set(answered))
        if not 1 <= phase <= self._terms.phases:
            raise VerificationError("the sum has no such phase")
        if state.lists.get(phase, asked) != asked:
            raise VerificationError("two lists of who is in one sum: their difference would show a single site's value")
        self._terms.check_many(asked, "the list of who is in the sum")
        everybody = self._everybody(state)
        if not set(asked) <= everybody:
            raise VerificationError("the list of who is in the sum names a site that never shared its secrets")
        self.state = state.model_copy(update={"lists": {**state.lists, phase: asked}})
        digest = offers_digest(_plain(state.offers))
        return consent_text(self._terms, state.attempt, phase, digest, sorted(everybody), asked)

    def _held(self, state: SiteState, site: str) -> list[bytes]:
        """The shares of that site's secrets here; none where what came was not sealed by it for this."""
        if site == self._site:
            return [bytes.fromhex(piece) for piece in state.own]
        offer = Offer.from_bytes(bytes.fromhex(state.offers[site]), self._terms.phases)
        key, sealed = self._sealing_key(state, offer, site, self._site), (state.came or {})[site]
        plain = unseal(key, bytes.fromhex(sealed), self._way(state, site, self._site))
        return _pieces(plain) if plain is not None and len(plain) == SHARE_BYTES * 2 * self._terms.phases else []

    def _sealing_key(self, state: SiteState, other: Offer, sender: str, receiver: str) -> bytes:
        return shared_key(bytes.fromhex(state.sealing), other.sealing, self._way(state, sender, receiver))

    def _way(self, state: SiteState, sender: str, receiver: str) -> bytes:
        return self._terms.text("shares", state.attempt, sender=sender, receiver=receiver)

    def _text(self, what: str, attempt: int, phase: int) -> bytes:
        return self._terms.text(what, attempt, site=self._site, phase=phase)

    def _everybody(self, state: SiteState) -> set[str]:
        return {self._site, *(state.came or {})}

    def _at(self, attempt: int) -> SiteState:
        if self.state is None or self.state.attempt != attempt:
            raise VerificationError("this site has no keys for that attempt at the sum; nothing was given")
        return self.state

    def _shared(self) -> SiteState:
        if self.state is None or not self.state.offers:
            raise VerificationError("this site shared no secrets for this sum; nothing was given")
        return self.state

    def _received(self) -> SiteState:
        state = self._shared()
        if state.came is None:
            raise VerificationError("no shares of other sites came to this one; nothing was given")
        return state


def self_mask(terms: SumTerms, attempt: int, phase: int, site: str, seed: bytes, length: int) -> Words:
    """The mask [length] that one site alone puts over its value, until it is agreed that the value is in the sum."""
    return mask_words(derived_key(seed, terms.text("self", attempt, site=site, phase=phase)), length).copy()


def pair_mask(
    terms: SumTerms, attempt: int, phase: int, pair: tuple[str, str], private: bytes, public: bytes, length: int
) -> Words:
    """What the first of `pair` adds for the second, by its private and the other's public key: minus what that adds."""
    words = mask_words(shared_key(private, public, terms.text("pair", attempt, phase=phase, pair=sorted(pair))), length)
    return words if pair[0] < pair[1] else np.negative(words)


def _holds(offer: bytes, terms: SumTerms, text: bytes, signature: bytes) -> bool:
    try:
        pem = signatures.pem_of(Offer.from_bytes(offer, terms.phases).signing)
        signatures.verify(pem, "secure-sum", text, signature)
    except VerificationError:
        return False
    return True


def _pieces(plain: bytes) -> list[bytes]:
    return [plain[at : at + SHARE_BYTES] for at in range(0, len(plain), SHARE_BYTES)]


def _hex(values: Mapping[str, bytes]) -> dict[str, str]:
    return {site: value.hex() for site, value in values.items()}


def _plain(values: Mapping[str, str]) -> dict[str, bytes]:
    return {site: bytes.fromhex(value) for site, value in values.items()}
