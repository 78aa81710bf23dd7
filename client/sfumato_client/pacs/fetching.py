"""From a query to files: what is there already is not asked for again, what broke off is, a bounded number of times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from sfumato_client.pacs.classes import class_name
from sfumato_client.pacs.incoming import Expected, Incoming
from sfumato_client.pacs.query import Archive, InterruptedTransferError, Query, Refused, Study
from sfumato_client.pacs.settings import AnyPacs, DicomWeb
from sfumato_common.errors import PacsError

_LONGEST_PAUSE_S = 30.0
# told of studies that are done, of how many there are, and of objects that came
Watch = Callable[[int, int, int], None]
Answer = TypeVar("Answer")


@dataclass
class Fetched:
    """What became of a query."""

    studies: int = 0
    kept: int = 0
    there: int = 0
    # objects of classes that were not asked for, and reasons why others were not kept
    left: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    # accession numbers of the query that no study has
    unmet: int = 0

    def require_whole(self) -> None:
        """Raise PacsError where something that was asked for was not kept."""
        if self.refused:
            reasons = "; ".join(f"{count} x {reason}" for reason, count in sorted(self.refused.items()))
            raise PacsError(f"not all was kept: {reasons}; what was kept stays, and the same command asks again")


def open_archive(pacs: AnyPacs) -> Archive:
    """The way to a PACS that its description says. Raises ConfigError."""
    if isinstance(pacs, DicomWeb):
        from sfumato_client.pacs.dicomweb import DicomWebArchive

        return DicomWebArchive(pacs)
    from sfumato_client.pacs.dimse import DimseArchive

    return DimseArchive(pacs)


def list_studies(archive: Archive, query: Query, tries: int) -> list[Study]:
    """The work-list of a query, by date. Raises PacsError and ConfigError."""
    found = _again(lambda: list(archive.studies(query)), tries)
    return sorted(found, key=lambda study: (study.date, study.study))


def fetch(
    archive: Archive,
    pacs: AnyPacs,
    query: Query,
    incoming: Incoming,
    watch: Watch = lambda done, of, kept: None,
    only: Callable[[Study], bool] = lambda study: True,
) -> Fetched:
    """Have all objects of a query's studies that are not there yet, study by study.

    Raises PacsError where the PACS is lost, ConfigError where it refuses, NoRoomError where the disk is full; what was
    kept until then stays.
    """
    done = Fetched()
    studies = [study for study in list_studies(archive, query, pacs.tries) if only(study)]
    done.unmet = len(set(query.accessions) - {study.accession for study in studies})
    for number, study in enumerate(studies):
        watch(number, len(studies), done.kept)
        _fetch_study(archive, pacs, study, query, incoming, done)
        done.studies += 1
    watch(len(studies), len(studies), done.kept)
    return done


def _fetch_study(
    archive: Archive, pacs: AnyPacs, study: Study, query: Query, incoming: Incoming, done: Fetched
) -> None:
    found = _objects(archive, pacs, study, query.modalities, done)
    wanted = []
    for each in found:
        if each.sop_class and each.sop_class not in pacs.wanted_classes:
            done.left[class_name(each.sop_class)] += 1
        elif incoming.has(each.instance):
            done.there += 1
        else:
            wanted.append(each)
    for batch in _batches(wanted, archive.together):
        refused = _retrieve(archive, pacs.tries, batch, incoming)
        done.kept += len(batch) - len(refused)
        done.refused.update(refused.values())


def _objects(archive: Archive, pacs: AnyPacs, study: Study, modalities: Sequence[str], done: Fetched) -> list[Expected]:
    """The objects of a study; asked again where they are fewer than the PACS says that the study has."""
    said = 0 if modalities else study.objects or 0
    for failed in range(1, pacs.tries + 1):
        found = _again(lambda: archive.objects(study.study, modalities), pacs.tries)
        if len(found) >= said:
            return found
        if failed < pacs.tries:
            _pause(failed)
    done.refused["the PACS lists fewer objects of a study than it says that there are"] += 1
    return found


def _retrieve(archive: Archive, tries: int, batch: Sequence[Expected], incoming: Incoming) -> Refused:
    """Have a batch of one series; a transfer that broke off goes on with what is missing."""
    refused = Refused()
    left, failed = list(batch), 0
    while left:
        try:
            said = ""
            archive.retrieve(left, incoming, refused)
        except InterruptedTransferError as why:
            said = str(why)
        missing = [each for each in left if each.instance not in refused and not incoming.has(each.instance)]
        failed = 0 if len(missing) < len(left) else failed + 1
        left = missing
        if left and failed >= tries:
            if said:
                raise PacsError(f"{said}; what was fetched stays, and the same command goes on")
            refused |= {each.instance: "the PACS did not send it" for each in left}
            break
        if left:
            _pause(failed)
    return refused


def _batches(wanted: Sequence[Expected], together: int) -> Iterator[list[Expected]]:
    """Objects of one series, so many at a time."""
    batch: list[Expected] = []
    for each in wanted:
        if batch and (batch[0].series != each.series or len(batch) >= together):
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def _again(ask: Callable[[], Answer], tries: int) -> Answer:
    """The answer to a question that may break off."""
    for failed in range(1, tries + 1):
        try:
            return ask()
        except InterruptedTransferError as why:
            if failed == tries:
                raise PacsError(f"{why}; what was fetched stays, and the same command goes on") from None
            _pause(failed)
    raise AssertionError("a question is asked at least once")


def _pause(failed: int) -> None:
    """Leave a PACS that is in trouble alone for a while: 1, 2, 4, ... seconds."""
    time.sleep(min(_LONGEST_PAUSE_S, 2.0 ** max(0, failed - 1)))
