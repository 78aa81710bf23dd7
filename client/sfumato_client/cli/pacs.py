"""`sfumato-site pacs`: a hospital's images from its PACS into the home's folder `incoming`; the PACS is only read."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from sfumato_client.cli.home import Home
from sfumato_common.command_line import AsJson, console, print_json, say
from sfumato_common.count_text import count_text
from sfumato_common.progress import shown

if TYPE_CHECKING:
    from sfumato_client.pacs.fetching import Fetched, Watch
    from sfumato_client.pacs.incoming import Incoming
    from sfumato_client.pacs.query import Query, Study

_SHOWN = 50
_TURN_S = 1.0
Where = Annotated[Path, typer.Argument(metavar="PACS", help="Where the PACS is and how to speak to it, YAML.")]
_DAY = ["%Y-%m-%d", "%Y%m%d"]
First = Annotated[datetime | None, typer.Option("--from", formats=_DAY, help="First day of the studies.")]
Last = Annotated[datetime | None, typer.Option("--to", formats=_DAY, help="Last day of the studies.")]
Modality = Annotated[list[str] | None, typer.Option("--modality", help="A modality, such as DX (repeat for several).")]
Minutes = Annotated[float | None, typer.Option(min=0.01, help="End after so many minutes.")]
Accessions = Annotated[
    Path | None, typer.Option("--accessions", help="CSV with a column 'accession': these studies alone.")
]
Description = Annotated[str, typer.Option("--description", help="Words of the study's description; * and ? are any.")]

pacs_app = typer.Typer(no_args_is_help=True, help="Images from the hospital's PACS, which is only read.")


@pacs_app.command("list", epilog="Example: sfumato-site pacs list pacs.yaml --from 2024-01-01 --modality DX")
def list_command(
    where: Where,
    first: First = None,
    last: Last = None,
    modality: Modality = None,
    description: Description = "",
    accessions: Accessions = None,
    as_json: AsJson = False,
) -> None:
    """List the studies that a query finds; nothing is fetched."""
    from sfumato_client.pacs.fetching import list_studies, open_archive
    from sfumato_client.pacs.quiet import quiet
    from sfumato_client.pacs.settings import load_pacs

    pacs = load_pacs(where)
    with quiet():
        archive = open_archive(pacs)
        try:
            found = list_studies(archive, _query(first, last, modality, description, accessions), pacs.tries)
        finally:
            archive.close()
    if as_json:
        print_json(_worklist(found))
    else:
        _show(found)


@pacs_app.command(epilog="Example: sfumato-site pacs fetch pacs.yaml --home site --from 2024-01-01 --modality DX")
def fetch(
    home: Home,
    where: Where,
    first: First = None,
    last: Last = None,
    modality: Modality = None,
    description: Description = "",
    accessions: Accessions = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the images of the studies that a query finds into the home's folder 'incoming'; what is there stays."""
    from sfumato_client.pacs.fetching import fetch as fetch_all
    from sfumato_client.pacs.fetching import open_archive
    from sfumato_client.pacs.settings import load_pacs

    pacs = load_pacs(where)
    query = _query(first, last, modality, description, accessions)
    with _incoming(home, pacs.largest) as incoming:
        archive = open_archive(pacs)
        try:
            with _progress(as_json) as watch:
                done = fetch_all(archive, pacs, query, incoming, watch)
        finally:
            archive.close()
    _tell(done, as_json)
    done.require_whole()


@pacs_app.command(epilog="Example: sfumato-site pacs listen pacs.yaml --home site --minutes 60")
def listen(home: Home, where: Where, minutes: Minutes = None, as_json: AsJson = False) -> None:
    """Take what the PACS sends by C-STORE into 'incoming', until Ctrl-C or for so many minutes."""
    from sfumato_client.pacs.listener import keep_free, listening
    from sfumato_client.pacs.receiving import Receiver
    from sfumato_client.pacs.settings import load_pacs
    from sfumato_client.pacs.spool import spooled
    from sfumato_common.errors import ConfigError

    pacs = load_pacs(where)
    listener = pacs.listener
    if listener is None:
        raise ConfigError(f"{where.name}: it has no 'listener'; add its ae_title, port and peers")
    until = None if minutes is None else time.monotonic() + 60 * minutes
    with _incoming(home, pacs.largest) as incoming:
        receiver = Receiver(incoming, keep_free(listener))
        with (
            spooled(incoming.parts, pacs.largest, pacs.idle_s, pacs.object_s, receiver.spent),
            listening(listener, receiver, pacs),
            suppress(KeyboardInterrupt),
        ):
            if not as_json:
                say(f"'{listener.ae_title}' listens at {listener.address}:{listener.port}; Ctrl-C ends it")
            while until is None or time.monotonic() < until:
                time.sleep(min(_TURN_S, max(0.0, (until or math.inf) - time.monotonic())))
                incoming.sweep(pacs.object_s + pacs.idle_s)
    _tell_came(receiver.came, as_json)


@pacs_app.command(epilog="Example: sfumato-site pacs watch /srv/gateway --home site --minutes 60")
def watch(
    home: Home,
    folder: Annotated[Path, typer.Argument(help="The folder that a gateway writes to; it is only read.")],
    minutes: Minutes = None,
    settle: Annotated[float, typer.Option(min=0.1, help="Seconds for which a file has to stay as it is.")] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Take what is there and settles, and leave.")] = False,
    largest_mib: Annotated[int, typer.Option(min=1, help="The most MiB of one file.")] = 2048,
    as_json: AsJson = False,
) -> None:
    """Copy DICOM files that have come whole into a folder to 'incoming', until Ctrl-C or for so many minutes."""
    from sfumato_client.pacs.watched import watch_folder

    until = None if once else time.monotonic() + (math.inf if minutes is None else 60 * minutes)
    came: Counter[str] = Counter()
    with _incoming(home, largest_mib * 1024**2) as incoming, suppress(KeyboardInterrupt):
        watch_folder(folder, incoming, settle, until, came)
    _tell_came(came, as_json)


@pacs_app.command(epilog="Example: sfumato-site pacs label labels.csv --home site")
def label(
    home: Home,
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV with 'accession' (or a UID) and 'label'.")],
    column: Annotated[str, typer.Option("--label", help="What the table calls its column of labels.")] = "label",
    as_json: AsJson = False,
) -> None:
    """Join labels to what was fetched, by accession number, UID or patient id; makes 'incoming/source.yaml'."""
    from sfumato_client.pacs.labelling import LABELS, SOURCE, label_incoming
    from sfumato_client.site.home import SiteHome

    root = SiteHome(home).incoming
    done = label_incoming(root, table, column.strip().lower())
    if as_json:
        print_json(asdict(done))
        return
    say(f"{count_text(done.images, 'image has', 'images have')} a label now, by {done.by}: '{root.name}/{LABELS}'")
    if done.unlabelled:
        say(f"  {count_text(done.unlabelled, 'image has', 'images have')} none")
    if done.unmet:
        say(f"  {count_text(done.unmet, 'row of the table meets', 'rows of the table meet')} no image")
    say(
        f"{'made' if done.made_source else 'kept'} '{root.name}/{SOURCE}', which 'sfumato-site check' and 'ingest' read"
    )


def _tell_came(came: Counter[str], as_json: bool) -> None:
    kept, there = came.pop("kept", 0), came.pop("there", 0)
    if as_json:
        print_json({"kept": kept, "there": there, "refused": dict(sorted(came.items()))})
        return
    say(f"{count_text(kept, 'object')} came, {there} there already")
    for reason, count in sorted(came.items()):
        say(f"  {count} x not kept: {reason}")


@contextmanager
def _incoming(home: Path, largest: int) -> Iterator[Incoming]:
    """The home's folder for what comes from a PACS, while libraries keep silent."""
    from sfumato_client.pacs.incoming import Incoming
    from sfumato_client.pacs.quiet import quiet
    from sfumato_client.site.home import SiteHome

    site = SiteHome(home)
    with quiet(), Incoming.open(site.incoming, site.split_key(), largest) as incoming:
        yield incoming


def _query(
    first: datetime | None,
    last: datetime | None,
    modality: list[str] | None,
    description: str,
    accessions: Path | None,
) -> Query:
    from sfumato_client.pacs.accessions import read_accessions
    from sfumato_client.pacs.query import Query, modality_words
    from sfumato_common.errors import ConfigError

    if first and last and first > last:
        raise ConfigError("--from is later than --to; no day lies between them")
    numbers = read_accessions(accessions) if accessions is not None else ()
    days = (first.date() if first else None, last.date() if last else None)
    return Query(*days, modality_words(modality or []), description.strip(), numbers)


def _worklist(found: list[Study]) -> dict[str, object]:
    rows = [
        {
            "study": study.study,
            "date": study.date,
            "modalities": list(study.modalities),
            "description": study.description,
            "accession": study.accession,
            "objects": study.objects,
        }
        for study in found
    ]
    return {"studies": rows, "patients": _patients(found)}


def _patients(found: list[Study]) -> int:
    return len({study.patient for study in found if study.patient})


def _show(found: list[Study]) -> None:
    table = Table(caption=f"the first {_SHOWN}; --json prints all" if len(found) > _SHOWN else None)
    for heading in ("date", "modalities", "description", "accession", "objects"):
        table.add_column(heading, justify="right" if heading == "objects" else "left")
    for study in found[:_SHOWN]:
        objects = "" if study.objects is None else str(study.objects)
        table.add_row(study.date, " ".join(study.modalities), study.description, study.accession, objects)
    if found:
        console.print(table)
    say(f"{count_text(len(found), 'study', 'studies')} of {count_text(_patients(found), 'patient')}")


def _tell(done: Fetched, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "studies": done.studies,
                "kept": done.kept,
                "there": done.there,
                "left": dict(done.left),
                "refused": dict(done.refused),
                "unmet": done.unmet,
            }
        )
        return
    say(f"{done.studies} studies: {done.kept} objects came, {done.there} were there already")
    if done.unmet:
        say(f"  {done.unmet} accession numbers of the table meet no study")
    for name, count in sorted(done.left.items()):
        say(f"  {count} x {name}: not asked for; 'classes' in the description of the PACS asks for it")


@contextmanager
def _progress(silent: bool) -> Iterator[Watch]:
    """How far the fetch is, with the objects that were kept."""
    with shown("studies", silent) as tell:
        yield lambda done, of, kept: tell(done, of, f"studies ({kept} objects)")
