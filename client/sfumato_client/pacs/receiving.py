"""What a site answers to a C-STORE, whether it listens or asked by C-GET (PS3.4 B.2.3, statuses of Table B.2-1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from pynetdicom import build_context
from pynetdicom.presentation import PresentationContext

from sfumato_client.pacs.classes import COMPRESSED, UNCOMPRESSED
from sfumato_client.pacs.incoming import Expected, Incoming, RejectedObjectError
from sfumato_client.pacs.query import Refused
from sfumato_client.pacs.spool import Spool
from sfumato_common.errors import NoRoomError

SUCCESS, NO_ROOM, MISMATCH, UNREADABLE = 0x0000, 0xA700, 0xA900, 0xC000
TOO_MUCH = "what came is larger than 'largest_mib' allows, or took longer than 'object_s'"


class Receiver:
    """Keeps what is sent; with `wanted` nothing but that. Threads of several associations may share one."""

    def __init__(self, incoming: Incoming, keep_free: int = 0, wanted: Mapping[str, Expected] | None = None) -> None:
        self._incoming, self._keep_free, self._wanted = incoming, keep_free, wanted
        self._lock = Lock()
        self.came = Counter[str]()  # kept, there, and reasons
        self.refused = Refused()
        self.full = False

    def store(self, event: Any) -> int:
        """The status of a C-STORE that came whole: a handler of pynetdicom's EVT_C_STORE."""
        instance = str(event.request.AffectedSOPInstanceUID)
        spool: Spool = event.request._dataset_file
        try:
            return self._store(instance, str(event.request.AffectedSOPClassUID), spool)
        finally:
            spool.discard()

    def _store(self, instance: str, sop_class: str, spool: Spool) -> int:
        expected = self._wanted.get(instance) if self._wanted is not None else None
        if self._wanted is not None and expected is None:
            return self._say(instance, "the PACS sent another object than it was asked for", MISMATCH)
        try:
            self._incoming.require_room(self._keep_free)
            if spool.full:
                raise NoRoomError
            if spool.spent:
                raise RejectedObjectError(TOO_MUCH)
            spool.close()
            kept = self._incoming.keep(Path(spool.name), expected, stated=(instance, sop_class))
        except NoRoomError:
            self.full = True
            return self._say(instance, "the disk is full", NO_ROOM)
        except RejectedObjectError as reason:
            return self._say(instance, str(reason), MISMATCH if "another" in str(reason) else UNREADABLE)
        return self._say("", "kept" if kept else "there", SUCCESS)

    def spent(self, instance: str) -> None:
        """An object went beyond its bounds, and its association was ended."""
        self._say(instance, TOO_MUCH, NO_ROOM)

    def _say(self, instance: str, what: str, status: int) -> int:
        with self._lock:
            self.came[what] += 1
            if instance:
                self.refused[instance] = what
        return status


def storage_contexts(classes: Collection[str]) -> list[PresentationContext]:
    """One presentation context a class, of all transfer syntaxes that are taken: what a listener supports."""
    return [build_context(uid, [*UNCOMPRESSED, *COMPRESSED]) for uid in sorted(classes)]
