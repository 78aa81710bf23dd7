"""Images a second of PLAN with many walks at once, against one walk at a time.

The same walks are moved by the same steps in three ways: all at once, in chunks that memory sets on every core; one
walk after another by `bend_walks` on all threads; and so with four images at a time, as the published code does. The
ways run in turn, round by round, and medians are shown, of wall time and of processor time, which other work on the
machine does not change as much. "apart" is the largest difference of a code from the first way's, over the largest that
the steps moved one. Models have the shipped sizes: a generator and a spectral model of phantom patients, classifiers of
the same patients. Prints a table a size and writes bench-out/walk_batch.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sfumato_client.anonymise.identities import Identities, fit_recogniser
from sfumato_client.anonymise.linear_walk import Walks
from sfumato_client.anonymise.plan_walk import bend_on_all_cores, bend_walks
from sfumato_common.files import write_json
from sfumato_common.generators.device import training_device
from sfumato_common.generators.gan.w_space import WSpace
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.starts import initial_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import PlanWalk

POINTS, PATIENTS, TRAINING_STEPS = 6, 120, 20
BATCH, ALONE, FOUR = "all at once", "one walk at a time", "one walk, 4 images at a time"
DEVICE = training_device()
_DP = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": 1.0, "noise_multiplier": 1.0}


def plan_of(size: int, steps: int) -> Plan:
    """A plan whose generator has the default size."""
    values = {
        "study": "bench",
        "image": {"size": size},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": PATIENTS}},
        "privacy": {"epsilon": 100.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 16, "clip_radius": 2.5, "noise_multiplier": 0.01},
            {"kind": "gan", "learning_rate": 1e-3, **_DP},
        ],
        "release": [{"method": "plan-walk", "images": 1, "points": POINTS, "steps": steps}],
        "federation": {"quorum": 1},
    }
    return parse(values, Plan, "bench")


class Bench:
    """Walks of one image size with everything that bends them, on the device."""

    def __init__(self, size: int, walks: int, steps: int) -> None:
        self.size, plan, rng = size, plan_of(size, steps), torch.Generator().manual_seed(0)
        images, labels, patient_index = arrays(7, PATIENTS, size)
        release = noised_release(
            Layout.of(plan),
            0.01,
            images,
            labels,
            1.0 / np.bincount(patient_index)[patient_index],
            lambda values, s, m: values,
        )
        spectral = spectral_model(
            plan, {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": release}).items()}
        )
        generator = initial_model("generator", plan)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
        self.space = WSpace(plan, generator.to(DEVICE).requires_grad_(False), spectral.to(DEVICE))
        self.identities = Identities(
            fit_recogniser(images, torch.from_numpy(patient_index), PATIENTS, TRAINING_STEPS, rng),
            fit_recogniser(images, torch.from_numpy(labels), 2, TRAINING_STEPS, rng),
        )
        kinds = torch.arange(walks) % 2
        ends = 0.5 * self.space.draw_z(kinds.repeat_interleave(2).to(DEVICE), TorchDraws(rng)).cpu().view(walks, 2, -1)
        positions = (torch.arange(POINTS) + 1.0).expand(walks, -1) / (POINTS + 1)
        self.walks = Walks(ends, positions, positions > 0, kinds, kinds, 10)
        self.noise = self.space.draw_noise(self.walks.components_of_points().to(DEVICE), TorchDraws(rng))
        assert isinstance(plan.release[0], PlanWalk)
        self.item = plan.release[0]

    def batch(self) -> Tensor:
        """All walks at once."""
        return bend_on_all_cores(self.space, self.walks, self.noise, self.identities, self.item)

    def alone(self, at_once: int) -> Tensor:
        """One walk after another."""
        points = []
        for walk in range(len(self.walks.ends)):
            rows = torch.arange(walk * POINTS, (walk + 1) * POINTS, device=DEVICE)
            own, noise = self.walks.some(torch.tensor([walk])), self.noise.at(rows)
            points.append(bend_walks(self.space, own, noise, self.identities, self.item, at_once))
        return torch.cat(points)

    @property
    def ways(self) -> dict[str, Callable[[], Tensor]]:
        """What is timed."""
        return {BATCH: self.batch, ALONE: lambda: self.alone(POINTS), FOUR: lambda: self.alone(4)}


def seconds(way: Callable[[], Tensor]) -> tuple[float, float]:
    """Wall and processor time of one run."""
    start, spent = time.perf_counter(), time.process_time()
    way()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, time.process_time() - spent


def measure(bench: Bench, rounds: int) -> dict[str, dict[str, float]]:
    """Median images x steps a second, ratios to one walk at a time, and how far the results are apart, by way."""
    points = {name: way() for name, way in bench.ways.items()}
    moved = (points[BATCH].cpu() - bench.walks.linear()).abs().max()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in bench.ways}
    for _ in range(rounds):
        for name, way in bench.ways.items():
            times[name].append(seconds(way))
    work = len(bench.walks.ends) * POINTS * bench.item.steps
    wall, processor = (
        {name: statistics.median(pair[clock] for pair in found) for name, found in times.items()} for clock in (0, 1)
    )
    return {
        name: {
            "image_steps_per_s": work / wall[name],
            "images_per_s_of_500_steps": work / wall[name] / 500,
            "times_alone": wall[ALONE] / wall[name],
            "processor_ms_an_image_step": 1e3 * processor[name] / work,
            "times_alone_by_processor": processor[ALONE] / processor[name],
            "apart": float((points[name] - points[BATCH]).abs().max().cpu() / moved),
        }
        for name in bench.ways
    }


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    """One table a size."""
    table = Table(title=title, title_justify="left")
    headings = "way", "images x steps / s", "images / s", "x alone", "processor ms", "x alone, processor", "apart"
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, row in rows.items():
        rate, whole, times, spent, by_processor, apart = row.values()
        cells = f"{rate:,.0f}", f"{whole:.2f}", f"{times:.2f}", f"{spent:.2f}", f"{by_processor:.2f}", f"{apart:.1e}"
        table.add_row(name, *cells)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--walks", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("bench-out/walk_batch.json"))
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    device = torch.cuda.get_device_name(DEVICE) if DEVICE.type == "cuda" else "cpu"
    results: dict[str, object] = {"device": device, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    for size in options.sizes:
        bench = Bench(size, options.walks, options.steps)
        rows = measure(bench, options.rounds)
        show(f"{size} px, {options.walks} walks of {POINTS} points, {options.steps} steps, {device}", rows)
        results[f"{size} px"] = rows
        write_json(options.out, results)


if __name__ == "__main__":
    main()
