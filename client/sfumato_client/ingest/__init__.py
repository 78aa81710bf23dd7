"""Readers: DICOM, PNG folders and npz sets into site images."""

from sfumato_client.ingest.records import SiteImage, Skipped, Split
from sfumato_client.ingest.sources import READERS, SourceConfig, load_source, read_source

__all__ = ["READERS", "SiteImage", "Skipped", "SourceConfig", "Split", "load_source", "read_source"]
