"""What the demo's set is worth, measured as a researcher would with public images: phantom patients whom no site has.

`sfumato dataset evaluate` does it, in a process of its own, and a copy of the report draws it. Nothing here is charged,
as no patient of a site is looked at: that is why a real consortium cannot have these figures for nothing.
"""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from pathlib import Path

import numpy as np

from sfumato_common.command_line import say
from sfumato_common.files import write_atomic
from sfumato_common.phantom import MODALITIES, arrays
from sfumato_common.study.plan import Plan
from sfumato_common.supervise import run_to_end

_SEED = 4771  # of no site's patients
_PATIENTS = {"train": 240, "test": 160}
LARGEST = 64  # pixels: larger phantoms take minutes to draw
_SECONDS = 3600.0
BY = "the demo itself"


def show_figures(plan: Plan, modality: str, work: Path, out: Path) -> None:
    """Measure `out/published`, and say where the report with the figures is; of large images, which take long, not.

    Where it fails, the demo is as whole as without, and a line says why.
    """
    if plan.image.size > LARGEST:
        return
    began = time.monotonic()
    failed = measure(out / "published", public_index(work, plan, modality), out)
    said, took = f"not measured: {failed}" if failed else str(out / "report.html"), time.monotonic() - began
    say(f"with figures:  {said} ({took:.1f} s)")


def public_index(folder: Path, plan: Plan, modality: str) -> Path:
    """Draw public phantom patients on every device, in the study's form: an archive and its index, a CSV."""
    systems, names = sorted(MODALITIES[modality].systems), MODALITIES[modality].labels
    rows, pixels = list[list[object]](), []
    for number, (split, patients) in enumerate(_PATIENTS.items()):
        for at, device in enumerate(systems):
            count, first = patients // len(systems), 1 + 10_000 * (number * len(systems) + at)
            site = f"public-{at}"
            images, labels, people = arrays(
                _SEED, count, plan.image.size, site, device, first, plan.image.bits, modality
            )
            rows += [
                ["phantom", len(rows) + row, names[label], f"{split}-{at}-{person}", split]
                for row, (label, person) in enumerate(zip(labels, people, strict=True))
            ]
            pixels.append(images)
    archive = io.BytesIO()
    np.savez(archive, images=np.concatenate(pixels))
    write_atomic(folder / "phantom.npz", archive.getvalue())
    stream = io.StringIO()
    csv.writer(stream).writerows([["set", "row", "label", "patient", "split"], *rows])
    write_atomic(folder / "phantoms.csv", stream.getvalue())
    return folder / "phantoms.csv"


def measure(published: Path, index: Path, out: Path) -> str:
    """Write `evaluation.json` and, with its figures drawn in, `report.html` into `out`; what went wrong, or ''."""
    environment = {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    program, figures = str(Path(sys.executable).parent / "sfumato"), out / "evaluation.json"
    evaluate = [program, "dataset", "evaluate", str(published), "--real", str(index), "--public", "--quick"]
    evaluate += ["--seeds", "1", "--figures", "methods", "--by", BY, "--out", str(figures)]
    code, said = run_to_end(evaluate, environment, _SECONDS)
    if code:
        return said.strip().splitlines()[-1] if said.strip() else f"exit code {code}"
    from sfumato_server.publish.outside import write_report

    write_report(published, figures, out / "report.html")
    return ""
