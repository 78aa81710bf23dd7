"""Score published folders on real patients of an index by `sfumato dataset evaluate`, side by side.

    python tests/bench/judge.py INDEX.csv PUBLISHED [PUBLISHED ...] [--split test] [--seeds 3] [--minutes M]
        [--figures tstr,own,...]

INDEX.csv has a row an image (docs/researcher.md). Prints every figure with a column a folder and one of real images,
and writes bench-out/judge.json. One published folder is one release: intervals are over patients, and hold neither the
chance of another release nor of its noise. The figures are neither charged nor private: for public images alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from cohorts import ROOT
from rich.console import Console
from rich.table import Table

from sfumato_common.files import write_json
from sfumato_server.evaluate import Report, Settings, device_of, evaluate
from sfumato_server.evaluate.shown import number


def show(reports: dict[str, Report]) -> Table:
    """A line a figure: each folder's number, and real images' of the first folder."""
    table = Table("figure", *reports, "real")
    found = {name: {(line.figure, line.of): line for line in report.rows} for name, report in reports.items()}
    for key in dict.fromkeys(key for lines in found.values() for key in lines):
        lines = [own.get(key) for own in found.values()]
        texts = [number(line.value, line.low, line.high) or line.note if line else "" for line in lines]
        first = next(line for line in lines if line)
        table.add_row(": ".join(key), *texts, number(first.real, first.real_low, first.real_high))
    return table


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Score published folders on real patients")
    parser.add_argument("index", type=Path, help="index CSV of real, public images")
    parser.add_argument("published", type=Path, nargs="+", help="folders as `sfumato` publishes them")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="about how long each folder's classifiers train")
    parser.add_argument("--figures", default="", help="some alone, by name")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out")
    return parser.parse_args()


def main() -> int:
    """Judge, print and write."""
    options = parse_arguments()
    settings = Settings(options.split, options.seeds, options.minutes, public=True, device=device_of("auto"))
    began, reports = time.process_time(), {}
    for folder in options.published:
        name = folder.parent.name if folder.name == "published" else folder.name
        figures = [figure for figure in options.figures.split(",") if figure]
        reports[name] = evaluate(folder, options.index, settings, figures, note=lambda line: print(line, flush=True))
    Console(width=160).print(show(reports))
    seconds = round(time.process_time() - began)
    write_json(
        options.out / "judge.json",
        {"seconds": seconds, "folders": {name: report.as_json() for name, report in reports.items()}},
    )
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
