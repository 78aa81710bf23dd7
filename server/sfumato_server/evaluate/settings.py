"""How an evaluation is run: whose patients test, how long classifiers train, how many samples are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import torch

from sfumato_common.encoders.encoder import Encoder
from sfumato_common.errors import ConfigError
from sfumato_common.generators.device import training_device

Split = Literal["test", "val"]
Device = Literal["auto", "cpu", "cuda"]
# Steps of each family of classifiers (metrics/judges.py), chosen on the real sites' validation patients: with a third
# as many a ResNet-18 reads less of one site, and with twice as many a CNN reads no more (docs/performance.md).
STEPS: Mapping[str, int] = MappingProxyType({"cnn": 600, "resnet18": 600})
# of `--quick`: one classifier that is fitted without steps, in seconds instead of an hour (metrics/quick.py)
QUICK: Mapping[str, int] = MappingProxyType({"quick": 1})
# the fewest patients with a class, and without it, of whom a group's figure is given
FEWEST = 10
# the fewest patients who train, and who test: intervals deal them into so many groups. Of images, twice as many
GROUPS = 20
LEVEL = 0.95
# fewer steps than this train no network, whatever the time
_LEAST_STEPS = 40


@dataclass(frozen=True)
class Settings:
    """Options of an evaluation.

    `split` names whose patients test. `seeds` trainings of each classifier; `draws` samples of patients an interval;
    `fractions` of the real training patients that are augmented. Of the set `most` images at most train and `compared`
    at most are compared with each other. `minutes` bounds the training: steps of all classifiers are cut alike. `by` is
    who measures, for whoever reads the figures; empty where nobody is named.
    """

    split: Split = "test"
    seeds: int = 3
    minutes: float | None = None
    draws: int = 300
    fractions: tuple[float, ...] = (1.0, 0.1)
    most: int = 20_000
    compared: int = 1_500
    public: bool = False
    by: str = ""
    steps: Mapping[str, int] = field(default_factory=lambda: dict(STEPS))
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def families(self) -> tuple[str, ...]:
        """The classifiers; the first one is that of every figure which takes one."""
        return tuple(self.steps)


def device_of(name: Device) -> torch.device:
    """The device of that name; `auto` is the accelerator where there is one. Raises ConfigError where there is none."""
    found = training_device()
    if name == "cuda" and found.type != "cuda":
        raise ConfigError("--device cuda: this machine shows no CUDA device; leave it out, or say 'cpu'")
    return torch.device("cpu") if name == "cpu" else found


def paced(
    steps: Mapping[str, int], trainings: Mapping[str, int], seconds: Mapping[str, float], minutes: float
) -> dict[str, int]:
    """Steps of each family so that all of its `trainings`, at so many `seconds` a step, take `minutes` together.

    All are cut by one factor, and never lengthened. Raises ConfigError where that trains nothing.
    """
    whole = sum(steps[name] * trainings.get(name, 0) * seconds[name] for name in steps) / 60.0
    factor = min(1.0, minutes / whole) if whole else 1.0
    found = {name: round(value * factor) for name, value in steps.items()}
    if min(found.values()) < min(_LEAST_STEPS, *steps.values()):
        raise ConfigError(
            f"--minutes {minutes:g} trains nothing: all classifiers take about {whole:.0f} min here; give more, "
            "or fewer --seeds"
        )
    return found
