"""Training a stage's model on public procedural images, before any study: the start that a plan may then pin.

The study is played on the public images as far as it shapes what the model sees: every site gets a cohort of its own,
the plan's first model is fitted to noised sums at the plan's noise multiplier, and the stage's model then learns
without privacy, because nothing here is anybody's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sfumato_common.errors import ConfigError
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.appearance.features import features_of
from sfumato_common.generators.base import import_named
from sfumato_common.generators.codec import CODEC
from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.codec.space import features_of as codes_of
from sfumato_common.generators.codec.space import released_codec
from sfumato_common.generators.components import components_of
from sfumato_common.generators.device import training_device
from sfumato_common.generators.pretraining import Pretrained, PublicJob
from sfumato_common.generators.spectral import SPECTRAL
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.moment_layout import Float64
from sfumato_common.generators.spectral.release import Mechanism, noised_moments, noised_release
from sfumato_common.generators.starts import start_key
from sfumato_common.generators.whitening import whitening_of
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import MODALITIES, arrays
from sfumato_common.phantom.textures import textures
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, ByteImages, values_of
from sfumato_server.rounds.strategies import strategy_of

SOURCES = ("phantom", "textures")


@dataclass(frozen=True)
class PublicCohort:
    """One site's public images: uint8 [N, S, S(, 3)], labels [N], patient_index [N]."""

    images: ByteImages
    labels: npt.NDArray[np.int64]
    patient_index: npt.NDArray[np.int64]


def public_cohorts(plan: Plan, source: str, patients: int, seed: int) -> dict[str, PublicCohort]:
    """`patients` fictional patients, or textures, for every site of the plan; phantom sites have devices of their own.

    Grey plans get radiographs of the chest, plans in colour fundus photographs.

    Raises ConfigError for an unknown source.
    """
    if source not in SOURCES:
        raise ConfigError(f"'{source}' is no public source; choose one of {', '.join(SOURCES)}")
    form, found = plan.image, {}
    for number, site in enumerate(sorted(plan.sites)):
        if source == "textures":
            images, kinds = textures(seed + number, patients, form.size, form.channels)
            found[site] = PublicCohort(images, kinds % len(plan.labels), np.arange(patients))
            continue
        kind = "fundus" if form.channels == 3 else "chest"
        systems = sorted(MODALITIES[kind].systems)
        device = systems[number % len(systems)]
        images, shown, patient_index = arrays(seed, patients, form.size, f"public-{number}", device, modality=kind)
        found[site] = PublicCohort(images, _labels(plan, shown), patient_index)
    return found


def _labels(plan: Plan, opacity: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The plan's label of each phantom image: 'normal' where there is one, the others in turn for the diseased."""
    normal = plan.labels.index("normal") if "normal" in plan.labels else 0
    others = np.array([k for k in range(len(plan.labels)) if k != normal])
    return np.where(opacity > 0, others[np.arange(len(opacity)) % len(others)], normal).astype(np.int64)


def public_release(
    plan: Plan, cohorts: dict[str, PublicCohort], rng: np.random.Generator, network: Arrays | None = None
) -> dict[str, AnyArray]:
    """The plan's first model as the study would release it of these cohorts; plain noise will do.

    `network` are the weights that a first stage pins.
    """
    stage = plan.stage(plan.base)
    strategy = strategy_of(plan, stage, {start_key(stage.kind): network} if network else {})
    sent = strategy.outbound(1, "")

    def noised(part: Float64, sensitivity: float, noise_multiplier: float) -> Float64:
        return part + sensitivity * noise_multiplier * rng.standard_normal(part.shape)

    releases = {}
    for site, cohort in cohorts.items():
        weights = 1.0 / np.bincount(cohort.patient_index)[cohort.patient_index]
        releases[site] = _released(plan, cohort, weights, noised, sent)
    strategy.absorb(1, releases, torch.Generator().manual_seed(int(rng.integers(2**31))))
    return strategy.released()


def _released(
    plan: Plan, cohort: PublicCohort, weights: Float64, noised: Mechanism, sent: Arrays
) -> dict[str, AnyArray]:
    """What a site would answer in the plan's first stage."""
    images, labels, sigma = cohort.images, cohort.labels, plan.stage(plan.base).noise_multiplier
    if plan.base == SPECTRAL.kind:
        return noised_release(Layout.of(plan), sigma, images, labels, weights, noised)
    if plan.base == CODEC.kind:
        layout = CodecLayout.of(plan)
        features = codes_of(layout, released_codec(plan, sent), images)
        return noised_moments(layout, sigma, features, labels, weights, noised)
    form = AppearanceLayout.of(plan)
    return noised_moments(form, sigma, features_of(form.map, images), labels, weights, noised)


def pretrain(
    plan: Plan, kind: str, source: str, *, steps: int, patients: int, seed: int = 0, network: Arrays | None = None
) -> Pretrained:
    """Weights for the start of stage `kind` and the loss of every step; deterministic in all arguments on a CPU.

    `network` are the weights that the plan's first stage pins, a codec's. Raises ConfigError for an unknown source, and
    for a stage that the plan does not have or that trains no weights; VerificationError for another network.
    """
    trainers = {kind: record.pretraining for kind, record in GENERATORS.items() if record.pretraining}
    if kind not in trainers or kind not in plan.candidates:
        raise ConfigError(f"stage '{kind}' is not one of the plan's that start from weights ({', '.join(trainers)})")
    cohorts = public_cohorts(plan, source, patients, seed)
    released = public_release(plan, cohorts, np.random.default_rng(seed), network)
    device, whitening = training_device(), whitening_of(plan, released)
    records = [values_of(whitening.records(cohort.images)) for cohort in cohorts.values()]
    components = torch.cat(
        [components_of(plan, site, torch.from_numpy(cohort.labels)) for site, cohort in cohorts.items()]
    )
    values = torch.from_numpy(np.concatenate(records))
    job = PublicJob(plan, released, whitening.to(device), values, components, device, steps)
    pretrained: Pretrained = import_named(trainers[kind])(job, TorchDraws(torch.Generator().manual_seed(seed)))
    return pretrained
