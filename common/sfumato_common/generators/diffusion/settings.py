"""What a diffusion stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import WhiteningStage


class DiffusionStage(WhiteningStage):
    """A small diffusion transformer on whitened images, of which DP-SGD trains an adapter and nothing else.

    It goes on from the plan's first stage, as a flow does: whitened pixels after `spectral`, codes after the others.

    `start` pins the frozen network, and without one it is drawn from the plan's digest and knows nothing. Images are
    cut into squares of `patch` pixels. `rank` is that of the adapter's changes to the attention. A patient's loss is
    the mean over `noise_levels` of each image (noise multiplicity), before it is clipped. `sampling_steps` are the
    network's evaluations an image.
    """

    kind: Literal["diffusion"]
    """A frozen public diffusion transformer, of which DP-SGD trains an adapter."""
    patch: Annotated[int, Field(ge=1, le=16)] = 4
    """Pixels a side of a square that is one token."""
    width: Annotated[int, Field(ge=8, le=1024)] = 64
    """Width of the transformer."""
    depth: Annotated[int, Field(ge=1, le=24)] = 3
    """Its blocks."""
    heads: Annotated[int, Field(ge=1, le=16)] = 4
    """Its attention heads."""
    rank: Annotated[int, Field(ge=1, le=64)] = 4
    """Rank of the adapter's changes to the attention."""
    noise_levels: Annotated[int, Field(ge=1, le=64)] = 4
    """Noise levels of each image, whose mean is the patient's loss."""
    sampling_steps: Annotated[int, Field(ge=2, le=1000)] = 32
    """Evaluations of the network an image."""

    @property
    def foreign_detail(self) -> str | None:
        """What the frozen network adds."""
        if self.start is None:
            return None
        return (
            "Brightness, shape and coarse shading follow the patients, under the guarantee above. What is fine was "
            "learned from public images first, and adapted to the patients a little: it belongs to no patient. Do not "
            "read a finding off it."
        )

    def check(self, plan: PublicPlan) -> None:
        """Squares cover an image, heads share the width evenly."""
        self.check_divides(plan, self.patch, "patch")
        if self.width % (2 * self.heads):
            raise ValueError(f"the diffusion's width must be divisible by twice its heads = {2 * self.heads}")
