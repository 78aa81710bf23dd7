"""Readers: DICOM, folders of pictures and npz sets into site images, and one look at a whole set."""

from sfumato_client.ingest.alike import ID_KINDS, bare_number, id_kind, plain_id
from sfumato_client.ingest.answers import Answers
from sfumato_client.ingest.blocks import Blocks
from sfumato_client.ingest.jobs import Results
from sfumato_client.ingest.records import Facts, Kept, SiteImage, Skipped, Split, Stamp, Stamped, counted
from sfumato_client.ingest.sources import READERS, SourceConfig, load_source, read_source
from sfumato_client.ingest.whole_set import Entry, Examined, Past, Question, examine

__all__ = [
    "ID_KINDS",
    "READERS",
    "Answers",
    "Blocks",
    "Entry",
    "Examined",
    "Facts",
    "Kept",
    "Past",
    "Question",
    "Results",
    "SiteImage",
    "Skipped",
    "SourceConfig",
    "Split",
    "Stamp",
    "Stamped",
    "bare_number",
    "counted",
    "examine",
    "id_kind",
    "load_source",
    "plain_id",
    "read_source",
]
