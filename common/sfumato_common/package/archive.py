"""A ZIP (PKWARE APPNOTE 6.3) of which there is one byte form only: stored, sorted, fixed times and attributes.

Reading ends by writing the archive anew and comparing: whatever is not exactly what `write_archive` makes (comments,
extra fields, overlapping or repeated members, bytes before or after, compression) is refused.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping

from sfumato_common.errors import VerificationError

MEMBER = re.compile(r"manifest\.json|manifest\.sig|images/[0-9a-f]{16,64}\.png")
LARGEST_ARCHIVE = 800_002  # members
# bytes of the records that end an archive, and of a directory's entry without its name
_END, _LOCATOR, _WIDE_END, _ENTRY = 22, 20, 56, 46
_LONGEST_NAME = len("images/.png") + 64
EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """The one ZIP that holds `members`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            information = zipfile.ZipInfo(name, EPOCH)
            information.create_system = 3
            information.external_attr = 0o100644 << 16
            archive.writestr(information, members[name])
    return stream.getvalue()


def read_archive(data: bytes, most_members: int = LARGEST_ARCHIVE) -> dict[str, bytes]:
    """Members by name. Raises VerificationError unless `data` is exactly what `write_archive` would write.

    More than `most_members` are refused before the first one is looked at.
    """
    _check_directory(data, most_members)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(data))
            members = {entry.filename: archive.read(entry) for entry in entries}
    except VerificationError:
        raise
    except Exception:
        # zipfile meets hostile bytes with BadZipFile, struct.error, ValueError, NotImplementedError, EOFError, ...
        raise VerificationError("the package is not a readable archive; ask the sender again") from None
    if write_archive(members) != data:
        raise VerificationError("the package's archive is not in its one allowed form; ask the sender again")
    return members


def _check_directory(data: bytes, most_members: int) -> None:
    """Before anything is parsed: a directory that is no longer than so many members make it (APPNOTE 4.3.12 to 16)."""
    end, locator = data[-_END:], data[-_END - _LOCATOR : -_END]
    if len(end) != _END or not end.startswith(b"PK\x05\x06"):
        raise VerificationError("the package is not a readable archive; ask the sender again")
    (size,) = struct.unpack_from("<I", end, 12)
    if locator.startswith(b"PK\x06\x07"):
        record = data[-_END - _LOCATOR - _WIDE_END : -_END - _LOCATOR]
        (size,) = struct.unpack_from("<Q", record, 40) if len(record) == _WIDE_END else (len(data),)
    if size > most_members * (_ENTRY + _LONGEST_NAME):
        raise VerificationError("the package holds more files than the plan asks for")


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Before anything is read: known names, each once, uncompressed, together no larger than the archive itself."""
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names) or not all(MEMBER.fullmatch(name) for name in names):
        raise VerificationError("the package holds a file that does not belong in it")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits for entry in entries):
        raise VerificationError("the package holds a compressed or encrypted file")
    if any(entry.file_size != entry.compress_size for entry in entries) or sum(e.file_size for e in entries) > size:
        raise VerificationError("the package states sizes that cannot be")
