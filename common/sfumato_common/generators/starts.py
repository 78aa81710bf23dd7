"""Public starts: weights from public data that a stage begins with, pinned in the plan by sha256 of names and values.

The plan is what every party accepted, so its hash decides: the coordinator reads weights that have it, a site trains
from nothing else. What the plan says about their source is a declaration; nobody can prove it from the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from sfumato_common.errors import VerificationError
from sfumato_common.generators import GENERATORS, NETWORKS
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.generators.settings import PublicStart, StageSettings, stage_of
from sfumato_common.generators.weights import Network, draw_network, load_network
from sfumato_common.types import AnyArray, Arrays, Schema, fingerprint

# Public, far beyond any trained weight: larger ones are there to overflow something.
LARGEST_VALUE = 1e4


def own_weights(arrays: Arrays) -> dict[str, AnyArray]:
    """The arrays that belong to a network, by their names' first part; the spectral ones are left out."""
    return {name: value for name, value in arrays.items() if name.partition("/")[0] in NETWORKS}


def start_schema(plan: PublicPlan, stage: StageSettings) -> Schema:
    """Names and shapes of the weights that `stage` starts from."""
    record = GENERATORS[stage.kind]
    return {name: spec for name, spec in record.sent(plan).items() if name.partition("/")[0] in record.networks}


def max_displacement(stage: StageSettings, network: str, rounds: int) -> float:
    """The most that `rounds` rounds of `stage` can change any weight of `network`, as its generator's record says."""
    bound = GENERATORS[stage.kind].max_displacement
    assert bound is not None, "a stage with a network bounds its displacement"
    return bound(stage, network, rounds)


def start_displacement(plan: PublicPlan, stage: StageSettings, network: str) -> float:
    """How far from its public start `stage` may begin to train `network`: as far as an earlier stage can fit it."""
    kind = stage.begins_at(network)
    if kind is None:
        return 0.0
    earlier: StageSettings = stage_of(plan, GENERATORS[kind].settings)
    return start_displacement(plan, earlier, network) + max_displacement(earlier, network, earlier.rounds)


def read_start(plan: PublicPlan, stage: StageSettings, data: bytes) -> dict[str, AnyArray]:
    """A safetensors file as the weights that `stage` of `plan` starts from, float32.

    Other float types are converted and arrays of other models left out. Raises VerificationError for a file that is
    none, lacks a weight, has one of another shape, or holds values that no training leads to.
    """
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError):
        raise VerificationError(
            "the start is no safetensors file; name one that 'sfumato model pretrain start' wrote"
        ) from None
    adopt = GENERATORS[stage.kind].adopt
    if adopt is not None:
        found = dict(adopt(plan, found))
    weights: dict[str, AnyArray] = {}
    for name, spec in start_schema(plan, stage).items():
        value = found.get(name)
        if value is None or not value.is_floating_point() or tuple(value.shape) != spec.shape:
            raise VerificationError(
                f"the start's '{name}' is missing or has another form than stage '{stage.kind}' of the plan"
            )
        weights[name] = value.to(torch.float32).numpy()
        if not np.isfinite(weights[name]).all() or (value.numel() and np.abs(weights[name]).max() > LARGEST_VALUE):
            raise VerificationError(f"the start's '{name}' holds values that no training leads to")
    return weights


def check_start(start: PublicStart, arrays: Arrays) -> None:
    """Raise VerificationError unless the weights in `arrays` are the very ones that the plan pins."""
    if fingerprint(own_weights(arrays)) != start.sha256:
        raise VerificationError("the weights are not the public start that the plan pins by its sha256")


def start_key(kind: str) -> str:
    """Under which name a strategy finds the pinned start of its stage among what it is given."""
    return f"start:{kind}"


def initial_model(name: str, plan: PublicPlan) -> nn.Module:
    """Network `name` with its public start: weights drawn from the plan's digest, the same on every machine."""
    return draw_network(NETWORKS[name], plan)


def starting_model(
    name: str,
    build: Callable[[PublicPlan], Network],
    plan: PublicPlan,
    stage: StageSettings,
    given: Mapping[str, Arrays],
) -> Network:
    """Network `name` as `stage` starts it: from the pinned start in `given`, or drawn from the plan's digest.

    Raises VerificationError when the plan pins a start and `given` has none, or another one.
    """
    if stage.public_start is None:
        return draw_network(build, plan)
    own = given.get(start_key(stage.kind), {})
    check_start(stage.public_start, own)
    return load_network(name, build, plan, own)
