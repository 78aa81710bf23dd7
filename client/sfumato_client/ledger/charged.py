"""The one way to touch patients' data: charge, run, compare, seal, settle, as one block.

    with ledger.charged(terms, events, noise) as charge:
        arrays = ...                # noised through `charge.recorder` and nothing else
        sealed = charge.seal(arrays)

Every event is on disk before the body runs. `seal` holds what ran against the rows as the disk has them. A body that
raises, seals nothing, or draws more after it sealed leaves the charge standing, and unsettled: over-counted, never
under-counted.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sfumato_client.ledger.chain import Reservation
from sfumato_common.accounting.events import Cohort, Event, Unprotected, normal_form
from sfumato_common.errors import EgressRefused
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import BareRecorder, NoiseRecorder
from sfumato_common.mechanisms.sealed import Paid, Result, Sealed, digest_of
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Budget


@dataclass(frozen=True)
class Terms:
    """Where a charge stands in the ledger: its events are rounds `round`, `round` + 1, ... of `purpose`, in order.

    `limit` is what the plan itself says that it costs a patient at most, `ahead` everything that it charges this cohort
    in all; see `Ledger.reserve`. `everybody`: nobody can tell in which cohort the patients are, so that each is charged
    all of it.
    """

    study: str
    plan_hash: str
    purpose: str
    round: int
    cohort: Cohort
    limit: Budget
    ahead: tuple[Event, ...] = ()
    everybody: bool = False

    @property
    def mirrored(self) -> Terms:
        """The same charge to the other cohort."""
        other: Cohort = "holdout" if self.cohort == "train" else "train"
        return replace(self, cohort=other, purpose=f"{self.purpose}-{other}", everybody=False)

    @staticmethod
    def of(plan: Plan, purpose: str, round: int, cohort: Cohort) -> Terms:
        """The terms of something that `plan` asks for."""
        limit = Budget(epsilon=plan.privacy.epsilon, delta=plan.privacy.delta)
        return Terms(plan.study, plan.digest, purpose, round, cohort, limit, tuple(study_events(plan, cohort)))


class Book(Protocol):
    """What a charge needs of the ledger; see `Ledger`."""

    def reserve(
        self,
        *,
        study: str,
        plan_hash: str,
        purpose: str,
        round: int,
        cohort: Cohort,
        event: Event,
        ahead: Iterable[Event],
        limit: Budget,
    ) -> Reservation:
        """Charge one event, durably."""
        ...

    def settle(self, reservation: Reservation, sha256: str) -> None:
        """Note that it was carried out."""
        ...

    def entries(self) -> list[Reservation]:
        """Every charge, read from the disk and verified."""
        ...

    def settled_results(self) -> dict[int, str | None]:
        """The sha256 of what was sealed under every charge that was carried out."""
        ...


class Charge:
    """An open charge; made by `Ledger.charged` alone. `recorder` is the only source of noise within it."""

    def __init__(
        self,
        ledger: Book,
        terms: Terms,
        reserved: Sequence[Reservation],
        noise: NoiseSource,
        mirrored: Sequence[Reservation] = (),
    ) -> None:
        self._ledger, self._terms, self._reserved = ledger, terms, tuple(reserved)
        self._mirrored = tuple(mirrored)
        self._sha256, self._draws = "", 0
        self._paid: Paid | None = None
        self.recorder = _recorder(reserved, noise, _binding(terms, reserved))

    @property
    def paid(self) -> Paid | None:
        """What the ledger on disk held for this charge when its result was sealed; None before."""
        return self._paid

    def seal(self, result: Result) -> Sealed[Result]:
        """`result` bound to what ran and to this charge, once.

        Raises EgressRefused when what ran is not what the ledger on disk was charged for, or at the second call.
        """
        if self._sha256:
            raise EgressRefused("something was sealed under this charge before; it seals one result")
        entries = self._ledger.entries()
        on_disk = [entry for entry in entries if entry in self._reserved]
        if tuple(on_disk) != self._reserved or any(entry not in entries for entry in self._mirrored):
            raise EgressRefused("a result without a reservation in the privacy ledger may not leave")
        paid = Paid(tuple(entry.event for entry in on_disk), _binding(self._terms, on_disk))
        sealed = self.recorder.seal_result(result)
        paid.require(sealed.executed, sealed.binding)
        self._paid, self._sha256, self._draws = paid, sealed.digest, self.recorder.draws
        return sealed

    def settle(self) -> None:
        """Note in the ledger what was sealed; the end of the block.

        Raises EgressRefused when nothing was, or when more was drawn since.
        """
        if not self._sha256:
            raise EgressRefused("nothing was sealed under this charge: it stays charged, and nothing may leave")
        if self.recorder.draws != self._draws:
            raise EgressRefused("something was to be drawn after the result was sealed: nothing may leave")
        for reservation in (*self._reserved, *self._mirrored):
            self._ledger.settle(reservation, self._sha256)


@contextlib.contextmanager
def charged(
    ledger: Book, terms: Terms, events: Sequence[Event], noise: NoiseSource, resume: bool = False
) -> Iterator[Charge]:
    """Charge every one of `events`, in order and durably, then run the body, then settle.

    With `resume` a charge that a killed process left open is taken up instead of charged again: for work of which
    nothing leaves before it is settled. Raises what `Ledger.reserve` raises, before the body, and EgressRefused as
    `Charge` says.
    """
    left = _left_open(ledger, terms) if resume else {}
    reserved = _reserve(ledger, terms, events, left)
    mirrored = _reserve(ledger, terms.mirrored, events, {}) if terms.everybody else []
    charge = Charge(ledger, terms, reserved, noise, mirrored)
    yield charge
    # not in a `finally`: what a failing body was charged for was not carried out
    charge.settle()


def _reserve(
    ledger: Book, terms: Terms, events: Sequence[Event], left: Mapping[tuple[int, Event], Reservation]
) -> list[Reservation]:
    return [
        left.get((number, event))
        or ledger.reserve(
            study=terms.study,
            plan_hash=terms.plan_hash,
            purpose=terms.purpose,
            round=number,
            cohort=terms.cohort,
            event=event,
            ahead=terms.ahead,
            limit=terms.limit,
        )
        for number, event in enumerate(events, start=terms.round)
    ]


def open_charge(ledger: Book, terms: Terms, event: Event) -> None:
    """Charge `event` for what is done later, by people perhaps: once, however often it is called; it stays open.

    `charged` with `resume` takes it up when it is done. Raises what `Ledger.reserve` raises.
    """
    if not is_charged(ledger, terms):
        _reserve(ledger, terms, [event], {})


def is_charged(ledger: Book, terms: Terms) -> bool:
    """Whether something was charged under these terms, settled or not."""
    return any(_under(entry, terms) for entry in ledger.entries())


def sealed_digest(ledger: Book, terms: Terms) -> str | None:
    """The sha256 of what was sealed and settled under a charge of one event; None while nothing was."""
    digests = ledger.settled_results()
    found = [digests.get(entry.number) for entry in ledger.entries() if _under(entry, terms)]
    return found[0] if len(found) == 1 else None


def settle_kept(ledger: Book, terms: Terms, result: Result) -> None:
    """Settle a charge of one event that a kill left open after `result`, sealed under it, was kept on disk."""
    for entry in _left_open(ledger, terms).values():
        if entry.round == terms.round:
            ledger.settle(entry, digest_of(result))


def recall(ledger: Book, terms: Terms, events: Sequence[Event], result: Result) -> Sealed[Result]:
    """A result that was sealed in an earlier process and kept on disk, bound to its charge again.

    Raises EgressRefused unless the ledger was charged `events` for it, and settled for exactly this result. A result
    without events is post-processing: the ledger knows nothing of it.
    """
    reserved, digests = [entry for entry in ledger.entries() if _under(entry, terms)], ledger.settled_results()
    if [entry.event for entry in reserved] != list(events):
        raise EgressRefused("a kept result was not charged for as the plan says; it may not leave")
    if any(digests.get(entry.number) != digest_of(result) for entry in reserved):
        raise EgressRefused("a kept result is not the one that was sealed; it may not leave")
    return Sealed.of(result, normal_form(events), _binding(terms, reserved))


def _under(entry: Reservation, terms: Terms) -> bool:
    return (entry.plan_hash, entry.purpose, entry.cohort) == (terms.plan_hash, terms.purpose, terms.cohort)


def has_open_charge(ledger: Book, terms: Terms) -> bool:
    """Whether something was charged under these terms and never settled: its process was killed, or it failed."""
    return bool(_left_open(ledger, terms))


def _left_open(ledger: Book, terms: Terms) -> dict[tuple[int, Event], Reservation]:
    digests = ledger.settled_results()
    open_ = [entry for entry in ledger.entries() if _under(entry, terms) and entry.number not in digests]
    return {(entry.round, entry.event): entry for entry in open_}


def _recorder(reserved: Sequence[Reservation], noise: NoiseSource, binding: str) -> NoiseRecorder:
    """The recorder of a charge; of one without privacy it lets sums pass, and can pass for nothing else."""
    for entry in reserved:
        if isinstance(entry.event, Unprotected):
            return BareRecorder(entry.event.what, binding, noise)
    return NoiseRecorder(noise, binding)


def _binding(terms: Terms, reserved: Sequence[Reservation]) -> str:
    stated = [terms.plan_hash, terms.purpose, terms.round, terms.cohort, [entry.hash for entry in reserved]]
    return hashlib.sha256(canonical_json(stated)).hexdigest()


class StatedCharge:
    """An open charge for mechanisms that another program draws; made by `stated` alone. `keep` takes what they made."""

    def __init__(self, reserved: Sequence[Reservation]) -> None:
        self.reserved, self.sha256 = tuple(reserved), ""

    def keep(self, result: Result) -> None:
        """Note what was made, of which the ledger keeps the sha256. Raises EgressRefused at the second call."""
        if self.sha256:
            raise EgressRefused("something was kept under this charge before; it pays for one result")
        self.sha256 = digest_of(result)


@contextlib.contextmanager
def stated(ledger: Book, terms: Terms, events: Sequence[Event]) -> Iterator[StatedCharge]:
    """As `charged`, for a program that draws its own noise: what it says is charged first, and not seen to be true.

    Raises what `Ledger.reserve` raises, before the body, and EgressRefused where the body kept nothing.
    """
    charge = StatedCharge(_reserve(ledger, terms, events, {}))
    yield charge
    if not charge.sha256:
        raise EgressRefused("nothing was kept under this charge: it stays charged, and nothing may leave")
    for reservation in charge.reserved:
        ledger.settle(reservation, charge.sha256)
