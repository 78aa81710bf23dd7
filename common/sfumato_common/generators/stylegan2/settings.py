"""What a StyleGAN2 stage states."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import DpSgdStage

_SIZES = tuple(2**level for level in range(4, 10))


class StyleGan2Stage(DpSgdStage):
    """StyleGAN2: a mapping to W, modulated convolutions with noise a layer, and a residual discriminator.

    `channel_base` over pixels a side, at most `channel_max`, is how many channels a resolution has. Under a private
    plan sites train the `discriminator` by DP-SGD, and the coordinator the generator, in `generator_steps` a round.
    Under `private: false` sites train `both`, by federated averaging, with R1 on real images, the minibatch deviation,
    and, where `augmentation` is `adaptive`, augmentation that follows real images. A private plan has none of these:
    the deviation couples records, and the others read real images beside what is charged. Its `penalty` is on
    generated images.

    `codes` says what methods in its latent space average and move: one code an image (`w`), or one a layer (`w+`).
    """

    kind: Literal["stylegan2"]
    """StyleGAN2, whose discriminator learns by DP-SGD."""
    sites_train: Literal["discriminator", "both"] = "discriminator"
    """What sites train; `both` networks under `private: false` alone."""
    channel_base: Annotated[int, Field(ge=128, le=65_536)] = 4096
    """Over a resolution's pixels a side: its channels."""
    channel_max: Annotated[int, Field(ge=4, le=512)] = 128
    """The most channels."""
    mapping_layers: Annotated[int, Field(ge=1, le=8)] = 2
    """Layers of the mapping."""
    generator_steps: Annotated[int, Field(ge=1, le=100_000)] = 30
    """Generator steps of the coordinator a round."""
    fakes: Annotated[int, Field(ge=4, le=4096)] = 48
    """Generated images beside each batch."""
    penalty: Annotated[float, Field(ge=0, le=1000)] = 0.05
    """Weight of the squared gradient of the discriminator."""
    path_length: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Weight of path lengths; needs `private: false`."""
    augmentation: Literal["none", "adaptive"] = "none"
    """`adaptive` augmentation; needs `private: false`."""
    codes: Literal["w", "w+"] = Field(default="w", exclude_if=lambda codes: codes == "w")
    """One code an image, or one a layer."""

    def check(self, plan: PublicPlan) -> None:
        """Blocks double the side; what reads real images uncharged is not private."""
        if plan.image.size not in _SIZES:
            raise ValueError(f"a stylegan2 stage draws images of {', '.join(map(str, _SIZES))} pixels a side")
        if self.channel_base < 4 * plan.image.size:
            raise ValueError("'channel_base' of the stylegan2 stage leaves less than 4 channels at the images' size")
        if plan.private and self.sites_train == "both":
            raise ValueError("'sites_train: both' needs 'private: false': a private plan trains 'discriminator' alone")
        if not plan.private and self.sites_train != "both":
            raise ValueError("under 'private: false' a stylegan2 stage says 'sites_train: both'")
        if plan.private and self.augmentation != "none":
            raise ValueError("'augmentation: adaptive' follows real images without a charge: it needs 'private: false'")
        if plan.private and self.path_length:
            raise ValueError("'path_length' needs 'private: false'")
