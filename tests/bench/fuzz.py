"""Mutated files through all readers of files: none may end an ingest, leave a traceback, or hang.

    python tests/bench/fuzz.py [--files 10000] [--seed 1] [--workers 0] [--keep FOLDER]

Whole files of every kind that is read are changed in one to sixteen places, cut off, or have a part repeated, and are
read as an ingest reads them: pictures and volumes by readers' processes, archives, directories, reports and tables in
this one. The table counts by kind
what was read, what was refused, and what was neither: a reader that ended, or any error that is none of ours.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter, defaultdict
from pathlib import Path

import imagecodecs
import numpy as np
from nibabel import Nifti1Image
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from support.dicoms import lut_item, make, save

from sfumato_client.ingest import SiteImage, Skipped
from sfumato_client.ingest.pool import Pool
from sfumato_client.ingest.sources import AnySource, DicomSource, ImagesSource, NiftiSource, NpzSource, read_rows
from sfumato_common.errors import SfumatoError
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=32), ["normal", "opacity"]
ENDED = ("ended the reader", "says nothing", "of a processor", "no results")
SIDE, ROOT = 48, "1.2.826.0.1.3680043"
SOURCES = {"dicom": DicomSource, "images": ImagesSource, "nifti": NiftiSource}


def picture(bits: int) -> np.ndarray:
    """A smooth picture with an edge, of so many bits."""
    x, y = np.meshgrid(np.linspace(0, 1, SIDE), np.linspace(0, 1, SIDE))
    value = 0.6 * x + 0.3 * y**2 + 0.1 * (x > 0.5)
    return np.rint(value * (2**bits - 1)).astype(np.uint8 if bits <= 8 else np.uint16)


def compressed(pixels: np.ndarray, bits: int, syntax: str, stream: bytes) -> bytes:
    """A DICOM file that holds `stream`."""
    dataset = make(pixels, bits=bits)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    return written(dataset)


def written(dataset) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return save(dataset, Path(folder) / "a.dcm").read_bytes()


def image_file(pixels: np.ndarray, kind: str, **terms) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **terms)
    return stream.getvalue()


def bases() -> dict[str, bytes]:
    """A whole file of each kind, by name."""
    grey, deep = picture(8), picture(12)
    native = make(deep, bits=12, WindowCenter="2048", WindowWidth="4096")
    tables = make(deep, bits=12)
    tables.VOILUTSequence = [lut_item(0, np.arange(4096), 12)]
    rle = make(deep, bits=12)
    rle.compress(RLELossless)
    colour = np.stack([grey, grey // 2, 255 - grey], axis=2)
    return {
        "native.dcm": written(native),
        "lut.dcm": written(tables),
        "rle.dcm": written(rle),
        "jpeg.dcm": compressed(grey, 8, JPEGBaseline8Bit, image_file(grey, "JPEG")),
        "jpeg12.dcm": compressed(deep, 12, JPEGExtended12Bit, imagecodecs.jpeg8_encode(deep, bitspersample=12)),
        "lossless.dcm": compressed(deep, 12, JPEGLosslessSV1, imagecodecs.ljpeg_encode(deep, bitspersample=12)),
        "jpegls.dcm": compressed(deep, 12, JPEGLSLossless, imagecodecs.jpegls_encode(deep)),
        "j2k.dcm": compressed(deep, 12, JPEG2000Lossless, imagecodecs.jpeg2k_encode(deep, codecformat="j2k")),
        "grey.png": image_file(grey, "PNG"),
        "deep.png": image_file(deep, "PNG"),
        "colour.png": image_file(colour, "PNG"),
        "grey.jpg": image_file(grey, "JPEG"),
        "colour.jpg": image_file(colour, "JPEG", progressive=True),
        "grey.tif": image_file(grey, "TIFF"),
        "deep.tif": image_file(deep, "TIFF", compression="tiff_lzw"),
        "plain.nii": volume(np.int16),
        "floats.nii": volume(np.float32),
        "packed.nii": gzip.compress(volume(np.uint8), mtime=0),
    }


def volume(dtype: type) -> bytes:
    """A NIfTI-1 file of three slices of the picture, shown as it is."""
    stored = np.stack([picture(7)[::-1, ::-1].T] * 3, axis=2).astype(dtype)
    return bytes(Nifti1Image(stored, np.eye(4)).to_bytes())


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One mutation of a file."""
    changed = bytearray(data)
    way = rng.random()
    if way < 0.15:
        return bytes(changed[: rng.randrange(len(changed))])
    if way < 0.25:
        start = rng.randrange(len(changed))
        part = changed[start : start + rng.randrange(1, 64)]
        place = rng.randrange(len(changed))
        return bytes(changed[:place] + part * rng.randrange(1, 4) + changed[place:])
    # headers lie in front: half of the changes there
    for _ in range(rng.randrange(1, 17)):
        most = len(changed) if rng.random() < 0.5 else min(len(changed), 1200)
        changed[rng.randrange(most)] = rng.choice([0, 1, 127, 128, 255, rng.randrange(256)])
    return bytes(changed)


def fuzz(files: int, seed: int, workers: int, folder: Path) -> dict[str, Counter]:
    """Outcomes by kind of file."""
    rng, whole = random.Random(seed), bases()
    found: dict[str, Counter] = defaultdict(Counter)
    others = files // 20
    alone = {"index.npz": _archive, "labels.csv": _table, "scans.zip": _zip, "DICOMDIR": _medium, "report.sr": _report}
    for kind, mutate in alone.items():
        for number in range(others):
            place = folder / f"{kind}-{number}"
            place.mkdir()
            found[kind][_read_alone(mutate(place, rng), found)] += 1
    left = files - len(alone) * others
    for kind in SOURCES:
        names = of_kind(kind, whole)
        share = left * len(names) // len(whole) if kind != list(SOURCES)[-1] else files - _done(found)
        place = folder / kind
        place.mkdir()
        rows = ["file,patient_id,label"]
        for number in range(share):
            base = rng.choice(names)
            stem, _, tail = base.partition(".")
            name = f"{stem}-{number}.{tail}"
            (place / name).write_bytes(mutated(whole[base], rng))
            rows.append(f"{name},p{number},normal")
        table = folder / f"{place.name}.csv"
        table.write_text("\n".join(rows) + "\n")
        source = SOURCES[kind](kind=kind, folder=place, labels=table)
        with Pool(source, FORM, LABELS, workers or len(os.sched_getaffinity(0))) as pool:
            for results in read_rows(source, FORM, LABELS, pool.run):
                for one in results:
                    _count(found, one)
    return found


def of_kind(kind: str, whole: dict[str, bytes]) -> list[str]:
    """Names of the whole files that a kind of source reads."""
    own = {"dicom": (".dcm",), "nifti": (".nii",)}.get(kind)
    others = (".dcm", ".nii")
    return [name for name in whole if (name.endswith(own) if own else not name.endswith(others))]


def _done(found: dict[str, Counter]) -> int:
    return sum(sum(counts.values()) for kind, counts in found.items() if kind != "reasons")


def _archive(place: Path, rng: random.Random) -> AnySource:
    """A mutated archive with a whole index."""
    stream = io.BytesIO()
    (np.savez_compressed if rng.random() < 0.5 else np.savez)(stream, images=np.stack([picture(8)] * 4))
    (place / "a.npz").write_bytes(mutated(stream.getvalue(), rng))
    rows = ["set,row,site,patient_id,split,abnormal", *(f"a,{row},alder,p{row},train,{row % 2}" for row in range(4))]
    (place / "index.csv").write_text("\n".join(rows) + "\n")
    return NpzSource(kind="npz", index=place / "index.csv", site="alder")


def _table(place: Path, rng: random.Random) -> AnySource:
    """A mutated table of whole pictures."""
    for number in range(4):
        (place / f"{number}.png").write_bytes(image_file(picture(8), "PNG"))
    rows = ["file,patient_id,label,split", *(f"{row}.png,p{row},{LABELS[row % 2]},train" for row in range(4))]
    (place / "labels.csv").write_bytes(mutated(("\n".join(rows) + "\n").encode(), rng))
    return ImagesSource(kind="images", folder=place, labels=place / "labels.csv")


def _zip(place: Path, rng: random.Random) -> AnySource:
    """A mutated zip of whole pictures."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for number in range(4):
            archive.writestr(f"{number}.png", image_file(picture(8), "PNG"))
    (place / "scans.zip").write_bytes(mutated(stream.getvalue(), rng))
    rows = ["file,patient_id,label", *(f"{row}.png,p{row},{LABELS[row % 2]}" for row in range(4))]
    (place / "labels.csv").write_text("\n".join(rows) + "\n")
    return ImagesSource(kind="images", folder=place / "scans.zip", labels=place / "labels.csv")


def _medium(place: Path, rng: random.Random) -> AnySource:
    """A mutated DICOMDIR beside a whole file."""
    (place / "cd").mkdir()
    path = save(make(picture(12), bits=12), place / "cd" / "IM0", StudyInstanceUID=f"{ROOT}.1")
    record, directory = Dataset(), Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", "IM0"
    instance = record.ReferencedSOPInstanceUIDInFile = str(dcmread(path).SOPInstanceUID)
    directory.DirectoryRecordSequence = [record] * 3
    (place / "cd" / "DICOMDIR").write_bytes(mutated(file_of(directory, "1.2.840.10008.1.3.10"), rng))
    (place / "labels.csv").write_text(f"file,label\n{instance},normal\n")
    return DicomSource(kind="dicom", folder=place / "cd", labels=place / "labels.csv")


def _report(place: Path, rng: random.Random) -> AnySource:
    """A mutated structured report of a whole file's study."""
    for name in ("images", "reports"):
        (place / name).mkdir()
    save(make(picture(12), bits=12), place / "images" / "a.dcm", StudyInstanceUID=f"{ROOT}.1")
    concept, item, report = Dataset(), Dataset(), Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "121071", "DCM", "Finding"
    item.ConceptNameCodeSequence, item.TextValue = [concept], "opacity"
    report.StudyInstanceUID, report.ContentSequence = f"{ROOT}.1", [item]
    data = file_of(report, "1.2.840.10008.5.1.4.1.1.88.11")
    (place / "reports" / "a.sr").write_bytes(mutated(data, rng))
    (place / "labels.csv").write_text("file\na.dcm\n")
    said = {"sr": {"code": "121071", "scheme": "DCM", "folder": place / "reports"}}
    return DicomSource(kind="dicom", folder=place / "images", labels=place / "labels.csv", label_from=said)


def file_of(dataset: Dataset, sop_class: str) -> bytes:
    """A data set without pixels as a file."""
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, f"{ROOT}.9"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _read_alone(source: AnySource, found: dict[str, Counter]) -> str:
    try:
        read = [one for results in read_rows(source, FORM, LABELS) for one in results]
    except SfumatoError:
        return "refused"
    except Exception as error:
        found["reasons"][f"{type(error).__name__} from {source.kind}"] += 1
        return "ended"
    return "read" if any(isinstance(one, SiteImage) for one in read) else "refused"


def _count(found: dict[str, Counter], one: SiteImage | Skipped) -> None:
    reference = one.facts.reference if isinstance(one, SiteImage) else one.reference
    stem = reference.partition("-")[0]
    kind = f"{stem}.{reference.rpartition('.')[2]}"
    if isinstance(one, SiteImage):
        found[kind]["read"] += 1
    else:
        found[kind]["ended" if any(words in one.reason for words in ENDED) else "refused"] += 1
        found["reasons"][one.reason] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutated files through all readers of files")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    began = time.monotonic()
    for name, data in bases().items():
        if name.endswith(".dcm"):
            dcmread(io.BytesIO(data))
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(given.files, given.seed, given.workers, Path(folder))
    reasons = found.pop("reasons", Counter())
    total = sum((Counter(counts) for counts in found.values()), Counter())
    print("kind | read | refused | neither")
    for kind, counts in sorted(found.items()):
        print(f"{kind} | {counts['read']} | {counts['refused']} | {counts['ended']}")
    print(f"all | {total['read']} | {total['refused']} | {total['ended']}")
    print(f"{sum(total.values())} of {given.files} files came back, in {time.monotonic() - began:.0f} s")
    for reason, count in reasons.most_common(12):
        print(f"  {count} x {reason}")
    out = Path("bench-out") / "fuzz.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"kinds": found, "reasons": reasons, "seed": given.seed}, indent=1) + "\n")
    if total["ended"] or sum(total.values()) != given.files:
        sys.exit("a file ended what read it, or was lost")


if __name__ == "__main__":
    main()
