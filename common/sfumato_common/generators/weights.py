"""The two-way street between a network's weights and named arrays, and the public weights that it starts with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from sfumato_common.errors import VerificationError
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import AnyArray, Arrays

Network = TypeVar("Network", bound=nn.Module)


def draw_network(build: Callable[[PublicPlan], Network], plan: PublicPlan) -> Network:
    """A network with its public start: weights drawn from the plan's digest, the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(plan.drawn_from[:15], 16))
        return build(plan)


def load_network(name: str, build: Callable[[PublicPlan], Network], plan: PublicPlan, arrays: Arrays) -> Network:
    """A network with the weights `<name>/...` of `arrays`. Raises VerificationError when they do not fit the plan."""
    network = build(plan)
    load_arrays(name, network, arrays)
    return network


def to_arrays(name: str, network: nn.Module) -> dict[str, AnyArray]:
    """Weights as float32 arrays named `<name>/<parameter>`; the networks here have no buffers."""
    return {f"{name}/{key}": value.detach().cpu().numpy().copy() for key, value in network.named_parameters()}


def load_arrays(name: str, network: nn.Module, arrays: Arrays) -> None:
    """Copy `<name>/<parameter>` arrays into `network`. Raises VerificationError when one is missing or misshapen."""
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            value = arrays.get(f"{name}/{key}")
            if value is None or tuple(value.shape) != tuple(parameter.shape):
                raise VerificationError(f"the weights '{name}/{key}' do not fit the plan; ask the coordinator again")
            parameter.copy_(torch.from_numpy(value.copy()))
