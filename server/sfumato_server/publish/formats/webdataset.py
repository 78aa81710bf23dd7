"""Shards of NAME.png and NAME.json in tar files, the WebDataset convention, in plain ustar (POSIX.1-1988)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.formats.base import About, Format, Place, Shard, fitting, pixel_bytes
from sfumato_server.publish.formats.png import decoded, packed
from sfumato_server.publish.manifest import ImageEntry
from sfumato_server.publish.reading import PublishedImage

LARGEST_SHARD = 256_000_000  # bytes
_MOST = 10_000
# two headers, their padding and the JSON; a PNG of noise is larger than its pixels by less than this
_BESIDE = 8 * 1024
_END = bytes(2 * tarfile.BLOCKSIZE)


def _per_shard(plan: Plan) -> int:
    # deflate stores what it cannot pack: 5 bytes in 16 KiB, and one byte a row for the filter
    return fitting(plan, LARGEST_SHARD, _MOST, _BESIDE + pixel_bytes(plan) // 100)


def _file(shard: Shard) -> str:
    return f"data/train-{shard.number:05d}-of-{shard.of:05d}.tar"


def _places(shard: Shard, about: About) -> Sequence[Place]:
    return [Place(_file(shard), f"{entry.name}.png") for entry in shard.entries]


def _header(name: str, size: int) -> bytes:
    """One member's header: no user, no group, no time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _said(entry: ImageEntry) -> bytes:
    return canonical_json(entry.model_dump(mode="json", exclude={"file", "sha256"}))


def _write(folder: Path, shard: Shard, images: Iterable[PublishedImage], about: About) -> None:
    path = folder / _file(shard)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as tar:
        for image in images:
            for ending, data in (("png", packed(image)), ("json", _said(image.entry))):
                tar.write(_header(f"{image.entry.name}.{ending}", len(data)) + data + bytes(_padding(len(data))))
        tar.write(_END)


def _read(folder: Path, shard: Shard, about: About) -> Iterator[tuple[str, AnyArray]]:
    file = _file(shard)
    largest = 2 * pixel_bytes(about.plan) + _BESIDE
    try:
        with (folder / file).open("rb") as tar:
            for entry in shard.entries:
                picture = _member(tar, file, f"{entry.name}.png", largest)
                if _member(tar, file, f"{entry.name}.json", _BESIDE) != _said(entry):
                    raise VerificationError(f"{file}: {entry.name}.json does not say what the signed entry says")
                yield entry.name, decoded(picture, f"{file}: {entry.name}.png")
            if tar.read(len(_END) + 1) != _END:
                raise VerificationError(f"{file} holds something behind its images")
    except OSError:
        raise VerificationError(f"{file} is missing or cannot be read") from None


def _member(tar: BinaryIO, file: str, name: str, largest: int) -> bytes:
    """The contents of the next member, which must be `name`; its header may say nothing but its size."""
    header = tar.read(tarfile.BLOCKSIZE)
    try:
        size = int(header[124:135], 8)
    except ValueError:
        size = -1
    if not 0 <= size <= largest or header != _header(name, size):
        raise VerificationError(f"{file} has another member where {name} belongs")
    data = tar.read(size + _padding(size))
    if len(data) != size + _padding(size) or any(data[size:]):
        raise VerificationError(f"{file} is cut short or altered at {name}")
    return data[:size]


WEBDATASET = Format(
    name="webdataset",
    purpose="tar files of at most 256 MB, read from the first byte to the last, for training",
    needs=(),
    opened_by='webdataset.WebDataset("DIR/data/train-{00000..00007}-of-00008.tar").decode("pil")',
    per_shard=_per_shard,
    places=_places,
    write=_write,
    read=_read,
)
