"""k-SALSA's images a second, many groups at once against one group at a time, and how its two terms balance.

    python tests/bench/k_salsa_batch.py [--size S ...] [--batch N ...] [--steps N] [--repetitions N] [--threads N]

A row: N groups of five phantom patients each by `align_groups`, in chunks that memory sets on every core, against the
same groups one after another by `align`, each on all threads, both with their targets; in turns and by the medians of
the repetitions. Rates are wall time, for the plan's default 100 steps, timed over --steps; "processor" is the ratio of
processor seconds, which other work on the machine does not change as much. "differs" is the largest difference of a
pixel, in grey levels of 256, between a group's image alone and among the others. Balance: norms of the weighted terms'
gradients at the mean codes, medians over groups. Prints a table, writes bench-out/k_salsa_batch.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from cohorts import ROOT
from torch import Tensor

from sfumato_client.anonymise.influence import noise_of
from sfumato_client.anonymise.k_salsa import Targets, align, align_groups, losses, targets_of
from sfumato_client.anonymise.patients import Patients
from sfumato_client.anonymise.self_supervised import ContrastiveNet, train
from sfumato_client.dataset.cohort import Cohort
from sfumato_common.files import write_json
from sfumato_common.generators.device import training_device
from sfumato_common.generators.gan.w_space import Noise, WSpace
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.starts import initial_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSalsa
from sfumato_common.types import to_unit_range

K, SEED, EMBEDDING_STEPS, FULL_STEPS = 5, 7, 60, 100
_DP = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 0.001}


@dataclass(frozen=True, eq=False)
class Bench:
    """A generator's space with an embedding, patients of the phantom, and groups of K."""

    item: KSalsa
    space: WSpace
    net: ContrastiveNet
    patients: Patients
    groups: list[Tensor]
    noise: Noise

    def targets(self, first: int, count: int) -> Targets:
        """Targets of `count` groups from `first` on."""
        rows = slice(first, first + count)
        own = Noise(self.noise.tail[rows], [part[rows] for part in self.noise.maps])
        return targets_of(self.space, self.net, self.patients, self.groups[rows], own)


def plan_of(size: int, width: int) -> Plan:
    """A plan for the phantom at that size, without privacy: the bench measures time."""
    value = {
        "study": "bench",
        "image": {"size": size},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 1000}},
        "private": False,
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {
                "kind": "spectral",
                "bandwidth": 16,
                "clip_radius": 4.0,
                "spread_radius": 3.0,
                "noise_multiplier": 0.001,
            },
            {"kind": "gan", "width": width, "learning_rate": 0.001, **_DP},
        ],
        "release": [{"method": "k-salsa", "images": 1, "k": K}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "bench")


def made(size: int, width: int, groups: int) -> Bench:
    """The bench at one size, with `groups` groups of patients of one label each."""
    plan = plan_of(size, width)
    item, device = plan.release[0], training_device()
    assert isinstance(item, KSalsa)
    images, labels, patient_index = phantom_arrays(SEED, 3 * K * groups, size)
    cohort = Cohort(images, labels, np.unique(patient_index, return_inverse=True)[1])
    first = np.unique(cohort.patient_index, return_index=True)[1]
    layout = Layout.of(plan)
    sums = noised_release(layout, 0.001, images, labels, np.ones(len(images)), lambda part, sigma, name: part)
    released = {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": sums}).items()}
    rng = torch.Generator().manual_seed(SEED)
    generator = initial_model("generator", plan).requires_grad_(False)
    for parameter in generator.parameters():  # untrained it would add nothing to the spectral image
        parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    space = WSpace(plan, generator.to(device), spectral_model(plan, released).to(device))
    components = torch.from_numpy(cohort.labels[first])
    x = torch.from_numpy(to_unit_range(images[first])).to(device)
    codes = space.encode(x, components.to(device)).cpu()
    patients = Patients(codes, cohort.labels[first], components, images[first])
    own = [torch.from_numpy(np.flatnonzero(cohort.labels[first] == label)) for label in (0, 1)]
    members = [group for part in own for group in torch.split(part, K) if len(group) == K][:groups]
    assert len(members) == groups, "three times as many patients as are needed give enough whole groups"
    net = train(cohort, EMBEDDING_STEPS, rng).to(device)
    where = components[torch.stack(members)[:, 0]]
    return Bench(item, space, net, patients, members, noise_of(space, where, TorchDraws(rng)))


def measured(bench: Bench, count: int, steps: int, repetitions: int) -> dict[str, Any]:
    """One row: rates of `count` groups at once and one by one, their ratio, and how far the two results differ."""
    space, net, item = bench.space, bench.net, bench.item.model_copy(update={"steps": steps})
    groups, of = bench.groups[:count], torch.arange(count)

    def together() -> Tensor:
        return align_groups(space, net, bench.patients, groups, bench.noise, of, item)[1]

    def one_by_one() -> Tensor:
        return torch.cat([align(space, net, bench.targets(row, 1), item) for row in range(count)])

    ways = {"batch": together, "single": one_by_one}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        codes = {}
        for name, way in ways.items():
            began, spent = time.perf_counter(), time.process_time()
            codes[name] = way()
            if space.spectral.matrix.is_cuda:
                torch.cuda.synchronize()
            wall[name].append(time.perf_counter() - began)
            processor[name].append(time.process_time() - spent)
    rates = {name: count / statistics.median(found) * steps / FULL_STEPS for name, found in wall.items()}
    spent_by = {name: statistics.median(found) / count * FULL_STEPS / steps for name, found in processor.items()}
    first, second = (_drawn(bench, bench.targets(0, count), w) for w in codes.values())
    return {
        "size": first.shape[3],
        "groups": count,
        "batch_per_s": rates["batch"],
        "single_per_s": rates["single"],
        "ratio": rates["batch"] / rates["single"],
        "batch_processor_s": spent_by["batch"],
        "single_processor_s": spent_by["single"],
        "processor_ratio": spent_by["single"] / spent_by["batch"],
        "differs": float((first - second).abs().max()) * 127.5,
    }


def _drawn(bench: Bench, targets: Targets, w: Tensor) -> Tensor:
    with torch.no_grad():
        return bench.space.decode(w, targets.components, targets.noise).cpu()


def balance(bench: Bench) -> dict[str, float]:
    """Weighted terms at the mean codes and after alignment, and their gradients' norms at the mean codes."""
    targets = bench.targets(0, min(16, len(bench.groups)))
    start = targets.codes[:, None].repeat(1, bench.space.layers, 1).requires_grad_()
    weights = (bench.item.content_weight, bench.item.style_weight)
    found: dict[str, float] = {}
    for name, weight, term in zip(
        ("content", "style"), weights, losses(bench.space, bench.net, targets, start), strict=True
    ):
        (slope,) = torch.autograd.grad(weight * term.sum(), [start], retain_graph=True)
        found[f"{name} at the mean"] = weight * float(term.detach().mean())
        found[f"{name} gradient"] = float(slope.flatten(1).norm(dim=1).median())
    after = losses(bench.space, bench.net, targets, align(bench.space, bench.net, targets, bench.item))
    for name, weight, term in zip(("content", "style"), weights, after, strict=True):
        found[f"{name} aligned"] = weight * float(term.mean())
    return found


def main() -> None:
    """Measure every size and batch."""
    parser = argparse.ArgumentParser(description="k-SALSA: groups at once against one at a time")
    parser.add_argument("--size", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--batch", nargs="+", type=int, default=[8, 32])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--width", type=int, default=16, help="the generator's")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    balances: dict[str, dict[str, float]] = {}
    print(f"{'size':>4}{'groups':>8}{'batch/s':>10}{'single/s':>10}{'ratio':>8}{'processor':>11}{'differs':>10}")
    for size in options.size:
        bench = made(size, options.width, max(options.batch))
        for count in options.batch:
            row = measured(bench, count, options.steps, options.repetitions)
            rows.append(row)
            print(
                f"{size:4}{count:8}{row['batch_per_s']:10.3f}{row['single_per_s']:10.3f}{row['ratio']:8.2f}"
                f"{row['processor_ratio']:11.2f}{row['differs']:10.4f}",
                flush=True,
            )
        balances[str(size)] = balance(bench)
        print("     " + ", ".join(f"{name} {value:.3g}" for name, value in balances[str(size)].items()), flush=True)
        out = ROOT / "bench-out"
        out.mkdir(exist_ok=True)
        form = {
            "k": K,
            "steps": options.steps,
            "width": options.width,
            "threads": options.threads,
            "device": str(training_device()),
        }
        write_json(out / "k_salsa_batch.json", {**form, "rows": rows, "balance": balances})


if __name__ == "__main__":
    main()
