"""Runs: what anybody's program does with a ledger's patients, under a statement instead of a plan.

The statement is a row of the ledger before the run's first charge, and its sha256 is what the charges stand under. All
else is as for a plan: the same book, budget and accountant, and the patients bound to their cohort in the charge.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.certificate import TEST_NOISE, disclosures, mechanism_lines
from sfumato_client.ledger.chain import Reservation, next_row
from sfumato_client.ledger.charged import Charge, StatedCharge, Terms, stated
from sfumato_client.ledger.head import head_of
from sfumato_client.ledger.storage import insert, transaction
from sfumato_common.accounting.accountant import cohort_costs, count_mechanisms
from sfumato_common.accounting.events import Cohort, Event, Unprotected
from sfumato_common.accounting.members import Members
from sfumato_common.errors import LedgerError, PolicyRefusal
from sfumato_common.evidence.run import FORMAT, LedgerHead, RunCertificate, RunStatement
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.study.certificate import stated_costs, stated_reach
from sfumato_common.study.policy import Budget

COVERS = (
    "Unit: the patient, with all of the patient's records that the run read. Covered: what was sealed under this run's "
    "charges, all of which are counted, also those that were never noted as carried out. add_remove: with or without "
    "one patient, its distribution changes by at most (epsilon, delta). replace_one: the same with another patient of "
    "this ledger in the patient's place. add_remove_rdp is a looser bound by another accountant that cross-checks "
    "add_remove. Train and holdout patients are different people, so a patient pays the larger. A patient whom another "
    "ledger charged as well pays the SUM of both (basic composition: epsilons add and deltas add). Not covered: "
    "whatever left beside what was sealed, such as losses, logs, counts and times; the declared disclosures; this "
    "ledger's other runs and studies, which the ledger adds up; and what is true of most patients. It holds only if "
    "each sentence of statement.rests_on is true: the ledger cannot see that. "
)
RECORDED = "The ledger's own recorder drew the noise and counted it, and held the count against the charges. "
STATED = (
    "STATED, NOT SEEN: which mechanism ran, with which noise and on which patients, is the word of the program that "
    "charged; the ledger saw no noise drawn. "
)


class Run:
    """One run of one program over patients `members`; every charge of it is to be opened by `charged` or `stated`.

    Its ledger, its statement with the digest that it is charged under, its own limit (the ledger's budget where none is
    given) and its noise. Raises PolicyRefusal where the statement says of the noise what the source is not.
    """

    def __init__(
        self, ledger: Ledger, statement: RunStatement, members: Members, noise: NoiseSource, limit: Budget | None = None
    ) -> None:
        if (statement.noise == "test") != noise.test:
            raise PolicyRefusal("a run states secure noise and was given noise that can be predicted, or the reverse")
        self.ledger, self.statement, self.noise, self._members = ledger, statement, noise, members
        self.limit, self.digest = limit or ledger.budget, statement.digest
        _declare(ledger, statement)

    @contextlib.contextmanager
    def charged(
        self, events: Sequence[Event], *, cohort: Cohort = "train", ahead: Sequence[Event] = ()
    ) -> Iterator[Charge]:
        """The block in which patients may be read: charged on entry, on disk; see `ledger/charged.py`.

        `ahead` is all that the run means to charge the cohort, which must fit as well. Raises PolicyRefusal for a run
        whose mechanisms are stated, BudgetExceeded for what does not fit, and DataError for patients of the other
        cohort: before the body in each case.
        """
        if self.statement.mechanisms != "recorded":
            raise PolicyRefusal("this run states its mechanisms; open its charges by 'stated'")
        self.ledger.check_members(self._members)
        with self.ledger.charged(self._terms(cohort, ahead), events, self.noise) as charge:
            self.ledger.bind(self._members)
            yield charge

    @contextlib.contextmanager
    def stated(
        self, events: Sequence[Event], *, cohort: Cohort = "train", ahead: Sequence[Event] = ()
    ) -> Iterator[StatedCharge]:
        """The same for a program that draws its own noise: `keep` takes what it made. Raises as `charged` does."""
        if self.statement.mechanisms != "stated":
            raise PolicyRefusal("this run's mechanisms are recorded; open its charges by 'charged'")
        if any(isinstance(event, Unprotected) for event in events):
            raise PolicyRefusal("a run charges mechanisms with privacy; what leaves bare is a study that policy names")
        self.ledger.check_members(self._members)
        with stated(self.ledger, self._terms(cohort, ahead), events) as charge:
            self.ledger.bind(self._members)
            yield charge

    def charges(self) -> list[Reservation]:
        """What was charged under this run, in order, carried out or not."""
        return [entry for entry in self.ledger.entries() if entry.plan_hash == self.digest]

    def certificate(self) -> RunCertificate:
        """What this run cost its patients, at the ledger's delta. Raises LedgerError where nothing was charged yet."""
        return run_certificate(self.ledger, self.statement)

    def _terms(self, cohort: Cohort, ahead: Sequence[Event]) -> Terms:
        number = 1 + max((entry.round for entry in self.charges()), default=0)
        return Terms(self.statement.study, self.digest, "run", number, cohort, self.limit, tuple(ahead))


def run_certificate(ledger: Ledger, statement: RunStatement) -> RunCertificate:
    """The certificate of a run from its ledger's rows; no number in it depends on the data."""
    mine, delta = [entry for entry in ledger.entries() if entry.plan_hash == statement.digest], ledger.budget.delta
    if not mine:
        raise LedgerError("nothing was charged under this run yet; there is nothing to certify")
    train, holdout = ([entry.event for entry in mine if entry.cohort == cohort] for cohort in ("train", "holdout"))
    unsettled, head = set(ledger.unsettled_charges()), head_of(ledger._rows())
    return RunCertificate(
        format=FORMAT,
        site=ledger.site,
        study=statement.study,
        plan_hash=statement.digest,
        statement=statement,
        epsilon=stated_costs(cohort_costs(train, holdout, delta)),
        delta=delta,
        unit="patient",
        adjacency="add-remove",
        mechanisms={
            "train": mechanism_lines(count_mechanisms(train)),
            "holdout": mechanism_lines(count_mechanisms(holdout)),
        },
        declared=disclosures([*train, *holdout]),
        noise=statement.noise,
        covers=(TEST_NOISE if statement.noise == "test" else "")
        + (RECORDED if statement.mechanisms == "recorded" else STATED)
        + COVERS,
        reach=stated_reach(train, holdout, delta),
        charges=len(mine),
        open=sum(entry.number in unsettled for entry in mine),
        head=LedgerHead(number=head.number, hash=head.hash),
    )


def statements(ledger: Ledger) -> list[RunStatement]:
    """Every run that the ledger was ever told of, in order."""
    return [RunStatement.model_validate(row.value["statement"]) for row in ledger._rows() if row.value["kind"] == "run"]


def _declare(ledger: Ledger, statement: RunStatement) -> None:
    """The statement as a row, once."""
    with transaction(ledger._connection):
        if statement in statements(ledger):
            return
        fields = {"plan_hash": statement.digest, "statement": statement.model_dump(mode="json")}
        insert(ledger._connection, next_row(ledger._rows(), "run", fields))
    ledger._advance_head()
