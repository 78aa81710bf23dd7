"""The messages of a secure sum as named arrays: one row a site, in the order of the plan's sites' names.

    sum-keys     nothing                                -> offer
    sum-shares   who, offers                            -> shares
    sum-values   who, shares, answered, sums, the stage's own arrays -> masked
    sum-consent  who                                    -> consent
    sum-unmask   who, consents                          -> held, shares

`who` are the sites that offered, shared or answered, 1 a row; rows of others are zeros. What a site makes for another
is sealed to it; the coordinator relays it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sfumato_common.errors import VerificationError
from sfumato_common.generators.summed import Phase
from sfumato_common.secure_sum.masks import TAG_BYTES
from sfumato_common.secure_sum.shamir import SHARE_BYTES
from sfumato_common.secure_sum.terms import SIGNATURE_BYTES, Offer, SumTerms
from sfumato_common.study.plan import Plan
from sfumato_common.study.summed import least_sites, phases_of
from sfumato_common.types import AnyArray, Arrays, ArraySpec, Schema

WHO, OFFER, OFFERS, SHARES, ANSWERED = "who", "offer", "offers", "shares", "answered"
MASKED, CONSENT, CONSENTS, HELD = "masked", "consent", "consents", "held"
# apart from the stage's own arrays
_OWN, _SUM = "sum:", "sum:of:"
# far beyond what patients add up to, and far below what a float loses itself in
LARGEST_SUM = 1e12


def sum_terms(plan: Plan, name: str) -> SumTerms:
    """What the messages of a summed stage, or of the figure on holdout patients, are bound to."""
    assert plan.secure_sum is not None, "the plan sums securely"
    keys = {site: terms.key or "" for site, terms in plan.sites.items()}
    threshold = least_sites(len(keys), plan.secure_sum.colluding)
    return SumTerms(plan.study_digest, name, len(phases_of(plan, name)), keys, plan.federation.quorum, threshold)


def requested(terms: SumTerms, kind: str) -> Schema:
    """The arrays of a request, but for 'sum-values'."""
    rows = len(terms.sites)
    who = {WHO: ArraySpec("uint8", (rows,))}
    match kind:
        case "sum-shares":
            return {**who, OFFERS: ArraySpec("uint8", (rows, Offer.size(terms.phases)))}
        case "sum-consent":
            return who
        case "sum-unmask":
            return {**who, CONSENTS: ArraySpec("uint8", (rows, SIGNATURE_BYTES))}
    return {}


def replied(terms: SumTerms, kind: str, phase: Phase | None = None) -> Schema:
    """The arrays of a reply; `phase` is that of 'sum-values'."""
    rows = len(terms.sites)
    match kind:
        case "sum-keys":
            return {OFFER: ArraySpec("uint8", (Offer.size(terms.phases),))}
        case "sum-shares":
            return {SHARES: ArraySpec("uint8", (rows, sealed_bytes(terms)))}
        case "sum-values":
            assert phase is not None, "a value is that of a phase"
            # words of 64 bits, which arrays that travel have with a sign
            return {MASKED: ArraySpec("int64", (phase.size,))}
        case "sum-consent":
            return {CONSENT: ArraySpec("uint8", (SIGNATURE_BYTES,))}
    return {HELD: ArraySpec("uint8", (rows,)), SHARES: ArraySpec("uint8", (rows, SHARE_BYTES))}


def sealed_bytes(terms: SumTerms) -> int:
    """Of all of a site's shares for one other, sealed."""
    return 2 * terms.phases * SHARE_BYTES + TAG_BYTES


def valued(terms: SumTerms, phases: Sequence[Phase], number: int, sent: Schema) -> Schema:
    """The arrays of 'sum-values' in phase `number` from 1, of a stage that is sent `sent`: who shared, and what came.

    `answered` is how many sites' values are in the sums of the phases before.
    """
    rows = len(terms.sites)
    earlier = {name: shape for phase in phases[: number - 1] for name, shape in phase.shapes.items()}
    return {
        **sent,
        _OWN + WHO: ArraySpec("uint8", (rows,)),
        _OWN + SHARES: ArraySpec("uint8", (rows, sealed_bytes(terms))),
        _OWN + ANSWERED: ArraySpec("int64", (number - 1,)),
        **{_SUM + name: ArraySpec("float64", shape) for name, shape in earlier.items()},
    }


@dataclass(frozen=True)
class Asked:
    """What 'sum-values' brings: shares by sender, how many sites are in each earlier sum, those sums, and the rest."""

    shares: Mapping[str, bytes]
    answered: Sequence[int]
    sums: Arrays
    own: Arrays


def value_request(
    terms: SumTerms, shares: Mapping[str, bytes], answered: Sequence[int], sums: Arrays
) -> dict[str, AnyArray]:
    """The arrays of 'sum-values' beside the stage's own: shares for one site by sender, and the earlier sums."""
    return {
        _OWN + WHO: who_rows(terms, shares),
        _OWN + SHARES: byte_rows(terms, shares, sealed_bytes(terms)),
        _OWN + ANSWERED: np.array(answered, dtype=np.int64),
        **{_SUM + name: np.asarray(value, np.float64) for name, value in sums.items()},
    }


def read_values(terms: SumTerms, arrays: Arrays) -> Asked:
    """What the arrays of 'sum-values' bring. Raises VerificationError for sums that patients never add up to."""
    shares = read_rows(terms, arrays[_OWN + WHO], arrays[_OWN + SHARES])
    answered = [int(count) for count in arrays[_OWN + ANSWERED]]
    sums = {name.removeprefix(_SUM): value for name, value in arrays.items() if name.startswith(_SUM)}
    if not all(1 <= count <= len(terms.sites) for count in answered):
        raise VerificationError("a request says that a sum is of a number of sites that the plan does not have")
    if any(value.size and not float(np.abs(value).max()) <= LARGEST_SUM for value in sums.values()):
        raise VerificationError("a request's sums are none that patients add up to")
    own = {name: value for name, value in arrays.items() if not name.startswith(_OWN)}
    return Asked(shares, answered, sums, own)


def who_rows(terms: SumTerms, sites: Collection[str]) -> AnyArray:
    """1 [n] for each of `sites`."""
    return np.array([site in sites for site in terms.sites], dtype=np.uint8)


def read_who(terms: SumTerms, who: AnyArray) -> list[str]:
    """Inverse of `who_rows`. Raises VerificationError for anything but 0 and 1."""
    if who.size and who.max() > 1:
        raise VerificationError("a list of sites is malformed")
    return [site for site, there in zip(terms.sites, who, strict=True) if there]


def byte_rows(terms: SumTerms, values: Mapping[str, bytes], length: int) -> AnyArray:
    """Bytes [n, length] by site; zeros where there are none."""
    empty = bytes(length)
    rows = [np.frombuffer(values.get(site, empty), dtype=np.uint8) for site in terms.sites]
    return np.stack(rows)


def read_rows(terms: SumTerms, who: AnyArray, rows: AnyArray) -> dict[str, bytes]:
    """Inverse of `byte_rows`, of the sites that `who` names."""
    places = {site: place for place, site in enumerate(terms.sites)}
    return {site: rows[places[site]].tobytes() for site in read_who(terms, who)}
