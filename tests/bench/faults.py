"""What faults cost a study: random schedules of them, in one process and with real processes.

    python tests/bench/faults.py [--schedules 100] [--real 10] [--seed 0]

In one process every site and the coordinator is killed at random writes, finds its disk full, and loses, repeats or
delays messages, one to six of these a study. With real processes one to three of them are killed, of any kind, at any
stage. The quorum is all sites: each round counts each site, or the study stops. Linux only.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.faults import Schedule, make_homes, play
from support.real_faults import drawn_kills, make_real_homes, real_study

HEADINGS = (
    "form",
    "studies",
    "published",
    "double charges",
    "charges lost",
    "faults met",
    "coordinator runs",
    "s a study",
)


@dataclass
class Tally:
    """What became of the studies of one form."""

    form: str
    published: int = 0
    twice: int = 0
    lost: int = 0
    faults: int = 0
    runs: int = 0
    seconds: float = 0.0
    studies: list[dict[str, Any]] = field(default_factory=list)

    def add(self, seed: int, published: bool, twice: int, lost: int, met: list[str], runs: int, seconds: float) -> None:
        """Count one."""
        self.published, self.twice, self.lost = self.published + published, self.twice + twice, self.lost + lost
        self.faults, self.runs, self.seconds = self.faults + len(met), self.runs + runs, self.seconds + seconds
        self.studies.append(
            {"seed": seed, "published": published, "twice": twice, "lost": lost, "met": met, "seconds": seconds}
        )
        if not published or twice or lost:
            print(
                f"{self.form}, seed {seed}: published {published}, twice {twice}, lost {lost}: {met}", file=sys.stderr
            )

    def row(self) -> list[str]:
        """Its line of the table."""
        count = len(self.studies)
        figures = (count, self.published, self.twice, self.lost, self.faults, self.runs)
        return [self.form, *map(str, figures), f"{self.seconds / max(count, 1):.1f}"]


def in_process(folder: Path, seeds: range) -> Iterator[Tally]:
    """Schedules in this process; the tally after each."""
    tally, homes = Tally("one process"), make_homes(folder / "homes")
    clean = play(homes, folder / "clean", Schedule())
    for seed in seeds:
        began = time.monotonic()
        found = play(homes, folder / str(seed), Schedule.drawn(seed, clean.steps, clean.messages))
        seconds = time.monotonic() - began
        tally.add(seed, found.published, found.twice, found.lost, list(found.met), found.runs, seconds)
        shutil.rmtree(folder / str(seed))
        yield tally


def with_processes(folder: Path, seeds: range) -> Iterator[Tally]:
    """Kills of real processes; the tally after each."""
    tally, homes = Tally("real processes"), make_real_homes(folder / "homes")
    for seed in seeds:
        began, kills = time.monotonic(), drawn_kills(seed)
        with real_study(homes, folder / str(seed)) as study:
            study.run(kills, 1200.0)
            study.stop()
            counts, runs = study.counts(), study.runs["coordinator"]
            met = [" ".join(kill) for kill in kills[: len(kills) - len(study.left)]]
        tally.add(seed, *counts, met, runs, time.monotonic() - began)
        shutil.rmtree(folder / str(seed))
        yield tally


def main() -> None:
    """Run the schedules, print the table, write `bench-out/faults.json`."""
    parser = argparse.ArgumentParser(description="Studies under random faults")
    parser.add_argument("--schedules", type=int, default=100, help="how many in one process")
    parser.add_argument("--real", type=int, default=10, help="how many with real processes")
    parser.add_argument("--seed", type=int, default=0, help="the first schedule's")
    given = parser.parse_args()
    os.environ.setdefault("SFUMATO_CA_PASSPHRASE", "of a bench alone")
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    forms: list[tuple[Callable[[Path, range], Iterator[Tally]], int]] = [
        (in_process, given.schedules),
        (with_processes, given.real),
    ]
    done: dict[str, Tally] = {}
    for form, count in forms:
        with tempfile.TemporaryDirectory() as folder:
            seeds = range(given.seed, given.seed + count)
            for tally in form(Path(folder), seeds) if count else ():
                done[tally.form] = tally
                keep(list(done.values()))
    for row in [list(HEADINGS), *(tally.row() for tally in done.values())]:
        print(" | ".join(row))


def keep(tallies: list[Tally]) -> None:
    """Write what is known after every study: a run takes hours, and may be ended before."""
    out = Path("bench-out") / "faults.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({tally.form: tally.studies for tally in tallies}, indent=1) + "\n")


if __name__ == "__main__":
    main()
