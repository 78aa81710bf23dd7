"""What every message of one summed stage is bound to, and what sites sign: one canonical text for each purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfumato_common.crypto import signatures
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json

KEY_BYTES = 32
SIGNATURE_BYTES = 64


@dataclass(frozen=True)
class SumTerms:
    """One stage of one plan: its sites' pinned keys by name, how many phases it has, and who must answer.

    `fingerprints` are those of the sites' signing keys, as the plan pins them. `quorum` is the least number of sites in
    a sum; `threshold` sites must have signed who they are, and hold shares that give a secret back. It is large enough
    that no two lists are signed so (`study.summed.least_sites`).
    """

    plan_hash: str
    stage: str
    phases: int
    fingerprints: Mapping[str, str]
    quorum: int
    threshold: int

    @property
    def sites(self) -> list[str]:
        """In the order of their names, in which messages name them."""
        return sorted(self.fingerprints)

    def point(self, site: str) -> int:
        """The site's place in the secret sharing, from 1."""
        return self.sites.index(site) + 1

    def text(self, what: str, attempt: int, **more: Any) -> bytes:
        """The canonical text of one purpose of one attempt; texts of other purposes, stages, plans are others."""
        stated = {"what": what, "plan": self.plan_hash, "stage": self.stage, "attempt": attempt}
        return canonical_json({**stated, **more})

    def check_many(self, sites: Collection[str], what: str) -> None:
        """Raise VerificationError where fewer than the quorum are named, or one that the plan does not name."""
        if unknown := sorted(set(sites) - set(self.fingerprints)):
            raise VerificationError(f"{what} names '{unknown[0]}', which the plan does not")
        if len(set(sites)) < self.quorum:
            raise VerificationError(
                f"{what} names {len(set(sites))} sites, and a sum of fewer than {self.quorum} hides nobody; nothing "
                "was given"
            )


@dataclass(frozen=True)
class Offer:
    """A site's public keys for one attempt at a stage, signed by the key that the plan pins.

    `signing` is that key, raw; `sealing` the X25519 key that shares are encrypted to; `masking` a X25519 key a phase,
    of which pairwise masks come; `commitments` the sha256 of each phase's self-mask seed.
    """

    signing: bytes
    sealing: bytes
    masking: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    signature: bytes

    def to_bytes(self) -> bytes:
        """All parts in their order: 32 x (2 + 2 x phases) + 64 bytes."""
        return b"".join((self.signing, self.sealing, *self.masking, *self.commitments, self.signature))

    @staticmethod
    def size(phases: int) -> int:
        """Of `to_bytes`."""
        return KEY_BYTES * (2 + 2 * phases) + SIGNATURE_BYTES

    @classmethod
    def from_bytes(cls, data: bytes, phases: int) -> Offer:
        """Inverse of `to_bytes`. Raises VerificationError for another length."""
        if len(data) != cls.size(phases):
            raise VerificationError("an offer of keys has another length than the stage's")
        keys = [data[at : at + KEY_BYTES] for at in range(0, len(data) - SIGNATURE_BYTES, KEY_BYTES)]
        masking, commitments = keys[2 : 2 + phases], keys[2 + phases :]
        return cls(keys[0], keys[1], tuple(masking), tuple(commitments), data[-SIGNATURE_BYTES:])


def offer_text(terms: SumTerms, attempt: int, site: str, offer: Offer) -> bytes:
    """What an offer's signature is about."""
    keys = [key.hex() for key in (offer.sealing, *offer.masking, *offer.commitments)]
    return terms.text("keys", attempt, site=site, keys=keys)


def check_offer(terms: SumTerms, attempt: int, site: str, data: bytes) -> Offer:
    """The offer in `data`. Raises VerificationError unless `site` signed it, by its pinned key, for this attempt."""
    offer = Offer.from_bytes(data, terms.phases)
    pem = signatures.pem_of(offer.signing)
    if not signatures.is_fingerprint(terms.fingerprints[site], pem):
        raise VerificationError(f"the keys offered for '{site}' are signed by another key than the plan pins")
    signatures.verify(pem, "secure-sum", offer_text(terms, attempt, site, offer), offer.signature)
    return offer


def check_offers(terms: SumTerms, attempt: int, offers: Mapping[str, bytes]) -> dict[str, Offer]:
    """All offers of an attempt. Raises VerificationError where one does not hold, two share a key, or few are there."""
    terms.check_many(offers, "the list of offered keys")
    found = {site: check_offer(terms, attempt, site, data) for site, data in sorted(offers.items())}
    keys = [key for offer in found.values() for key in (offer.sealing, *offer.masking, *offer.commitments)]
    if len(set(keys)) != len(keys):
        raise VerificationError("a key is offered twice: somebody repeats the keys of somebody else")
    return found


def offers_digest(offers: Mapping[str, bytes]) -> str:
    """sha256 of all offers by site: sites that agree on it have the same view of all keys."""
    return hashlib.sha256(canonical_json({site: data.hex() for site, data in offers.items()})).hexdigest()


def consent_text(
    terms: SumTerms, attempt: int, phase: int, digest: str, shared: Sequence[str], answered: Sequence[str]
) -> bytes:
    """What a site signs once a phase: under which keys, who shared secrets, and whose values are in the sum."""
    return terms.text("consent", attempt, phase=phase, offers=digest, shared=sorted(shared), answered=sorted(answered))
