"""How fast phantom patients are drawn and written as DICOM, and read back into a site's form, on one core.

Prints a table and writes bench-out/phantom.json. Rates are images per second of processor time (and of wall time).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is imported: one core

import tempfile
import time
from pathlib import Path

from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import read_source
from sfumato_client.ingest.sources import DicomSource
from sfumato_common.files import write_json
from sfumato_common.phantom import DEVICES, arrays
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.study.terms import ImageForm

PATIENTS = 300


def main() -> None:
    """Measure every device."""
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_cohort(Path(folder), "warm-up", 2, 0, "aurora")  # imports and first-use tables
    print(f"{'device':<10}{'images':>8}{'write/s':>10}{'(wall)':>10}{'ingest/s':>10}{'(wall)':>10}")
    for name in DEVICES:
        with tempfile.TemporaryDirectory() as root:
            results[name] = row = _measure(Path(root), name)
        print(f"{name:<10}{row['images']:>8.0f}{row['write_per_s']:>10.0f}{row['write_per_wall_s']:>10.0f}"
              f"{row['ingest_per_s']:>10.0f}{row['ingest_per_wall_s']:>10.0f}")  # fmt: skip
    start = time.process_time()
    images, _, _ = arrays(0, PATIENTS, 64)
    in_memory = len(images) / (time.process_time() - start)
    print(f"arrays(size=64), no DICOM: {in_memory:.0f} images/s")
    write_json(Path("bench-out/phantom.json"), {"devices": results, "arrays_64_per_s": in_memory})


def _measure(root: Path, device: str) -> dict[str, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    write_cohort(root / "dicom", "bench", PATIENTS, 0, device)
    write_cpu, write_wall = time.process_time() - cpu, time.perf_counter() - wall
    form, labels = ImageForm(size=64), ["normal", "opacity"]
    source = DicomSource(kind="dicom", folder=root / "dicom", labels=root / "dicom" / "labels.csv")
    cpu, wall = time.process_time(), time.perf_counter()
    images = read_source(source, form, labels)
    count = SiteStore.create(root / "site" / "store", images, form, labels, bytes(32), bytes(32)).kept
    ingest_cpu, ingest_wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "images": float(count),
        "write_per_s": count / write_cpu,
        "write_per_wall_s": count / write_wall,
        "ingest_per_s": count / ingest_cpu,
        "ingest_per_wall_s": count / ingest_wall,
    }


if __name__ == "__main__":
    main()
