"""Images a second and memory of every DP-SGD engine on an accelerator: GAN discriminator and GLOW, 64 to 256 pixels.

A row is one engine at one precision; its step is the clipped sum over a batch of one image a patient (for `plain`, the
gradient of the batch's mean loss). Secure noise is drawn on the CPU whatever the engine: its time stands in the title.
Precisions: fp32, tf32 (CUDA's rounded products, which Sfumato switches off), bf16 (autocast of forward and backward).
"worst / C" is measured, not argued: the most that taking one patient out of the batch moved the clipped sum, over the
clipping norm, all patients' gradients being clipped. An engine is exact at a precision when that is at most 1.0001;
elsewhere its noise does not pay for what it releases, and the row is for comparison only.
A row's time is a median over --repetitions, fewer where --seconds are over first, and so are the patients probed (two
at least). Memory is what a step adds at its peak (CUDA's allocator; none is given on a CPU). Prints a table a case with
the device's name, writes bench-out/gpu.json. --cpu-small runs a small case on the CPU, to see that the program works.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sfumato_client.training.dp.engines import ENGINES
from sfumato_client.training.dp.step import noisy_mean
from sfumato_common.errors import ConfigError
from sfumato_common.files import write_json
from sfumato_common.generators.components import condition_width
from sfumato_common.generators.device import training_device
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.gan.discriminator import real_loss
from sfumato_common.generators.settings import DpSgdStage
from sfumato_common.generators.starts import initial_model
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

PLAIN = "plain"
PRECISIONS = ("fp32", "tf32", "bf16")
BATCHES = {64: 256, 128: 128, 256: 32}
# so small that every patient is clipped: only then does the bound show
CLIP = 1e-3
EXACT = 1.0001
_PROBED, _FEWEST_PROBED = 8, 2
_DP = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": CLIP, "noise_multiplier": 1.0}


@dataclass(frozen=True)
class Row:
    """One engine at one precision; what could not be run says why in `note`."""

    engine: str
    precision: str
    images_per_s: float | None = None
    memory_mb: float | None = None
    worst_over_clip: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Case:
    """A model of the shipped kind at one image size, and a batch on the device."""

    model: str
    size: int
    batch: int
    device: torch.device

    @property
    def plan(self) -> Plan:
        """A plan of that size with the default sizes of its models."""
        stages = [
            {"kind": "spectral", "bandwidth": 16, "clip_radius": 2.5, "noise_multiplier": 1.0},
            {"kind": "gan", "learning_rate": 1e-3, **_DP},
            {"kind": "flow", "learning_rate": 1e-3, **_DP},
        ]
        values = {
            "study": "bench",
            "image": {"size": self.size},
            "labels": ["normal", "abnormal"],
            "sites": {"alder": {"nominal_patients": 1000}},
            "privacy": {"epsilon": 100.0, "delta": 1e-5},
            "stages": stages,
            "release": [{"model": "flow", "images": 1}],
            "federation": {"quorum": 1},
        }
        return parse(values, Plan, "bench")

    def made(self) -> tuple[torch.nn.Module, list[Tensor]]:
        """The model, a little away from its start, and its records."""
        torch.manual_seed(0)
        module = initial_model(self.model, self.plan)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.02 * torch.randn_like(parameter)
        images = torch.rand(self.batch, 1, self.size, self.size) * 2.0 - 1.0
        labels = torch.nn.functional.one_hot(torch.arange(self.batch) % 2, condition_width(self.plan)).float()
        return module.to(self.device), [images.to(self.device), labels.to(self.device)]


@contextmanager
def products_at(precision: str) -> Iterator[None]:
    """Products of float32 in full or rounded to tf32 while the body runs; torch alone would round convolutions."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def loss_at(precision: str, inner: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """`inner`, in bfloat16 where autocast thinks it may be; values are float32 again."""
    if precision != "bf16":
        return inner

    def loss(forward: Callable[..., object], *records: Tensor) -> Tensor:
        # weights are copies a patient under vmap: a cache of casts would keep another transform's tensors
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return inner(forward, *records).float()

    return loss


@dataclass(frozen=True)
class Effort:
    """How often a row's step is timed, and the seconds after which it, or its probing, is not done again."""

    repetitions: int
    seconds: float


def measure(case: Case, engine_name: str, precision: str, effort: Effort) -> Row:
    """One row; out of memory and refusals are results too."""
    if precision == "tf32" and case.device.type != "cuda":
        return Row(engine_name, precision, note="CUDA only")
    try:
        with products_at(precision):
            return _measured(case, engine_name, precision, effort)
    except ConfigError:
        return Row(engine_name, precision, note="refused: not exact for this model")
    except torch.OutOfMemoryError:
        return Row(engine_name, precision, note="out of memory")
    except (RuntimeError, NotImplementedError) as error:
        return Row(engine_name, precision, note=f"fails ({type(error).__name__})")


def _measured(case: Case, engine_name: str, precision: str, effort: Effort) -> Row:
    module, records = case.made()
    loss = loss_at(precision, flow_loss if case.model == "flow" else real_loss, case.device)
    if engine_name == PLAIN:
        parameters = list(module.parameters())

        def step() -> Sequence[Tensor]:
            return torch.autograd.grad(loss(module, *records).mean(), parameters)

        worst = None
    else:
        engine = ENGINES[engine_name](module, loss)

        def step() -> Sequence[Tensor]:
            return engine.clipped_sum(records, CLIP)

        worst = worst_contribution(engine.clipped_sum, records, effort.seconds)
    step()
    if case.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    times = [_seconds(step, case.device)]
    while len(times) < effort.repetitions and sum(times) < effort.seconds:
        times.append(_seconds(step, case.device))
    seconds = statistics.median(times)
    memory = (torch.cuda.max_memory_allocated() - before) / 1e6 if case.device.type == "cuda" else None
    return Row(engine_name, precision, case.batch / seconds, memory, worst)


def worst_contribution(
    clipped_sum: Callable[..., list[Tensor]], records: Sequence[Tensor], seconds: float = math.inf
) -> float:
    """The most that a patient moves the clipped sum, over C, among the first patients; in float64 differences."""
    began = time.perf_counter()
    everyone = torch.ones(len(records[0]), 1, device=records[0].device)
    whole = clipped_sum(records, CLIP, everyone)
    worst = 0.0
    for patient in range(min(_PROBED, len(everyone))):
        if patient >= _FEWEST_PROBED and time.perf_counter() - began > seconds:
            break
        others = everyone.clone()
        others[patient] = 0.0
        rest = clipped_sum(records, CLIP, others)
        squares = [(a.double() - b.double()).square().sum() for a, b in zip(whole, rest, strict=True)]
        worst = max(worst, float(torch.stack(squares).sum().sqrt()) / CLIP)
    return worst


def noise_seconds(case: Case) -> float:
    """Seconds that one step's secure noise takes, on the CPU, moves to and from the device included."""
    module, _ = case.made()
    zeros = [torch.zeros_like(parameter) for parameter in module.parameters()]
    stage = case.plan.stage("flow")
    assert isinstance(stage, DpSgdStage)
    recorder = NoiseRecorder(SecureNoise(), "bench")
    return _seconds(
        lambda: [part.to(case.device) for part in noisy_mean(zeros, stage, case.batch, recorder)], case.device
    )


def _seconds(step: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def device_name(device: torch.device) -> str:
    """What the tables are headed with: the card, or the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {platform.machine()}"


def show(case: Case, noise_s: float, rows: Sequence[Row], name: str) -> None:
    """One table a case."""
    title = f"{case.model} {case.size} px, batch {case.batch}, {name}; secure noise {1e3 * noise_s:.0f} ms a step"
    table = Table(title=title, title_justify="left")
    for heading in ("engine", "precision", "images/s", "memory", "worst / C", ""):
        table.add_column(heading, justify="left" if heading in ("engine", "precision", "") else "right")
    for row in rows:
        note = row.note or ("not exact" if row.worst_over_clip is not None and not row.worst_over_clip <= EXACT else "")
        table.add_row(
            row.engine,
            row.precision,
            "" if row.images_per_s is None else f"{row.images_per_s:,.0f}",
            "" if row.memory_mb is None else f"{row.memory_mb:,.0f} MB",
            "" if row.worst_over_clip is None else f"{row.worst_over_clip:.6f}",
            note,
        )
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu-small", action="store_true", help="16 pixels, 8 images, on the CPU, nothing compiled")
    parser.add_argument("--only", default="", help="cases whose name (such as 'flow 64') contains this")
    parser.add_argument("--engines", default="", help="of " + ",".join([PLAIN, *ENGINES]) + "; all by default")
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=20.0, help="after which a row's step is not repeated")
    parser.add_argument("--out", type=Path, default=Path("bench-out/gpu.json"))
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    device = torch.device("cpu") if options.cpu_small else training_device()
    batches = {16: 8} if options.cpu_small else BATCHES
    engines = [PLAIN, *(name for name in ENGINES if not (options.cpu_small and name == "vmap-compiled"))]
    if options.engines:
        engines = [name for name in engines if name in options.engines.split(",")]
    precisions, name = options.precisions.split(","), device_name(device)
    results: dict[str, object] = {"device": name, "torch": torch.__version__, "cores": os.cpu_count(), "clip": CLIP}
    for model in ("discriminator", "flow"):
        for size, batch in batches.items():
            if options.only not in f"{model} {size}":
                continue
            case = Case(model, size, batch, device)
            effort = Effort(2 if options.cpu_small else options.repetitions, options.seconds)
            rows = [measure(case, engine, precision, effort) for engine in engines for precision in precisions]
            noise_s = noise_seconds(case)
            show(case, noise_s, rows, name)
            results[f"{model} {size}"] = {"batch": batch, "noise_s": noise_s, "rows": [asdict(row) for row in rows]}
            write_json(options.out, results)  # after every case: a card is lent for a time


if __name__ == "__main__":
    main()
