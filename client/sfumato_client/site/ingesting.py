"""Filling a site's store from a source: read by several processes, resumed where it was killed, one at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
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
from sfumato_client.ingest.sources import AnySource, DicomSource, NpzSource, read_rows
from sfumato_client.ingest.table import Listing
from sfumato_client.ledger.changing import cohort_held, require_none_begun
from sfumato_client.site.home import SiteHome
from sfumato_client.site.store_key import make_store_key
from sfumato_common import __version__
from sfumato_common.errors import DataError
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
    move a charged patient.
    """
    with _reading(home, source, plan, workers, watch) as reading, home.open_ledger() as ledger:
        terms = replace(_terms(home, source, plan), check=ledger.check_members)
        report = SiteStore.grow(home.store, reading(), terms, about_of(source, plan))
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
        terms = _terms(home, source, plan)
        terms = replace(terms, before=store.before(home.store, terms.store_key))
        register = terms.before.register if terms.before else None
        assert register is not None

        def known(stamp: Stamp) -> tuple[int, ...]:
            return register.known(row_tokens(stamp, terms.split_key, terms.settings)[1], stamp.size, stamp.time)

        about = f"{about_of(source, plan)} {store.facts.register}"
        return SiteStore.update(home.store, reading(known), terms, about, partial(cohort_held, ledger))


def check_source(
    home: SiteHome, source: AnySource, plan: Plan, workers: int = 0, watch: Watch = lambda done, total: None
) -> tuple[IngestReport, SiteStore]:
    """What an ingest would keep and ask, and the store as it would be.

    Writes the report and a contact sheet into the home, and stores nothing; what was read is kept for the ingest.
    Raises BusyError and DataError as `ingest_source` does.
    """
    with _reading(home, source, plan, workers, watch) as reading:
        terms = _terms(home, source, plan)
        report, sheet, store = SiteStore.look(home.store, reading(), terms, about_of(source, plan))
    write_atomic(home.root / SHEET, sheet, mode=0o600)
    return report, store


def _terms(home: SiteHome, source: AnySource, plan: Plan) -> StoreTerms:
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
        settings=_settings(source, plan, exclude={"folder", "labels", "index"}),
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


def about_of(source: AnySource, plan: Plan) -> str:
    """What an ingest reads, in one digest: source, form and labels, and the table; files have stamps in the journal.

    Answers to questions are left out: what was read stays read when they are given.
    """
    digest = hashlib.sha256(_settings(source, plan).encode())
    table = source.index if isinstance(source, NpzSource) else source.labels
    try:
        digest.update(hashlib.sha256(table.read_bytes()).digest())
    except OSError as error:
        raise DataError(f"table '{table.name}' cannot be read ({error.strerror}); check the path") from None
    return digest.hexdigest()


def _settings(source: AnySource, plan: Plan, exclude: Collection[str] = ()) -> str:
    """All that decides how rows are read, this version of Sfumato too."""
    said = {
        "source": source.model_dump(mode="json", exclude={"answers", "withdrawn", *exclude}),
        "form": plan.image.model_dump(mode="json"),
        "labels": list(plan.labels),
        "version": __version__,
        "reports": _reports(source),
    }
    return json.dumps(said, sort_keys=True)


def _reports(source: AnySource) -> str:
    """What changes when a structured report does that gives images their labels; '' for a source without."""
    if not isinstance(source, DicomSource) or source.label_from is None or source.label_from.sr is None:
        return ""
    folder, digest = folder_of(source.label_from.sr.folder or source.folder), hashlib.sha256()
    folder.check()
    for name in folder.names():
        digest.update(f"{name} {folder.state_of(name)}\n".encode())
    return digest.hexdigest()
