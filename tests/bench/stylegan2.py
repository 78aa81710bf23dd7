"""What a StyleGAN2 without privacy makes of three real sites, pooled, and what more time gives.

    python tests/bench/stylegan2.py [--seconds 18000] [--base 2048] [--most 64] [--batch 16] [--half] [--out FOLDER]
    python tests/bench/stylegan2.py --score [--out FOLDER]

Trains on the train patients of the cohort `sites` at 64 px, conditional on label and site, on the accelerator where
there is one, and stops by itself: 18,000 processor seconds are 150 minutes of two cores. Writes into the folder, at
several times, images that the moving average draws, and at the end its weights in float16 and a log. `--score` needs no
accelerator: Frechet distances to test patients by the utility bench's code, with as many real training images beside
them, as a table and stylegan2.json, and a contact sheet at the images' own size, the last draws below real ones. A last
row has the last draws with the training images' mean power in every ring of spatial frequencies: it tells how much of a
distance is contrast alone. Nothing is chosen on test patients.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from cohorts import ROOT, load, pooled
from safetensors.torch import save_file
from torch.nn import functional

from sfumato_common.files import write_atomic, write_json
from sfumato_common.generators.stylegan2.discriminator import Discriminator
from sfumato_common.generators.stylegan2.generator import CODE, Generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.training import Recipe, Training
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.types import AnyArray, to_bytes, to_unit_range

COHORT, COUNT = "sites", 2000  # as many images as the utility bench compares
SHARES = (0.1, 0.2, 0.35, 0.6, 1.0)  # of the time, at which images are drawn
LAST = "snapshot-*.npz"


class Bench:
    """The cohort on a device, the training, and what is written of it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # a processor may be shared: its own seconds count, of all threads together
        self.clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        cohort = load(COHORT)
        images, labels, _ = pooled(cohort.train)
        homes = np.repeat(np.arange(len(cohort.train)), [len(part.labels) for part in cohort.train.values()])
        self.images = torch.from_numpy(to_unit_range(images)).to(self.device)
        one_hot = (functional.one_hot(torch.from_numpy(part)).float() for part in (labels, homes))
        self.conditions, self.labels = torch.cat(list(one_hot), dim=1).to(self.device), labels
        self.draws = TorchDraws(torch.Generator(self.device).manual_seed(options.seed))
        self.rows = torch.Generator().manual_seed(options.seed)
        self.batch, self.out, self.size = options.batch, options.out, images.shape[1]
        classes, sizes = self.conditions.shape[1], (options.base, options.most)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            generator = Generator(self.size, 1, classes, *sizes, options.mapping)
            discriminator = Discriminator(self.size, 1, classes, *sizes, spread=True)
        nets = [net.to(self.device, memory_format=torch.channels_last) for net in (generator, discriminator)]
        recipe = Recipe(
            options.rate, options.r1, options.paths, augments=not options.plain, half_precision=options.half
        )
        self.training = Training(*nets, recipe, self.draws)
        self.log: list[dict[str, float]] = []

    def step(self) -> float:
        """One step on real images drawn with replacement; generated ones have others' conditions."""
        rows = torch.randint(len(self.images), (2, self.batch), generator=self.rows).to(self.device)
        return self.training.step(self.images[rows[0]], self.conditions[rows[0]], self.conditions[rows[1]])

    def snapshot(self, seconds: float) -> None:
        """Draw from the average and write the images with their labels."""
        rows = torch.randint(len(self.images), (COUNT,), generator=torch.Generator().manual_seed(1))
        draws, parts = TorchDraws(torch.Generator(self.device).manual_seed(1)), []
        with torch.no_grad():
            for part in rows.split(100):
                z, noise = draws.normal((len(part), CODE)), draw_noise(self.size, len(part), draws)
                made = self.training.average(z, self.conditions[part.to(self.device)], noise)
                parts.append(to_bytes(made.float().clamp(-1.0, 1.0).cpu().numpy()))
        name = self.out / f"snapshot-{len(self.log):02d}.npz"
        np.savez_compressed(name, images=np.concatenate(parts), labels=self.labels[rows.numpy()])
        entry = {
            "seconds": round(seconds, 1),
            "images": self.training.images,
            "p": self.training.adaptation.probability,
        }
        self.log.append(entry)
        write_json(self.out / "log.json", {"device": str(self.device), "snapshots": self.log})
        print(entry, flush=True)

    def run(self, seconds: float) -> None:
        """Train for that long, which images and weights that are written do not count into."""
        spent, waiting, steps = 0.0, [share * seconds for share in SHARES], 0
        while waiting:
            began = self.clock()
            loss = self.step()
            spent += self.clock() - began
            steps += 1
            if steps % 200 == 0:
                print(f"{spent:.0f} s, {self.training.images} images, loss {loss:.3f}", flush=True)
            if spent >= waiting[0]:
                waiting = [moment for moment in waiting if moment > spent]
                self.snapshot(spent)
        weights = {name: value.half().cpu() for name, value in self.training.average.named_parameters()}
        save_file({name: value.contiguous() for name, value in weights.items()}, self.out / "generator.safetensors")


def match_power(drawn: AnyArray, real: AnyArray) -> AnyArray:
    """Drawn images whose mean power in every ring of spatial frequencies is that of real ones, by twice at most."""
    side = drawn.shape[1]
    down = np.fft.fftfreq(side) * side
    ring = np.rint(np.hypot(down[:, None], down[None])).astype(int)

    def power(images: AnyArray) -> AnyArray:
        mean = (np.abs(np.fft.fft2(images.astype(np.float64))) ** 2).mean(axis=0)
        return np.bincount(ring.ravel(), mean.ravel()) / np.bincount(ring.ravel())

    gain = np.clip(np.sqrt(power(real) / power(drawn)), 0.5, 2.0)
    gain[0] = 1.0
    matched = np.fft.ifft2(np.fft.fft2(drawn.astype(np.float64)) * gain[ring]).real
    return np.clip(np.rint(matched), 0, 255).astype(np.uint8)


def score(out: Path) -> None:
    """The table of a folder's snapshots, and their picture."""
    from utility_scores import fidelity_of, reference_of  # trains a classifier: not where the accelerator is lent

    from sfumato_server.pictures import grid, png

    cohort = load(COHORT)
    real = pooled(cohort.train)[0]
    real = real[np.random.default_rng(0).permutation(len(real))[:COUNT]]
    log = json.loads((out / "log.json").read_text())
    rows: list[dict[str, object]] = [{"row": "real", **fidelity_of(reference_of(cohort), real)}]
    for entry, path in zip(log["snapshots"], sorted(out.glob(LAST)), strict=True):
        with np.load(path) as file:
            drawn: AnyArray = file["images"]
        rows.append({"row": "StyleGAN2", **entry, **fidelity_of(reference_of(cohort), drawn)})
    matched = match_power(drawn, pooled(cohort.train)[0])
    rows.append({"row": "the last, power matched", **fidelity_of(reference_of(cohort), matched)})
    write_json(out / "stylegan2.json", {**log, "rows": rows})
    write_atomic(out / "sheet.png", png(grid(np.concatenate([real[:32], drawn[:48]]), 16)))
    print("| | seconds | images seen | FD random | FD trained | precision | recall | coverage |\n" + "|---" * 8 + "|")
    for row in rows:
        cells = [row["row"], row.get("seconds", ""), row.get("images", "")]
        cells += [f"{row[name]:.1f}" for name in ("FD random", "FD trained")]
        cells += [f"{row[name]:.2f}" for name in ("precision", "recall", "coverage")]
        print(f"| {' | '.join(map(str, cells))} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, or score what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench-out" / "stylegan2")
    parser.add_argument("--score", action="store_true")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.score:
        score(options.out)
        return
    bench = Bench(options)
    print(f"{len(bench.images)} images on {bench.device}", flush=True)
    bench.run(options.seconds)


if __name__ == "__main__":
    main()
