"""What a flow stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import WhiteningStage, white_form

# pixels a side that fully connected couplings of a multi-scale INN may join, so that its weights are bounded
LARGEST_REST = 8


class FlowStage(WhiteningStage):
    """GLOW or conditional INN under DP-SGD; levels of squeeze, steps of (actnorm, mixing, coupling).

    It goes on from the plan's first stage: on whitened pixels after `spectral`, on the whitened numbers of codes after
    `codec` or `appearance`, whose count does not grow with the pixels.

    `dense` couplings of all values end a conditional INN as published; those of a multi-scale one join what its levels
    leave, so that its weights grow with the levels and not with the pixels. On the phantom a clipping norm of 0.3 did
    best of three, and a learning rate of 0.005 gives fewer bits than 0.002 and samples that stray less than at 0.02.
    """

    kind: Literal["flow"]
    """GLOW or a conditional INN, by DP-SGD."""
    architecture: Literal["glow", "cinn", "multiscale-cinn"] = "glow"
    """Which network."""
    coupling: Literal["affine", "soft-clamp", "additive"] = "affine"
    """Form of the couplings."""
    levels: Annotated[int, Field(ge=1, le=6)] = 2
    """Squeezes; 2 to their power divides the image's size."""
    steps_per_level: Annotated[int, Field(ge=1, le=16)] = 3
    """Couplings at each level."""
    hidden: Annotated[int, Field(ge=8, le=256)] = 32
    """Width of their networks."""
    dense: Annotated[int, Field(ge=0, le=8)] = 2
    """Couplings of all values that end a conditional INN."""

    def check(self, plan: PublicPlan) -> None:
        """Every level halves the whitened image."""
        self.check_divides(plan, 2**self.levels, "2^levels")
        if self.architecture == "multiscale-cinn" and white_form(plan).size > LARGEST_REST * 2**self.levels:
            raise ValueError(f"a multi-scale INN halves the image to {LARGEST_REST} pixels a side: state more levels")
