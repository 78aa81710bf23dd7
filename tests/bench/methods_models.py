"""Whose models the methods bench releases from: a federation of the sites for each network, or a model that is given.

Every federation costs a training patient the same epsilon, also that of CADP, whose network is another than DP-GLOW's:
a plan has one flow. A codec has learned from public images only, and its moments are released under that epsilon. A
StyleGAN2 was trained without privacy, and so is everything in its plan. `given` says where these two are looked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cohorts import BenchCohort
from in_process import Released, Row, build_plan, federate, keep_weights
from safetensors.numpy import load_file

from sfumato_common.codec.folder import CONFIG, read_codec, weights_of
from sfumato_common.generators.stylegan2.networks import GENERATOR
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays

_CONDITIONS = "mapping.embed.weight"
FLOW = Row({"spectral": 0.6, "flow": 0.4}, "flow")
FEDERATED: Mapping[str, tuple[Row, dict[str, Any]]] = {
    "gan": (Row({"spectral": 0.6, "gan": 0.4}, "gan"), {}),
    "glow": (FLOW, {"flow": {"architecture": "glow"}}),
    "cinn": (FLOW, {"flow": {"architecture": "multiscale-cinn"}}),
    "appearance": (Row({"appearance": 1.0}, "appearance"), {}),
}
GIVEN = ("codec", "stylegan2")
LARGEST_REST = 8  # pixels a side that the multi-scale network joins fully


def given(models: Path | None, cohort: str, source: str, release: int) -> Path | None:
    """The codec's folder or the file of weights in `models`/`cohort`; one file may serve every release."""
    if models is None:
        return None
    if source == "codec":
        folder = models / cohort / "codec"
        return folder if (folder / CONFIG).is_file() else None
    names = (f"stylegan2-{release}.safetensors", "stylegan2.safetensors")
    return next((path for name in names if (path := models / cohort / name).is_file()), None)


def models_of(
    cohort: BenchCohort, source: str, epsilon: float, release: int, place: Path | None
) -> tuple[Plan, Released]:
    """The plan of a source and what its stages released, at `epsilon` a training patient where it is private."""
    if source == "stylegan2":
        assert place is not None, "rows whose model is not there are left out"
        return _style(cohort, release, place)
    if source == "codec":
        assert place is not None, "rows whose model is not there are left out"
        codec, config = read_codec(place)
        start = {"source": "checkpoint", "sha256": keep_weights(weights_of(codec))}
        row, terms = Row({"codec": 1.0}, "codec"), {"codec": {"form": config.form.model_dump(), "start": start}}
    else:
        row, terms = FEDERATED[source]
    if source == "cinn":
        levels = max(2, math.ceil(math.log2(cohort.size / LARGEST_REST)))
        terms = {"flow": {**terms["flow"], "levels": levels}}
    plan = build_plan(cohort, row, epsilon, **terms)
    return plan, federate(plan, cohort.train, release)[0]


def _style(cohort: BenchCohort, release: int, path: Path) -> tuple[Plan, Released]:
    """Its spectral stage says the shares of labels, without noise, and nothing else."""
    weights = load_file(path)
    row = Row({"spectral": 0.6, "stylegan2": 0.4}, "stylegan2")
    values = build_plan(cohort, row, math.inf, stylegan2=terms_of(weights, cohort.size)).model_dump(mode="json")
    values["private"], values["stages"][1]["sites_train"] = False, "both"
    plan = parse(values, Plan, "bench")
    spectral = federate(plan.model_copy(update={"stages": plan.stages[:1]}), cohort.train, release)[0]["spectral"]
    generator = as_released(weights, len(plan.labels), cohort.train)
    return plan, {"spectral": spectral, "stylegan2": {**spectral, **generator}}


def as_released(weights: Mapping[str, np.ndarray], labels: int, homes: Iterable[str]) -> Arrays:
    """A generator of `stylegan2.py`, which counts sites as `homes` has them, as a plan releases it: by their names."""
    places = list(homes)
    order = [*range(labels), *(labels + places.index(site) for site in sorted(places))]
    ordered = {**weights, _CONDITIONS: np.ascontiguousarray(weights[_CONDITIONS][:, order])}
    return {f"{GENERATOR}/{name}": part.astype(np.float32) for name, part in ordered.items()}


def terms_of(weights: Mapping[str, np.ndarray], size: int) -> dict[str, int]:
    """The settings of a stage whose generator has these published weights."""
    base, most, layers = shape_of(weights, size)
    return {"channel_base": base, "channel_max": most, "mapping_layers": layers}


def shape_of(weights: Mapping[str, np.ndarray], size: int) -> tuple[int, int, int]:
    """Channel base, most channels and mapping layers of published weights."""
    side, found = 4, []
    while side <= size:
        found.append(weights[f"synthesis.b{side}.conv1.bias"].shape[0])
        side *= 2
    layers = sum(name.startswith("mapping.fc") and name.endswith(".weight") for name in weights)
    return found[-1] * size, max(found), layers
