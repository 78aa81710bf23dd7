"""Mutated files through all readers of files: none may end an ingest, leave a traceback, or hang.

    python tests/bench/fuzz.py [--files 10000] [--seed 1] [--workers 0] [--keep FOLDER]

Whole files of every kind that is read are changed in one to sixteen places, cut off, or have a part repeated, and are
read as an ingest reads them: pictures by readers' processes, archives and tables in this one. The table counts by kind
what was read, what was refused, and what was neither: a reader that ended, or any error that is none of ours.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import (
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
from sfumato_client.ingest.sources import AnySource, DicomSource, ImagesSource, NpzSource, read_rows
from sfumato_common.errors import SfumatoError
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=32), ["normal", "opacity"]
ENDED = ("ended the reader", "says nothing", "of a processor", "no results")
SIDE = 48


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
    }


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
    others = files // 10
    for kind, mutate in (("index.npz", _archive), ("labels.csv", _table)):
        for number in range(others):
            place = folder / f"{kind}-{number}"
            place.mkdir()
            found[kind][_read_alone(mutate(place, rng), found)] += 1
    dicom = sum(name.endswith(".dcm") for name in whole)
    shares = [(files - 2 * others) * dicom // len(whole)]
    shares.append(files - 2 * others - shares[0])
    for ending, kind, share in ((".dcm", DicomSource, shares[0]), ("", ImagesSource, shares[1])):
        names = [name for name in whole if name.endswith(".dcm") == bool(ending)]
        place = folder / (ending.strip(".") or "pictures")
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
        source: AnySource = kind(kind="dicom" if ending else "images", folder=place, labels=table)
        with Pool(source, FORM, LABELS, workers or len(os.sched_getaffinity(0))) as pool:
            for results in read_rows(source, FORM, LABELS, pool.run):
                for one in results:
                    _count(found, one)
    return found


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


if __name__ == "__main__":
    main()
