"""A set in another form: its images in one format, and beside them the same signed statements, to be verified by."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from sfumato_common import package
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.package.manifest import Hash
from sfumato_common.strict import Strict, read_signed
from sfumato_common.types import AnyArray
from sfumato_server.publish.formats import About, Format, Shard, format_of
from sfumato_server.publish.manifest import FORM, MANIFEST, ImageEntry
from sfumato_server.publish.near import Claims
from sfumato_server.publish.reading import PublishedFolder, PublishedImage, open_folder
from sfumato_server.publish.strays import is_stray, refuse_extra, strays_in
from sfumato_server.publish.verify import VerificationReport, verify_statements

STATEMENT, INDEX = "statement", "index.csv"
COLUMNS = ("name", "file", "inside", "label", "site", "model", "method", "guarantee", "pixel_sha256")


class Form(Strict):
    """What `form.json` says: which form the set has, how many images, and which signed manifest it came from."""

    format: Literal["sfumato-converted/1"] = "sfumato-converted/1"
    form: str
    images: Annotated[int, Field(ge=1)]
    manifest_sha256: Hash

    def encode(self) -> bytes:
        """The bytes of the file."""
        return canonical_json(self.model_dump()) + b"\n"


class Source:
    """A set to be read by shards, whichever form it has: as it was published, or converted.

    `statement` is the folder of its signed statements, `converted` its form, or None where it is as published.
    """

    def __init__(self, folder: Path, published: PublishedFolder, converted: Format | None) -> None:
        self.folder, self.published, self.converted = folder, published, converted
        self.statement = published.folder
        digest = hashlib.sha256((self.statement / MANIFEST).read_bytes()).hexdigest()
        self.about = About(published.manifest, published.plan, digest, published.manifest.images)

    def shards(self, form: Format) -> Iterator[Shard]:
        """The set's entries in the pieces that a format writes."""
        size = form.per_shard(self.published.plan)
        entries, of = self.published.entries(), -(-self.about.images // size)
        for number in range(of):
            yield Shard(number, of, number * size, tuple(islice(entries, size)))

    def images(self, wanted: Shard) -> Iterator[PublishedImage]:
        """The images of a shard of any format, in its order, each compared with its entry. Raises VerificationError."""
        found: Iterator[PublishedImage]
        if self.converted is None:
            found = (self.published.image(entry) for entry in wanted.entries)
        else:
            found = islice(self._from(wanted.start), len(wanted.entries))
        for entry, image in zip(wanted.entries, found, strict=True):
            check_pixels(entry, image.pixels, self.about)
            # the very bytes whose pixels were checked, and no others, go into forms that hold a PNG
            if image.png is not None and hashlib.sha256(image.png).hexdigest() != entry.sha256:
                raise VerificationError(f"{image.file} is not the file that site '{entry.site}' signed")
            yield PublishedImage(entry, image.file, image.pixels, image.png)

    def chosen(self, places: Sequence[int]) -> Iterator[PublishedImage]:
        """The images at some places of the set, in rising order; nothing is compared with what sites signed."""
        wanted = set(places)
        if self.converted is None:
            yield from (self.published.image(own) for at, own in enumerate(self.published.entries()) if at in wanted)
            return
        for shard in self.shards(self.converted):
            here = range(shard.start, shard.start + len(shard.entries))
            if not wanted.isdisjoint(here):
                found = islice(self._from(shard.start), len(shard.entries))
                yield from (image for at, image in zip(here, found, strict=True) if at in wanted)

    def _from(self, start: int) -> Iterator[PublishedImage]:
        """The images of a converted set from one on; whole shards before it are passed over."""
        assert self.converted is not None
        for shard in self.shards(self.converted):
            skipped = start - shard.start
            if skipped >= len(shard.entries):
                continue
            places = self.converted.places(shard, self.about)
            found = zip(shard.entries, places, self.converted.read(self.folder, shard, self.about), strict=True)
            for entry, place, (_, pixels) in islice(found, max(0, skipped), None):
                yield PublishedImage(entry, place.file, pixels)


def open_source(folder: Path) -> Source:
    """A published or converted set, to be read; nothing is verified but the form of its statements.

    Raises ConfigError when `folder` holds no set, or a package that its form needs is missing.
    """
    if not (folder / FORM).is_file():
        return Source(folder, open_folder(folder), None)
    form = _form(folder)
    source = Source(folder, open_folder(folder / STATEMENT), format_of(form.form))
    if form != form_of(source, format_of(form.form)):
        raise VerificationError(f"{FORM} speaks of another set than {STATEMENT}/{MANIFEST}")
    return source


def open_statement(folder: Path) -> PublishedFolder:
    """What a published or converted set says of its images, to be read; no picture is.

    Raises as `open_folder`, and VerificationError where a converted set has lost what says so.
    """
    if not (folder / FORM).exists() and not (folder / MANIFEST).exists() and (folder / STATEMENT / MANIFEST).is_file():
        raise VerificationError(f"{FORM} is missing, by which a converted set says what it is")
    return open_folder(folder / STATEMENT if (folder / FORM).is_file() else folder)


def images_in(folder: Path) -> int:
    """How many images a published or converted set says that it has. Raises as `open_source`."""
    return _form(folder).images if (folder / FORM).is_file() else open_statement(folder).manifest.images


def form_of(source: Source, form: Format) -> Form:
    """What `form.json` says of the set in that format."""
    return Form(form=form.name, images=source.about.images, manifest_sha256=source.about.digest)


def _form(folder: Path) -> Form:
    return read_signed(
        (folder / FORM).read_bytes(),
        Form,
        Form.encode,
        f"{FORM} is malformed; do not trust this data set",
        f"{FORM} is not in canonical form; do not trust this data set",
    )


def check_pixels(entry: ImageEntry, pixels: AnyArray, about: About) -> None:
    """Raise VerificationError unless the pixels are those that the site signed, in the study's form."""
    try:
        package.check_pixels(entry, pixels, about.plan.image.shape, about.plan.image.bits)
    except VerificationError:
        raise VerificationError(f"image {entry.name} is not the picture that site '{entry.site}' signed") from None
    if entry.label not in about.plan.labels:
        raise VerificationError(f"image {entry.name} has a label that the plan does not know")


def index_lines(source: Source, form: Format) -> Iterator[str]:
    """index.csv: where each image is, and what it is said to be; no field needs quoting but places that have none."""
    yield _line(COLUMNS)
    for shard in source.shards(form):
        for entry, place in zip(shard.entries, form.places(shard, source.about), strict=True):
            facts = (entry.label, entry.site, entry.model, entry.method, entry.guarantee, entry.pixel_sha256)
            yield _line((entry.name, place.file, place.inside, *facts))


def _line(fields: Iterable[str]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(fields)
    return stream.getvalue()


def verify_converted(
    folder: Path,
    trusted_coordinator_key: bytes | None,
    trusted_site_keys: Mapping[str, bytes],
    progress: Callable[[int], None] = lambda images: None,
) -> VerificationReport:
    """Verify a converted set: signatures of the statements, each image back to them, and every file accounted for.

    What a file says of an image besides its pixels is made again from the signed entry and the plan, and compared.
    Raises VerificationError naming the first thing that does not hold.
    """
    _refuse_links(folder)
    if not (folder / STATEMENT).is_dir():
        raise VerificationError(f"{STATEMENT} is missing: nothing says who signed these images")
    report = verify_statements(folder / STATEMENT, trusted_coordinator_key, trusted_site_keys)
    source = open_source(folder)
    assert source.converted is not None, "form.json stands in the folder"
    files = {FORM, INDEX, *(f"{STATEMENT}/{name}" for name in source.published.statements())}
    count, claims = len(files), Claims(source.statement, source.published.manifest, source.about.plan)
    for shard in source.shards(source.converted):
        # to the end of each file: what stands behind the last image is read, too
        found = source.converted.read(folder, shard, source.about)
        for entry, (_, pixels) in zip(shard.entries, found, strict=True):
            check_pixels(entry, pixels, source.about)
            claims.check(entry.site, entry.name, pixels)
        progress(len(shard.entries))
        count += len({place.file for place in source.converted.places(shard, source.about)})
    claims.require_none()
    _check_index(folder, source)
    if sum(1 for _ in _files(folder)) != count:
        _name_the_extra(folder, source, files)
    return replace(report, strays=strays_in(folder))


def _files(folder: Path, below: str = "") -> Iterator[str]:
    """Every file by its name in the set, strays left out."""
    for item in os.scandir(folder / below):
        name = f"{below}{item.name}"
        if not is_stray(name):
            yield from _files(folder, f"{name}/") if item.is_dir() else (name,)


def _refuse_links(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise VerificationError(f"{path.relative_to(folder).as_posix()} is not a plain file")


def _check_index(folder: Path, source: Source) -> None:
    assert source.converted is not None
    try:
        with (folder / INDEX).open(encoding="ascii", newline="") as stream:
            for line in index_lines(source, source.converted):
                if stream.read(len(line)) != line:
                    raise VerificationError(f"{INDEX} does not say what the signed entries say")
            if stream.read(1):
                raise VerificationError(f"{INDEX} holds something behind its images")
    except (OSError, UnicodeDecodeError):
        raise VerificationError(f"{INDEX} is missing or cannot be read") from None


def _name_the_extra(folder: Path, source: Source, files: set[str]) -> None:
    """Raise VerificationError naming a file that does not belong to the set."""
    assert source.converted is not None
    known = set(files)
    for shard in source.shards(source.converted):
        known.update(place.file for place in source.converted.places(shard, source.about))
    refuse_extra(sorted(name for name in _files(folder) if name not in known) or ["a file"])


__all__ = [
    "Form",
    "Source",
    "check_pixels",
    "form_of",
    "images_in",
    "index_lines",
    "open_source",
    "open_statement",
    "verify_converted",
]
