"""Filling a site's store from a source: read by several processes, resumed where it was killed, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from sfumato_client.dataset import IngestReport, SiteStore, StoreTerms
from sfumato_client.dataset.growing import Rows
from sfumato_client.dataset.tokens import row_tokens
from sfumato_client.ingest import Stamp
from sfumato_client.ingest.folders import Folder, folder_of
from sfumato_client.ingest.jobs import Known, Results, unknown
from sfumato_client.ingest.pool import Pool
from sfumato_client.ingest.sources import AnySource, NpzSource, read_rows
from sfumato_client.ingest.table import Listing
from sfumato_client.ledger.changing import check_cohort, cohort_held, require_none_begun
from sfumato_client.site.described import Described
from sfumato_client.site.home import SiteHome
from sfumato_client.site.store_key import make_store_key
from sfumato_client.site.withdrawn import read_persons, read_withdrawn
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_common.locks import exclusive
from sfumato_common.study.plan import Plan

# told of rows that are done, and of how many there are
Watch = Callable[[int, int], None]
# what a check leaves in the home for a person to look at
SHEET = "check-sheet.png"


def ingest_source(
    home: SiteHome, source: AnySource, plan: Plan, workers: int = 0, watch: Watch = lambda done, total: None
) -> IngestReport:
    """Fill the store from `source` for `plan`, by `workers` readers' processes (one a core by default).

    Raises BusyError while another ingest of this home runs, DataError as `SiteStore.grow` does, and so when it would
    move a charged patient, and PolicyRefusal where a study has begun here with another cohort.
    """
    with _reading(home, source, plan, workers, watch) as reading, home.open_ledger() as ledger:
        described = Described(source, plan)
        terms = replace(_terms(home, source, plan, described), check=partial(check_cohort, ledger))
        report = SiteStore.grow(home.store, reading(), terms, described.about)
    (home.root / SHEET).unlink(missing_ok=True)  # images in the clear, which somebody has looked at
    return report


def update_source(
    home: SiteHome, source: AnySource, plan: Plan, workers: int = 0, watch: Watch = lambda done, total: None
) -> IngestReport:
    """Put what `source` says now in the place of the store; rows and files that are as they were are not read again.

    Raises as `ingest_source` does, DataError where no store stands that was ingested for `plan`, and PolicyRefusal
    while a study has begun: its parts see one cohort.
    """
    with _reading(home, source, plan, workers, watch) as reading, home.open_ledger() as ledger:
        store = home.open_store()
        store.facts.require(plan.image, plan.labels)
        require_none_begun(ledger)  # before all is read; again when the store is put in place
        described = Described(source, plan)
        terms = _terms(home, source, plan, described)
        terms = replace(terms, before=store.before(home.store, terms.store_key))
        register = terms.before.register if terms.before else None
        assert register is not None

        def known(stamp: Stamp) -> tuple[int, ...]:
            return register.known(row_tokens(stamp, terms.split_key, terms.settings)[1], stamp.size, stamp.time)

        about = f"{described.about} {store.facts.register}"
        return SiteStore.update(home.store, reading(known), terms, about, partial(cohort_held, ledger))


def check_source(
    home: SiteHome, source: AnySource, plan: Plan, workers: int = 0, watch: Watch = lambda done, total: None
) -> tuple[IngestReport, SiteStore]:
    """What an ingest would keep and ask, and the store as it would be.

    Writes the report and a contact sheet into the home, and stores nothing; what was read is kept for the ingest.
    Raises BusyError and DataError as `ingest_source` does.
    """
    with _reading(home, source, plan, workers, watch) as reading:
        described = Described(source, plan)
        terms = _terms(home, source, plan, described)
        report, sheet, store = SiteStore.look(home.store, reading(), terms, described.about)
    write_atomic(home.root / SHEET, sheet, mode=0o600)
    return report, store


def _terms(home: SiteHome, source: AnySource, plan: Plan, described: Described) -> StoreTerms:
    if home.store.exists():
        home.store_key()  # a store whose key is lost is told of, and not left beside a new key
    folder = Folder(source.index.parent) if isinstance(source, NpzSource) else folder_of(source.folder)
    return StoreTerms(
        plan.image,
        plan.labels,
        home.split_key(),
        make_store_key(home.identity),
        source.answers,
        unchanged=lambda stamp: folder.state_of(stamp.file) == (stamp.size, stamp.time),
        withdrawn=source.withdrawn_ids(),
        gone=read_withdrawn(home),
        gone_persons=read_persons(home),
        settings=described.settings,
    )


@contextmanager
def _reading(
    home: SiteHome, source: AnySource, plan: Plan, workers: int, watch: Watch
) -> Iterator[Callable[..., Rows]]:
    """What makes a source's rows, read by a pool of readers, while no other ingest of this home runs."""
    make_private_folder(home.ingesting)
    processes = workers or len(os.sched_getaffinity(0))
    with exclusive(home.ingesting, "an ingest"), Pool(source, plan.image, plan.labels, processes) as pool:
        listing = Listing(source.rows)

        def reading(known: Known = unknown) -> Rows:
            def rows(start: int) -> Iterator[Results]:
                found = read_rows(source, plan.image, plan.labels, pool.run, start, known, listing)
                return watched(found, start, len(listing), watch)

            return rows

        yield reading


def watched(rows: Iterable[Results], start: int, total: int, watch: Watch) -> Iterator[Results]:
    """`rows`, of which `watch` is told as they come."""
    for done, results in enumerate(rows, start + 1):
        yield results
        watch(min(done, total), total)
