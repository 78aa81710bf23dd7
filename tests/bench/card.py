"""All that needs an accelerator, in one run: StyleGAN2s and codecs, and the methods bench in every space.

    python tests/bench/card.py --seconds 560 --out FOLDER [--models FOLDER]

Trainings share the accelerator while the processor's cores run the methods bench in the spaces of released models; then
the accelerator runs it in those of the trained ones. What is finished is copied into `FOLDER` at once, each file below
16 MiB, so that a run that is cut off leaves what it had: COHORT-stylegan2.safetensors, COHORT-codec.tar, methods-1.json
and methods-2.json, and the log of each part. Models that stand in `--models` (as the methods bench reads them) are
taken and not trained again. A part that fails ends no other; 1 when one did.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from codec_cohorts import FORMS
from methods_models import given

from sfumato_common.files import write_atomic, write_json

HERE = Path(__file__).parent
# name: share of the seconds, images a step, weight of R1; those of one line follow one another
STYLEGAN2 = (
    (("sites", 0.55, 64, 0.02),),
    (("sites-128", 0.55, 32, 0.1),),
    (("fundi-64", 0.2, 64, 0.02), ("fundi-128", 0.33, 32, 0.1)),
)
FIRST, CODECS, SLACK = 0.57, 0.45, 15.0
COHORTS = "sites,fundi-64,sites-128,phantom,fundi-128"
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
        first = [*self.trainings(), self.methods(1, FIRST * self.options.seconds, "gan,flow,appearance", card=False)]
        self.wait(first, time.monotonic() + FIRST * self.options.seconds + SLACK)
        left = self.ends - time.monotonic() - SLACK
        second = [self.methods(2, left, "codec,stylegan2", card=True)]
        self.wait(second, self.ends)
        return [part.name for part in (*first, *second) if part.failed]

    def trainings(self) -> list[Part]:
        """StyleGAN2s of the patients that the methods bench keeps, and codecs."""
        parts = []
        for line in STYLEGAN2:
            commands = [self.stylegan2(*terms) for terms in line if not given(self.models, terms[0], "stylegan2", 0)]
            parts.append(self.part("stylegan2-" + line[0][0], commands))
        wanted = [name for name in FORMS if not given(self.models, _cohort(name), "codec", 0)]
        seconds = f"{CODECS * self.options.seconds:.0f}"
        terms = ["--cohorts", ",".join(wanted), "--seconds", seconds, "--batch", "64", "--out", str(self.work)]
        parts.append(self.part("codecs", [self.command("codec_cohorts", *terms)] if wanted else []))
        return parts

    def stylegan2(self, cohort: str, share: float, batch: int, penalty: float) -> list[str]:
        """The command of one training."""
        seconds, out = f"{share * self.options.seconds:.0f}", str(self.work / "stylegan2" / cohort)
        terms = ["--seconds", seconds, "--batch", str(batch), "--r1", str(penalty), "--base", "4096", "--most", "256"]
        return self.command("stylegan2", "--cohort", cohort, "--kept", "--half", "--draws", "0", *terms, "--out", out)

    def methods(self, number: int, seconds: float, spaces: str, *, card: bool) -> Part:
        """The methods bench in some spaces, with or without the accelerator."""
        cores = (os.cpu_count() or 1) - (0 if card else len(STYLEGAN2) + 1)
        terms = ["--workers", str(max(1, cores)), "--seconds", f"{seconds:.0f}", "--space", spaces]
        terms += ["--slow-images", "60" if card else "15", "--models", str(self.models)]
        out = str(self.work / f"methods-{number}")
        command = self.command("methods", "--cohort", COHORTS, *SIZES, *terms, "--out", out)
        return self.part(f"methods-{number}", [command], {} if card else {"CUDA_VISIBLE_DEVICES": ""})

    def command(self, bench: str, *terms: str) -> list[str]:
        """A bench of this folder."""
        return [sys.executable, str(HERE / f"{bench}.py"), *terms]

    def part(self, name: str, commands: list[list[str]], more: dict[str, str] | None = None) -> Part:
        """A part with one thread a process and a log of its own."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(more or {})}
        return Part(name, commands, environment, (self.out / f"{name}.log").open("w"))

    def wait(self, parts: list[Part], until: float) -> None:
        """Until all parts end, or it is time; what is there is kept every few seconds."""
        while any([part.going() for part in parts]) and time.monotonic() < until:
            time.sleep(1.0)
            self.keep()
        for part in parts:
            part.stop()
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
    parser.add_argument("--out", type=Path, required=True, help="where what is finished is copied to")
    parser.add_argument("--work", type=Path, default=Path("bench-out/card"), help="where parts write")
    parser.add_argument("--models", type=Path, help="folder of given models, taken before any are trained")
    options = parser.parse_args()
    failed = Card(options).run()
    write_json(options.out / "card.json", {"seconds": options.seconds, "failed": failed})
    print("failed or ended:", ", ".join(failed) or "nothing")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
