"""A PACS by DIMSE: C-FIND for the work-list, C-GET or C-MOVE for objects (PS3.4 Annex C, study root)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from sfumato_client.pacs.association import associate
from sfumato_client.pacs.classes import COMPRESSED, UNCOMPRESSED
from sfumato_client.pacs.incoming import Expected, Incoming
from sfumato_client.pacs.listener import listening
from sfumato_client.pacs.query import InterruptedTransferError, Query, Refused, Study, limited
from sfumato_client.pacs.receiving import Receiver
from sfumato_client.pacs.settings import Dimse
from sfumato_client.pacs.spool import await_reactor, spooled
from sfumato_client.pacs.tls import client_context
from sfumato_common.errors import ConfigError, NoRoomError, PacsError

# study root query and retrieve (PS3.4 C.6.2)
_FIND = UID("1.2.840.10008.5.1.4.1.2.2.1")
_MODELS = {"get": UID("1.2.840.10008.5.1.4.1.2.2.3"), "move": UID("1.2.840.10008.5.1.4.1.2.2.2")}
_PENDING = (0xFF00, 0xFF01)
_CLASSES_AT_ONCE = 11  # times ten contexts each, of 128 that an association may have
_QUERIED = ("StudyInstanceUID", "StudyDate", "ModalitiesInStudy", "StudyDescription", "AccessionNumber", "PatientID")
_RELEASE_S = 2.0  # that the end of an association is waited for
_MOST_OBJECTS = 1_000_000  # that one study is believed to have


class DimseArchive:
    """An `Archive` (query.py) by DIMSE."""

    together = 32

    def __init__(self, pacs: Dimse) -> None:
        self._pacs = pacs
        self._tls = None if pacs.tls is None else client_context(pacs.tls)
        self._found: Association | None = None
        self._transfer: Association | None = None
        self._offered: frozenset[str] = frozenset()
        self._receiver: Receiver | None = None

    def close(self) -> None:
        """End the associations."""
        for association in (self._found, self._transfer):
            if association is not None:
                self._end(association)
        self._found = self._transfer = None

    def _end(self, association: Association) -> None:
        """Release an association, or leave one that is gone."""
        if association.is_established:
            await_reactor(association)
            association.acse_timeout = min(_RELEASE_S, self._pacs.connect_s)
            association.release()

    def _store(self, event: Any) -> int:
        """What is sent goes to the receiver of the batch that was asked for."""
        assert self._receiver is not None
        return self._receiver.store(event)

    def studies(self, query: Query) -> Iterator[Study]:
        """The studies that fit, each once."""
        return limited(self._studies(query), query, self._pacs.most_studies)

    def _studies(self, query: Query) -> Iterator[Study]:
        for modality, accession in query.asked:
            asked = Dataset()
            for keyword in _QUERIED:
                setattr(asked, keyword, "")
            asked.NumberOfStudyRelatedInstances = None
            asked.StudyDate, asked.ModalitiesInStudy, asked.AccessionNumber = query.dates, modality, accession
            for answer in self._find("STUDY", asked):
                if UID(_text(answer, "StudyInstanceUID")).is_valid:
                    yield _study(answer)

    def objects(self, study: str, modalities: Sequence[str]) -> list[Expected]:
        """The objects of a study, of series of these modalities where some are named."""
        found = dict[str, Expected]()
        for series in self._series(study, modalities):
            asked = Dataset()
            asked.StudyInstanceUID, asked.SeriesInstanceUID = study, series
            asked.SOPInstanceUID, asked.SOPClassUID = "", ""
            for answer in self._find("IMAGE", asked):
                instance, sop_class = _text(answer, "SOPInstanceUID"), _text(answer, "SOPClassUID")
                if UID(instance).is_valid:
                    found[instance] = Expected(study, series, instance, sop_class)
                if len(found) > _MOST_OBJECTS:
                    raise PacsError(f"{self._pacs.place} lists more objects of one study than a study has")
        return sorted(found.values(), key=lambda each: (each.series, each.instance))

    def _series(self, study: str, modalities: Sequence[str]) -> list[str]:
        asked = Dataset()
        asked.StudyInstanceUID, asked.SeriesInstanceUID, asked.Modality = study, "", ""
        found = []
        for answer in self._find("SERIES", asked):
            series, modality = _text(answer, "SeriesInstanceUID"), _text(answer, "Modality").upper()
            if UID(series).is_valid and (not modalities or not modality or modality in modalities):
                found.append(series)
            if len(found) > _MOST_OBJECTS:
                raise PacsError(f"{self._pacs.place} lists more series of one study than a study has")
        return sorted(set(found))

    def _find(self, level: str, asked: Dataset) -> Iterator[Dataset]:
        """The answers to a C-FIND, over one association for all of them."""
        asked.QueryRetrieveLevel = level
        with self._bounded():
            if self._found is None or not self._found.is_established:
                self._found = associate(self._pacs, self._tls, [build_context(_FIND)])
            await_reactor(self._found)
            for status, answer in self._found.send_c_find(asked, _FIND):
                code = status.get("Status")
                if code in _PENDING:
                    if answer is None:
                        raise PacsError(f"{self._pacs.place} gives an answer to a query that cannot be read")
                    yield answer
                elif code is None:
                    self._found = None
                    raise InterruptedTransferError(
                        f"{self._pacs.place} broke off a query, or did not answer it in time; where it always does, "
                        "its people have to enter this site's 'ae_title' there"
                    )
                elif code not in (*_PENDING, 0x0000):
                    raise PacsError(f"{self._pacs.place} refuses the query (C-FIND status {code:04X}); ask its people")

    def retrieve(self, wanted: Sequence[Expected], incoming: Incoming, refused: Refused) -> None:
        """Have objects sent by C-GET over one association, or by C-MOVE to the site's listener."""
        receiver = self._receiver = Receiver(incoming, wanted={each.instance: each for each in wanted})
        try:
            with self._bounded(incoming, receiver), self._receiving(receiver):
                self._send(self._transferring(wanted), wanted, _MODELS[self._pacs.retrieve])
        finally:
            refused |= receiver.refused
        if receiver.full:
            raise NoRoomError("the disk is full; make room, and the same command goes on")

    def _transferring(self, wanted: Sequence[Expected]) -> Association:
        """The association of the last transfer, where it stands and has contexts for these classes; else a new one."""
        classes = frozenset(each.sop_class for each in wanted)
        if self._transfer is not None:
            if self._transfer.is_established and classes <= self._offered:
                return self._transfer
            self._end(self._transfer)
        self._transfer, self._offered = None, classes
        self._transfer = associate(self._pacs, self._tls, *self._retrieving(wanted))
        return self._transfer

    def _receiving(self, receiver: Receiver) -> AbstractContextManager[None]:
        listener = self._pacs.listener
        if self._pacs.retrieve != "move" or listener is None:
            return nullcontext()
        return listening(listener, receiver, self._pacs)

    def _retrieving(self, wanted: Sequence[Expected]) -> tuple[list[PresentationContext], list[Any], list[Any]]:
        """Contexts, role selections and handlers of a retrieval."""
        contexts = [build_context(_MODELS[self._pacs.retrieve])]
        if self._pacs.retrieve == "move":
            return contexts, [], []
        said = sorted({each.sop_class for each in wanted if each.sop_class})[:_CLASSES_AT_ONCE]
        classes = said or sorted(self._pacs.wanted_classes)
        for uid in classes:
            contexts.append(build_context(uid, list(UNCOMPRESSED)))
            # a context a syntax: the PACS sends as it has stored, and the other side picks one of each context
            contexts += [build_context(uid, [syntax]) for syntax in COMPRESSED] if said else []
        return contexts, [build_role(uid, scp_role=True) for uid in classes], [(evt.EVT_C_STORE, self._store)]

    def _send(self, association: Association, wanted: Sequence[Expected], model: Any) -> None:
        asked = Dataset()
        asked.QueryRetrieveLevel = "IMAGE"
        asked.StudyInstanceUID, asked.SeriesInstanceUID = wanted[0].study, wanted[0].series
        asked.SOPInstanceUID = [each.instance for each in wanted]
        place = self._pacs.place
        await_reactor(association)
        if self._pacs.retrieve == "move":
            assert self._pacs.listener is not None
            answers = association.send_c_move(asked, self._pacs.listener.ae_title, model)
        else:
            answers = association.send_c_get(asked, model)
        for status, _ in answers:
            code = status.get("Status")
            if code is None:
                raise InterruptedTransferError(f"{place} broke off in the midst of a transfer, or was silent too long")
            if code == 0xA801:
                raise ConfigError(
                    f"{place} knows no destination of the listener's AE title; its people have to enter it there"
                )
            if code in (0xA900, 0x0122, 0x0124):
                raise PacsError(f"{place} refuses the transfer (status {code:04X}); ask its people")

    def _bounded(
        self, incoming: Incoming | None = None, receiver: Receiver | None = None
    ) -> AbstractContextManager[None]:
        """Bounds of what comes, and where objects go."""
        bounds = (self._pacs.largest, self._pacs.idle_s, self._pacs.object_s)
        if incoming is None or receiver is None:
            return spooled(None, *bounds)
        return spooled(incoming.parts, *bounds, receiver.spent)


def _study(answer: Dataset) -> Study:
    objects = _text(answer, "NumberOfStudyRelatedInstances")
    return Study(
        _text(answer, "StudyInstanceUID"),
        _text(answer, "StudyDate"),
        tuple(_values(answer, "ModalitiesInStudy")),
        _text(answer, "StudyDescription"),
        _text(answer, "AccessionNumber"),
        _text(answer, "PatientID"),
        int(objects) if objects.isdecimal() and len(objects) < 9 else None,
    )


def _values(answer: Dataset, keyword: str) -> list[str]:
    try:
        value = answer.get(keyword)
    except Exception:  # a value that its representation does not allow
        return []
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else [value]
    return [" ".join(str(each).split()).strip("\0 ") for each in values]


def _text(answer: Dataset, keyword: str) -> str:
    values = _values(answer, keyword)
    return values[0] if values else ""
