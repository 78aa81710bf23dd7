"""A study sees one cohort from its first charge until its release is approved: which one, by a row of the ledger.

Without it the store could be erased, and another cohort ingested, between the making of candidates and the gate: the
gate would then hold copies of the former patients against people who are not behind them, and let them pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.chain import Row, next_row, reservation
from sfumato_client.ledger.promised import begun
from sfumato_client.ledger.storage import insert, now, transaction
from sfumato_common.errors import PolicyRefusal
from sfumato_common.study.plan import Plan


class Holding(Protocol):
    """What a store holds: `mark` is of this very store, `digest` of all that is in it, however it was written."""

    @property
    def mark(self) -> str:
        """Quickly told."""
        ...

    def digest(self) -> str:
        """The same for two stores of one cohort."""
        ...


def hold_cohort(ledger: Ledger, plan: Plan, store: Holding) -> None:
    """Note of which cohort a study is that has begun; once. Raises PolicyRefusal as `require_cohort` does."""
    if _known(ledger, plan, store):
        return
    said = {"plan_hash": plan.digest, "store": store.mark, "cohort": store.digest()}
    with transaction(ledger._connection):
        rows = ledger._rows()
        if (held := _held(rows, plan)) is None:
            insert(ledger._connection, next_row(rows, "hold", {**said, "at": now()}))
    if held is None:
        ledger._advance_head()
    elif held["cohort"] != said["cohort"]:
        raise PolicyRefusal(_another(plan))


def require_cohort(ledger: Ledger, plan: Plan, store: Holding) -> None:
    """Raise PolicyRefusal where `plan` has begun with another cohort than the store's; of one not noted yet, nothing.

    A study whose release is approved is over: what is asked after it is of the cohort of its time.
    """
    _known(ledger, plan, store)


def require_begun_with(ledger: Ledger, store: Holding) -> None:
    """Raise PolicyRefusal unless the store, which is to be put in place, is what every study begun here began with."""
    for plan in ledger.begun():
        if not _known(ledger, plan, store):
            raise PolicyRefusal(
                f"study '{plan.study}' has begun here, and the ledger does not say with which cohort: whether this is "
                "the same one cannot be told. Put the store of before back, or take no further part by 'sfumato-site "
                f"leave {plan.study}', and ingest then"
            )


def _known(ledger: Ledger, plan: Plan, store: Holding) -> bool:
    """Whether there is nothing to note: the study is not under way, or it is noted to be of this very cohort."""
    rows = ledger._rows()
    charges = [reservation(row) for row in rows if row.value["kind"] == "reserve"]
    if not begun(rows, charges, [plan], ledger.names):
        return True
    held = _held(rows, plan)
    if held is None:
        return False
    if held["store"] != store.mark and held["cohort"] != store.digest():
        raise PolicyRefusal(_another(plan))
    return True


def _held(rows: Sequence[Row], plan: Plan) -> dict[str, Any] | None:
    mine = (row for row in rows if row.value["kind"] == "hold" and row.value["plan_hash"] == plan.digest)
    return next((dict(row.value) for row in mine), None)


def _another(plan: Plan) -> str:
    return (
        f"study '{plan.study}' has begun here with another cohort (other patients, splits, labels or images): all of "
        "its rounds and its release see one. Ingest what it was begun with, or take no further part by 'sfumato-site "
        f"leave {plan.study}'"
    )
