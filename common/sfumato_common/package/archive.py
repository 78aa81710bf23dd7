"""A ZIP (PKWARE APPNOTE 6.3) of which there is one byte form only: stored, sorted, fixed times and attributes.

It is read from a file, the directory first and each member as it is asked for; nothing but one member is in memory.
Every record is held against the bytes that the writer makes of it, and members fill the file without a gap: comments,
extra fields, overlapping or repeated members, bytes before or after and compression are refused. Shards are far smaller
than what would need ZIP64, which there is not.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple

from sfumato_common.errors import VerificationError

MEMBER = re.compile(r"manifest\.entries|manifest\.json|manifest\.sig|images/[0-9a-f]{16,64}\.png")
MOST_MEMBERS = 60_000  # what fits the directory's 16-bit counts, with room
_END, _ENTRY, _LOCAL = struct.Struct("<4s4H2LH"), struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_LONGEST_NAME = len("images/.png") + 64
_VERSION, _SYSTEM, _DATE, _MODE = 20, 3 << 8, 33, 0o100644 << 16  # ZIP 2.0, Unix, 1980-01-01, a plain file
_UNREADABLE = "the package is not a readable archive; ask the sender again"
_OTHER_FORM = "the package's archive is not in its one allowed form; ask the sender again"


class Member(NamedTuple):
    """One file of an archive: name, CRC-32, bytes, and where its local record begins."""

    name: str
    checksum: int
    size: int
    offset: int

    @property
    def local(self) -> bytes:
        """The record before its bytes (APPNOTE 4.3.7)."""
        name, checksum, size, _ = self
        fields = (_VERSION, 0, 0, 0, _DATE, checksum, size, size, len(name), 0)
        return _LOCAL.pack(b"PK\x03\x04", *fields) + name.encode("ascii")

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.offset + _LOCAL.size + len(self.name) + self.size

    @property
    def entry(self) -> bytes:
        """Its record in the directory (APPNOTE 4.3.12)."""
        name, checksum, size, offset = self
        sizes = (checksum, size, size, len(name), 0, 0, 0, 0, _MODE, offset)
        return _ENTRY.pack(b"PK\x01\x02", _VERSION | _SYSTEM, _VERSION, 0, 0, 0, _DATE, *sizes) + name.encode("ascii")


class ArchiveWriter:
    """Writes members one after another, in the order of their names, to `stream`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._members, self._at = stream, list[Member](), 0

    def add(self, name: str, data: bytes) -> None:
        """One more member."""
        assert not self._members or self._members[-1].name < name, "members come in the order of their names"
        member = Member(name, zlib.crc32(data), len(data), self._at)
        self._stream.write(member.local)
        self._stream.write(data)
        self._members.append(member)
        self._at = member.end

    def close(self) -> None:
        """The directory and the record that ends it."""
        directory = b"".join(member.entry for member in self._members)
        self._stream.write(directory + _end(len(self._members), len(directory), self._at))


def write_archive(members: Mapping[str, bytes]) -> bytes:
    """The one ZIP that holds `members`."""
    stream = io.BytesIO()
    writer = ArchiveWriter(stream)
    for name in sorted(members):
        writer.add(name, members[name])
    writer.close()
    return stream.getvalue()


def read_directory(stream: BinaryIO, most_members: int = MOST_MEMBERS) -> dict[str, Member]:
    """The members of the archive in `stream` by name, in order. Raises VerificationError for another form than ours.

    More than `most_members` are refused before the first one is looked at. Bytes of members are not read yet.
    """
    length = stream.seek(0, io.SEEK_END)
    if length < _END.size:
        raise VerificationError(_UNREADABLE)
    stream.seek(length - _END.size)
    end = stream.read(_END.size)
    count, size, start = _END.unpack(end)[4:7]
    if not end.startswith(b"PK\x05\x06"):
        raise VerificationError(_UNREADABLE)
    if size > most_members * (_ENTRY.size + _LONGEST_NAME):
        raise VerificationError("the package holds more files than the plan asks for")
    if start + size + _END.size != length or end != _end(count, size, start):
        raise VerificationError(_UNREADABLE)
    stream.seek(start)
    directory = stream.read(size)
    members = _members(directory, start)
    at = 0
    for member in members:
        if member.offset != at:
            raise VerificationError(_OTHER_FORM)
        at = member.end
    if at != start or b"".join(member.entry for member in members) != directory or len(members) != count:
        raise VerificationError(_OTHER_FORM)
    return {member.name: member for member in members}


def read_last(stream: BinaryIO, names: Sequence[str]) -> dict[str, Member]:
    """The last members of an archive, which are called `names`, without a look at the others.

    For bytes that are held against a signature anyway. Raises VerificationError where there are no such members.
    """
    length = sum(_ENTRY.size + len(name) for name in names)
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - _END.size - length))
    start = stream.tell()
    members = {member.name: member for member in _members(stream.read(length), start)}
    if list(members) != list(names):
        raise VerificationError(_UNREADABLE)
    return members


def read_member(stream: BinaryIO, member: Member) -> bytes:
    """The bytes of one member. Raises VerificationError unless they and the record before them are as the directory."""
    local = member.local
    stream.seek(member.offset)
    found = stream.read(len(local) + member.size)
    data = found[len(local) :]
    if len(data) != member.size or found[: len(local)] != local or zlib.crc32(data) != member.checksum:
        raise VerificationError(_OTHER_FORM)
    return data


def read_archive(data: bytes, most_members: int = MOST_MEMBERS) -> dict[str, bytes]:
    """All members of a small archive by name. Raises VerificationError for anything but what `write_archive` makes."""
    stream = io.BytesIO(data)
    return {name: read_member(stream, member) for name, member in read_directory(stream, most_members).items()}


def _end(count: int, size: int, start: int) -> bytes:
    return _END.pack(b"PK\x05\x06", 0, 0, count, count, size, start, 0)


def _members(directory: bytes, start: int) -> list[Member]:
    """The records of a directory; what is no package at all is told before what is off the form."""
    members: list[Member] = []
    at = 0
    while at < len(directory):
        if len(directory) - at < _ENTRY.size or directory[at : at + 4] != b"PK\x01\x02":
            raise VerificationError(_UNREADABLE)
        _, _, _, flags, way, _, _, checksum, packed, size, length, *_, offset = _ENTRY.unpack_from(directory, at)
        name = directory[at + _ENTRY.size : at + _ENTRY.size + length]
        if flags or way:
            raise VerificationError("the package holds a compressed or encrypted file")
        if packed != size or size > start:
            raise VerificationError("the package states sizes that cannot be")
        members.append(Member(name.decode("ascii", "replace"), checksum, size, offset))
        at += _ENTRY.size + length
    _check_names([member.name for member in members])
    return members


def _check_names(names: Sequence[str]) -> None:
    """Known names, each once, in order."""
    in_order = sorted(names)
    if len(set(names)) != len(names) or not all(map(MEMBER.fullmatch, names)):
        raise VerificationError("the package holds a file that does not belong in it")
    if list(names) != in_order:
        raise VerificationError(_OTHER_FORM)
