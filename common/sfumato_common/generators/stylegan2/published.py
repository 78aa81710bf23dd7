"""Weights of published StyleGAN2 generators, by the names of NVIDIA's PyTorch repositories, as those of a plan's stage.

What is read is `G_ema.state_dict()` in a safetensors file, which its owner writes (docs/starts.md): the published
pickles run code, and are never loaded. Images of the same codes and noise are the same. An unconditional generator
learns the plan's classes from nothing: its condition is there, with weight zero. Of one in colour, a grey plan gets the
mean of its channels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from sfumato_common.errors import VerificationError
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import stage_of
from sfumato_common.generators.stylegan2.generator import CODE
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR, discriminator, generator
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.generators.weights import draw_network

_FIRST = "synthesis.b4.const"
_FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8.0
# buffers: what they hold is drawn or computed here
_LEFT_OUT = ("resample_filter", "noise_const", "w_avg")


def adopt(plan: PublicPlan, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Published weights under the names of the plan's networks, the discriminator at its public start.

    Weights of another layout are left as they are. Raises VerificationError for a generator of another form than the
    plan's stage, and says which one it has.
    """
    if _FIRST not in weights:
        return weights
    _check_form(plan, weights)
    found = {name: value.float() for name, value in weights.items() if not name.endswith(_LEFT_OUT)}
    if plan.image.channels == 1:
        found |= {name: value.mean(0, keepdim=True) for name, value in found.items() if _of_image(name)}
    if "mapping.embed.weight" not in found:
        found |= _unconditional(plan, found["mapping.fc0.weight"])
    judge = draw_network(discriminator, plan)
    renamed = {f"{GENERATOR}/{name}": value for name, value in found.items()}
    return {**renamed, **{f"{DISCRIMINATOR}/{name}": value.detach() for name, value in judge.named_parameters()}}


def _of_image(name: str) -> bool:
    return name.endswith(("torgb.weight", "torgb.bias"))


def _unconditional(plan: PublicPlan, first: Tensor) -> dict[str, Tensor]:
    """An embedding at its public start, and a first layer [512, 1024] that gives it weight zero.

    Twice the inputs halve a layer's scale squared, which the weights make up for.
    """
    own = draw_network(generator, plan).mapping.embed
    return {
        "mapping.embed.weight": own.weight.detach(),
        "mapping.embed.bias": own.bias.detach(),
        "mapping.fc0.weight": torch.cat([math.sqrt(2.0) * first, torch.zeros_like(first)], dim=1),
    }


def _check_form(plan: PublicPlan, weights: Mapping[str, Tensor]) -> None:
    stage, size = stage_of(plan, StyleGan2Stage), plan.image.size
    sides = [int(name.split(".")[1][1:]) for name in weights if name.endswith("torgb.weight")]
    layers = sum(name.startswith("mapping.fc") and name.endswith("weight") for name in weights)
    most, finest = weights[_FIRST].shape[0], weights.get(f"synthesis.b{max(sides, default=0)}.torgb.weight")
    if finest is None or finest.ndim != 4 or weights.get("mapping.fc0.weight", torch.empty(0)).shape[:1] != (CODE,):
        raise VerificationError("the weights are not those of a StyleGAN2 generator with images of skips and 512 codes")
    base = finest.shape[1] * max(sides)
    own = {name for name, _ in draw_network(generator, plan).named_parameters()}
    if set(_parameters(weights)) | {"mapping.embed.weight", "mapping.embed.bias"} != own:
        raise VerificationError(
            f"the weights are of a generator of {max(sides)} pixels with 'mapping_layers: {layers}', 'channel_max: "
            f"{most}' and, where channels at full size are fewer, 'channel_base: {base}'; the plan has {size} pixels, "
            f"{stage.mapping_layers}, {stage.channel_max} and {stage.channel_base}"
        )
    filters = [value.float() for name, value in weights.items() if name.endswith("resample_filter")]
    expected = torch.outer(_FILTER, _FILTER)
    if any(part.shape != expected.shape or not torch.allclose(part, expected, atol=1e-4) for part in filters):
        raise VerificationError("the weights are of a generator with another resampling filter than 1 3 3 1")


def _parameters(weights: Mapping[str, Tensor]) -> list[str]:
    return [name for name in weights if not name.endswith(_LEFT_OUT)]
