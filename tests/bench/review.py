"""What a look at one candidate beside its nearest patients costs on the stewards' page, by number of patients.

    make bench NAME=review [ARGS="--patients 5000 --size 128"]

Patients have two images each, of noise, in an encrypted store on the disk. `index` is what the page does: the cohort is
read once, a piece at a time, for the first candidate of a review. `anew` is what it did before: all images are read for
each candidate. Processor seconds of one thread; memory is what is added at the peak, each in a process of its own.

Prints a table and writes bench-out/review.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from sfumato_client.dataset import Cohort
from sfumato_client.dataset.pixel_file import EncryptedPixels, PixelFacts, PixelFile
from sfumato_client.review.neighbours import Neighbours
from sfumato_common.files import write_json
from sfumato_common.metrics.nearest import patient_distances
from sfumato_common.study.plan import ImageForm

OUT, KEY = Path("bench-out/review.json"), bytes(32)
CANDIDATES = 2


def store(folder: Path, patients: int, size: int) -> PixelFacts:
    """An encrypted file of two images a patient."""
    rng, file = np.random.default_rng(0), PixelFile(folder, ImageForm(size=size), KEY)
    for _ in range(2 * patients):
        file.append(rng.integers(0, 256, (size, size), dtype=np.uint8))
    return file.close()


def worker(way: str, folder: Path, told: dict[str, Any]) -> None:
    """One row, as JSON."""
    torch.set_num_threads(1)
    facts = PixelFacts(tuple(told["shape"]), told["dtype"], bytes.fromhex(told["file_id"]))
    count = facts.shape[0]
    cohort = Cohort(EncryptedPixels(folder, facts, KEY), np.zeros(count, np.int64), np.arange(count) // 2)
    candidates = np.random.default_rng(1).integers(0, 256, (CANDIDATES, *facts.shape[1:]), dtype=np.uint8)
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    index: Neighbours | None = None
    for candidate in candidates:
        began = time.process_time()
        if way == "anew":
            images, _, patient_index = cohort.everything()
            patient_distances(candidate[None], images, patient_index)
        else:
            index = index or Neighbours(cohort)
            index.nearest(candidate)
        seconds.append(time.process_time() - began)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    row = {"first": seconds[0], "each_further": float(np.mean(seconds[1:])), "mib_added": peak}
    sys.stdout.write(json.dumps({"way": way, "patients": count // 2, **row, "load": os.getloadavg()[0]}) + "\n")


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, nargs="+", default=[5000])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker[0], Path(given.worker[1]), json.loads(given.worker[2]))
        return
    rows = []
    for patients in given.patients:
        with tempfile.TemporaryDirectory() as folder:
            facts = store(Path(folder), patients, given.size)
            told = {"shape": facts.shape, "dtype": facts.dtype, "file_id": facts.file_id.hex()}
            for way in ("anew", "index"):
                words = [sys.executable, __file__, "--worker", way, folder, json.dumps(told)]
                done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=900)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
    table = Table(*rows[0], title="a candidate beside its nearest patients, processor seconds")
    for row in rows:
        table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console().print(table)
    write_json(OUT, {"size": given.size, "rows": rows})


if __name__ == "__main__":
    main()
