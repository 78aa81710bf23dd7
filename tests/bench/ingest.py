"""Ingest against a plain loop over the same files, its memory by the number of files, and how soon it begins to read.

    python tests/bench/ingest.py [--files 200] [--side 2048] [--without-look] [--more 1000,100000] [--folder 1000000]

The files are one phantom cohort as DICOM. *Plain* is what one writes in an afternoon: dcmread, pixel_array, window,
Pillow's box filter to the study's size, in one process and one thread. *Ingest* is `sfumato-site ingest` without its
command line: readers' processes, the look at the whole set, the sealed store; with `text: allow`. *Looked at* is the
same with the look for burned-in text, which no plain loop has. Rounds alternate, the figures are medians. Memory is
that of the site's own process, started for the one ingest; the readers' does not grow with files.
The folder of `--folder` has so many files of one byte, all of them in the table: what is measured is the time from the
start of the process to the first row's result.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
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

from sfumato_common.phantom import DEVICES, draw_patient
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

SIZE, LABELS = 128, ["normal", "opacity"]
PLAN = parse(small_plan(released="spectral", sites={"alder": 100}) | {"image": {"size": SIZE}}, Plan, "plan")


def cohort(folder: Path, files: int, side: int) -> None:
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


def small_cohort(folder: Path, files: int) -> None:
    """The same with small pictures, quickly: one file, in which patient, instance and some pixels are replaced."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16)
    first = save(make(pixels, bits=12, WindowCenter="2048", WindowWidth="4096"), folder / "first", patient="p0000000")
    data, rows = first.read_bytes(), ["file,label"]
    instance, start = str(dcmread(first).SOPInstanceUID).encode(), data.index(pixels[0].tobytes())
    first.unlink()
    for number in range(files):
        name, own = f"{number:07d}", f"{number:07d}".encode()
        changed = data.replace(b"p0000000", b"p" + own).replace(instance, instance[:-7] + own)
        drawn = np.random.default_rng(number).integers(0, 4000, 32).astype(np.uint16).tobytes()
        (folder / f"{name}.dcm").write_bytes(changed[:start] + drawn + changed[start + len(drawn) :])
        rows.append(f"{name}.dcm,{LABELS[number % 2]}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def plain(folder: Path) -> float:
    """Seconds of the plain loop."""
    began = time.perf_counter()
    images = []
    for path in sorted(folder.glob("*.dcm")):
        dataset = dcmread(path)
        values = dataset.pixel_array.astype(np.float32)
        low = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2
        shown = np.clip((values - low) / float(dataset.WindowWidth), 0, 1)
        small = Image.fromarray(shown).resize((SIZE, SIZE), Image.Resampling.BOX)
        images.append(np.rint(np.asarray(small) * 255).astype(np.uint8))
    np.save(folder.parent / "plain.npy", np.stack(images))
    return time.perf_counter() - began


def make_home(folder: Path):
    """A site's home, in `folder`."""
    from support.studies import POLICY

    from sfumato_client.site.home import SiteHome
    from sfumato_common.crypto.identity import create_identity

    home = SiteHome(folder)
    create_identity(home.identity, "alder")
    (home.identity / "split.key").write_text("07" * 32)
    (folder / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    return home


def ingest(folder: Path, home: Path, text: str = "allow") -> float:
    """Seconds of an ingest."""
    from sfumato_client.ingest import Answers
    from sfumato_client.ingest.sources import DicomSource
    from sfumato_client.site.ingesting import ingest_source

    answers = Answers(image_of_two_patients="separate")
    described = DicomSource(kind="dicom", folder=folder, labels=folder / "labels.csv", answers=answers, text=text)
    made, began = make_home(home), time.perf_counter()
    report = ingest_source(made, described, PLAN)
    seconds = time.perf_counter() - began
    assert report.kept == sum(entry.name.endswith(".dcm") for entry in os.scandir(folder)), "every file is kept"
    return seconds


def compare(files: int, side: int, rounds: int, look: bool) -> dict:
    """Medians of both, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        cohort(images, files, side)
        seconds: dict[str, list[float]] = {"plain": [], "ingest": []} | ({"looked_at": []} if look else {})
        for number in range(rounds):
            seconds["plain"].append(plain(images))
            seconds["ingest"].append(ingest(images, Path(folder) / f"home-{number}"))
            if look:
                seconds["looked_at"].append(ingest(images, Path(folder) / f"looked-{number}", "reject"))
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    workers = len(os.sched_getaffinity(0))
    return {"files": files, "side": side, "workers": workers, **medians, "ratio": medians["plain"] / medians["ingest"]}


def apart(what: str, *words: object) -> dict:
    """A part of this bench in a process of its own."""
    command = [sys.executable, __file__, "--part", what, *map(str, words)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def memory(files: int, folder: Path) -> dict:
    """The peak of the site's own process over an ingest of so many small files."""
    small_cohort(folder / f"images-{files}", files)
    found = apart("ingest", folder / f"images-{files}", folder / f"home-{files}")
    return {"files": files, **found}


def part_ingest(folder: str, home: str) -> dict:
    import sfumato_client.ingest.dicom
    import sfumato_client.site.ingesting  # noqa: F401

    before = peak_mb()
    seconds = ingest(Path(folder), Path(home))
    peak = peak_mb()
    return {"before_mb": before, "peak_mb": peak, "seconds": seconds}


def peak_mb() -> int:
    """The most that this program held; `getrusage` would count what its parent held when it forked (Linux, proc(5))."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


def first_read(files: int, folder: Path) -> dict:
    """How soon an ingest of a folder of so many files has its first result."""
    images, table = folder / "many", io.StringIO()
    images.mkdir()
    table.write("file,patient_id,label\n")
    for number in range(files):
        with (images / f"{number:07d}.png").open("wb") as stream:
            stream.write(b".")
        table.write(f"{number:07d}.png,p{number + 1},{LABELS[number % 2]}\n")
    (images / "labels.csv").write_text(table.getvalue())
    return {"files": files, **apart("first", images, folder / "home-many", time.time())}


def part_first(folder: str, home: str, began: str) -> dict:
    from sfumato_client.ingest.sources import PngSource
    from sfumato_client.site.ingesting import ingest_source

    class FirstError(Exception):
        """The first row is done."""

    def watch(done: int, total: int) -> None:
        raise FirstError

    source = PngSource(kind="png", folder=Path(folder), labels=Path(folder) / "labels.csv")
    try:
        ingest_source(make_home(Path(home)), source, PLAN, 1, watch)
    except FirstError:
        seconds = time.time() - float(began)
    peak = peak_mb()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"seconds": seconds, "processor_s": used.ru_utime + used.ru_stime, "peak_mb": peak}


PARTS = {"ingest": part_ingest, "first": part_first}


def main() -> None:
    parser = argparse.ArgumentParser(description="Ingest against a plain loop")
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--more", default="1000,10000")
    parser.add_argument("--without-look", action="store_true", help="No ingest that looks for text, the longest part.")
    parser.add_argument("--folder", type=int, default=0)
    parser.add_argument("--scratch", type=Path, help="Where to put the files; a temporary folder by default.")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(json.dumps(PARTS[given.part[0]](*given.part[1:])))
        return
    found: dict = {"load": os.getloadavg()[0]}
    if given.files:
        found["speed"] = speed = compare(given.files, given.side, given.rounds, not given.without_look)
        print(f"{speed['files']} files of {speed['side']} px, {speed['workers']} readers, load {found['load']:.1f}")
        print("plain loop | ingest | plain / ingest | looked at for text")
        row = (f"{speed[name]:.1f} s" if name in speed else "" for name in ("plain", "ingest", "looked_at"))
        print("{} | {} | {ratio:.2f} | {}".format(*row, ratio=speed["ratio"]), flush=True)
    found["memory"] = []
    print("files | MB before | MB at its peak | seconds")
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        for files in (int(files) for files in given.more.split(",") if files):
            found["memory"].append(row := memory(files, Path(folder)))
            print(f"{row['files']} | {row['before_mb']} | {row['peak_mb']} | {row['seconds']:.0f}", flush=True)
        if given.folder:
            found["folder"] = row = first_read(given.folder, Path(folder))
            used = f"{row['processor_s']:.1f} s of a processor, {row['peak_mb']} MB"
            print(f"a folder of {row['files']} files: first result after {row['seconds']:.1f} s, {used}")
    out = Path("bench-out") / "ingest.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
