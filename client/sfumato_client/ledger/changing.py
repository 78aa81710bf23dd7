"""A cohort in the place of another one: between charges, never within a study, and nobody charged changes cohort."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from sfumato_client.ledger.book import Ledger
from sfumato_client.ledger.held import Holding, require_begun_with
from sfumato_client.ledger.storage import transaction
from sfumato_common.accounting.members import Members
from sfumato_common.errors import PolicyRefusal


def require_none_begun(ledger: Ledger) -> None:
    """Raise PolicyRefusal while a study has begun at the ledger's site: its parts see one cohort."""
    if plans := ledger.begun():
        raise PolicyRefusal(
            f"study '{plans[0].study}' has begun here, and all of its rounds and its release see one cohort: update "
            "when its release is approved, or take no further part by 'sfumato-site leave'; the store is as it was"
        )


def check_cohort(ledger: Ledger, members: Callable[[], Members], store: Holding) -> None:
    """Raise what `Ledger.check_members` does; who they are is asked only where somebody was charged before.

    Raises PolicyRefusal where a study has begun here with another cohort than the store's.
    """
    if any(row.value["kind"] == "bind" for row in ledger._rows()):
        ledger.check_members(members())
    require_begun_with(ledger, store)


@contextlib.contextmanager
def cohort_held(ledger: Ledger, members: Members) -> Iterator[None]:
    """Nothing is charged within: a cohort, of which `members` are who, may take the place of another one.

    Raises what `Ledger.check_members` does, and PolicyRefusal while a study has begun.
    """
    with transaction(ledger._connection):  # the one writer's lock: a charge waits, and then sees the new cohort
        require_none_begun(ledger)
        ledger.check_members(members)
        yield
