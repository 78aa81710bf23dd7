"""PNG files in a folder a label, as torchvision's ImageFolder reads them (8 and 16 bit, grey and RGB)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sfumato_common.errors import VerificationError
from sfumato_common.imaging import decode_png, encode_png
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray
from sfumato_server.publish.formats.base import LARGEST_FOLDER, About, Format, Place, Shard, pixel_bytes
from sfumato_server.publish.reading import PublishedImage

_PNG = 2048  # chunks, a filter's byte a row, and blocks that deflate stores
_BESIDE = 64 * 1024  # a PNG of noise is larger than its pixels; nobody's is by so much


def read_png(path: Path, name: str, plan: Plan) -> AnyArray:
    """The pixels of one PNG file. Raises VerificationError when it is missing, too large or no plain picture."""
    try:
        if path.stat().st_size > 2 * pixel_bytes(plan) + _BESIDE:
            raise VerificationError(f"{name} is larger than an image of the study can be")
        data = path.read_bytes()
    except OSError:
        raise VerificationError(f"{name} is missing or cannot be read") from None
    return decoded(data, name)


def packed(image: PublishedImage) -> bytes:
    """The image as a PNG: the bytes that its site signed where they are at hand, else packed anew.

    So are bytes that are more than pixels need, which a deflate stream allows: nothing hidden in them goes along.
    """
    needed = image.pixels.nbytes + image.pixels.nbytes // 100 + _PNG
    return image.png if image.png is not None and len(image.png) <= needed else encode_png(image.pixels)


def decoded(data: bytes, name: str) -> AnyArray:
    """The pixels of PNG bytes. Raises VerificationError, naming the image, for anything but one plain picture."""
    try:
        return decode_png(data)
    except VerificationError as error:
        raise VerificationError(f"{name}: {error}") from None


def _places(shard: Shard, about: About) -> Sequence[Place]:
    return [Place(f"images/{entry.label}/{shard.number:05d}/{entry.name}.png") for entry in shard.entries]


def _write(folder: Path, shard: Shard, images: Iterable[PublishedImage], about: About) -> None:
    for place, image in zip(_places(shard, about), images, strict=True):
        path = folder / place.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(packed(image))


def _read(folder: Path, shard: Shard, about: About) -> Iterator[tuple[str, AnyArray]]:
    for place, entry in zip(_places(shard, about), shard.entries, strict=True):
        yield entry.name, read_png(folder / place.file, place.file, about.plan)


PNG = Format(
    name="png",
    purpose="pictures in a folder a label, for torchvision, an image viewer, or your own loop",
    needs=(),
    opened_by='torchvision.datasets.ImageFolder("DIR/images")',
    per_shard=lambda plan: LARGEST_FOLDER,
    places=_places,
    write=_write,
    read=_read,
)
