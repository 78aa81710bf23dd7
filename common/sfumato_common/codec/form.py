"""What a codec's `config.json` says: its form, how it was trained, on what, and what it reached. Loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from sfumato_common.strict import Strict

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class CodecForm(Strict):
    """Geometry of a codec: images [C, size, size] to codes of C x `cosines` numbers, those of least frequency.

    The first `kept` of each channel are the image's own and stay so in what is decoded; the others carry what is
    learned. The networks are `width` wide, have that many residual blocks, and work at size / step places a side.
    """

    size: Annotated[int, Field(ge=16, le=1024)]
    """Pixels a side."""
    channels: Literal[1, 3] = 1
    """1 is grey, 3 is colour."""
    cosines: Annotated[int, Field(ge=16)]
    """Numbers of a code, a channel: cosines of least frequency."""
    kept: Annotated[int, Field(ge=1)]
    """Of those, how many are kept as they are; the network makes up the rest."""
    step: Literal[2, 4, 8] = 4
    """Pixels a side of a place of the network's map."""
    width: Annotated[int, Field(ge=8, le=512)] = 128
    """Channels of the network."""
    encoder_blocks: Annotated[int, Field(ge=1, le=64)] = 6
    """Blocks of the encoder."""
    decoder_blocks: Annotated[int, Field(ge=1, le=64)] = 12
    """Blocks of the decoder."""

    @model_validator(mode="after")
    def _fits(self) -> CodecForm:
        if self.size % self.step:
            raise ValueError("'step' must divide 'size'")
        if self.cosines > self.size**2 // 4:
            raise ValueError("'cosines' are more than a quarter of the pixels: use the image itself")
        if self.kept >= self.cosines:
            raise ValueError("'kept' must be less than 'cosines': the rest is what is learned")
        return self

    @property
    def numbers(self) -> int:
        """D, the numbers of a code."""
        return self.channels * self.cosines


class LossWeights(Strict):
    """How much each loss counts beside the squared error of pixels; 0 switches it off.

    `gradient`: squared error of differences at four scales. `feature`: of a frozen random network's responses.
    `energy`: of the logarithm of local energies in three bands. `adversarial`: of a discriminator of patches. `noise`
    is the deviation of what is added to codes in training, in units of a cosine of an image in [-1, 1].
    """

    pixel: Weight = 1.0
    gradient: Weight = 0.0
    feature: Weight = 0.0
    energy: Weight = 0.0
    adversarial: Weight = 0.0
    noise: Weight = 0.02


class Source(Strict):
    """One source of public images: what it was called, how many of its images and patients were read."""

    name: str
    images: Annotated[int, Field(ge=1)]
    patients: Annotated[int, Field(ge=1)]


class Score(Strict):
    """Of images that were not trained on: dB, correlation of what is finer than 8 pixels, share of gradient energy."""

    psnr: float
    fine: float
    energy: float


class Report(Strict):
    """How a codec was trained, and what it reached on held-out patients beside as many plain cosines."""

    steps: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    device: str
    held_out_images: Annotated[int, Field(ge=1)]
    codec: Score
    cosines: Score


class CodecConfig(Strict):
    """A codec's `config.json`; `weights_sha256` is of the weights' names and values, as a plan pins them."""

    kind: Literal["sfumato-codec"] = "sfumato-codec"
    version: Literal[1] = 1
    form: CodecForm
    losses: LossWeights
    sources: Annotated[list[Source], Field(min_length=1)]
    licence: Annotated[str, Field(min_length=1)]
    report: Report
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
