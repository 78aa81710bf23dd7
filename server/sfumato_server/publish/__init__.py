"""Writers of the published data set, its manifest and its report."""

from sfumato_server.publish.conversion import Conversion, convert
from sfumato_server.publish.overview import write_overview
from sfumato_server.publish.reading import PublishedFolder, PublishedImage, open_folder
from sfumato_server.publish.verify import UNVERIFIED, VerificationReport, verify_dataset
from sfumato_server.publish.writer import PublishedSet, publish

__all__ = [
    "UNVERIFIED",
    "Conversion",
    "PublishedFolder",
    "PublishedImage",
    "PublishedSet",
    "VerificationReport",
    "convert",
    "open_folder",
    "publish",
    "verify_dataset",
    "write_overview",
]
