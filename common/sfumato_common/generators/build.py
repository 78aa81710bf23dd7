"""The table of trainable models, and the two-way street between their weights and named arrays."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from sfumato_common.errors import VerificationError
from sfumato_common.generators.components import condition_width
from sfumato_common.generators.flow.cinn import ConditionalINN
from sfumato_common.generators.flow.flows import Flow
from sfumato_common.generators.flow.glow import Glow
from sfumato_common.generators.gan.w_space import Discriminator, Generator
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.whitening import SpectralModel
from sfumato_common.study.plan import Plan
from sfumato_common.study.stages import EmbeddingStage, FlowStage, GanStage
from sfumato_common.types import AnyArray, Arrays


def _width(plan: Plan) -> int:
    """Width of generator and discriminator; the plan sees to it that all stages with a generator agree."""
    return next(stage.width for stage in plan.stages if isinstance(stage, EmbeddingStage | GanStage))


def _flow(plan: Plan) -> Flow:
    stage = plan.stage("flow")
    assert isinstance(stage, FlowStage)
    sizes = (plan.image.channels, condition_width(plan), stage.levels, stage.steps_per_level, stage.hidden)
    if stage.architecture == "cinn":
        return ConditionalINN(*sizes, stage.coupling, size=plan.image.size, dense=stage.dense)
    return Glow(*sizes, stage.coupling)


def _generator(plan: Plan) -> Generator:
    channels, latent = plan.image.channels, Layout.of(plan).features
    return Generator(plan.image.size, channels, latent, condition_width(plan), _width(plan))


# To add a model: one module in this folder, one line here, and its names in wire.py.
MODELS: dict[str, Callable[[Plan], nn.Module]] = {
    "generator": _generator,
    "discriminator": lambda plan: Discriminator(
        plan.image.channels, condition_width(plan), _width(plan), plan.image.size
    ),
    "flow": _flow,
}


def initial_model(name: str, plan: Plan) -> nn.Module:
    """Model `name` with its public start: weights drawn from the plan's digest, the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(plan.digest[:15], 16))
        return MODELS[name](plan)


def to_arrays(name: str, model: nn.Module) -> dict[str, AnyArray]:
    """Weights as float32 arrays named `<name>/<parameter>`; the models here have no buffers."""
    return {f"{name}/{key}": value.detach().cpu().numpy().copy() for key, value in model.named_parameters()}


def from_arrays(name: str, plan: Plan, arrays: Arrays) -> nn.Module:
    """Model `name` with the weights found in `arrays`. Raises VerificationError when they do not fit the plan."""
    model = MODELS[name](plan)
    load_arrays(name, model, arrays)
    return model


def load_arrays(name: str, model: nn.Module, arrays: Arrays) -> None:
    """Copy `<name>/<parameter>` arrays into `model`. Raises VerificationError when one is missing or misshapen."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            value = arrays.get(f"{name}/{key}")
            if value is None or tuple(value.shape) != tuple(parameter.shape):
                raise VerificationError(f"the weights '{name}/{key}' do not fit the plan; ask the coordinator again")
            parameter.copy_(torch.from_numpy(value.copy()))


def spectral_model(plan: Plan, arrays: Arrays) -> SpectralModel:
    """The released spectral model from arrays named `spectral/...`. Raises VerificationError when one is missing."""
    try:
        own = {name: arrays[f"spectral/{name}"] for name in ("shares", "mean", "factor", "signal", "tail")}
    except KeyError as error:
        raise VerificationError(f"the released array {error} is missing; ask the coordinator again") from None
    return SpectralModel(plan, own)
