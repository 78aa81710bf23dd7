"""Exact names, dtypes and shapes of all that a training round may carry, by stage; egress allows no more."""

from __future__ import annotations

import torch

from sfumato_common.generators.build import MODELS
from sfumato_common.generators.components import component_count
from sfumato_common.generators.embedding.features import Embedding
from sfumato_common.generators.spectral.layout import NORMS, Layout
from sfumato_common.generators.update import UPDATE, update_spec
from sfumato_common.study.plan import Plan
from sfumato_common.study.stages import ChoiceStage
from sfumato_common.types import ArraySpec, Schema

HISTOGRAMS = "histograms"
# What travels beside the released spectral arrays: (coordinator to sites, sites to coordinator, final model)
_TRAVELS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "embedding": ((), (), ("generator",)),
    "gan": (("generator", "discriminator"), ("discriminator",), ("generator",)),
    "flow": (("flow",), ("flow",), ("flow",)),
}


def inbound_schema(plan: Plan, kind: str) -> Schema:
    """What the coordinator sends to a site in a round of stage `kind`; nothing for `spectral`.

    What a choice stage is sent are no models: see `classifiers_schema`.
    """
    return {} if kind == "spectral" else {**_spectral(plan), **_weights(plan, _TRAVELS[kind][0])}


def outbound_schema(plan: Plan, kind: str) -> Schema:
    """What a site may send back in a round of stage `kind`: only what a mechanism has noised."""
    if isinstance(stage := plan.stage(kind), ChoiceStage):
        return {HISTOGRAMS: ArraySpec("float32", (len(plan.candidates), len(plan.labels), stage.bins))}
    if kind == "embedding":
        return {"sums": ArraySpec("float32", (len(plan.labels), 1 + Embedding(plan).length))}
    if kind != "spectral":
        return {UPDATE: update_spec(updated_weights(plan, kind))}
    layout = Layout.of(plan)
    norms = {"norms": ArraySpec("float32", (NORMS, 2))} if layout.charged_radii else {}
    return norms | {
        "centre": ArraySpec("float32", (1 + layout.features,)),
        "sums": ArraySpec("float32", (layout.classes, 1 + layout.features)),
        "moments": ArraySpec("float32", (layout.classes, layout.pairs)),
    }


def updated_weights(plan: Plan, kind: str) -> Schema:
    """The weights whose change a site's update carries in stage `kind`."""
    return _weights(plan, _TRAVELS[kind][1])


def released_schema(plan: Plan, kind: str) -> Schema:
    """The final model of stage `kind` as sites get it for sampling, spectral arrays included."""
    return _spectral(plan) if kind == "spectral" else {**_spectral(plan), **_weights(plan, _TRAVELS[kind][2])}


def _spectral(plan: Plan) -> Schema:
    layout = Layout.of(plan)
    k, d = component_count(plan), layout.features
    shapes: dict[str, tuple[int, ...]] = {"shares": (k,), "mean": (k, d), "factor": (k, d, d), "tail": (k,)}
    shapes["signal"] = (k, d, d)
    return {f"spectral/{name}": ArraySpec("float32", shape) for name, shape in shapes.items()}


def _weights(plan: Plan, names: tuple[str, ...]) -> Schema:
    specs: dict[str, ArraySpec] = {}
    for name in names:
        with torch.device("meta"):  # shapes only: no weights are drawn
            model = MODELS[name](plan)
        for key, value in model.named_parameters():
            specs[f"{name}/{key}"] = ArraySpec("float32", tuple(value.shape))
    return specs
