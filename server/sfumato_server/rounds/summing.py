"""Secure sums at the coordinator: the steps of each stage in order, every one kept on disk before the next begins.

A run that starts again asks on where it stood: sites give the same answers to the same questions, and another question
in its place none. What is kept here is masked, sealed to sites, or the sum itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from sfumato_common.errors import FederationError, PolicyRefusal, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.replies import PATIENT_SLACK
from sfumato_common.generators.summed import Phase
from sfumato_common.mechanisms.summed import Words, sum_of_cells
from sfumato_common.protocol.messages import Reply, RequestKind
from sfumato_common.protocol.summed import (
    CONSENT,
    CONSENTS,
    HELD,
    MASKED,
    OFFER,
    OFFERS,
    SHARES,
    WHO,
    byte_rows,
    read_rows,
    replied,
    sum_terms,
    value_request,
    who_rows,
)
from sfumato_common.secure_sum.coordinator import check_consent, uncover_sum
from sfumato_common.secure_sum.terms import SIGNATURE_BYTES, Offer, check_offer
from sfumato_common.study.plan import Plan
from sfumato_common.study.summed import UTILITY, among, phases_of
from sfumato_common.types import AnyArray, Arrays, Schema
from sfumato_server.rounds.answers import Check
from sfumato_server.rounds.kept_sums import Kept


class Asking(Protocol):
    """The part of a study's run that exchanges messages; see `loop.StudyRun.ask`."""

    @property
    def plan(self) -> Plan:
        """The study's plan."""
        ...

    def ask(
        self,
        kind: RequestKind,
        arrays: Callable[[str], Arrays],
        sites: Collection[str],
        *,
        stage: str,
        number: int,
        quorum: int,
        rounds: int,
        schema: Schema,
        check: Check,
    ) -> dict[str, Reply]:
        """One exchange."""
        ...


class Unwilling(FederationError):
    """So many sites' policies withhold their part that no sum comes about, however often it is asked for."""


@dataclass(frozen=True)
class Pooled:
    """The sums of all phases by name, float64, in the patients of the first; the sites and the noise in them.

    `noise_multiplier` is that of the sums: each site's own part, as often as there are sites.
    """

    sums: dict[str, AnyArray]
    sites: tuple[str, ...]
    noise_multiplier: float


def sum_over_sites(run: Asking, name: str, folder: Path, own: Arrays, willing: Collection[str]) -> Pooled:
    """The sums of every phase of stage `name`, or of the figure on holdout patients, over the sites that are `willing`.

    `own` are the stage's own arrays for sites. Raises FederationError below the quorum, or where secrets that uncover a
    sum cannot be put together.
    """
    summing = _Summing(run, name, Kept(folder, name), own)
    offers = summing.offers(willing)
    shares = summing.shares(offers)
    sums, sites, answered = dict[str, AnyArray](), list[list[str]](), sorted(shares)
    for number, phase in enumerate(phases_of(run.plan, name), 1):
        cells, answered = summing.phase(number, phase, offers, shares, answered, [len(some) for some in sites], sums)
        total = sum_of_cells(cells, phase.sensitivity)
        sites.append(answered)
        # a site that fell between two phases is missing from the second: by the nominal numbers
        sums |= phase.split(total * (_patients(run.plan, sites[0]) / _patients(run.plan, answered)))
    sigma = _multiplier(run.plan, name) * math.sqrt(len(sites[0]) / among(run.plan))
    return Pooled(sums, tuple(sites[0]), sigma)


def checked_release(plan: Plan, name: str, pooled: Pooled) -> Arrays:
    """The sums in the form of one site's reply. Raises FederationError where patients cannot have led to them.

    Whose answer is wrong cannot be told: the sum shows no site's.
    """
    summed = EXCHANGES[name].summed
    assert summed is not None, "the stage is a sum"
    release = summed.read(plan, pooled.sums)
    try:
        patients = PATIENT_SLACK * _patients(plan, pooled.sites)
        summed.check(plan, pooled.noise_multiplier, patients, {key: np.asarray(v) for key, v in release.items()})
    except VerificationError as error:
        raise FederationError(
            f"'{name}': the sum over {', '.join(pooled.sites)} is none that patients lead to ({error}); a site among "
            "them answered wrongly, and a sum does not show which"
        ) from None
    return release


class _Summing:
    """The steps of one sum."""

    def __init__(self, run: Asking, name: str, kept: Kept, own: Arrays) -> None:
        self._run, self._name, self._kept, self._own = run, name, kept, own
        self._terms = sum_terms(run.plan, name)
        self._attempt = kept.attempt

    def offers(self, willing: Collection[str]) -> dict[str, bytes]:
        """Every site's keys."""

        def check(site: str, arrays: Arrays) -> None:
            check_offer(self._terms, self._attempt, site, arrays[OFFER].tobytes())

        def ask() -> dict[str, Arrays]:
            replies = self._exchange("sum-keys", self._attempt, lambda site: {}, willing, check, quorum=0)
            unwilling = {site for site, reply in replies.items() if reply.code == PolicyRefusal.wire_code}
            if len(self._terms.sites) - len(unwilling) < self._terms.quorum:
                raise Unwilling(
                    f"'{self._name}': the policies of {', '.join(sorted(unwilling))} let no part of it leave"
                )
            return self._enough(replies, self._terms.quorum)

        said = self._kept.once("keys", ask)
        return {site: arrays[OFFER].tobytes() for site, arrays in said.items()}

    def shares(self, offers: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
        """Sealed shares by sender and receiver; where too few sites share, the next run begins with other keys."""
        rows = byte_rows(self._terms, offers, Offer.size(self._terms.phases))
        arrays = {WHO: who_rows(self._terms, offers), OFFERS: rows}
        try:
            said = self._kept.once(
                "shares", lambda: self._ask("sum-shares", self._attempt, lambda site: arrays, offers)
            )
        except FederationError:
            self._kept.begin_anew()
            raise
        everybody = who_rows(self._terms, self._terms.sites)
        found = {site: read_rows(self._terms, everybody, own[SHARES]) for site, own in said.items()}
        return {site: {other: rows[other] for other in found if other != site} for site, rows in found.items()}

    def phase(
        self,
        number: int,
        phase: Phase,
        offers: Mapping[str, bytes],
        shares: Mapping[str, Mapping[str, bytes]],
        asked: Collection[str],
        answered: list[int],
        sums: Arrays,
    ) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int64]], list[str]]:
        """The sum of phase `number` in cells, over the sites of `asked` that answer, and who they are."""

        def values(site: str) -> Arrays:
            came = {other: own[site] for other, own in shares.items() if other != site}
            return {**self._own, **value_request(self._terms, came, answered, sums)}

        said = self._kept.once(f"values-{number}", lambda: self._ask("sum-values", number, values, asked, phase=phase))
        masked: dict[str, Words] = {site: own[MASKED].view(np.uint64) for site, own in said.items()}
        who = {WHO: who_rows(self._terms, masked)}

        def check(site: str, arrays: Arrays) -> None:
            lists = sorted(shares), sorted(masked)
            check_consent(self._terms, self._attempt, number, site, offers, lists, arrays[CONSENT].tobytes())

        least = self._terms.threshold
        agreed = self._kept.once(
            f"consent-{number}", lambda: self._ask("sum-consent", number, lambda site: who, masked, check, quorum=least)
        )
        signed = {site: own[CONSENT].tobytes() for site, own in agreed.items()}
        rows = {**who, CONSENTS: byte_rows(self._terms, signed, SIGNATURE_BYTES)}
        told = self._kept.once(
            f"unmask-{number}", lambda: self._ask("sum-unmask", number, lambda site: rows, shares, quorum=least)
        )
        held = {site: read_rows(self._terms, own[HELD], own[SHARES]) for site, own in told.items()}
        found = uncover_sum(self._terms, self._attempt, number, offers, sorted(shares), masked, held)
        return found, sorted(masked)

    def _ask(
        self,
        kind: RequestKind,
        number: int,
        arrays: Callable[[str], Arrays],
        sites: Collection[str],
        check: Check = lambda site, arrays: None,
        *,
        phase: Phase | None = None,
        quorum: int | None = None,
    ) -> dict[str, Arrays]:
        least = self._terms.quorum if quorum is None else quorum
        return self._enough(self._exchange(kind, number, arrays, sites, check, phase=phase, quorum=least), least)

    def _exchange(
        self,
        kind: RequestKind,
        number: int,
        arrays: Callable[[str], Arrays],
        sites: Collection[str],
        check: Check,
        *,
        quorum: int,
        phase: Phase | None = None,
    ) -> dict[str, Reply]:
        return self._run.ask(
            kind,
            arrays,
            sites,
            stage=self._name,
            number=number,
            quorum=quorum,
            schema=replied(self._terms, kind, phase),
            check=check,
            rounds=self._terms.phases,
        )

    def _enough(self, replies: Mapping[str, Reply], least: int) -> dict[str, Arrays]:
        good = {site: reply.arrays for site, reply in replies.items() if reply.status == "ok"}
        if len(good) < least:
            reasons = ", ".join(f"{site}: {reply.code}" for site, reply in sorted(replies.items()) if site not in good)
            raise FederationError(
                f"'{self._name}': {len(good)} of the {least} sites of the quorum answered ({reasons})"
            )
        return good


def _patients(plan: Plan, sites: Collection[str]) -> int:
    return sum(plan.sites[site].nominal_patients for site in sites)


def _multiplier(plan: Plan, name: str) -> float:
    if name == UTILITY:
        assert plan.utility is not None
        return plan.utility.noise_multiplier
    return plan.stage(name).noise_multiplier
