"""What a set of a million images costs: pooling, publishing, verifying, beside `tar` and `sha256sum` of its bytes.

    python tests/bench/publish.py [--sizes 28:1000000 256:100000] [--sites 20] [--workers 1]

Sites send packages of synthetic noise, as many shards as their plan says; every image has pixels of its own. Each step
runs in a process of its own, of which the peak of memory is read (VmHWM). *tar + sha256sum* archives the published
folder into a file beside it and hashes every one of its files, one process after the other. All times are of the wall
and of processors; a ratio is of processor seconds to those of tar and sha256sum, as the machine may be shared.

A second table has what one picture costs at the least, each part measured alone over pictures of the set: whoever
checks one reads it, hashes it, unpacks it once, undoes its filters and hashes its pixels; whoever publishes one hashes
and writes it. What the steps cost beside is what is said of an image: directory, entries, tree, rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from support.enrolment import enrol_site, keep_grant

from sfumato_client.ledger.certificate import certificate
from sfumato_common.crypto.identity import create_identity
from sfumato_common.imaging import SIGNATURE, _open, _unpack, decode_png, decode_pngs, pixel_hash
from sfumato_common.package import PackageImage, at_once, build_package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shard_sizes
from sfumato_server.enrol import Registry, create_authority, load_authority
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.publish.shard import read_picture
from sfumato_server.publish.shard_writing import write_new
from sfumato_server.workers import Where

LABELS, PASSPHRASE = ("abnormal", "normal"), b"of nobody, for a bench"
MOST_PARTS = 5000  # pictures over which parts are measured


def plan_of(size: int, images: int, sites: int) -> Plan:
    values: dict[str, Any] = {
        "study": "large",
        "image": {"size": size, "channels": 1},
        "labels": list(LABELS),
        "sites": {f"site-{number:02d}": {"nominal_patients": 100} for number in range(sites)},
        "privacy": {"epsilon": 8.0, "delta": 1e-4},
        "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0}],
        "release": [{"model": "spectral", "images": images // sites}],
        "federation": {"quorum": 1},
        # looking for them costs more than all else, and is no part of what tar and sha256sum do
        "near_duplicates": "stay",
    }
    return parse(values, Plan, "plan")


def make(work: Path, plan: Plan) -> None:
    """A coordinator's home into which every site has sent its shards."""
    home = work / "coordinator"
    create_authority(home, passphrase=PASSPHRASE)
    stated = certificate(plan, [], [], "secure")
    rng = np.random.default_rng(0)
    for site in plan.sites:
        identity = create_identity(work / site, site)
        keep_grant(home, identity, enrol_site(home, identity, PASSPHRASE))
        sizes = shard_sizes(plan, site, "formal")
        names = sorted(rng.bytes(16).hex() for _ in range(sum(sizes)))
        for shard, size in enumerate(sizes, start=1):
            own, names = names[:size], names[size:]
            path = package_path(home, site, "formal", shard)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(
                build_package(
                    site=site,
                    study=plan.study,
                    plan_hash=plan.digest,
                    certificate=stated,
                    images=[image(name, plan.image.size, rng) for name in own],
                    sign=identity.sign_package,
                    shard=shard,
                    shards=len(sizes),
                )
            )


def image(name: str, size: int, rng: np.random.Generator) -> PackageImage:
    """A picture that is as large, and as dear to unpack, as noise of 16 grey values, made in a sixth of the time.

    Its rows are such noise behind the filters that an encoder chooses for it (ISO/IEC 15948, clause 9), and little
    time is spent on packing them. What leaves a network is no easier to pack.
    """
    facts = ImageFacts(
        name=name, label=LABELS[int(name[0], 16) % 2], model="spectral", method="dp-sampling", guarantee="formal"
    )
    rows = rng.integers(0, 16, (size, size + 1), dtype=np.uint8)
    rows[:, 0] = np.resize([1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 4], size)
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return PackageImage(facts, SIGNATURE + b"".join(packed))


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of wall and processors, and MB at the peak of this process so far."""
    wall, before = time.perf_counter(), os.times()
    work()
    spent, status = os.times(), Path("/proc/self/status").read_text()
    seconds = sum(spent[:4]) - sum(before[:4])
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e3  # type: ignore[index]
    return {"seconds": time.perf_counter() - wall, "cpu": seconds, "peak_mb": peak}


def step_publish(work: Path, plan: Plan, workers: int) -> dict[str, dict[str, float]]:
    home, found, where = work / "coordinator", [], Where(workers)
    pooled = measured(lambda: found.append(pool_packages(home, plan, Registry(home), where=where)))
    published = measured(lambda: publish(found[0], plan, work, load_authority(home), {}, None, where=where))
    return {"pool": pooled, "publish": published}


def step_verify(work: Path, workers: int) -> dict[str, dict[str, float]]:
    key = load_authority(work / "coordinator").public_key
    return {"verify": measured(lambda: verify_dataset(work / "published", key, workers=workers))}


def step_baseline(work: Path) -> dict[str, dict[str, float]]:
    def both() -> None:
        subprocess.run(["tar", "-cf", str(work / "set.tar"), "published"], cwd=work, check=True)
        find = f"find published -type f -print0 | xargs -0 sha256sum > '{work}/sums'"
        subprocess.run(["sh", "-c", find], cwd=work, check=True)

    found = measured(both)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    (work / "set.tar").unlink()
    return {"tar + sha256sum": found}


def step_parts(work: Path) -> dict[str, dict[str, float]]:
    """Processor microseconds a picture of each part of the work, over the first pictures of the set."""
    paths = [str(path) for path in islice((work / "published" / "images").rglob("*.png"), MOST_PARTS)]
    pngs: list[bytes] = []
    out = work / "parts"
    out.mkdir()
    found = {"read": spent(lambda: pngs.extend(read_picture(Path("/"), path) for path in paths))}
    found["sha256 of the file"] = spent(lambda: [hashlib.sha256(png).hexdigest() for png in pngs])
    streams = [_open(png) for png in pngs]
    found["look at the chunks"] = spent(lambda: [_open(png) for png in pngs])
    size = streams[0][0] * (streams[0][0] + 1)
    found["unpack once"] = spent(lambda: [_unpack(stream[3], size) for stream in streams])
    both = spent(lambda: [decode_pngs(some) for some in at_once(pngs, (streams[0][0],) * 2, 8)])
    found["undo filters"] = both - found["unpack once"] - found["look at the chunks"]
    pixels = [decode_png(png) for png in pngs]
    found["sha256 of the pixels"] = spent(lambda: [pixel_hash(one) for one in pixels])
    found["write"] = spent(lambda: [write_new(f"{out}/{place}", png) for place, png in enumerate(pngs)])
    shutil.rmtree(out)
    return {name: {"us": seconds * 1e6 / len(pngs)} for name, seconds in found.items()}


def spent(work: Callable[[], Any]) -> float:
    """Processor seconds."""
    before = time.process_time()
    work()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["28:1000000", "256:100000"], help="SIDE:IMAGES")
    parser.add_argument("--sites", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="processes of each step")
    parser.add_argument("--work", type=Path, help="where the sets are made; a temporary folder otherwise")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        one_step(*given.step, given)
        return
    rows, parts = [], []
    for word in given.sizes:
        size, images = map(int, word.split(":"))
        with tempfile.TemporaryDirectory(dir=given.work) as folder:
            make(Path(folder), plan_of(size, images, given.sites))
            found: dict[str, dict[str, float]] = {}
            for name in ("publish", "baseline", "verify"):
                found |= run_step(name, folder, size, images, given)
            own = run_step("parts", folder, size, images, given)
        parts += [{"side": size, "part": name, **row} for name, row in own.items()]
        for name, row in found.items():
            ratio = row["cpu"] / found["tar + sha256sum"]["cpu"]
            rows.append({"side": size, "images": images, "step": name, **row, "ratio": ratio})
    show(rows, parts, given)


def run_step(name: str, folder: str, size: int, images: int, given: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", name, folder, str(size), str(images)]
    command += ["--sites", str(given.sites), "--workers", str(given.workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    print(f"{size}:{images} {name} {done.stdout.decode().strip()}", file=sys.stderr, flush=True)  # hours may lie ahead
    return dict(json.loads(done.stdout))


def one_step(name: str, folder: str, size: str, images: str, given: argparse.Namespace) -> None:
    work = Path(folder)
    steps: dict[str, Callable[[], Any]] = {
        "publish": lambda: step_publish(work, plan_of(int(size), int(images), given.sites), given.workers),
        "verify": lambda: step_verify(work, given.workers),
        "baseline": lambda: step_baseline(work),
        "parts": lambda: step_parts(work),
    }
    print(json.dumps(steps[name]()))


def show(rows: list[dict[str, Any]], parts: list[dict[str, Any]], given: argparse.Namespace) -> None:
    print(
        f"{given.sites} sites, {given.workers} processes a step, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'side':>5} {'images':>9} {'step':<16} {'s':>8} {'cpu s':>8} {'images/s':>9} {'peak MB':>8} {'ratio':>6}")
    for row in rows:
        speed = row["images"] / row["seconds"]
        print(
            f"{row['side']:>5} {row['images']:>9} {row['step']:<16} {row['seconds']:>8.1f} {row['cpu']:>8.1f} "
            f"{speed:>9.0f} {row['peak_mb']:>8.0f} {row['ratio']:>6.2f}"
        )
    for row in parts:
        print(f"{row['side']:>5} {'a picture':>9} {row['part']:<21} {row['us']:>8.1f} us")
    out = Path("bench-out")
    out.mkdir(exist_ok=True)
    (out / "publish.json").write_text(
        json.dumps({"workers": given.workers, "rows": rows, "parts": parts}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
