"""Frozen privacy spends: what was, or will be, taken from a cohort; apart from any accountant.

An event says which mechanism ran with which public parameters. An unknown event is refused, never approximated.
Cohorts: `train` patients pay for training, `holdout` patients for figures computed on them; a site binds every patient
to one of them at the first charge, so that a patient pays the larger of the two totals (parallel composition).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from sfumato_common.errors import LedgerError

Cohort = Literal["train", "holdout"]


@dataclass(frozen=True)
class GaussianRelease:
    """Gaussian mechanism, once, full batch: noise sd = noise_multiplier x L2 sensitivity (add/remove)."""

    noise_multiplier: float


@dataclass(frozen=True)
class SummedGaussian:
    """A site's part of one Gaussian release of a sum over sites of which only the sum is seen (`mechanisms/summed.py`).

    The site adds noise of sd = noise_multiplier / sqrt(among) x L2 sensitivity (add/remove) alone; together with
    the parts of `among` - 1 other honest sites in the sum it is a `GaussianRelease` of noise_multiplier, and costs that
    much. Against somebody who sees the part itself it is worth less: see `seen_with`.
    """

    noise_multiplier: float
    among: int


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` Poisson-subsampled Gaussian mechanisms (DP-SGD; Abadi et al. 2016, Mironov et al. 2019)."""

    noise_multiplier: float
    sampling_rate: float
    steps: int


@dataclass(frozen=True)
class LaplaceRelease:
    """Laplace mechanism, once (Dwork et al. 2006): scale b = noise_multiplier x L1 sensitivity (add/remove).

    A vector clipped to L1 norm R has sensitivity R here and 2R under replacement, which the accountant knows.
    """

    noise_multiplier: float


@dataclass(frozen=True)
class RandomisedResponse:
    """k-ary randomised response (Warner 1965): one of `categories` is told truly with odds e^epsilon to 1.

    The number of answers is public: in a cohort without the patient the answer is one for any other category, so
    that adding, removing and replacing a patient cost the same.
    """

    categories: int
    epsilon: float


@dataclass(frozen=True)
class KAverageGaussian:
    """Means of `k` patients' codes, each clipped to L2 norm R, noise sd = noise_multiplier x 2R / k on each.

    The number of groups of each label is public, a patient is in one group at most, and groups are drawn at random from
    the label's patients (never by what the images show); places that no patient fills hold the zero code. Adding a
    patient moves one mean by 2R / k at most: the larger cohort's draw is a smaller one's draw in which, with some
    probability, the new patient took a place. So its output is a mixture of outputs with one code replaced, and the
    hockey-stick divergence of a mixture is at most that of its worst part (joint convexity). Replacing one is removing
    here and adding there: where the labels differ, two means move, which is the square root of two times as far. No
    amplification by the draw is claimed.
    """

    noise_multiplier: float
    k: int


@dataclass(frozen=True)
class LocalLaplace:
    """One noised vector a patient, clipped on its own, Laplace scale b = L1 diameter of the clipped set / `epsilon`.

    The number of vectors is public, a patient gives one at most, patients are drawn at random, and places that no
    patient fills hold the zero vector: as for `KAverageGaussian`, adding, removing and replacing a patient each replace
    the vector of one place, and cost the same. `epsilon` is the total over all coordinates.
    """

    epsilon: float


@dataclass(frozen=True)
class LocalGaussian:
    """The same with Gaussian noise, sd = noise_multiplier x 2R on vectors clipped to L2 norm R."""

    noise_multiplier: float


@dataclass(frozen=True)
class ExponentialMechanism:
    """Exponential mechanism, once (McSherry and Talwar 2007): `epsilon`-DP under add/remove."""

    epsilon: float


@dataclass(frozen=True)
class AboveThreshold:
    """Sparse vector, one answer (Dwork and Roth 2014, Algorithm 1): `epsilon`-DP under add/remove."""

    epsilon: float


@dataclass(frozen=True)
class Unprotected:
    """What left with neither clipping nor noise, under a plan that says `private: false`: epsilon is infinite."""

    what: str


@dataclass(frozen=True)
class Declared:
    """A data-dependent disclosure that no epsilon covers: at most `bits` bits, named, allowed by policy, recorded."""

    what: str
    bits: int


def local_event(epsilon: float | None, noise_multiplier: float | None) -> LocalLaplace | LocalGaussian:
    """What noise on one vector a patient is charged as: Laplace for `epsilon` or Gaussian, whichever is given."""
    if epsilon is not None:
        return LocalLaplace(epsilon)
    assert noise_multiplier is not None, "a mechanism has one of the two"
    return LocalGaussian(noise_multiplier)


Mechanism = (
    GaussianRelease
    | SummedGaussian
    | SampledGaussian
    | LaplaceRelease
    | RandomisedResponse
    | KAverageGaussian
    | LocalLaplace
    | LocalGaussian
    | ExponentialMechanism
    | AboveThreshold
    | Unprotected
)
Event = Mechanism | Declared


# no study comes near it, and Python's integers go on where floating-point numbers end
_LARGEST = 10**15


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= _LARGEST


def _whole(least: int) -> Callable[[Any], bool]:
    # a bool is an int to Python, and never a count
    return lambda value: type(value) is int and least <= value <= _LARGEST


# every kind of event with what its fields may hold: a negative step count must not pay anything back
_FIELDS: dict[type[Event], Mapping[str, Callable[[Any], bool]]] = {
    GaussianRelease: {"noise_multiplier": _positive},
    SummedGaussian: {"noise_multiplier": _positive, "among": _whole(1)},
    SampledGaussian: {
        "noise_multiplier": _positive,
        "sampling_rate": lambda value: _positive(value) and value <= 1,
        "steps": _whole(1),
    },
    LaplaceRelease: {"noise_multiplier": _positive},
    RandomisedResponse: {"categories": _whole(2), "epsilon": _positive},
    KAverageGaussian: {"noise_multiplier": _positive, "k": _whole(2)},
    LocalLaplace: {"epsilon": _positive},
    LocalGaussian: {"noise_multiplier": _positive},
    ExponentialMechanism: {"epsilon": _positive},
    AboveThreshold: {"epsilon": _positive},
    Unprotected: {"what": lambda value: isinstance(value, str) and bool(value)},
    Declared: {"what": lambda value: isinstance(value, str) and bool(value), "bits": _whole(1)},
}
_TYPES = {kind.__name__: kind for kind in _FIELDS}


def check_event(event: Event) -> None:
    """Raise LedgerError for an event of an unknown kind, or with parameters that mean nothing."""
    fields = _FIELDS.get(type(event))
    if fields is None:
        raise LedgerError("a charge of an unknown mechanism is refused, never approximated")
    if not all(sound(getattr(event, name)) for name, sound in fields.items()):
        raise LedgerError(f"a {type(event).__name__} charge has impossible parameters: {event_to_json(event)}")


def normal_form(events: Iterable[Event]) -> tuple[Mechanism, ...]:
    """What a list of events about one cohort amounts to, so that what was charged and what ran can be compared.

    One-shot Gaussians are one Gaussian mechanism, whose 1 / noise_multiplier^2 is the sum of theirs (Dong, Roth and Su
    2022, Corollary 3.3), and so are parts of sums among as many sites; steps of DP-SGD at one rate and noise add up;
    each stands where its first one did. All other mechanisms stay as they are, in order. Declared disclosures run no
    mechanism, and fall away.
    """
    found: list[Mechanism] = []
    for event in events:
        if isinstance(event, Declared):
            continue
        for place, before in enumerate(found):
            if (joined := _join(before, event)) is not None:
                found[place] = joined
                break
        else:
            found.append(event)
    return tuple(found)


def _join(one: Mechanism, other: Mechanism) -> Mechanism | None:
    if isinstance(one, GaussianRelease) and isinstance(other, GaussianRelease):
        return GaussianRelease(_together(one.noise_multiplier, other.noise_multiplier))
    if isinstance(one, SummedGaussian) and isinstance(other, SummedGaussian) and one.among == other.among:
        return replace(one, noise_multiplier=_together(one.noise_multiplier, other.noise_multiplier))
    if isinstance(one, SampledGaussian) and isinstance(other, SampledGaussian):
        steps = one.steps + other.steps
        return replace(one, steps=steps) if replace(other, steps=one.steps) == one else None
    return None


def _together(one: float, other: float) -> float:
    return 1.0 / math.hypot(1.0 / one, 1.0 / other)


def same_mechanisms(charged: Iterable[Event], ran: Iterable[Event]) -> bool:
    """Whether `ran` is just what was `charged`, in normal form; one-shot noise may differ by float rounding."""
    paid, found = normal_form(charged), normal_form(ran)
    return len(paid) == len(found) and all(map(_alike, paid, found))


def _alike(one: Mechanism, other: Mechanism) -> bool:
    if isinstance(one, GaussianRelease) and isinstance(other, GaussianRelease):
        return math.isclose(one.noise_multiplier, other.noise_multiplier, rel_tol=1e-9)
    if isinstance(one, SummedGaussian) and isinstance(other, SummedGaussian):
        alike = math.isclose(one.noise_multiplier, other.noise_multiplier, rel_tol=1e-9)
        return alike and one.among == other.among
    return one == other


def seen_with(event: Mechanism, noises: int) -> Mechanism:
    """`event` against somebody who knows all of a sum's noises but so many; others are worth the same to everybody."""
    if isinstance(event, SummedGaussian):
        return GaussianRelease(event.noise_multiplier * math.sqrt(noises / event.among))
    return event


def event_to_json(event: Event) -> dict[str, Any]:
    """Plain data with the mechanism's name under `mechanism`."""
    return {"mechanism": type(event).__name__, **asdict(event)}


def event_from_json(value: Mapping[str, Any]) -> Event:
    """Inverse of `event_to_json`. Raises LedgerError for a mechanism this version does not know, or a wrong one."""
    fields = dict(value)
    kind = _TYPES.get(str(fields.pop("mechanism", "")))
    if kind is None:
        raise LedgerError("the ledger holds a mechanism this version does not know; use the version that wrote it")
    try:
        event = kind(**fields)
    except TypeError:
        raise LedgerError("a ledger event has unknown fields; use the version that wrote it") from None
    check_event(event)
    return event
