"""Filling a site's store from a source: read by several processes, resumed where it was killed, one at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sfumato_client.dataset import IngestReport, SiteStore
from sfumato_client.dataset.growing import Rows
from sfumato_client.dataset.store import StoreTerms
from sfumato_client.ingest.folders import folder_of
from sfumato_client.ingest.jobs import Results
from sfumato_client.ingest.pool import Pool
from sfumato_client.ingest.sources import AnySource, NpzSource, read_rows
from sfumato_client.site.home import SiteHome
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
    with _reading(home, source, plan, workers, watch) as rows, home.open_ledger() as ledger:
        terms = StoreTerms(plan.image, plan.labels, home.split_key(), source.answers, ledger.check_members)
        return SiteStore.grow(home.store, rows, terms, about_of(source, plan))


def check_source(
    home: SiteHome, source: AnySource, plan: Plan, workers: int = 0, watch: Watch = lambda done, total: None
) -> tuple[IngestReport, SiteStore]:
    """What an ingest would keep and ask, and the store as it would be.

    Writes the report and a contact sheet into the home, and stores nothing; what was read is kept for the ingest.
    Raises BusyError and DataError as `ingest_source` does.
    """
    with _reading(home, source, plan, workers, watch) as rows:
        terms = StoreTerms(plan.image, plan.labels, home.split_key(), source.answers)
        report, sheet, store = SiteStore.look(home.store, rows, terms, about_of(source, plan))
    write_atomic(home.root / SHEET, sheet, mode=0o600)
    return report, store


@contextmanager
def _reading(home: SiteHome, source: AnySource, plan: Plan, workers: int, watch: Watch) -> Iterator[Rows]:
    """The rows of a source, read by a pool of readers, while no other ingest of this home runs."""
    make_private_folder(home.ingesting)
    processes = workers or len(os.sched_getaffinity(0))
    with exclusive(home.ingesting, "an ingest"), Pool(source, plan.image, plan.labels, processes) as pool:
        total = count_rows(source)

        def rows(start: int) -> Iterator[Results]:
            return watched(read_rows(source, plan.image, plan.labels, pool.run, start), start, total, watch)

        yield rows


def watched(rows: Iterable[Results], start: int, total: int, watch: Watch) -> Iterator[Results]:
    """`rows`, of which `watch` is told as they come."""
    for done, results in enumerate(rows, start + 1):
        yield results
        watch(min(done, total), total)


def count_rows(source: AnySource) -> int:
    """How many rows the source's table has."""
    if isinstance(source, NpzSource):
        return sum(row["site"] == source.site for row in source.rows())
    return len(source.rows(*source.needs))


def about_of(source: AnySource, plan: Plan) -> str:
    """What an ingest reads, in one digest: source, form and labels, the table, and size and time of every listed file.

    Answers to questions are left out: what was read stays read when they are given.
    """
    said = {
        "source": source.model_dump(mode="json", exclude={"answers"}),
        "form": plan.image.model_dump(mode="json"),
        "labels": list(plan.labels),
    }
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    if isinstance(source, NpzSource):
        table, folder = source.index, source.index.parent
        names = sorted({f"{row['set']}.npz" for row in source.rows()})
    else:
        table, folder = source.labels, source.folder
        names = [row["file"].replace("\\", "/") for row in source.rows(*source.needs)]
    try:
        digest.update(hashlib.sha256(table.read_bytes()).digest())
    except OSError as error:
        raise DataError(f"table '{table.name}' cannot be read ({error.strerror}); check the path") from None
    where = folder_of(folder)
    for name in names:
        digest.update(_state(where.state_of(name)))
    return digest.hexdigest()


def _state(path: Path) -> bytes:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return b"-"
    return f"{found.st_size} {found.st_mtime_ns}\n".encode()
