"""Frozen privacy spends: what was, or will be, taken from a cohort; apart from any accountant.

An event says which mechanism ran with which public parameters. An unknown event is refused, never approximated.
Cohorts: `train` patients pay for training, `holdout` patients for figures computed on them; the two are disjoint, so a
patient pays the larger of the two totals (parallel composition).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from sfumato_common.config.plan import DpSgdStage, Plan, SpectralStage
from sfumato_common.errors import LedgerError

Cohort = Literal["train", "holdout"]


@dataclass(frozen=True)
class GaussianRelease:
    """Gaussian mechanism, once, full batch: noise sd = noise_multiplier x L2 sensitivity (add/remove)."""

    noise_multiplier: float


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` Poisson-subsampled Gaussian mechanisms (DP-SGD; Abadi et al. 2016, Mironov et al. 2019)."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class Declared:
    """A data-dependent disclosure that no epsilon covers: at most `bits` bits, named, allowed by policy, recorded."""

    what: str
    bits: int


Event = GaussianRelease | SampledGaussian | Declared
_TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in (GaussianRelease, SampledGaussian, Declared)}


def event_to_json(event: Event) -> dict[str, Any]:
    """Plain data with the mechanism's name under `mechanism`."""
    return {"mechanism": type(event).__name__, **asdict(event)}


def event_from_json(value: dict[str, Any]) -> Event:
    """Inverse of `event_to_json`. Raises LedgerError for a mechanism this version does not know."""
    fields = dict(value)
    kind = _TYPES.get(str(fields.pop("mechanism", "")))
    if kind is None:
        raise LedgerError("the ledger holds a mechanism this version does not know; use the version that wrote it")
    try:
        return kind(**fields)
    except TypeError:
        raise LedgerError("a ledger event has unknown fields; use the version that wrote it") from None


def round_event(stage: SpectralStage | DpSgdStage) -> Event:
    """What ONE round of `stage` costs a training patient."""
    if isinstance(stage, SpectralStage):
        return GaussianRelease(stage.noise_multiplier)
    return SampledGaussian(stage.noise_multiplier, stage.sampling_rate, stage.local_steps)


def study_events(plan: Plan, cohort: Cohort) -> list[Event]:
    """Every event the whole plan will charge to `cohort`, in order, one entry a round."""
    if cohort == "holdout":
        return [GaussianRelease(plan.utility.noise_multiplier)] if plan.utility else []
    return [round_event(stage) for stage in plan.stages for _ in range(stage.rounds)]


GATE_VERDICT = Declared("gate verdict: the whole set was approved or refused", bits=1)
