"""What a StyleGAN2 without privacy makes of three sites, pooled, and what more time gives.

    python tests/bench/stylegan2.py [--cohort sites] [--kept] [--seconds 18000] [--half] [--resume] [--out FOLDER]
    python tests/bench/stylegan2.py --score [--out FOLDER]

Trains on the train patients of a cohort of 64 or 128 px (`--kept`: without those that the methods bench sets aside),
conditional on label and site, on the accelerator where there is one, and stops by itself: 18,000 processor seconds are
150 minutes of two cores. Writes into the folder, at several times, a log, the moving average's weights in float16, and
images that it draws. `--score` needs no accelerator, and knows from the log what was trained: Frechet distances to test
patients by the utility bench's code, with as many real training images beside them, as a table and stylegan2.json, and
a contact sheet at the images' own size, draws of the last weights below real ones. A last row has these draws with the
training images' mean power in every ring of spatial frequencies: it tells how much of a distance is contrast alone.
Nothing is chosen on test patients.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cohorts import COHORTS, ROOT, BenchCohort, load, pooled
from safetensors.torch import load_file, save
from stylegan2_state import EVERY, keep_state, resume
from torch.nn import functional

from sfumato_common.files import write_atomic, write_json
from sfumato_common.generators.stylegan2.discriminator import Discriminator
from sfumato_common.generators.stylegan2.generator import CODE, Generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.training import Recipe, Training
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.types import AnyArray, ByteImages, to_bytes, to_unit_range

COUNT = 2000  # as many images as the utility bench compares
SHARES = (0.1, 0.2, 0.35, 0.6, 1.0)  # of the time, at which images are drawn and weights written
WEIGHTS, LOG, SNAPSHOTS = "generator.safetensors", "log.json", "snapshot-*.npz"
FORM = ("cohort", "kept", "base", "most", "mapping")  # what the log says of a generator and its images


def cohort_of(name: str, *, kept: bool) -> BenchCohort:
    """The cohort, with the training patients whom the methods bench keeps, or with all."""
    if not kept:
        return load(name)
    from methods_make import split  # all of the sites' code, which a training of whole cohorts does not need

    return split(name)[0]


class Pictures:
    """Training images of a cohort as bytes, their labels, and the conditions under which they are drawn."""

    def __init__(self, cohort: BenchCohort) -> None:
        self.images, self.labels, _ = pooled(cohort.train)
        homes = np.repeat(np.arange(len(cohort.train)), [len(part.labels) for part in cohort.train.values()])
        one_hot = (functional.one_hot(torch.from_numpy(part)).float() for part in (self.labels, homes))
        self.conditions = torch.cat(list(one_hot), dim=1)
        self.size, self.channels = cohort.size, cohort.channels

    def generator(self, base: int, most: int, mapping: int) -> Generator:
        """One that draws such images."""
        return Generator(self.size, self.channels, self.conditions.shape[1], base, most, mapping)

    def drawn(self, generator: Generator, count: int) -> tuple[ByteImages, npt.NDArray[np.int64]]:
        """Images of a generator under the conditions of images taken at random, and their labels."""
        device = next(generator.parameters()).device
        rows = torch.randint(len(self.images), (count,), generator=torch.Generator().manual_seed(1))
        draws, parts = TorchDraws(torch.Generator(device).manual_seed(1)), []
        with torch.no_grad():
            for part in rows.split(100):
                z, noise = draws.normal((len(part), CODE)), draw_noise(self.size, len(part), draws)
                made = generator(z, self.conditions[part].to(device), noise)
                parts.append(to_bytes(made.float().clamp(-1.0, 1.0).cpu().numpy()))
        return np.concatenate(parts), self.labels[rows.numpy()]


class Bench:
    """The cohort on a device, the training, and what is written of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # a processor may be shared: its own seconds count, of all threads together
        self.clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        self.pictures = Pictures(cohort_of(options.cohort, kept=options.kept))
        self.images = torch.from_numpy(to_unit_range(self.pictures.images)).to(self.device)
        self.conditions = self.pictures.conditions.to(self.device)
        self.draws = TorchDraws(torch.Generator(self.device).manual_seed(options.seed))
        self.rows = torch.Generator().manual_seed(options.seed)
        self.batch, self.out, self.count = options.batch, options.out, options.draws
        sizes, form = (options.base, options.most), self.images.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            generator = self.pictures.generator(*sizes, options.mapping)
            discriminator = Discriminator(form[2], form[1], self.conditions.shape[1], *sizes, spread=True)
        nets = [net.to(self.device, memory_format=torch.channels_last) for net in (generator, discriminator)]
        recipe = Recipe(
            options.rate, options.r1, options.paths, augments=not options.plain, half_precision=options.half
        )
        self.training = Training(*nets, recipe, self.draws, recorded=True)
        self.log: dict[str, Any] = {name: getattr(options, name) for name in FORM}
        self.log |= {"device": str(self.device), "snapshots": []}

    def step(self) -> float:
        """One step on real images drawn with replacement; generated ones have others' conditions."""
        rows = torch.randint(len(self.images), (2, self.batch), generator=self.rows).to(self.device)
        return self.training.step(self.images[rows[0]], self.conditions[rows[0]], self.conditions[rows[1]])

    def snapshot(self, seconds: float) -> None:
        """Write the average's weights, the log, and images that it draws with their labels."""
        average, taken = self.training.average, self.log["snapshots"]
        weights = {name: value.half().cpu().contiguous() for name, value in average.named_parameters()}
        write_atomic(self.out / WEIGHTS, save(weights))
        if self.count:
            images, labels = self.pictures.drawn(average, self.count)
            np.savez_compressed(self.out / SNAPSHOTS.replace("*", f"{len(taken):02d}"), images=images, labels=labels)
        seen, probability = self.training.images, self.training.adaptation.probability
        taken.append({"seconds": round(seconds, 1), "images": seen, "p": probability})
        write_json(self.out / LOG, self.log)
        print(taken[-1], flush=True)

    def run(self, seconds: float, spent: float = 0.0) -> None:
        """Train for that long, of which some is `spent`; images, weights and states that are written do not count."""
        waiting, steps, kept = [share * seconds for share in SHARES if share * seconds > spent], 0, spent
        while waiting:
            began = self.clock()
            self.training.pace(1.0 - spent / seconds)
            loss = self.step()
            spent += self.clock() - began
            steps += 1
            if steps % 200 == 0:
                print(f"{spent:.0f} s, {self.training.images} images, loss {loss:.3f}", flush=True)
            if spent >= waiting[0]:
                waiting = [moment for moment in waiting if moment > spent]
                self.snapshot(spent)
            if spent >= kept + EVERY or not waiting:
                kept = spent
                keep_state(self, spent)


def match_power(drawn: ByteImages, real: ByteImages) -> ByteImages:
    """Drawn images whose mean power in every ring of spatial frequencies is that of real ones, by twice at most."""
    side = drawn.shape[1]
    down = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(down[:, None], down[None])).astype(int)

    def spectra(images: ByteImages) -> npt.NDArray[np.complex128]:
        planes = images if images.ndim == 3 else np.moveaxis(images, 3, 1)
        return np.fft.fft2(planes.astype(np.float64))

    def power(images: ByteImages) -> AnyArray:
        total = sum((np.abs(spectra(part)) ** 2).reshape(-1, side, side).sum(axis=0) for part in _parts(images))
        return np.bincount(ring.ravel(), total.ravel()) / (np.bincount(ring.ravel()) * len(images))

    gain = np.clip(np.sqrt(power(real) / power(drawn)), 0.5, 2.0)
    gain[0] = 1.0
    matched = np.concatenate([np.fft.ifft2(spectra(part) * gain[ring]).real for part in _parts(drawn)])
    whole = np.clip(np.rint(matched), 0, 255).astype(np.uint8)
    return whole if drawn.ndim == 3 else np.moveaxis(whole, 1, 3)


def _parts(images: ByteImages) -> list[ByteImages]:
    return np.array_split(images, -(-len(images) // 200))


def generator_of(out: Path, log: dict[str, Any], pictures: Pictures) -> Generator:
    """The average whose weights a folder holds."""
    generator = pictures.generator(*(log[name] for name in ("base", "most", "mapping")))
    generator.load_state_dict({name: value.float() for name, value in load_file(out / WEIGHTS).items()})
    return generator.requires_grad_(False)


def score(out: Path) -> None:
    """The table of what a folder holds, and its picture."""
    from utility_scores import fidelity_of, reference_of  # trains a classifier: not where the accelerator is lent

    from sfumato_common.pictures import grid, png

    log = json.loads((out / LOG).read_text())
    pictures = Pictures(cohort_of(log["cohort"], kept=log["kept"]))
    cohort, real = load(log["cohort"]), pictures.images
    rows: list[dict[str, object]] = []

    def add(name: str, images: ByteImages, entry: dict[str, float]) -> None:
        rows.append({"row": name, **entry, **fidelity_of(reference_of(cohort), images)})

    some = real[np.random.default_rng(0).permutation(len(real))[:COUNT]]
    add("real", some, {})
    taken = log["snapshots"]
    # the last draws are those of the weights, which are here
    for entry, path in zip(taken[:-1], sorted(out.glob(SNAPSHOTS)), strict=False):
        with np.load(path) as file:
            add("StyleGAN2", file["images"], entry)
    drawn = pictures.drawn(generator_of(out, log, pictures), COUNT)[0]
    add("StyleGAN2", drawn, taken[-1])
    add("the last, power matched", match_power(drawn, real), {})
    write_json(out / "stylegan2.json", {**log, "rows": rows})
    columns = 1024 // cohort.size
    write_atomic(out / "sheet.png", png(grid(np.concatenate([some[: 2 * columns], drawn[: 3 * columns]]), columns)))
    print("| | seconds | images seen | FD random | FD trained | precision | recall | coverage |\n" + "|---" * 8 + "|")
    for row in rows:
        cells = [row["row"], row.get("seconds", ""), row.get("images", "")]
        cells += [f"{row[name]:.1f}" for name in ("FD random", "FD trained")]
        cells += [f"{row[name]:.2f}" for name in ("precision", "recall", "coverage")]
        print(f"| {' | '.join(map(str, cells))} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or score what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", default="sites", choices=list(COHORTS))
    parser.add_argument("--kept", action="store_true", help="without the patients that the methods bench sets aside")
    parser.add_argument("--seconds", type=float, default=18_000.0, help="of training, of processor time on a CPU")
    parser.add_argument("--base", type=int, default=2048, help="channels times pixels a side")
    parser.add_argument("--most", type=int, default=64, help="channels at most")
    parser.add_argument("--mapping", type=int, default=2, help="layers of the mapping")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=0.002, help="learning rate of both networks")
    parser.add_argument("--r1", type=float, default=0.05)
    parser.add_argument("--paths", type=float, default=0.0, help="weight of path lengths")
    parser.add_argument("--plain", action="store_true", help="no adaptive augmentation")
    parser.add_argument("--half", action="store_true", help="convolutions in bfloat16")
    parser.add_argument("--draws", type=int, default=COUNT, help="images of a snapshot; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "stylegan2")
    parser.add_argument(
        "--resume", action="store_true", help="go on from the state in the folder, with the same options"
    )
    parser.add_argument("--score", action="store_true")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.score:
        score(options.out)
        return
    bench = Bench(options)
    print(f"{len(bench.images)} images on {bench.device}", flush=True)
    bench.run(options.seconds, resume(bench) if options.resume else 0.0)


if __name__ == "__main__":
    main()
