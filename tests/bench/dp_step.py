"""Time and memory of one DP-SGD step by engine, against the plain step that a GAN or a flow takes without privacy.

A discriminator step is: clipped sum over 128 real images (one a patient), noise, the gradient of 128 generated images,
Adam. A flow step has no generated images. The plain step does the same without clip and noise, one backward pass over
each whole batch, as one would write it; "in chunks of 32" is the same in the engines' chunks, which spares memory and
on many CPUs time. All variants of a case run in turn, round by round; times are medians, ratios are to the plain step.
Times are processor time of one thread, so that other work on the machine does not count; with --threads N or on CUDA
they are wall time. Memory is what one step adds to a fresh process: the peak of the resident set during it (VmHWM,
reset before), less the resident set just before it, after a warm-up on two records; on CUDA the allocator's peak.
Prints a table a case and writes bench-out/dp_step.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from sfumato_client.egress.supernode import ALLOCATOR
from sfumato_client.training.dp.engines import ENGINES
from sfumato_client.training.dp.step import noisy_mean
from sfumato_common.files import write_json
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.glow import Glow
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.gan.discriminator import Discriminator, fake_loss, real_loss
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder

CHUNK_ROWS = 32
BATCH, PLACES = 128, 192  # nominal batch, and what `capacity` pads it to
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PLAIN, CHUNKED, PADDED, TORCH_NOISE = "plain", "plain, in chunks of 32", "padded to 192 places", "torch's noise"
CLOCK = time.process_time if torch.get_num_threads() == 1 and DEVICE.type == "cpu" else time.perf_counter
STAGE = FlowStage(
    kind="flow", rounds=1, local_steps=1, sampling_rate=0.1, clipping_norm=1.0, noise_multiplier=1.0, learning_rate=1e-4
)


@dataclass(frozen=True)
class Case:
    """A model, the size of its images, and the engines to compare on it."""

    size: int
    make: Callable[[], nn.Module]
    engines: tuple[str, ...]
    repetitions: int
    memory: bool = True

    @property
    def variants(self) -> list[str]:
        """Everything that is timed in this case."""
        declared = str(self.make().private_engine)
        return [PLAIN, CHUNKED, *self.engines, f"{declared}, {TORCH_NOISE}", f"{declared}, {PADDED}"]


ALL = ("bookkeeping", "opacus-ew", "opacus", "loop", "vmap")
FLOW = ("vmap", "vmap-compiled", "loop")
CASES = {
    "D 28 px, width 88": Case(28, lambda: Discriminator(1, 2, 88), ALL, 7),
    "D 64 px, width 224": Case(64, lambda: Discriminator(1, 2, 224), ALL[:-1], 2),
    "D 64 px, width 24 (shipped)": Case(64, lambda: Discriminator(1, 2, 24), ("bookkeeping", "opacus"), 9, False),
    "GLOW 32 px, hidden 32": Case(32, lambda: Glow(1, 2, 2, 3, 32), FLOW, 7),
    "GLOW 32 px, hidden 64": Case(32, lambda: Glow(1, 2, 2, 3, 64), ("vmap",), 7, False),
    "GLOW 64 px, hidden 32 (shipped)": Case(64, lambda: Glow(1, 2, 2, 3, 32), ("vmap",), 5, False),
}
QUICK = {
    "D 28 px, width 24": Case(28, lambda: Discriminator(1, 2, 24), ALL, 3),
    "GLOW 32 px, hidden 32": Case(32, lambda: Glow(1, 2, 2, 3, 32), ("vmap", "loop"), 3, False),
}


class Step:
    """One training step of one variant, on its own copy of the model, always over the same records."""

    def __init__(self, case: Case, variant: str) -> None:
        torch.manual_seed(0)
        self.engine_name, _, extra = variant.partition(", ")
        self.chunk = CHUNK_ROWS if variant == CHUNKED else BATCH
        self.torch_noise = extra == TORCH_NOISE
        self.module = case.make().to(DEVICE)
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        self.parameters = list(self.module.parameters())
        self.is_flow = isinstance(self.module, Glow)
        self.loss = flow_loss if self.is_flow else real_loss
        self.real, self.fake = self._records(case.size), self._records(case.size)
        self.weights = torch.ones(BATCH, 1, device=DEVICE)
        if extra == PADDED:
            self.real = [torch.cat([part, torch.zeros_like(part[: PLACES - BATCH])]) for part in self.real]
            self.weights = torch.cat([self.weights, torch.zeros(PLACES - BATCH, 1, device=DEVICE)])
        self.optimiser = torch.optim.Adam(self.parameters, lr=1e-4)
        self.engine = None if self.engine_name == PLAIN else ENGINES[self.engine_name](self.module, self.loss)
        self.recorder = NoiseRecorder(SecureNoise(), "bench")

    def __call__(self) -> None:
        """Take the step."""
        real = self._mean(self.loss, self.real) if self.engine is None else self._private(self.real, self.weights)
        if self.is_flow:
            gradients = real
        else:
            fake = self._mean(fake_loss, self.fake)
            gradients = [first + second for first, second in zip(real, fake, strict=True)]
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.optimiser.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    def warm_up(self) -> None:
        """Touch the kernels on two records, so that a process's first allocations are not counted as the step's."""
        few = [part[:2] for part in self.real]
        if self.engine is None:
            self._mean(self.loss, few)
        else:
            self._private(few, self.weights[:2])

    def _records(self, size: int) -> list[Tensor]:
        labels = torch.eye(2)[torch.arange(BATCH) % 2]
        return [torch.randn(BATCH, 1, size, size).to(DEVICE), labels.to(DEVICE)]

    def _mean(self, loss: Callable[..., Tensor], records: Sequence[Tensor]) -> list[Tensor]:
        total: list[Tensor] = []
        # the fakes of a private step come in one batch, as in training
        for start in range(0, len(records[0]), self.chunk):
            value = loss(self.module, *(part[start : start + self.chunk] for part in records)).sum() / BATCH
            part = torch.autograd.grad(value, self.parameters)
            total = [a + b for a, b in zip(total, part, strict=True)] if total else list(part)
        return total

    def _private(self, records: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
        assert self.engine is not None
        clipped = self.engine.clipped_sum(records, STAGE.clipping_norm, weights)
        if not self.torch_noise:
            return [part.to(DEVICE) for part in noisy_mean(clipped, STAGE, BATCH, self.recorder)]
        return [
            (part + torch.randn_like(part) * STAGE.clipping_norm * STAGE.noise_multiplier).float() / BATCH
            for part in clipped
        ]


def added_memory(step: Step) -> float:
    """MB (10^6 bytes) that one step adds at its peak; meant for a process that does nothing else."""
    step.warm_up()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1e6


def _status(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024.0 * int(line.split()[1])


def memory_of(case: str, variant: str, quick: bool) -> float | None:
    """`added_memory` in a process of its own; None for the compiled engine, where the compiler is what one sees."""
    if variant == "vmap-compiled":
        return None
    command = [sys.executable, __file__, "--memory-of", case, variant, *(["--quick"] if quick else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def measure(name: str, case: Case, quick: bool) -> dict[str, dict[str, float | None]]:
    """Median seconds, ratio to the plain step, added memory and its ratio, by variant."""
    steps = {variant: Step(case, variant) for variant in case.variants}
    first = {variant: _seconds(step, time.perf_counter) for variant, step in steps.items()}
    times: dict[str, list[float]] = {variant: [] for variant in steps}
    for _ in range(case.repetitions):
        for variant, step in steps.items():
            times[variant].append(_seconds(step))
    memory = {variant: memory_of(name, variant, quick) if case.memory else None for variant in steps}
    plain, plain_memory = statistics.median(times[PLAIN]), memory[PLAIN]
    return {
        variant: {
            "first_s": first[variant],
            "median_s": statistics.median(times[variant]),
            "ratio": statistics.median(times[variant]) / plain,
            "memory_mb": memory[variant],
            "memory_ratio": memory[variant] / plain_memory if memory[variant] and plain_memory else None,
        }
        for variant in steps
    }


def _seconds(step: Step, clock: Callable[[], float] = CLOCK) -> float:
    start = clock()
    step()
    return clock() - start


def show(name: str, case: Case, rows: dict[str, dict[str, float | None]]) -> None:
    """One table a case."""
    count = sum(parameter.numel() for parameter in case.make().parameters())
    table = Table(title=f"{name}, {count / 1e6:.2f}M parameters, batch {BATCH}", title_justify="left")
    for heading in ("variant", "step", "x plain", "memory", "x plain", "first step"):
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    for variant, row in rows.items():
        cells = ("median_s", "{:.3f} s"), ("ratio", "{:.2f}"), ("memory_mb", "{:.0f} MB"), ("memory_ratio", "{:.2f}")
        shown = ["" if row[key] is None else form.format(row[key]) for key, form in (*cells, ("first_s", "{:.1f} s"))]
        table.add_row(variant, *shown)
    Console().print(table)


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models, few repetitions")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--memory-of", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, help="threads of torch; times are then wall time")
    options = parser.parse_args()
    # as in a site's training processes: without it one measures the kernel handing out memory
    environment = ALLOCATOR | {"OMP_NUM_THREADS": str(options.threads or 1)}
    if any(os.environ.get(name) != value for name, value in environment.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | environment)
    warnings.filterwarnings("ignore")
    cases = QUICK if options.quick else CASES
    if options.memory_of:
        case, variant = options.memory_of
        print(added_memory(Step(cases[case], variant)))
        return
    results: dict[str, object] = {"device": str(DEVICE), "threads": torch.get_num_threads(), "cores": os.cpu_count()}
    for name, case in cases.items():
        if options.only in name:
            rows = measure(name, case, options.quick)
            show(name, case, rows)
            results[name] = rows
    write_json(Path("bench-out/dp_step.json"), results)


if __name__ == "__main__":
    main()
