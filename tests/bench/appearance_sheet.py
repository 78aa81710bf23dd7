"""Contact sheet of three real chest X-ray sites: real, spectral, and appearance with each detail, at their own size.

    python tests/bench/appearance_sheet.py [--epsilon 10] [--sizes 64,128] [--out docs/appearance-sheet.png]

The collections are open (licences stand beside the data). Releases are made as in `utility.py`, each site with secure
noise of its own; images are the first that are drawn, nobody picked them. Synthetic images of all details come of ONE
appearance release: detail is post-processing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from cohorts import BenchCohort, load, pooled, sites
from in_process import build_plan, federate, synthetic_set
from PIL import Image

from sfumato_common.pictures import mosaic

DETAILS = ("mixed", "phantom", "noise")
WIDTH, SEED = 896, 0


def tiles_of(cohort: BenchCohort, epsilon: float) -> list[npt.NDArray[np.uint8]]:
    """Rows of images: real, spectral, appearance by detail."""
    count, order = WIDTH // cohort.size, np.random.default_rng(SEED)
    real = pooled(cohort.train)[0]
    rows = [real[order.choice(len(real), count, replace=False)]]
    plan = build_plan(cohort, "spectral", epsilon)
    rows.append(synthetic_set(plan, "spectral", federate(plan, cohort.train, SEED)[0], count, SEED)[0])
    plans = {detail: build_plan(cohort, "appearance", epsilon, appearance={"detail": detail}) for detail in DETAILS}
    released, _ = federate(plans["mixed"], cohort.train, SEED)
    return rows + [synthetic_set(plan, "appearance", released, count, SEED)[0] for plan in plans.values()]


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description="Contact sheet of the appearance release")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=[64, 128])
    parser.add_argument("--out", type=Path, default=Path("docs/appearance-sheet.png"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sheets = []
    for size in options.sizes:
        rows = tiles_of(load("sites") if size == 64 else sites(size), options.epsilon)
        sheets.append(mosaic(rows, columns=WIDTH // size, gap=0, least_width=0))
        print(f"{size} px drawn", flush=True)
    Image.fromarray(np.concatenate(sheets)).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
