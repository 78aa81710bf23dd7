"""What decides how a source's rows are read: what an ingest goes on with, and what an update reads again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import cached_property

from sfumato_client.ingest.folders import folder_of
from sfumato_client.ingest.sources import AnySource, DicomSource, NpzSource
from sfumato_common import __version__
from sfumato_common.errors import DataError
from sfumato_common.study.plan import Plan

_READING = 2  # of how rows are read, within a version: a row that was read under another number is read again


class Described:
    """A source under a plan; the folder of its structured reports is walked once, when one of its digests is asked."""

    def __init__(self, source: AnySource, plan: Plan) -> None:
        self._source, self._plan = source, plan

    @cached_property
    def about(self) -> str:
        """What an ingest reads, in one digest: source, form and labels, and the table. Raises DataError.

        Files have stamps in the journal. Answers to questions are left out: what was read stays read when they come.
        """
        digest = hashlib.sha256(self._said().encode())
        source = self._source
        table = source.index if isinstance(source, NpzSource) else source.labels
        try:
            with table.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except OSError as error:
            raise DataError(f"table '{table.name}' cannot be read ({error.strerror}); check the path") from None
        return digest.hexdigest()

    @cached_property
    def settings(self) -> str:
        """All that decides how one row is read, whichever folder and table it is of."""
        return self._said({"folder", "labels", "index"})

    def _said(self, exclude: Collection[str] = ()) -> str:
        said = {
            "source": self._source.model_dump(mode="json", exclude={"answers", "withdrawn", *exclude}),
            "form": self._plan.image.model_dump(mode="json"),
            "labels": list(self._plan.labels),
            "version": __version__,
            "reading": _READING,
            "reports": self._reports,
        }
        return json.dumps(said, sort_keys=True)

    @cached_property
    def _reports(self) -> str:
        """What changes when a structured report does that gives images their labels; '' for a source without."""
        source = self._source
        if not isinstance(source, DicomSource) or source.label_from is None or source.label_from.sr is None:
            return ""
        folder, digest = folder_of(source.label_from.sr.folder or source.folder), hashlib.sha256()
        folder.check()
        for name in folder.names():
            digest.update(f"{name} {folder.state_of(name)}\n".encode())
        return digest.hexdigest()
