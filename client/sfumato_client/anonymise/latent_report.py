"""What local noise on latents costs and leaves, from the plan's public numbers alone: eps_total always comes first.

The papers (arXiv 2212.10688, 2207.14625) speak of an epsilon a coordinate; what a patient pays is the sum over all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import LocalGaussian
from sfumato_common.mechanisms.latent_noise import LatentMechanism
from sfumato_common.study.costs import NOISE_ALONE, latent_total
from sfumato_common.study.latents import Cadp, Latent

# Below this signal-to-noise less than a tenth of a decoded coordinate's deviation is the record's, and an image lies
# within 5 % as far from its own record as from any other. That is what is seen; what can be inferred, eps_total says.
PRIOR_RATIO = 0.1


@dataclass(frozen=True)
class LatentReport:
    """`total` is the epsilon of all that one record gives, at `delta` (0 where it is pure); `each`, a coordinate's.

    `each` times `coordinates` is what the latent costs, for Laplace noise; for Gaussian noise `each` is the epsilon at
    `delta` of a difference spread evenly over all coordinates. `label` is the label's own part of `total`. Deviations
    are a released coordinate's: `signal` that of a standard normal latent after the clip.
    """

    method: str
    mechanism: str
    clip: str
    total: float
    each: float
    delta: float
    label: float | None
    coordinates: int
    dimensions: int
    noise: float
    signal: float
    private: bool = True

    @property
    def signal_to_noise(self) -> float:
        """Deviation of the clipped latent over that of its noise."""
        return self.signal / self.noise

    @property
    def prior_only(self) -> bool:
        """Whether what is decoded is essentially a sample of the prior."""
        return self.signal_to_noise < PRIOR_RATIO

    @property
    def text(self) -> str:
        """The report for the steward, a fact a line, eps_total first and eps per coordinate second."""
        at = f"at delta {self.delta:g}" if self.delta else "pure, at delta 0"
        label = "" if self.label is None else f" and its label's randomised response (epsilon {self.label:g} of it)"
        kind = "unit patient; add/remove, and replace-one the same" if self.private else f"of the noise; {NOISE_ALONE}"
        training = "the model's training is charged apart" if self.private else "the model was trained without privacy"
        meaning = "of each, on the whole interval" if self.clip == "elementwise" else "on average; one may cost all"
        rest = self.dimensions - self.coordinates
        lines = [
            f"eps_total {self.total:.6g} ({at}; {kind})",
            f"eps per coordinate {self.each:.6g} ({meaning})",
            f"{self.method}: covers one noised latent vector a patient{label}; {training}",
            f"{self.coordinates} of {self.dimensions} coordinates are released, {rest} are drawn from the prior",
            f"{self.mechanism} noise of standard deviation {self.noise:.6g} a coordinate, clip {self.clip}",
            f"signal-to-noise {self.signal_to_noise:.3g} a coordinate, for latents of standard deviation 1",
        ]
        if self.prior_only:
            lines.append("The output is essentially a prior sample: less than a tenth of a coordinate is the record's.")
        return "\n".join(lines) + "\n"


def latent_report(item: Latent, dimensions: int, delta: float, labels: int, private: bool = True) -> LatentReport:
    """The report of `item` on latents of that many dimensions, in a plan with that many labels; Gaussian at `delta`."""
    mechanism = mechanism_of(item, dimensions)
    keep = mechanism.width
    label = item.label_epsilon if isinstance(item, Cadp) else None
    total, at = latent_total(item, labels, delta)
    if item.epsilon is not None:
        each = item.epsilon / keep
    else:
        assert item.noise_multiplier is not None, "the plan gives one of the two"
        each = epsilon([LocalGaussian(item.noise_multiplier * math.sqrt(keep))], delta)
    return LatentReport(
        method=getattr(item, "method", "latent"),
        mechanism=item.mechanism,
        clip=item.clip,
        total=total,
        each=each,
        delta=at,
        label=label,
        coordinates=keep,
        dimensions=dimensions,
        noise=mechanism.noise,
        signal=mechanism.signal,
        private=private,
    )


def mechanism_of(item: Latent, dimensions: int) -> LatentMechanism:
    """The item's noise on its m released coordinates of latents of that many dimensions: all, unless it says fewer."""
    keep = dimensions if item.coordinates is None else item.coordinates
    return LatentMechanism(item.clip, item.radius, keep, item.epsilon, item.noise_multiplier)
