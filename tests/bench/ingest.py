"""Ingest against a plain loop over the same files, its memory by the number of files, and how a large store opens.

    python tests/bench/ingest.py [--files 200] [--side 2048] [--more 1000,10000] [--store 100000]

The files are one phantom cohort as DICOM. *Plain* is what one writes in an afternoon: dcmread, pixel_array, window,
Pillow's box filter to the study's size, in one process and one thread. *Ingest* is `sfumato-site ingest` without its
command: readers' processes, the look at the whole set, the store; with `text: allow`. *Looked at* is the same with the
look for burned-in text, which no plain loop has. Rounds alternate, the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from pydicom import dcmread
from support.dicoms import make, save
from support.plans import small_plan

from sfumato_client.dataset import SiteStore
from sfumato_client.dataset.store import StoreTerms
from sfumato_client.ingest import Answers
from sfumato_client.ingest.pool import Pool
from sfumato_client.ingest.sources import DicomSource, read_rows
from sfumato_client.site.ingesting import about_of
from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.terms import ImageForm

SIZE, LABELS, KEY = 128, ["normal", "opacity"], b"k" * 32
FORM = ImageForm(size=SIZE)


def cohort(folder: Path, files: int, side: int) -> DicomSource:
    """So many DICOM files of different pictures, 12 bits, and their table."""
    folder.mkdir()
    drawn = [draw_patient(1, "bench", n, DEVICES["aurora"]).images[0] for n in range(1, min(files, 40) + 1)]
    rows = ["file,label"]
    for number in range(files):
        picture = Image.fromarray((drawn[number % len(drawn)] * 4000).astype(np.float32)).resize((side, side))
        pixels = np.asarray(picture).astype(np.uint16)
        pixels[0, :8] = [(number >> bit) & 1 for bit in range(8)]
        pixels[1, 0] = number % 4096
        dataset = make(pixels, bits=12, WindowCenter="2048", WindowWidth="4096")
        save(dataset, folder / f"{number:06d}.dcm", patient=f"p{number + 1}")
        rows.append(f"{number:06d}.dcm,{LABELS[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return DicomSource(kind="dicom", folder=folder, labels=folder / "labels.csv")


def plain(source: DicomSource) -> float:
    """Seconds of the plain loop."""
    began = time.perf_counter()
    images = []
    for path in sorted(source.folder.glob("*.dcm")):
        dataset = dcmread(path)
        values = dataset.pixel_array.astype(np.float32)
        low = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2
        shown = np.clip((values - low) / float(dataset.WindowWidth), 0, 1)
        small = Image.fromarray(shown).resize((SIZE, SIZE), Image.Resampling.BOX)
        images.append(np.rint(np.asarray(small) * 255).astype(np.uint8))
    np.save(source.folder.parent / "plain.npy", np.stack(images))
    return time.perf_counter() - began


def ingest(source: DicomSource, folder: Path, workers: int) -> float:
    """Seconds of an ingest."""
    began = time.perf_counter()
    plan = parse(small_plan(released="spectral", sites={"alder": 100}) | {"image": {"size": SIZE}}, Plan, "plan")
    terms = StoreTerms(FORM, LABELS, KEY, Answers(image_of_two_patients="separate"))
    with Pool(source, FORM, LABELS, workers) as pool:
        rows = lambda start: read_rows(source, FORM, LABELS, pool.run, start)  # noqa: E731
        report = SiteStore.grow(folder, rows, terms, about_of(source, plan))
    assert report.kept == len(list(source.folder.glob("*.dcm"))), "every file is kept"
    return time.perf_counter() - began


def compare(files: int, side: int, rounds: int) -> dict:
    """Medians of both, in turn."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        source = cohort(Path(folder) / "images", files, side)
        seconds: dict[str, list[float]] = {"plain": [], "ingest": [], "looked_at": []}
        plainly = source.model_copy(update={"text": "allow"})
        for number in range(rounds):
            seconds["plain"].append(plain(source))
            seconds["ingest"].append(ingest(plainly, Path(folder) / f"store-{number}", workers))
            seconds["looked_at"].append(ingest(source, Path(folder) / f"looked-{number}", workers))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    return {"files": files, "side": side, "workers": workers, **medians, "ratio": medians["plain"] / medians["ingest"]}


def memory(files: int) -> dict:
    """The peak of the site's own process over an ingest of so many small files; a process of its own."""
    command = [sys.executable, __file__, "--one", str(files)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def one(files: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        source = cohort(Path(folder) / "images", files, 64)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        seconds = ingest(source, Path(folder) / "store", len(os.sched_getaffinity(0)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"files": files, "before_mb": before, "peak_mb": peak, "seconds": seconds}


def large_store(images: int) -> dict:
    """How fast a store of so many images of 28 px opens, and gives images at random places."""
    rng, form = np.random.default_rng(0), ImageForm(size=28)
    from sfumato_client.ingest import SiteImage

    def rows(start: int):
        for number in range(start, images):
            pixels = rng.integers(0, 256, (28, 28)).astype(np.uint8)
            yield [SiteImage(pixels, number % 2, f"p{number // 2 + 1}", None)]

    with tempfile.TemporaryDirectory() as folder:
        SiteStore.grow(Path(folder) / "store", rows, StoreTerms(form, LABELS, KEY))
        began = time.perf_counter()
        store = SiteStore.open(Path(folder) / "store")
        train = store.cohort("train")
        opened = time.perf_counter() - began
        places = rng.integers(0, train.patients, 10_000)
        began = time.perf_counter()
        taken = sum(len(train.images_of(int(patient))[0]) for patient in places)
        speed = taken / (time.perf_counter() - began)
    return {"images": images, "open_s": opened, "images_a_second": speed}


def main() -> None:
    parser = argparse.ArgumentParser(description="Ingest against a plain loop")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--more", default="1000,10000")
    parser.add_argument("--store", type=int, default=100_000)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one)))
        return
    found = {"load": os.getloadavg()[0], "speed": compare(given.files, given.side, given.rounds)}
    speed = found["speed"]
    print(f"{speed['files']} files of {speed['side']} px, {speed['workers']} readers, load {found['load']:.1f}")
    print("plain loop | ingest | plain / ingest | looked at for text")
    print(f"{speed['plain']:.1f} s | {speed['ingest']:.1f} s | {speed['ratio']:.2f} | {speed['looked_at']:.1f} s")
    print("files | MB before | MB at its peak | seconds")
    found["memory"] = [memory(int(files)) for files in given.more.split(",") if files]
    for row in found["memory"]:
        print(f"{row['files']} | {row['before_mb']} | {row['peak_mb']} | {row['seconds']:.0f}", flush=True)
    if given.store:
        found["store"] = large_store(given.store)
        print(f"a store of {given.store} images: {yaml.safe_dump(found['store']).strip()}")
    out = Path("bench-out") / "ingest.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
