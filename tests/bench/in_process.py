"""In-process federation for the benches: a plan at a stated epsilon, all its stages with secure noise, synthetic sets.

`ROWS` says which stages a row of the utility table has; a row is one line.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from cohorts import ROOT, BenchCohort

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.encoders.encoder import Encoders
from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.exchanges.choice import without_figure
from sfumato_common.generators.components import component_count, component_shares, labels_of
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.starts import start_key
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.budget import resolve_budget
from sfumato_common.study.costs import study_events
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, ByteImages, fingerprint
from sfumato_server.coordinator.pretraining import pretrain
from sfumato_server.rounds.encoders import load_encoders
from sfumato_server.rounds.strategies import strategy_of

Released = dict[str, dict[str, AnyArray]]
DELTA = 1e-5
ENCODERS = ROOT / "encoders"  # of files that no package brings
# Epsilon infinity is this noise, in process only: mechanisms run as ever, and hide nothing.
NO_NOISE, ANY_EPSILON = 1e-6, 1e6
# Public settings by cohort: round figures from image size and nominal patients, looked at no data; DCT band, the
# sampling rate at which a batch is about 60 patients, and whether each site gets components of its own: where hospitals
# differ, which PneumoniaMNIST's random parts do not.
BANDS = {"pneumonia": 12, "sites": 16, "fundus": 8, "fundi": 16, "phantom": 16}
RATES = {"pneumonia": 0.06, "sites": 0.04, "fundus": 0.5, "fundi": 0.08, "phantom": 0.09}
BY_SITE = {"sites", "fundi", "phantom"}
# A flow's step times the image's side: a shift of all pixels alike moves the mean brightness by as many deviations.
FLOW_RATE_BY_SIZE = 0.16

# A diffusion's patch, by cohort: sixteen squares an image, 64 of the films of sites. Its public start is trained for so
# many steps, never on what the cohort itself was drawn from.
PATCHES = {"pneumonia": 7, "sites": 8, "fundus": 8, "fundi": 8, "phantom": 8}
START_STEPS, START_PATIENTS = 600, 300

TRAINED = {"gan", "flow", "diffusion"}
STAGES: dict[str, dict[str, Any]] = {
    "spectral": {"clip_radius": 1.8, "spread_radius": 0.9, "radii": "charged"},
    "appearance": {},
    "codec": {},
    "embedding": {},
    "features": {},
    "gan": {"rounds": 3, "local_steps": 20, "clipping_norm": 1.0, "learning_rate": 0.002, "generator_steps": 10},
    "flow": {"rounds": 3, "local_steps": 10, "clipping_norm": 0.3},
    "stylegan2": {"rounds": 1, "local_steps": 1, "sampling_rate": 0.04, "clipping_norm": 1.0, "learning_rate": 0.002},
    "diffusion": {"rounds": 3, "local_steps": 10, "clipping_norm": 0.3, "learning_rate": 0.002, "width": 96},
    "choice": {},
}


@dataclass(frozen=True)
class Row:
    """One row of the table: each stage's share of the budget (see study/budget.py), and what is released."""

    shares: dict[str, float]
    model: str


# To add a row: one line here.
ROWS = {
    "spectral": Row({"spectral": 1.0}, "spectral"),
    "appearance": Row({"appearance": 1.0}, "appearance"),
    "embedding": Row({"spectral": 0.3, "embedding": 0.7}, "embedding"),
    "flow": Row({"spectral": 0.6, "flow": 0.4}, "flow"),
    "gan": Row({"spectral": 0.6, "gan": 0.4}, "gan"),
    "diffusion": Row({"spectral": 0.6, "diffusion": 0.4}, "diffusion"),
    "best": Row({"spectral": 0.55, "flow": 0.2, "gan": 0.2, "choice": 0.05}, "best"),
}


def available(row: str) -> bool:
    """Whether both halves of every stage of the row are there."""
    return all(kind in EXCHANGES for kind in ROWS[row].shares)


def build_plan(
    cohort: BenchCohort,
    row: str | Row,
    target: float,
    encoders: Mapping[str, EncoderTerms] = MappingProxyType({}),
    **overrides: dict[str, Any],
) -> Plan:
    """The plan of a row (by name, or any other) whose training patients pay `target` at DELTA, add/remove.

    At most, and 0.5 % less at least.
    With `target` infinite nothing is noised. A choice that could only say "no figure" is left out, and what it would
    have chosen is the first model, which gets the whole budget.
    `overrides` gives stages (by kind) other values than `STAGES`, `encoders` are what they may name.
    """
    row = ROWS[row] if isinstance(row, str) else row
    values = {kind: {**STAGES[kind], **overrides.get(kind, {})} for kind in row.shares}
    for kind in {"spectral", "appearance", "codec"} & set(values):
        values[kind] = {"by_site": cohort.name in BY_SITE, **values[kind]}
    if "appearance" in values and cohort.channels == 3:
        values["appearance"] = {"alignment": "fundus", **values["appearance"]}
    if "spectral" in values:
        values["spectral"] = {"bandwidth": BANDS[cohort.name], **values["spectral"]}
    if "flow" in values:
        values["flow"].setdefault("learning_rate", round(FLOW_RATE_BY_SIZE / cohort.size, 4))
    if "diffusion" in values:
        values["diffusion"].setdefault("patch", PATCHES[cohort.name])
    if "embedding" in values:
        values["embedding"].setdefault("generator_steps", 300 if cohort.size <= 32 else 100)
    for kind in TRAINED & set(values):
        values[kind].setdefault("sampling_rate", RATES[cohort.name])
    private = math.isfinite(target)
    plan = parse(
        {
            "study": f"bench-{cohort.name}",
            "image": {"size": cohort.size, "channels": cohort.channels},
            "labels": list(cohort.labels),
            "sites": {site: {"nominal_patients": count} for site, count in cohort.nominal.items()},
            "privacy": {"epsilon": target if private else ANY_EPSILON, "delta": DELTA},
            "budget": row.shares if private else None,
            "encoders": {name: terms.model_dump() for name, terms in encoders.items()},
            "stages": [{"kind": kind, "noise_multiplier": NO_NOISE, **own} for kind, own in values.items()],
            "release": [{"model": row.model, "images": 1}],
            "federation": {"quorum": len(cohort.nominal)},
        },
        Plan,
        "bench",
    )
    if not private:
        return _started(plan.model_dump_json(), cohort.name)
    plan = _resolved(plan.model_dump_json())
    if plan.chooses and without_figure(plan):
        first = plan.candidates[0]
        return build_plan(cohort, Row({first: 1.0}, first), target, encoders, **overrides)
    return _started(plan.model_dump_json(), cohort.name)


@lru_cache(maxsize=64)
def _resolved(plan: str) -> Plan:
    return resolve_budget(Plan.model_validate_json(plan))


# weights of public starts by the hash that plans pin
_STARTS: dict[str, dict[str, AnyArray]] = {}


@lru_cache(maxsize=64)
def _started(text: str, cohort: str) -> Plan:
    """The plan with its diffusion, where it has one, at a public start: the phantom's, or textures' for the phantom."""
    plan = Plan.model_validate_json(text)
    if "diffusion" not in plan.candidates or plan.stage("diffusion").public_start is not None:
        return plan
    source = "textures" if cohort == "phantom" else "phantom"
    pinned = plan.public_starts.get(plan.base)
    network = None if pinned is None else _STARTS[pinned.sha256]
    weights, _ = pretrain(plan, "diffusion", source, steps=START_STEPS, patients=START_PATIENTS, network=network)
    return pin_start(plan, source, weights)


def keep_weights(weights: dict[str, AnyArray]) -> str:
    """The hash by which a plan pins `weights`, which `federate` then brings."""
    pinned = fingerprint(weights)
    _STARTS[pinned] = weights
    return pinned


def pin_start(plan: Plan, source: str, weights: dict[str, AnyArray]) -> Plan:
    """The plan whose diffusion starts from `weights`, which `federate` then brings."""
    pinned = keep_weights(weights)
    values = plan.model_dump(mode="json")
    for stage in values["stages"]:
        if stage["kind"] == "diffusion":
            stage["start"] = {"source": source, "sha256": pinned}
    return parse(values, Plan, "bench")


def spent(plan: Plan) -> float:
    """Epsilon of a training patient at DELTA, add/remove; infinite without noise."""
    return epsilon(study_events(plan, "train"), DELTA)


def federate(plan: Plan, cohorts: dict[str, Cohort], seed: int) -> tuple[Released, dict[str, float]]:
    """Every stage of the plan with secure noise at the sites; gives released arrays and seconds by kind.

    Files of given encoders stand in `ENCODERS`. `seed` is the coordinator's: what the sites draw comes from the
    operating system, so no two runs are equal.
    """
    encoders = Encoders(ENCODERS, plan.encoders).load_all(plan.encoders)
    starts = {start_key(kind): _STARTS[start.sha256] for kind, start in plan.public_starts.items()}
    given = {**load_encoders(ENCODERS, plan), **starts}
    released: Released = {}
    seconds: dict[str, float] = {}
    rng = torch.Generator().manual_seed(seed)
    for stage in plan.stages:
        strategy = strategy_of(plan, stage, {**released, **given})
        for number in range(1, stage.rounds + 1):
            replies = {}
            for site, cohort in cohorts.items():
                began = time.perf_counter()
                noise = SecureNoise()
                outbound, recorder = strategy.outbound(number, site), NoiseRecorder(noise, "bench")
                job = StageJob(plan, site, stage, number, outbound, cohort, noise, recorder, encoders)
                replies[site] = dict(train(job))
                name = f"{stage.kind} slowest site-round"
                seconds[name] = max(seconds.get(name, 0.0), time.perf_counter() - began)
            began = time.perf_counter()
            strategy.absorb(number, replies, rng)
            name = f"{stage.kind} coordinator round"
            seconds[name] = max(seconds.get(name, 0.0), time.perf_counter() - began)
        released[stage.kind] = strategy.released()
    return released, {name: round(value, 2) for name, value in seconds.items()}


def synthetic_set(
    plan: Plan, kind: str, released: Released, count: int, seed: int
) -> tuple[ByteImages, npt.NDArray[np.int64]]:
    """`count` images of model `kind` and their labels; components are drawn by the released (noisy) shares.

    So a site gives as many as it has patients: on a phantom of 700, 200 and 40 patients that served better than as many
    from each.
    """
    components = _components(plan, released, count, seed)
    images = sample_images(plan, kind, released[kind], components, TorchDraws(torch.Generator().manual_seed(seed)))
    return images, labels_of(plan, components)


def homes_of(plan: Plan, released: Released, count: int, seed: int) -> npt.NDArray[np.str_] | None:
    """The site that each image of that `synthetic_set` stands for; None where sites are not fitted apart."""
    if component_count(plan) == len(plan.labels):
        return None
    return np.array(sorted(plan.sites))[_components(plan, released, count, seed) // len(plan.labels)]


def _components(plan: Plan, released: Released, count: int, seed: int) -> npt.NDArray[np.int64]:
    shares = component_shares(plan, released[plan.candidates[0]])
    return np.random.default_rng(seed).choice(len(shares), count, p=shares).astype(np.int64)


def released_model(plan: Plan, model: str, released: Released) -> str:
    """The kind that a release of `model` means: for `best` what the choice stage found, the first where it can tell
    nothing and was left out."""
    if model != "best":
        return model
    return plan.candidates[int(released["choice"]["winner"][0])] if plan.chooses else plan.candidates[0]
