"""Parts of the schemas of what travels: the weights of networks, and their change; torch is loaded when asked."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_common.generators.base import Build
from sfumato_common.generators.plan import PublicPlan
from sfumato_common.types import ArraySpec, Schema


def weights_schema(plan: PublicPlan, networks: Mapping[str, Build]) -> Schema:
    """Names and shapes of the networks' weights, all float32; nothing is drawn."""
    import torch

    specs: dict[str, ArraySpec] = {}
    for name, build in networks.items():
        with torch.device("meta"):  # shapes only
            network = build(plan)
        for key, value in network.named_parameters():
            specs[f"{name}/{key}"] = ArraySpec("float32", tuple(value.shape))
    return specs


def base_schema(plan: PublicPlan) -> Schema:
    """What the stage released that the plan begins with."""
    from sfumato_common.generators import GENERATORS

    return GENERATORS[plan.base].released(plan)


def update_schema(plan: PublicPlan, networks: Mapping[str, Build]) -> Schema:
    """The one array that carries the change of the networks' weights."""
    from sfumato_common.generators.update import UPDATE, update_spec

    return {UPDATE: update_spec(weights_schema(plan, networks))}
