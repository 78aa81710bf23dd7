"""What a charge's mechanisms really did, counted where the noise is drawn (an odometer: Rogers et al. 2016).

The ledger says what was paid for; the recorder says what ran. Nothing leaves for which the two differ.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sfumato_common.accounting.events import (
    GaussianRelease,
    KAverageGaussian,
    LocalGaussian,
    LocalLaplace,
    Mechanism,
    RandomisedResponse,
    SampledGaussian,
    SummedGaussian,
    Unprotected,
    normal_form,
)
from sfumato_common.errors import EgressRefused
from sfumato_common.mechanisms.clipping import Clip, clip_rows
from sfumato_common.mechanisms.grid import gaussian_release, laplace_release
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.sealed import Result, Sealed
from sfumato_common.mechanisms.summed import Words, gaussian_part
from sfumato_common.types import FloatArray

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# Two neighbouring clipped sums may differ by the clipping norm C and by their roundings. Clipped gradients are added up
# in float32 in blocks of at most n = 64 patients, and the blocks in float64 (`training/dp/contract.py`). In any order,
# the additions of a block and the products with the clip's factors are off by (n(n + 1) / 2 - 1 + n) 2^-24 C = 1.3e-4 C
# at most (Higham 2002, section 4.2: no partial sum of k gradients is above k C). Patients stand in random places, so
# that one more or less changes one block, or two where it begins a further batch (`training/dp/batches.py`), each
# before and after: 5.1e-4 C, at any capacity. Where an engine contracts patients and positions at once, contract tests
# see 1e-5 C. Ranks (`training/dp/shared.py`) have whole blocks each, and add up their float64 sums: of 64 ranks and a
# million places that is off by 63 x 2^-53 x 10^6 C = 7e-9 C at most, with and without the patient.
FLOAT32_SLACK = 2.0**-10
# A label is never told more surely: lies rarer than 1e-8 are too few of the 2^52 uniforms to have their stated odds.
_SUREST = 20.0


class NoiseRecorder:
    """The one way from patients to values that may leave: every draw is counted.

    Sums over all patients (`gaussian`), over a sample of them (`sampled_gaussian`), and single records or small groups
    of them, which are clipped and noised together, so that no method can noise what it forgot to clip. `executed` is
    what ran, in normal form; `binding` says under which charge.
    """

    protects = True  # whether sums are clipped and noised at all

    def __init__(self, noise: NoiseSource, binding: str) -> None:
        self._noise, self._binding = noise, binding
        self._draws, self._closed = 0, False
        self._executed: tuple[Mechanism, ...] = ()

    @property
    def executed(self) -> tuple[Mechanism, ...]:
        """What ran, in the normal form in which charges are compared."""
        return self._executed

    @property
    def draws(self) -> int:
        """How often anything was drawn, or was to be drawn after the seal."""
        return self._draws

    def gaussian(self, value: FloatArray, sensitivity: float, noise_multiplier: float) -> Float64:
        """One-shot Gaussian release of a sum over all patients; see `gaussian_release`."""
        self._count(GaussianRelease(noise_multiplier))
        return gaussian_release(value, sensitivity, noise_multiplier, self._noise)

    def summed_gaussian(
        self, value: FloatArray, sensitivity: float, noise_multiplier: float, among: int, mask: Words
    ) -> Words:
        """This site's part [d] of a Gaussian release of the sum over sites, under `mask` [d]; see `gaussian_part`.

        The part is never seen without its mask: alone it has a share of the noise that is charged for.
        """
        self._count(SummedGaussian(noise_multiplier, among))
        part = gaussian_part(value, sensitivity, noise_multiplier, among, self._noise)
        if mask.dtype != np.uint64 or mask.shape != part.shape:
            raise ValueError("a mask is one 64-bit word for each number of the value")
        return part.view(np.uint64) + mask

    def sampled_gaussian(
        self, value: FloatArray, clipping_norm: float, noise_multiplier: float, sampling_rate: float
    ) -> Float64:
        """One step of DP-SGD: noise on the clipped float32 sum over a Poisson sample of patients at `sampling_rate`."""
        self._count(SampledGaussian(noise_multiplier, sampling_rate, 1))
        return gaussian_release(value, clipping_norm * (1.0 + FLOAT32_SLACK), noise_multiplier, self._noise)

    def local_laplace(self, rows: FloatArray, radius: float, epsilon: float, clip: Clip) -> Float64:
        """Rows [N, D], one a patient, clipped by L1 norm or elementwise, with Laplace noise for `epsilon` in total."""
        if clip not in ("l1", "elementwise"):
            raise ValueError("Laplace noise is scaled to an L1 diameter: clip 'l1' or 'elementwise'")
        diameter = 2.0 * radius * (rows.shape[1] if clip == "elementwise" else 1)
        self._count(LocalLaplace(epsilon))
        return laplace_release(clip_rows(rows, radius, clip), diameter, epsilon, self._noise)

    def local_gaussian(self, rows: FloatArray, radius: float, noise_multiplier: float) -> Float64:
        """Rows [N, D], one a patient, clipped to L2 norm `radius`; noise of noise_multiplier x 2 radius."""
        self._count(LocalGaussian(noise_multiplier))
        return gaussian_release(clip_rows(rows, radius, "l2"), 2.0 * radius, noise_multiplier, self._noise)

    def k_average(self, members: FloatArray, radius: float, noise_multiplier: float) -> Float64:
        """Means [G, D] of groups [G, k, D] of patients' codes clipped to `radius`; noise_multiplier x 2 radius / k."""
        groups, k, width = members.shape
        self._count(KAverageGaussian(noise_multiplier, k))
        inside = clip_rows(members.reshape(-1, width), radius, "l2").reshape(groups, k, width)
        return gaussian_release(inside.mean(axis=1), 2.0 * radius / k, noise_multiplier, self._noise)

    def randomised_response(self, labels: Labels, categories: int, epsilon: float) -> Labels:
        """Labels [N], each kept with odds e^epsilon to 1 against every other one (Warner 1965; Kairouz et al. 2014)."""
        if labels.size and not (labels.min() >= 0 and labels.max() < categories):
            raise ValueError("a label is none of the categories")
        self._count(RandomisedResponse(categories, epsilon))
        uniform = categories / (np.exp(min(epsilon, _SUREST)) + categories - 1.0)
        drawn = np.floor(self._noise.uniform(labels.shape) * categories).astype(np.int64)
        return np.asarray(np.where(self._noise.uniform(labels.shape) < uniform, drawn, labels))

    def seal_result(self, result: Result) -> Sealed[Result]:
        """`result` with what ran to make it; nothing more is drawn. For `Charge.seal`, which knows what was paid."""
        self._closed = True
        return Sealed.of(result, self.executed, self._binding)

    def _count(self, event: Mechanism) -> None:
        self._draw()
        self._executed = normal_form([*self._executed, event])

    def _draw(self) -> None:
        self._draws += 1
        if self._closed:
            raise EgressRefused("something was to be drawn after the result was sealed: nothing may leave")


class BareRecorder(NoiseRecorder):
    """The recorder of a charge without privacy (`private: false`): sums pass as they are, recorded as `Unprotected`.

    Latents and labels of single records are noised as asked, and recorded as the same: what decodes them has no
    guarantee. Nothing that it seals can pass for noised: what it executed is never what a private plan was charged.
    """

    protects = False

    def __init__(self, what: str, binding: str, noise: NoiseSource | None = None) -> None:
        self._what, self._binding = what, binding
        self._draws, self._closed = 0, False
        self._executed = ()
        if noise is not None:
            self._noise = noise
        self._noises = noise is not None

    def gaussian(self, value: FloatArray, sensitivity: float, noise_multiplier: float) -> Float64:
        """`value` itself."""
        self._pass()
        return value.astype(np.float64)

    def sampled_gaussian(
        self, value: FloatArray, clipping_norm: float, noise_multiplier: float, sampling_rate: float
    ) -> Float64:
        """`value` itself."""
        return self.gaussian(value, clipping_norm, noise_multiplier)

    def _count(self, event: Mechanism) -> None:
        if not self._noises or not isinstance(event, LocalLaplace | LocalGaussian | RandomisedResponse):
            raise EgressRefused("a charge without privacy has no such mechanism")
        self._pass()

    def _pass(self) -> None:
        self._draw()
        self._executed = (Unprotected(self._what),)
