"""The coordinator's side of a secure sum: what it relays, and the sum that it uncovers; pure functions.

Nothing here protects anybody: sites do that (`site.py`). It checks what comes so that one site's nonsense costs that
site's part, or is named, and not the round.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import islice

import numpy as np
import numpy.typing as npt

from sfumato_common.crypto import signatures
from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.mechanisms.summed import Words
from sfumato_common.secure_sum.masks import commitment, public_of
from sfumato_common.secure_sum.shamir import SHARE_BYTES, join_shares
from sfumato_common.secure_sum.site import pair_mask, self_mask
from sfumato_common.secure_sum.terms import Offer, SumTerms, consent_text, offers_digest


def check_consent(
    terms: SumTerms,
    attempt: int,
    phase: int,
    site: str,
    offers: Mapping[str, bytes],
    lists: tuple[Collection[str], Collection[str]],
    signature: bytes,
) -> None:
    """Raise VerificationError unless `site` signed that the sum of `phase` is of the second of `lists`.

    The first names who shared secrets.
    """
    shared, answered = lists
    text = consent_text(terms, attempt, phase, offers_digest(offers), sorted(shared), sorted(answered))
    pem = signatures.pem_of(Offer.from_bytes(offers[site], terms.phases).signing)
    signatures.verify(pem, "secure-sum", text, signature)


def uncover_sum(
    terms: SumTerms,
    attempt: int,
    phase: int,
    offers: Mapping[str, bytes],
    shared: Collection[str],
    masked: Mapping[str, Words],
    shares: Mapping[str, Mapping[str, bytes]],
) -> npt.NDArray[np.int64]:
    """The sum of the values under `masked` [d], by site, in cells; `shares` are what sites said to unmask, by site.

    `shared` are the sites whose masks are in the values: of those whose values are missing, the pairwise masks go too.
    Raises FederationError where the shares do not give a secret back, which names whose.
    """
    length = len(next(iter(masked.values())))
    kept = {site: Offer.from_bytes(offers[site], terms.phases) for site in shared}
    total = np.zeros(length, dtype=np.uint64)
    for site, value in sorted(masked.items()):
        total += value
        seed = _recover(terms, site, shares, _seed_test(terms, attempt, phase, site, kept[site]))
        total -= self_mask(terms, attempt, phase, site, seed, length)
    for gone in sorted(set(shared) - set(masked)):
        public = kept[gone].masking[phase - 1]
        private = _recover(terms, gone, shares, lambda secret, public=public: public_of(secret) == public)  # type: ignore[misc]
        for site in sorted(masked):
            key = kept[site].masking[phase - 1]
            # what the missing one would have added for `site`, and `site` added the negative of
            total += pair_mask(terms, attempt, phase, (gone, site), private, key, length)
    return total.view(np.int64)


def _seed_test(terms: SumTerms, attempt: int, phase: int, site: str, offer: Offer) -> Callable[[bytes], bool]:
    told, text = offer.commitments[phase - 1], terms.text("seed", attempt, site=site, phase=phase)
    return lambda secret: commitment(secret, text) == told


def _recover(
    terms: SumTerms, whose: str, shares: Mapping[str, Mapping[str, bytes]], is_right: Callable[[bytes], bool]
) -> bytes:
    """The secret of `whose`, from any threshold of shares that give one; wrong ones are left out one at a time."""
    said = {
        terms.point(site): own[whose] for site, own in sorted(shares.items()) if len(own.get(whose, b"")) == SHARE_BYTES
    }
    for without in (None, *said):
        some = dict(islice(((at, share) for at, share in said.items() if at != without), terms.threshold))
        if len(some) < terms.threshold:
            continue
        try:
            if is_right(secret := join_shares(some)):
                return secret
        except VerificationError:
            continue
    raise FederationError(
        f"the secrets of '{whose}' cannot be put together: of the {terms.threshold} shares that it takes, "
        f"{len(said)} came, and '{whose}' or a site that holds one told a wrong one. The sum stays covered, and no "
        "site's value is seen"
    )
