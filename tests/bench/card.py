"""All that needs an accelerator, in one run: StyleGAN2s and codecs, and the methods bench in every space.

    python tests/bench/card.py --seconds 560 --out FOLDER [--models FOLDER] [--codecs sites-128]

Trainings share the accelerator while the processor's cores run the methods bench at 64 px in the spaces of released
models, which they go on with to the end; once the trainings have ended, the accelerator runs it at 128 px, and in the
spaces of the trained models. What is finished is copied into `FOLDER` at once, each file below 16 MiB, so that a run
that is cut off leaves what it had: COHORT-stylegan2.safetensors, COHORT-codec.tar, methods-N.json for each methods
bench, and the log of each part. Models that stand in `--models` (as the methods bench reads them) are taken and not
trained again. A part that fails ends no other; 1 when one did.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO

from codec_cohorts import FORMS
from cohorts import SPLITS, drawn_fundi
from methods_models import given
from methods_work import CAMERAS

from sfumato_common.files import write_atomic, write_json

HERE = Path(__file__).parent
# name: share of the seconds, images a step, weight of R1; those of one line follow one another
STYLEGAN2 = (
    (("sites", 0.34, 64, 0.02), ("fundi-64", 0.11, 64, 0.02)),
    (("sites-128", 0.28, 32, 0.1), ("fundi-128", 0.16, 32, 0.1)),
)
FIRST, CODEC, SLACK = 0.55, 0.17, 15.0
SMALL, LARGE = "sites,fundi-64,phantom", "sites-128,fundi-128"
RELEASED, TRAINED = "gan,flow,appearance", "codec,stylegan2"
SIZES = ("--judges=", "--patients", "350", "--images", "120", "--releases", "3")


@dataclass
class Part:
    """Commands that follow one another in one process at a time, and the log that they write."""

    name: str
    commands: list[list[str]]
    environment: dict[str, str]
    log: TextIO
    process: subprocess.Popen[bytes] | None = None
    failed: bool = False

    def going(self) -> bool:
        """Start the next command when the last has ended; False when all have."""
        if self.process is not None:
            if self.process.poll() is None:
                return True
            self.failed |= self.process.returncode != 0
            self.process = None
        if not self.commands:
            return False
        terms = {"env": self.environment, "stdout": self.log, "stderr": subprocess.STDOUT, "start_new_session": True}
        self.process = subprocess.Popen(self.commands.pop(0), **terms)
        return True

    def stop(self) -> None:
        """End what still runs; what it had is there."""
        self.commands.clear()
        if self.process is not None:
            self.failed = True
            os.killpg(self.process.pid, signal.SIGKILL)  # its workers, too
            self.process.wait()


class Card:
    """The run: what is asked, where it is kept, and when it ends."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.ends = options, time.monotonic() + options.seconds
        self.out, self.work = options.out, options.work
        self.models = options.models or self.work / "models"
        self.out.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(parents=True, exist_ok=True)

    def run(self) -> list[str]:
        """Both halves; gives the parts that failed or were ended."""
        cores, seconds = os.cpu_count() or 1, self.options.seconds - SLACK
        whole = self.methods(1, seconds, SMALL, RELEASED, cores - 5, card=False)
        first = self.trainings()
        self.wait(first, time.monotonic() + FIRST * self.options.seconds, whole)
        for part in first:
            part.stop()
        left = self.ends - time.monotonic() - SLACK
        second = [self.methods(2, left, LARGE, f"{RELEASED},{TRAINED}", cores // 2, card=True)]
        second.append(self.methods(3, left, SMALL, TRAINED, cores // 4, card=True))
        self.wait([*second, whole], self.ends)
        for part in (*second, whole):
            part.stop()
        self.keep()
        return [part.name for part in (*first, *second, whole) if part.failed]

    def trainings(self) -> list[Part]:
        """StyleGAN2s of the patients that the methods bench keeps, codecs, and the images that two of them wait for."""
        parts = [self.part("draws", [self.command("card", "--draw")])]
        for line in STYLEGAN2:
            commands = [self.stylegan2(*terms) for terms in line if not given(self.models, terms[0], "stylegan2", 0)]
            parts.append(self.part("stylegan2-" + line[0][0], commands))
        wanted = [name for name in self.options.codecs if not given(self.models, _cohort(name), "codec", 0)]
        # the codecs' bench gives each of all cohorts its share
        seconds = CODEC * self.options.seconds / max(FORMS[name][0] for name in FORMS)
        terms = ["--cohorts", ",".join(wanted), "--seconds", f"{seconds:.0f}", "--batch", "64", "--out", str(self.work)]
        parts.append(self.part("codecs", [self.command("codec_cohorts", *terms)] if wanted else []))
        return parts

    def stylegan2(self, cohort: str, share: float, batch: int, penalty: float) -> list[str]:
        """The command of one training."""
        seconds, out = f"{share * self.options.seconds:.0f}", str(self.work / "stylegan2" / cohort)
        terms = ["--seconds", seconds, "--batch", str(batch), "--r1", str(penalty), "--base", "4096", "--most", "256"]
        return self.command("stylegan2", "--cohort", cohort, "--kept", "--half", "--draws", "0", *terms, "--out", out)

    def methods(self, number: int, seconds: float, cohorts: str, spaces: str, workers: int, *, card: bool) -> Part:
        """The methods bench of some cohorts in some spaces, with or without the accelerator."""
        terms = ["--workers", str(max(1, workers)), "--seconds", f"{seconds:.0f}", "--space", spaces]
        terms += ["--slow-images", "60" if card else "30", "--models", str(self.models)]
        out = str(self.work / f"methods-{number}")
        command = self.command("methods", "--cohort", cohorts, *SIZES, *terms, "--out", out)
        return self.part(f"methods-{number}", [command], {} if card else {"CUDA_VISIBLE_DEVICES": ""})

    def command(self, bench: str, *terms: str) -> list[str]:
        """A bench of this folder."""
        return [sys.executable, str(HERE / f"{bench}.py"), *terms]

    def part(self, name: str, commands: list[list[str]], more: dict[str, str] | None = None) -> Part:
        """A part with one thread a process and a log of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(more or {})}
        return Part(name, commands, environment, (self.out / f"{name}.log").open("w"))

    def wait(self, parts: list[Part], until: float, beside: Part | None = None) -> None:
        """Until all parts end, or it is time; what is there is kept every few seconds."""
        while any([part.going() for part in parts]) and time.monotonic() < until:
            if beside is not None:
                beside.going()
            time.sleep(1.0)
            self.keep()

    def keep(self) -> None:
        """Copy what is new into the folder, and models to where the methods bench looks for them."""
        for path in sorted(self.work.glob("stylegan2/*/generator.safetensors")):
            if _copied(path, self.out / f"{path.parent.name}-stylegan2.safetensors"):
                _copied(path, self.models / path.parent.name / "stylegan2.safetensors")
        for name in FORMS:
            archive = self.work / f"{name}.tar"
            if archive.is_file() and _copied(archive, self.out / f"{name}-codec.tar"):
                with tarfile.open(archive) as file:
                    file.extractall(self.work / "unpacked", filter="data")
                target = self.models / _cohort(name) / "codec"
                shutil.copytree(self.work / "unpacked" / name / "codec", target, dirs_exist_ok=True)
        for path in (*self.work.glob("methods-*/methods.json"), *self.work.glob("methods-*/*.png")):
            _copied(path, self.out / f"{path.parent.name}-{path.name}")


def draw() -> None:
    """The eyes of the cohorts that are drawn, at their larger size: the smaller is drawn by the methods bench."""
    parts = [(128, site, camera, part) for site, camera in CAMERAS.items() for part in SPLITS]
    with ProcessPoolExecutor(4, get_context("spawn")) as pool:
        list(pool.map(drawn_fundi, *zip(*parts, strict=True)))


def _cohort(codec: str) -> str:
    """The cohort of the methods bench whose codec it is."""
    return "sites" if codec == "sites-64" else codec


def _copied(source: Path, target: Path) -> bool:
    """Whether `target` was older than `source`, and is a copy of it now."""
    if target.is_file() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return False
    write_atomic(target, source.read_bytes())
    return True


def main() -> int:
    """Run all of it; 1 when a part failed or had no time."""
    parser = argparse.ArgumentParser(description="All that needs an accelerator, in one run")
    parser.add_argument("--seconds", type=float, default=560.0)
    parser.add_argument("--out", type=Path, default=Path("bench-out/card-kept"), help="where what is finished is kept")
    parser.add_argument("--work", type=Path, default=Path("bench-out/card"), help="where parts write")
    parser.add_argument("--models", type=Path, help="folder of given models, taken before any are trained")
    parser.add_argument("--codecs", type=lambda text: text.split(","), default=list(FORMS), help="those to train")
    parser.add_argument("--draw", action="store_true", help="only draw the images that trainings wait for")
    options = parser.parse_args()
    if options.draw:
        draw()
        return 0
    failed = Card(options).run()
    write_json(options.out / "card.json", {"seconds": options.seconds, "failed": failed})
    print("failed or ended:", ", ".join(failed) or "nothing")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
