"""Lower bounds on what the product's own code costs a patient, by white-box attack: claims beside what was measured.

The attacker knows both cohorts, which differ in one patient (a canary), all weights, and sees everything that a
mechanism released; only the noise, and whether the canary was in a batch, is secret. For one-shot and adaptive Gaussian
mechanisms the test is the log-likelihood ratio of the whole transcript, found by running the product's code on either
cohort against the released values: it is normal, mu apart (Dong, Roth and Su 2022). For DP-SGD it is the canary's
clipped gradient over the deviation of what was added, and how often the canary was sampled. For local mechanisms it is
the epsilon that the errors of the best threshold prove (Clopper and Pearson 1934; Jagielski et al. 2020). Bounds are at
99.9 %. Every row is run once more with half the noise, or twice the rate, which must be caught: an audit that would not
see it says nothing.

Not audited: that the operating system's randomness is random, time, and the accountants' numerics, which the tests
compare with each other. Prints a table and writes bench-out/audit_privacy.json. `--quick` is what the slow tests run.
Ends with exit code 1 when a claim is violated or a control was not caught.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from audit_networks import network_targets
from audit_tables import table_targets
from audit_targets import CONFIDENCE, Target, local_targets, one_shot_targets, sampled_targets
from rich.console import Console
from rich.table import Table

from sfumato_client.audit.attacks.white_box import LowerBound, gaussian_mu, pure_epsilon
from sfumato_common.files import write_json
from sfumato_common.mechanisms import recorder as recorder_module
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder

Floats = npt.NDArray[np.float64]
OUT = Path("bench-out/audit_privacy.json")


@dataclass(frozen=True)
class Draw:
    """One release of a mechanism: what it was before the noise, the noise's scale, and what came out."""

    clean: Floats
    scale: float
    out: Floats


@dataclass(frozen=True)
class Row:
    """A claim and what was measured of it, with the bound that a violation would pass, and the control's."""

    name: str
    figure: str
    claimed: float
    measured: float
    bound: float
    control: float

    @property
    def holds(self) -> bool:
        """Whether the measurement is compatible with the claim."""
        return self.bound <= self.claimed

    @property
    def caught(self) -> bool:
        """Whether the same with half the noise was found out."""
        return self.control > self.claimed


@contextmanager
def noise_scaled(factor: float) -> Iterator[None]:
    """The product's mechanisms with `factor` times their noise: the fault that an audit must see."""
    gaussian, laplace = recorder_module.gaussian_release, recorder_module.laplace_release
    recorder_module.gaussian_release = lambda v, s, z, n: gaussian(v, s, z * factor, n)  # type: ignore[assignment]
    recorder_module.laplace_release = lambda v, s, e, n: laplace(v, s, e / factor, n)  # type: ignore[assignment]
    try:
        yield
    finally:
        recorder_module.gaussian_release, recorder_module.laplace_release = gaussian, laplace


@contextmanager
def spied(found: list[Draw], replayed: Sequence[Draw] | None = None) -> Iterator[None]:
    """Every Gaussian release is kept in `found`; with `replayed` nothing is drawn, and its values come out again."""
    real = recorder_module.gaussian_release

    def release(value: Floats, sensitivity: float, noise_multiplier: float, noise: SecureNoise) -> Floats:
        out = real(value, sensitivity, noise_multiplier, noise) if replayed is None else replayed[len(found)].out
        found.append(Draw(np.array(value, dtype=np.float64), sensitivity * noise_multiplier, out))
        return out

    recorder_module.gaussian_release = release  # type: ignore[assignment]
    try:
        yield
    finally:
        recorder_module.gaussian_release = real


def transcript(target: Target, present: bool, replayed: Sequence[Draw] | None = None) -> list[Draw]:
    """What `target` releases on its cohort with or without the canary, or would have to have had before the noise."""
    found: list[Draw] = []
    noise = SecureNoise()
    assert target.run is not None, "the target releases something"
    with spied(found, replayed):
        target.run(present, NoiseRecorder(noise, "audit"), noise)
    return found


def transcript_mu(target: Target) -> float:
    """How far the canary moves one transcript, in deviations of the noise: the mu of what was released in it."""
    draws = transcript(target, False)
    there, gone = transcript(target, True, draws), transcript(target, False, draws)
    moved = (((one.clean - other.clean) / other.scale) ** 2 for one, other in zip(there, gone, strict=True))
    return float(np.sqrt(sum(part.sum() for part in moved)))


def log_ratio(target: Target, draws: Sequence[Draw]) -> float:
    """log p(transcript | canary present) - log p(transcript | absent), by what the product's code made of either."""
    total = 0.0
    there, gone = transcript(target, True, draws), transcript(target, False, draws)
    for with_it, without, draw in zip(there, gone, draws, strict=True):
        scale = without.scale
        far = ((draw.out - without.clean) ** 2).sum() - ((draw.out - with_it.clean) ** 2).sum()
        total += float(far) / (2.0 * scale**2)
    return total


def measured_mu(target: Target, runs: int) -> LowerBound:
    """mu by the distance of the two distributions of the log ratio, and its lower bound."""
    samples = [np.array([log_ratio(target, transcript(target, there)) for _ in range(runs)]) for there in (False, True)]
    return gaussian_mu(samples[0], samples[1], CONFIDENCE)


def measure(target: Target, runs: int) -> LowerBound:
    """Estimate and lower bound of what is claimed, in the target's own way."""
    if target.run is not None:
        return measured_mu(target, runs)
    if target.score is not None:
        scores = [np.array([target.score(there) for _ in range(50 * runs)]) for there in (False, True)]
        return pure_epsilon(scores[0], scores[1], CONFIDENCE)
    assert target.measure is not None, "a target has a way to be measured"
    return LowerBound(*target.measure(runs))


def audit(quick: bool, say: Callable[[Row], None] = lambda row: None) -> list[Row]:
    """Every row."""
    rows, runs = [], 160 if quick else 600
    network = network_targets()
    for target in (*one_shot_targets(), *network, *table_targets(), *sampled_targets(), *local_targets()):
        found = measure(target, runs)
        if target.weaker is None:
            with noise_scaled(0.5):
                control = measure(target, runs).at_least
        else:
            control = measure(target.weaker, runs).at_least
        rows.append(Row(target.name, target.figure, target.claimed, found.estimate, found.at_least, control))
        say(rows[-1])
    return rows


def main() -> int:
    """Run, print, write; 1 when something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    console = Console(width=120)
    rows = audit(quick, lambda row: console.print(f"{row.name}: {row.figure} {row.measured:.3f}", markup=False))
    table = Table(title="claimed and measured, for one patient more or less")
    for heading in (
        "mechanism",
        "figure",
        "claimed",
        "measured",
        "at least",
        "holds",
        "half the noise: at least",
        "caught",
    ):
        table.add_column(heading, justify="left" if heading == "mechanism" else "right")
    for row in rows:
        figures = [f"{value:.3f}" for value in (row.claimed, row.measured, row.bound)]
        verdicts = ["yes" if row.holds else "NO", f"{row.control:.3f}", "yes" if row.caught else "NO"]
        table.add_row(row.name, row.figure, *figures, *verdicts)
    console.print(table)
    write_json(OUT, {"confidence": CONFIDENCE, "quick": quick, "rows": [asdict(row) for row in rows]})
    return 0 if all(row.holds and row.caught for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
