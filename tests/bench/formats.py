"""What it costs to write a set in another form and to verify it there, beside a plain copy of its pictures.

    python tests/bench/formats.py [--sizes 28,128,256] [--images 4000] [--rounds 3] [--once 28:100000]

Images are the phantom's chest films, 8 bits, half of them at each of two sites. *Copy* is `shutil.copytree` of the
published set, which reads and writes every file and looks at none. Everything in turn, on one file system, the files
in the system's cache, every form once before; medians of all rounds, of processor time of one process. Memory is the
most that a process of its own held while it converted, above what it held before. `--once` converts a large
set of noise once, to the forms that hold many images a file, each in a process of its own: its seconds and its peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import publish as bench
from support.published import published_set

from sfumato_common.phantom import arrays
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import convert, publish, verify_dataset
from sfumato_server.publish.formats import FORMATS


def seconds(work) -> float:
    """Processor time, the system's for this process included."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _peak() -> int:
    """The most memory that this program has held, kB; `getrusage` counts what was before it, too."""
    said = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in said.splitlines() if line.startswith("VmHWM")))


def once(word: str) -> list[dict]:
    """A large set converted once, by one process a form: seconds of wall and processor, and the peak of memory."""
    size, images = map(int, word.split(":"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="formats-") as scratch:
        work = Path(scratch)
        plan = bench.plan_of(size, images, 10).model_copy(update={"near_duplicates": "stay"})
        bench.make(work, plan)
        pool = pool_packages(work / "coordinator", plan, Registry(work / "coordinator"))
        folder = publish(pool, plan, work, load_authority(work / "coordinator"), {}, None).folder
        for name in ("webdataset", "parquet"):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
                wall, processor, peak = process.submit(_once, folder, name, Path(scratch) / name).result()
            rows.append({"size": size, "form": name, "images": images, "seconds": wall, "cpu": processor, "mb": peak})
            said = f"{wall:.0f} s, {processor:.0f} s of a processor, {images / processor:,.0f} images/s"
            print(f"{size} px, {images:,} images to {name} once: {said}, peak {peak:.0f} MB", flush=True)
            shutil.rmtree(Path(scratch) / name)
    return rows


def _once(folder: Path, name: str, out: Path) -> tuple[float, float, float]:
    wall = time.perf_counter()
    took = seconds(lambda: convert(folder, name, out))
    return time.perf_counter() - wall, took, _peak() / 1024


def _held(folder: Path, name: str, out: Path, answers) -> None:
    import pyarrow.parquet  # noqa: F401
    from highdicom.sc import SCImage  # noqa: F401

    before = _peak()
    convert(folder, name, out)
    answers.put((_peak() - before) / 1024)


def megabytes(folder: Path, name: str, out: Path) -> float:
    """The most that converting added to a process that had loaded what it needs."""
    spawn = multiprocessing.get_context("spawn")
    answers = spawn.Queue()
    process = spawn.Process(target=_held, args=(folder, name, out, answers))
    process.start()
    held = answers.get(timeout=600)
    process.join(60)
    return held


def rows_of(scratch: Path, size: int, images: int, rounds: int) -> list[dict]:
    drawn = arrays(1, images, size, "bench")[0][:images]
    folder = published_set(scratch / "set", images=images // 2, given=drawn, size=size)
    key = (folder.parent / "key.pem").read_bytes()
    plain = {"write": [], "verify": []}
    found = {name: {"write": [], "verify": []} for name in FORMATS}
    sizes = {}
    for name in FORMATS:
        convert(folder, name, scratch / "first")
        shutil.rmtree(scratch / "first")
    for _ in range(rounds):
        copy = scratch / "copy"
        plain["write"].append(seconds(lambda copy=copy: shutil.copytree(folder, copy)))
        plain["verify"].append(seconds(lambda copy=copy: verify_dataset(copy, key)))
        sizes["copy"] = size_of(copy)
        shutil.rmtree(copy)
        for name, times in found.items():
            out = scratch / name
            times["write"].append(seconds(lambda out=out, name=name: convert(folder, name, out)))
            times["verify"].append(seconds(lambda out=out: verify_dataset(out, key)))
            sizes[name] = size_of(out)
            shutil.rmtree(out)
    rows = []
    for name, times in {"copy": plain, **found}.items():
        row = {"size": size, "form": name, "images": images, "bytes_an_image": sizes[name] / images}
        row |= {f"{what}_images_s": images / statistics.median(taken) for what, taken in times.items()}
        row["write_of_copy"] = row["write_images_s"] / (images / statistics.median(plain["write"]))
        if name != "copy":
            row["megabytes"] = megabytes(folder, name, scratch / "memory")
            shutil.rmtree(scratch / "memory")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="28,128,256")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", nargs="*", default=["28:100000"], help="SIDE:IMAGES")
    given = parser.parse_args()
    rows = []
    print("| px | form | bytes an image | written, images/s | of a copy's | verified, images/s | MB held |")
    print("|---|---|---|---|---|---|---|")
    for size in map(int, filter(None, given.sizes.split(","))):
        with tempfile.TemporaryDirectory(prefix="formats-") as scratch:
            for row in rows_of(Path(scratch), size, given.images, given.rounds):
                held = f"{row['megabytes']:.0f}" if "megabytes" in row else ""
                print(
                    f"| {size} | {row['form']} | {row['bytes_an_image']:,.0f} | {row['write_images_s']:,.0f} | "
                    f"{row['write_of_copy']:.2f} | {row['verify_images_s']:,.0f} | {held} |",
                    flush=True,
                )
                rows.append(row)
    large = [row for word in given.once for row in once(word)]
    out = Path("bench-out")
    out.mkdir(exist_ok=True)
    (out / "formats.json").write_text(json.dumps({"rows": rows, "once": large}, indent=2) + "\n")


if __name__ == "__main__":
    main()
