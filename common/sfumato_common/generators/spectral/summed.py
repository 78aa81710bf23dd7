"""What a stage of moments says of itself for sums over sites, whichever features it is of."""

from __future__ import annotations

from collections.abc import Callable

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.spectral.moment_layout import MomentLayout, Weights
from sfumato_common.generators.spectral.phases import moment_multipliers, moment_phases, read_moments
from sfumato_common.generators.summed import Phase, Summed
from sfumato_common.types import Arrays

# (the stage's noise multiplier, whether its radii are charged)
Terms = Callable[[PublicPlan], tuple[float, bool]]


def summed_moments(
    layout: Callable[[PublicPlan], MomentLayout], terms: Terms, weights: Weights, norms: int, summand: str
) -> Summed:
    """Of the layout that a plan implies, whose weights and number of charged norms are the same for every plan."""

    def multipliers(plan: PublicPlan) -> tuple[float, ...]:
        noise, charged = terms(plan)
        return tuple(moment_multipliers(weights, norms if charged else 0, noise).values())

    def phases(plan: PublicPlan) -> tuple[Phase, ...]:
        return moment_phases(layout(plan), terms(plan)[0])

    def read(plan: PublicPlan, pooled: Arrays) -> Arrays:
        return read_moments(pooled)

    def check(plan: PublicPlan, noise_multiplier: float, patients: float, arrays: Arrays) -> None:
        from sfumato_common.generators.spectral.replies import check_moments_reply

        check_moments_reply(layout(plan), noise_multiplier, patients, arrays)

    return Summed(multipliers=multipliers, phases=phases, read=read, check=check, summand=summand)
