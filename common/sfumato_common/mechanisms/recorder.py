"""What a job's mechanisms really did, counted where the noise is drawn, and arrays bound to that count.

The ledger says what was paid for; the recorder says what ran. The egress lets nothing out for which the two differ.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sfumato_common.accounting.events import Event, GaussianRelease, SampledGaussian, Unprotected, event_to_json
from sfumato_common.errors import EgressRefused
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.grid import gaussian_release
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.types import AnyArray, Arrays, FloatArray

Float64 = npt.NDArray[np.float64]
# Clipped sums are added up in float32 (pairwise or blocked): two neighbouring sums may differ by the clipping norm and
# their roundings. Contract tests see 1e-5 of it; adding one by one could cost B^2 / 2 x 2^-24, 5e-4 at B = 128.
FLOAT32_SLACK = 2.0**-10
# lives and dies with the process: what was noised cannot be stored and altered, or made by anything but a recorder
_KEY = secrets.token_bytes(32)


@dataclass(frozen=True, eq=False)
class Noised:
    """Arrays that a recorded job made, the mechanism that ran for them, and the reservation they were made under."""

    arrays: Arrays
    executed: Event
    binding: str
    _seal: bytes = field(repr=False)

    def check(self) -> None:
        """Raise EgressRefused unless a recorder sealed exactly these arrays with this count under this reservation."""
        if not hmac.compare_digest(self._seal, _seal_of(self.arrays, self.executed, self.binding)):
            raise EgressRefused("these arrays are not what a recorded mechanism sealed; nothing was sent")


class NoiseRecorder:
    """The one way from sums over patients to values that may leave: every draw is counted.

    One-shot releases about the same patients compose as one Gaussian mechanism (Dong, Roth and Su 2022, Corollary 3.3):
    1 / noise_multiplier^2 adds up. `binding` is the hash of the ledger's reservation.
    """

    protects = True  # whether sums are clipped and noised at all

    def __init__(self, noise: NoiseSource, binding: str) -> None:
        self._noise, self._binding = noise, binding
        self._inverse_square = 0.0
        self._steps: dict[tuple[float, float], int] = {}

    def gaussian(self, value: FloatArray, sensitivity: float, noise_multiplier: float) -> Float64:
        """One-shot Gaussian release of a sum over all patients; see `gaussian_release`."""
        self._inverse_square += 1.0 / noise_multiplier**2
        return gaussian_release(value, sensitivity, noise_multiplier, self._noise)

    def sampled_gaussian(
        self, value: FloatArray, clipping_norm: float, noise_multiplier: float, sampling_rate: float
    ) -> Float64:
        """One step of DP-SGD: noise on the clipped float32 sum over a Poisson sample of patients at `sampling_rate`."""
        key = (noise_multiplier, sampling_rate)
        self._steps[key] = self._steps.get(key, 0) + 1
        return gaussian_release(value, clipping_norm * (1.0 + FLOAT32_SLACK), noise_multiplier, self._noise)

    @property
    def executed(self) -> Event:
        """What ran, as one event. Raises EgressRefused when nothing ran, or mechanisms that no one event describes."""
        if self._inverse_square and not self._steps:
            return GaussianRelease(1.0 / math.sqrt(self._inverse_square))
        if len(self._steps) == 1 and not self._inverse_square:
            ((sigma, rate), steps) = next(iter(self._steps.items()))
            return SampledGaussian(sigma, rate, steps)
        raise EgressRefused("no single mechanism ran for this reply: it was not noised as the plan says")

    def sealed(self, arrays: dict[str, AnyArray]) -> Noised:
        """`arrays` with what ran to make them; call it last. Raises EgressRefused like `executed`."""
        executed = self.executed
        return Noised(arrays, executed, self._binding, _seal_of(arrays, executed, self._binding))


class BareRecorder(NoiseRecorder):
    """The recorder of a plan that says `private: false`: sums pass as they are, charged as `Unprotected`.

    Nothing that it seals can pass for noised: the egress compares this charge with the ledger's as it does any other.
    """

    protects = False

    def __init__(self, what: str, binding: str) -> None:
        self._what, self._binding, self._passed = what, binding, 0

    def gaussian(self, value: FloatArray, sensitivity: float, noise_multiplier: float) -> Float64:
        """`value` itself."""
        self._passed += 1
        return value.astype(np.float64)

    def sampled_gaussian(
        self, value: FloatArray, clipping_norm: float, noise_multiplier: float, sampling_rate: float
    ) -> Float64:
        """`value` itself."""
        return self.gaussian(value, clipping_norm, noise_multiplier)

    @property
    def executed(self) -> Event:
        """That something passed unprotected. Raises EgressRefused when nothing did."""
        if not self._passed:
            raise EgressRefused("no sum was made for this reply: it is not what the plan says")
        return Unprotected(self._what)


def same_mechanism(reserved: Event, executed: Event) -> bool:
    """Whether what ran is what was paid for; one-shot noise multipliers may differ by float rounding."""
    if isinstance(reserved, GaussianRelease) and isinstance(executed, GaussianRelease):
        return math.isclose(reserved.noise_multiplier, executed.noise_multiplier, rel_tol=1e-9)
    return reserved == executed


def _seal_of(arrays: Arrays, executed: Event, binding: str) -> bytes:
    mac = hmac.new(_KEY, digestmod=hashlib.sha256)
    mac.update(canonical_json([binding, event_to_json(executed)]))
    for name in sorted(arrays):
        value = arrays[name]
        mac.update(canonical_json([name, str(value.dtype), list(value.shape)]))
        mac.update(np.ascontiguousarray(value).tobytes())
    return mac.digest()
