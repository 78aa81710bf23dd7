"""What a flow stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import DpSgdStage


class FlowStage(DpSgdStage):
    """GLOW or conditional INN under DP-SGD; levels of squeeze, steps of (actnorm, mixing, coupling).

    `dense` couplings of all values end a conditional INN. On the phantom a clipping norm of 0.3 did best of three, and
    a learning rate of 0.005 gives fewer bits than 0.002 and samples that stray less than at 0.02.
    """

    kind: Literal["flow"]
    architecture: Literal["glow", "cinn"] = "glow"
    coupling: Literal["affine", "soft-clamp", "additive"] = "affine"
    levels: Annotated[int, Field(ge=1, le=4)] = 2
    steps_per_level: Annotated[int, Field(ge=1, le=16)] = 3
    hidden: Annotated[int, Field(ge=8, le=256)] = 32
    dense: Annotated[int, Field(ge=0, le=8)] = 2

    def check(self, plan: PublicPlan) -> None:
        """Every level halves the image."""
        if plan.image.size % (2**self.levels):
            raise ValueError(f"image.size must be divisible by 2^levels = {2**self.levels} for the flow")
