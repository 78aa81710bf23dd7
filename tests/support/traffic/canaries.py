"""What must never leave a site: planted header strings, names, paths, secrets, counts and blocks of real pixels.

A text is at least 8 bytes long, so that random bytes hold a given one with probability 2^-64 a position. A pixel block
is 32 bytes or 8 pixels, whichever is more, at every such step through the image, by rows and by columns: any 64 bytes
of a stored image in a row contain a whole one. A block counts when at least 3 in 8 of its pixels differ from each
other: flat background and saturated bone are no one's.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pydicom
import torch
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import load_identity

PLANTED_FOLDER = "gorsehaven-annexe"
PLANTED_FILE = "velvetheron"
SHORTEST = 8
SMALLEST_COUNT = 100
_IDENTIFYING = (
    "PatientName",
    "PatientID",
    "OtherPatientIDs",
    "PatientAddress",
    "PatientBirthDate",
    "InstitutionName",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "StationName",
    "StudyDate",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
_RAW_ROW_STEP = 16

Bytes = npt.NDArray[np.uint8]


@dataclass
class Canaries:
    """Needles by what they are. `blocks` holds uint8 [M, w] each: M needles of w bytes."""

    texts: dict[bytes, str] = field(default_factory=dict)
    blocks: list[tuple[str, Bytes]] = field(default_factory=list)
    counts: dict[int, str] = field(default_factory=dict)

    def text(self, what: str, value: str) -> None:
        """Add a text in the forms in which it may stand in a message; too short ones are left out."""
        if len(value) < SHORTEST:
            return
        for form in {value, quote(value), json.dumps(value)[1:-1]}:
            self.texts[form.lower().encode()] = what
        # without the last zero byte it is found in either byte order
        self.texts[value.lower().encode("utf-16-le")[:-1]] = f"{what} (UTF-16)"

    def raw(self, what: str, value: bytes) -> None:
        """Add bytes that are searched for as they are."""
        assert len(value) >= SHORTEST
        self.blocks.append((what, np.frombuffer(value, np.uint8)[None]))

    def count(self, what: str, value: int) -> None:
        """Add a number of patients or images; below three digits chance would find it everywhere."""
        if value >= SMALLEST_COUNT:
            self.counts[value] = what


def plant_headers(folder: Path) -> None:
    """Give a folder of phantom DICOM files identities, dates and file names that stand nowhere else."""
    lines = ["file,label"]
    with (folder / "labels.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, row in enumerate(rows):
        old = folder / row["file"]
        dataset = pydicom.dcmread(old)
        key = hashlib.sha256(str(dataset.PatientID).encode()).hexdigest()[:12].upper()
        dataset.PatientName = f"Quartzbrine^Ottoline^{key}"
        dataset.PatientID = f"ZX{key}"
        dataset.InstitutionName = "Thistlewick Infirmary"
        dataset.PatientAddress = "7 Gorsehaven Lane"
        dataset.PatientBirthDate, dataset.StudyDate = "18871109", "20910817"
        name = f"{PLANTED_FILE}-{key}-{number}.dcm"
        dataset.save_as(folder / name)
        old.unlink()
        lines.append(f"{name},{row['label']}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def of_site(home: SiteHome, source: Path) -> Canaries:
    """Everything that the site at `home`, which ingested the DICOM folder `source`, must keep to itself."""
    found = Canaries()
    name = home.policy().site
    _headers(found, name, source)
    for path in (home.root, source):
        found.text(f"{name}: a path", str(path))
    found.text(f"{name}: a folder's name", PLANTED_FOLDER)
    _secrets(found, name, home)
    _store(found, name, home)
    _local_texts(found, name, home)
    return found


def _headers(found: Canaries, name: str, source: Path) -> None:
    found.text(f"{name}: a file name", PLANTED_FILE)
    for path in sorted(source.glob("*.dcm")):
        found.text(f"{name}: a file name", path.stem)
        dataset = pydicom.dcmread(path)
        for keyword in _IDENTIFYING:
            value = str(dataset.get(keyword, ""))
            for part in {value, *value.replace("^", " ").split()}:
                found.text(f"{name}: {keyword}", part)
            if keyword.endswith("Date"):
                found.text(f"{name}: {keyword}", f"{value[:4]}-{value[4:6]}-{value[6:]}")
            if value.startswith("2.25."):
                number = int(value[5:]).to_bytes(16, "big")
                found.raw(f"{name}: {keyword} as a number", number)
                found.raw(f"{name}: {keyword} as a number", number[::-1])
        samples = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
        found.blocks.append((f"{name}: DICOM pixels", _varied(_cut(samples[None, ::_RAW_ROW_STEP], 16))))


def _secrets(found: Canaries, name: str, home: SiteHome) -> None:
    identity = load_identity(home.identity)
    for path in ("signing.pem", "node.key", "tls.key"):
        for line in (home.identity / path).read_text().splitlines():
            if not line.startswith("-----"):
                found.text(f"{name}: {path}", line)
    for key in (identity.signing_key, identity.node_key, identity.tls_key):
        found.raw(f"{name}: a private key", _scalar(key))
    found.text(f"{name}: the split key", home.split_key().hex())
    found.raw(f"{name}: the split key", home.split_key())
    found.text(f"{name}: the store's key", home.store_key().hex())
    found.raw(f"{name}: the store's key", home.store_key())


def _scalar(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.private_bytes_raw()
    return key.private_numbers().private_value.to_bytes(key.key_size // 8, "big")


def _store(found: Canaries, name: str, home: SiteHome) -> None:
    """Pixels in the number formats in which they may be sent, pseudonyms and counts."""
    store = home.open_store()
    pixels, index = np.asarray(store._pixels), store._index
    split, owner, labels, pseudonyms = (index[key] for key in ("split", "owner", "labels", "patients"))
    assert pseudonyms.dtype == np.uint8 and pseudonyms.ndim == 2, "a keyed hash a patient, as bytes"
    for pseudonym in map(bytes, pseudonyms):
        found.text(f"{name}: a pseudonym", pseudonym.hex())
        found.raw(f"{name}: a pseudonym", pseudonym)
    for what, block in pixel_blocks(pixels):
        found.blocks.append((f"{name}: pixels as {what}", block))
    found.count(f"{name}: patients", len(pseudonyms))
    found.count(f"{name}: images", len(pixels))
    for part in np.unique(split):
        found.count(f"{name}: patients of split {part}", len(np.unique(owner[split == part])))
        found.count(f"{name}: images of split {part}", int((split == part).sum()))
    for label in np.unique(labels):
        found.count(f"{name}: images of label {label}", int((labels == label).sum()))


def _local_texts(found: Canaries, name: str, home: SiteHome) -> None:
    """Lines of what the site wrote for its own eyes: error texts with their tracebacks and paths, and its logs."""
    for what, paths in (
        ("a local error text", home.steward_folder.rglob("*.txt")),
        ("a line of a log", home.logs.glob("*.log")),
    ):
        for path in sorted(paths):
            for line in map(str.strip, path.read_text(errors="replace").splitlines()):
                if sum(map(str.isalnum, line)) >= 16:  # no rulers
                    found.text(f"{name}: {what}", line)


def pixel_blocks(pixels: Bytes) -> Iterator[tuple[str, Bytes]]:
    """Needles of images [N, S, S(, 3)] in every number format of `_formats`, along rows and along columns."""
    for order in (pixels, np.swapaxes(pixels, 1, 2)):
        flat = np.ascontiguousarray(order).reshape(1, len(order), -1)
        for what, values in _formats(flat):
            length = max(8, 32 // values.itemsize)
            kept = _informative(_cut(flat, length))
            yield what, _cut(values, length)[kept].view(np.uint8)


def _formats(flat: Bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    unit = flat.astype(np.float32) / np.float32(127.5) - np.float32(1)
    yield "uint8", flat
    for what, values in (("-1..1", unit), ("0..1", flat / np.float32(255)), ("0..255", flat.astype(np.float32))):
        yield f"float32 {what}", values
        yield f"float16 {what}", values.astype(np.float16)
        yield f"bfloat16 {what}", torch.from_numpy(values).to(torch.bfloat16).view(torch.int16).numpy()
    yield "float64 -1..1", unit.astype(np.float64)


def _cut(values: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """[A, B, L] -> [M, length]: consecutive blocks along the last axis; what is left over at its end is dropped."""
    whole = values.shape[-1] // length * length
    return np.ascontiguousarray(values[..., :whole]).reshape(-1, length)


def _informative(blocks: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which rows [M] hold at least 3 different values in 8."""
    ordered = np.sort(blocks, axis=1)
    different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1)
    return np.asarray(8 * different >= 3 * blocks.shape[1])


def _varied(blocks: npt.NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(blocks[_informative(blocks)]).view(np.uint8)
