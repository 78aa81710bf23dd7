"""How `audit_privacy.py` attacks the stages that rest on a network: codec, features, StyleGAN2 and diffusion.

Codec and features are noised moments: the whole transcript is matched against what the product's code makes of either
cohort, of codes by a network of crafted weights and of embeddings. StyleGAN2 and diffusion are DP-SGD: their own
trainers run on a cohort of the canary alone, so that every noised sum is the canary's clipped gradient, through all
that the stage does to an image before (whitening, dequantising, noise levels), and nobody else's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from audit_targets import (
    CONFIDENCE,
    NOISE,
    SITE,
    SIZE,
    Floats,
    Target,
    Work,
    canaries,
    matched_target,
    plan_of,
    spectral_arrays,
)
from scipy.stats import chi2
from support.encoders import terms_for, tiny_encoder

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.codec.folder import weights_of
from sfumato_common.codec.form import CodecForm
from sfumato_common.codec.network import Codec
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.exchanges.feature_space import FeatureSpace
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import NoiseSource, SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, fingerprint

MULTIPLIER, _CLIP = 1.1, 0.05  # of DP-SGD; a norm that every canary's gradient is above
_FORM = {"size": SIZE, "cosines": 20, "kept": 6, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
# of a cohort of one patient a step's sum is that patient's gradient, or nothing
_STEPS = {"rounds": 1, "sampling_rate": 0.5, "clipping_norm": _CLIP, "noise_multiplier": MULTIPLIER}
_TRAINED: Mapping[str, dict[str, Any]] = {
    "stylegan2": {"channel_base": 128, "channel_max": 8, "fakes": 8, "images_per_patient": 2},
    "diffusion": {"width": 16, "depth": 1, "images_per_patient": 2},
}


def network_targets() -> list[Target]:
    """Codec, features, StyleGAN2 and diffusion."""
    return [*(matched_target(name, make()) for name, make in one_shot_works().items()), *map(_trained, _TRAINED)]


def one_shot_works() -> dict[str, Callable[[], Work]]:
    """What is released once: of codes, with radii that the plan fixes or that are measured, and of embeddings."""
    return {
        "codec, radii fixed: adaptive sums": lambda: _codec("fixed"),
        "codec, radii charged: adaptive sums": lambda: _codec("charged"),
        "features: adaptive sums of embeddings": _features,
    }


def _plan(stages: list[dict[str, Any]], released: str, **more: Any) -> Plan:
    values = {**plan_of().model_dump(mode="json"), **more, "stages": stages, "utility": None}
    return parse({**values, "release": [{"model": released, "images": 4}]}, Plan, "audit")


def _spectral() -> dict[str, Any]:
    return plan_of().stages[0].model_dump(mode="json")


def _crafted_codec() -> Codec:
    """Weights that no training would leave: the learned part of a code is as large as the image's own."""
    codec = Codec(CodecForm(**_FORM), torch.Generator().manual_seed(0))
    torch.nn.init.normal_(codec.encoder.leave.weight, 0.0, 0.3, generator=torch.Generator().manual_seed(1))
    return codec


def _codec(radii: str) -> Work:
    sent = weights_of(_crafted_codec())
    start = {"source": "phantom", "sha256": fingerprint(sent)}
    stage = {"kind": "codec", "form": _FORM, "noise_multiplier": NOISE, "radii": radii, "start": start}
    return work_of(_plan([stage], "codec"), "codec", sent)


def _features() -> Work:
    stage = {"kind": "features", "encoder": "tiny", "noise_multiplier": NOISE, "dimensions": 12, "vectors": 10}
    given = {"tiny": terms_for(b"", "resnet18", size=SIZE).model_dump()}
    plan, encoder = _plan([_spectral(), stage], "spectral", encoders=given), tiny_encoder(SIZE)
    train_it, public = work_of(plan, "features", {}, {"tiny": encoder}), FeatureSpace.of(plan, encoder)

    def work(some: Cohort, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        # the map is the same whoever the patients are, and takes ten times as long as all else
        with patch.object(FeatureSpace, "of", return_value=public):
            return train_it(some, recorder, noise)

    return work


def work_of(plan: Plan, kind: str, sent: Arrays, encoders: Mapping[str, Encoder] | None = None) -> Work:
    """The stage's own trainer on a cohort."""

    def work(some: Cohort, recorder: NoiseRecorder, noise: NoiseSource) -> object:
        return train(StageJob(plan, SITE, plan.stage(kind), 1, sent, some, noise, recorder, encoders or {}))

    return work


class Kept(NoiseRecorder):
    """A recorder that keeps every clipped sum's norm, and what was added to it."""

    def __init__(self, noise: NoiseSource) -> None:
        super().__init__(noise, "audit")
        self.norms: list[float] = []
        self.residues: list[Floats] = []

    def sampled_gaussian(
        self, value: Any, clipping_norm: float, noise_multiplier: float, sampling_rate: float
    ) -> Floats:
        out = super().sampled_gaussian(value, clipping_norm, noise_multiplier, sampling_rate)
        self.norms.append(float(np.linalg.norm(value)))
        self.residues.append(out - value)
        return out


def trained_work(kind: str, steps: int = 20) -> Work:
    """The trainer of a DP-SGD stage, `steps` long, from the start that its plan implies."""
    own = {"kind": kind, "learning_rate": 0.001, "local_steps": steps, **_STEPS, **_TRAINED[kind]}
    plan = _plan([_spectral(), own], kind)
    sent = dict(spectral_arrays())
    for network in GENERATORS[kind].networks:
        sent |= to_arrays(network, initial_model(network, plan))
    return work_of(plan, kind, sent)


def longest_step(work: Work, runs: int) -> tuple[float, float]:
    """The largest clipped gradient of any canary over the noise's deviation, and its lower bound."""
    norms, residues = [], list[Floats]()
    for turn in range(max(1, runs // 100)):
        for canary in canaries() if turn == 0 else canaries()[:1]:
            noise = SecureNoise()
            kept, alone = Kept(noise), Cohort(np.stack([canary, canary]), np.ones(2, np.int64), np.zeros(2, np.int64))
            work(alone, kept, noise)
            norms += kept.norms
            residues += kept.residues
    every = np.concatenate(residues)
    count, deviation = len(every), float(np.sqrt((every**2).mean()))
    most = deviation * math.sqrt(count / float(chi2.ppf(1.0 - CONFIDENCE, count)))
    return max(norms) / deviation, max(norms) / most


def _trained(kind: str) -> Target:
    def measure(runs: int) -> tuple[float, float]:
        return longest_step(trained_work(kind), runs)

    return Target(f"{kind}: a patient's gradient over the noise, by its own trainer", 1.0 / MULTIPLIER, measure=measure)
