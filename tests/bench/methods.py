"""Every anonymisation method in every latent space, on federated releases: use, likeness, and attacks with controls.

    python tests/bench/methods.py [--cohort phantom,sites] [--rows centroid,k-SALSA] [--models FOLDER] [--workers N]
    python tests/bench/methods.py --table FILE [FILE ...]

Models are trained three times a cohort (`--releases`) by all sites together at the stated epsilon, a federation for
each network. A fifth of the training patients of every site is set aside first: no model and no method sees them, so
that they are the strangers whom members are told from; holdout test patients judge use. A codec and a StyleGAN2 are
given: `FOLDER`/`COHORT`/codec, as `sfumato model pretrain codec` writes it, and `FOLDER`/`COHORT`/stylegan2.safetensors
(or stylegan2-0.safetensors and so on, one a release), as `make bench NAME=stylegan2` leaves it; they too must have seen
`methods_make.split`'s patients alone, and rows whose model is not there are left out.

Records are inverted once a release and space; then every site runs every method on its own patients, each row in one of
`--workers` processes with one thread, on an accelerator where there is one. After `--seconds` the run ends where it is,
and the tables say which rows are missing. Writes methods.json (after each result), methods.md and a sheet a cohort into
`--out`, with a strip of each row's first images; `--sheets` writes the stewards' sheets into
bench-out/methods-sheets: they are made from records and stay here. `--table` prints the tables of one or more runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cohorts import COHORTS, ROOT
from in_process import DELTA
from methods_report import markdown, merged, print_tables
from methods_rows import ROWS
from methods_work import Schedule, run
from PIL import Image, ImageDraw

from sfumato_common.files import write_atomic, write_json
from sfumato_common.metrics.judges import JUDGES

OUT = ROOT / "bench-out"
MARGIN = 190  # pixels of a sheet that names stand in

Result = dict[str, Any]


def sheet(strips: dict[str, Any], path: Path) -> None:
    """A row a set, in the order of the table, with its name and its first images at their own size."""
    order = [row.name for row in ROWS]
    names = sorted(strips, key=lambda name: order.index(name) if name in order else -1)
    side, width = strips[names[0]].shape[0], max(strip.shape[1] for strip in strips.values())
    canvas = Image.new("RGB", (MARGIN + width, (side + 2) * len(names)), "white")
    for number, name in enumerate(names):
        top = number * (side + 2)
        ImageDraw.Draw(canvas).text((4, top + side // 2 - 6), name, fill="black")
        canvas.paste(Image.fromarray(strips[name]), (MARGIN, top))
    colour = any(strip.ndim == 3 for strip in strips.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    (canvas if colour else canvas.convert("L")).save(path, optimize=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Every anonymisation method in every latent space")
    parser.add_argument("--cohort", type=_list, default=["sites", "phantom", "fundi-64", "sites-128", "fundi-128"])
    parser.add_argument("--rows", type=_list, default=[row.name for row in ROWS])
    parser.add_argument("--space", type=_list, help="only rows of these models: gan,flow,appearance,codec,stylegan2")
    parser.add_argument("--models", type=Path, help="folder of given codecs and StyleGAN2 weights")
    parser.add_argument("--epsilon", type=float, default=10.0, help="what the models may cost a training patient")
    parser.add_argument("--patients", type=int, default=10_000, help="the most of one site whose records enter methods")
    parser.add_argument("--images", type=int, default=200, help="the most images of one site")
    parser.add_argument("--slow-images", type=int, default=200, help="those of k-SALSA and PLAN, which take long")
    parser.add_argument(
        "--distance", default="random", choices=["random", "image", "embedding"], help="who are grouped"
    )
    parser.add_argument("--releases", type=int, default=3, help="how often the models are trained, with new noise")
    parser.add_argument("--judges", type=_list, default=[], help="ordinary networks beside: of " + ",".join(JUDGES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e9, help="after which the run ends where it is")
    parser.add_argument("--sheets", action="store_true", help="write the stewards' sheets of records")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", nargs="*", type=Path, metavar="FILE", help="only print the tables of results")
    options = parser.parse_args()
    known = {*COHORTS, *JUDGES, *(row.name for row in ROWS)}
    if unknown := {*options.cohort, *options.rows, *options.judges} - known:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def _list(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main() -> int:
    """Run the bench, or read what it wrote, and print its tables; 1 when a row failed."""
    options = parse_arguments()
    if options.table is not None:
        files = options.table or [options.out / "methods.json"]
        found = merged([json.loads(path.read_text()) for path in files])
    else:
        found = {"command": shlex.join(["python", "tests/bench/methods.py", *sys.argv[1:]]), "delta": DELTA, "runs": []}
        strips: dict[str, dict[str, Any]] = {}
        began = time.perf_counter()

        def done(result: Result) -> None:
            if (strip := result.pop("strip", None)) is not None:
                own = strips.setdefault(result["cohort"], {})
                own[result["row"]] = strip
            found["runs"].append(result)
            found["seconds"] = round(time.perf_counter() - began)
            write_json(options.out / "methods.json", found)

        with tempfile.TemporaryDirectory() as folder:
            found["missing"] = run(Schedule(options, Path(folder)), done)
        write_json(options.out / "methods.json", found)
        for cohort, own in strips.items():
            sheet(own, options.out / f"methods-{cohort}.png")
    print_tables(found)
    write_atomic(options.out / "methods.md", markdown(found))
    return int(any("failed" in result for result in found["runs"]))


if __name__ == "__main__":
    sys.exit(main())
