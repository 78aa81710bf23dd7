"""Public starts: weights from public data that a stage begins with, pinned in the plan by sha256 of names and values.

The plan is what every party accepted, so its hash decides: the coordinator reads weights that have it, a site trains
from nothing else. What the plan says about their source is a declaration; nobody can prove it from the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import nn

from sfumato_common.errors import VerificationError
from sfumato_common.generators.build import MODELS, from_arrays, initial_model
from sfumato_common.generators.schemas import inbound_schema
from sfumato_common.study.plan import Plan
from sfumato_common.study.stages import DpSgdStage, PublicStart
from sfumato_common.types import AnyArray, Arrays, Schema

# Public, far beyond any trained weight: larger ones are there to overflow something.
LARGEST_VALUE = 1e4


def fingerprint(arrays: Arrays) -> str:
    """sha256 of names and contents, lower-case hexadecimal: the very same arrays have the very same one."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].tobytes())
    return digest.hexdigest()


def own_weights(arrays: Arrays) -> dict[str, AnyArray]:
    """The arrays that belong to a trainable model, by their names' first part; the spectral ones are left out."""
    return {name: value for name, value in arrays.items() if name.partition("/")[0] in MODELS}


def public_start(plan: Plan, kind: str) -> PublicStart | None:
    """What the plan pins as the start of stage `kind`, if it does."""
    stage = plan.stage(kind)
    return stage.start if isinstance(stage, DpSgdStage) else None


def public_starts(plan: Plan) -> dict[str, PublicStart]:
    """Every pinned start by stage kind."""
    found = {stage.kind: public_start(plan, stage.kind) for stage in plan.stages}
    return {kind: start for kind, start in found.items() if start is not None}


def start_schema(plan: Plan, kind: str) -> Schema:
    """Names and shapes of the weights that stage `kind` starts from."""
    return {name: spec for name, spec in inbound_schema(plan, kind).items() if name.partition("/")[0] in MODELS}


def read_start(plan: Plan, kind: str, data: bytes) -> dict[str, AnyArray]:
    """A safetensors file as the weights that stage `kind` of `plan` starts from, float32.

    Other float types are converted and arrays of other models left out. Raises VerificationError for a file that is
    none, lacks a weight, has one of another shape, or holds values that no training leads to.
    """
    try:
        found = load(data)
    except (SafetensorError, ValueError, KeyError):
        raise VerificationError(
            "the start is no safetensors file; name one that 'sfumato model pretrain' wrote"
        ) from None
    weights: dict[str, AnyArray] = {}
    for name, spec in start_schema(plan, kind).items():
        value = found.get(name)
        if value is None or not value.is_floating_point() or tuple(value.shape) != spec.shape:
            raise VerificationError(
                f"the start's '{name}' is missing or has another form than stage '{kind}' of the plan"
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


def starting_model(name: str, plan: Plan, kind: str, given: Mapping[str, Arrays]) -> nn.Module:
    """Model `name` as stage `kind` starts it: from the pinned start in `given`, or drawn from the plan's digest.

    Raises VerificationError when the plan pins a start and `given` has none, or another one.
    """
    start = public_start(plan, kind)
    if start is None:
        return initial_model(name, plan)
    check_start(start, given.get(start_key(kind), {}))
    return from_arrays(name, plan, given[start_key(kind)])
