"""What a coordinator's app bundle may hold: a description and nothing that could run."""

from __future__ import annotations

import io
import zipfile

from sfumato_common.errors import VerificationError

_HARMLESS = {"pyproject.toml", "README.md", ".info/CONTENT"}
_LARGEST_BUNDLE_BYTES = 1024 * 1024


class BundleRefused(VerificationError):
    """The app bundle carries more than its description: it is neither unpacked nor run."""

    wire_code = "bundle-refused"


def inspect_bundle(content: bytes) -> None:
    """Raise BundleRefused unless the bundle (FAB, a zip) holds only pyproject, README and Flower's own list."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            entries = bundle.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise BundleRefused("the app bundle is not a readable zip; it was not unpacked") from None
    # names as stored: zipfile itself cuts a name at its first zero byte
    names = [entry.orig_filename for entry in entries]
    if set(names) - _HARMLESS or len(set(names)) != len(names):
        raise BundleRefused("the app bundle carries files beyond its description; it was neither unpacked nor run")
    if sum(entry.file_size for entry in entries) > _LARGEST_BUNDLE_BYTES:
        raise BundleRefused("the app bundle is larger than any description; it was neither unpacked nor run")
