"""Training a stage's model on public procedural images, before any study: the start that a plan may then pin.

The study is played on the public images as far as it shapes what the model sees: every site gets a cohort of its own,
the spectral model is fitted to noised sums at the plan's noise multiplier, and the stage's model then learns without
privacy, because nothing here is anybody's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_common.errors import ConfigError
from sfumato_common.generators.build import initial_model, spectral_model, to_arrays
from sfumato_common.generators.components import component_shares, components_of, condition
from sfumato_common.generators.device import training_device
from sfumato_common.generators.displacement import GENERATOR_BETAS, SITE_BETAS
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.gan.w_space import draw_images, fake_loss, follow, real_loss
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Float64, Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.whitening import SpectralModel, dequantise
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import DEVICES, arrays
from sfumato_common.phantom.textures import textures
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, ByteImages, to_unit_range

SOURCES = ("phantom", "textures")
_BATCH = 64
_LEARNING_RATES = {"flow": 5e-4, "discriminator": 2e-4, "generator": 2e-4}


@dataclass(frozen=True)
class PublicCohort:
    """One site's public images: uint8 [N, S, S(, 3)], labels [N], patient_index [N]."""

    images: ByteImages
    labels: npt.NDArray[np.int64]
    patient_index: npt.NDArray[np.int64]


def public_cohorts(plan: Plan, source: str, patients: int, seed: int) -> dict[str, PublicCohort]:
    """`patients` fictional patients, or textures, for every site of the plan; phantom sites have devices of their own.

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
        device = sorted(DEVICES)[number % len(DEVICES)]
        images, shown, patient_index = arrays(seed, patients, form.size, f"public-{number}", device)
        if form.channels == 3:
            images = np.repeat(images[..., None], 3, axis=-1)
        found[site] = PublicCohort(images, _labels(plan, shown), patient_index)
    return found


def _labels(plan: Plan, opacity: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The plan's label of each phantom image: 'normal' where there is one, the others in turn for opacities."""
    normal = plan.labels.index("normal") if "normal" in plan.labels else 0
    others = np.array([k for k in range(len(plan.labels)) if k != normal])
    return np.where(opacity > 0, others[np.arange(len(opacity)) % len(others)], normal).astype(np.int64)


def public_spectral(plan: Plan, cohorts: dict[str, PublicCohort], rng: np.random.Generator) -> dict[str, AnyArray]:
    """The spectral model as the study would release it of these cohorts, named `spectral/...`; plain noise will do."""
    layout, sigma = Layout.of(plan), plan.spectral.noise_multiplier
    releases = {}

    def noised(part: Float64, sensitivity: float, noise_multiplier: float) -> Float64:
        return part + sensitivity * noise_multiplier * rng.standard_normal(part.shape)

    for site, cohort in cohorts.items():
        weights = 1.0 / np.bincount(cohort.patient_index)[cohort.patient_index]
        releases[site] = noised_release(layout, sigma, cohort.images, cohort.labels, weights, noised)
    return {f"spectral/{name}": value for name, value in fit_release(plan, releases).items()}


def pretrain(
    plan: Plan, kind: str, source: str, *, steps: int, patients: int, seed: int = 0
) -> tuple[dict[str, AnyArray], list[float]]:
    """Weights for the start of stage `kind` and the loss of every step; deterministic in all arguments on a CPU.

    Raises ConfigError for an unknown source, and for a stage that the plan does not have or that trains no weights.
    """
    if kind not in _TRAIN or kind not in {stage.kind for stage in plan.stages}:
        raise ConfigError(f"stage '{kind}' is not one of the plan's that start from weights ({', '.join(_TRAIN)})")
    cohorts = public_cohorts(plan, source, patients, seed)
    released = public_spectral(plan, cohorts, np.random.default_rng(seed))
    device = training_device()
    images = torch.from_numpy(to_unit_range(np.concatenate([cohort.images for cohort in cohorts.values()])))
    components = torch.cat(
        [components_of(plan, site, torch.from_numpy(cohort.labels)) for site, cohort in cohorts.items()]
    )
    job = _Job(plan, released, spectral_model(plan, released).to(device), images, components, device, steps)
    return _TRAIN[kind](job, TorchDraws(torch.Generator().manual_seed(seed)))


@dataclass(frozen=True)
class _Job:
    """What both trainers need; `images` [N, C, S, S] and `components` [N] stay where they are drawn from."""

    plan: Plan
    released: dict[str, AnyArray]
    spectral: SpectralModel
    images: Tensor
    components: Tensor
    device: torch.device
    steps: int

    def batch(self, draws: TorchDraws) -> tuple[Tensor, Tensor]:
        """Dequantised images and their components, drawn with replacement."""
        rows = draws.integers(len(self.images), _BATCH)
        images = dequantise(self.images[rows], draws, self.plan.image.bits)
        return images.to(self.device), self.components[rows].to(self.device)

    def model(self, name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Model `name` at its public start, and its optimiser."""
        model = initial_model(name, self.plan).to(self.device)
        betas = SITE_BETAS["flow"] if name == "flow" else GENERATOR_BETAS
        return model, torch.optim.Adam(model.parameters(), lr=_LEARNING_RATES[name], betas=betas)


def _flow(job: _Job, draws: TorchDraws) -> tuple[dict[str, AnyArray], list[float]]:
    flow, optimiser = job.model("flow")
    losses = []
    for _ in range(job.steps):
        images, components = job.batch(draws)
        white = job.spectral.encode(images, components)[0]
        loss = flow_loss(flow, white, condition(job.plan, components)).mean()
        losses.append(_descend(loss, flow, optimiser))
    return to_arrays("flow", flow.cpu()), losses


def _gan(job: _Job, draws: TorchDraws) -> tuple[dict[str, AnyArray], list[float]]:
    (generator, slow), (discriminator, fast) = job.model("generator"), job.model("discriminator")
    average = copy.deepcopy(generator)
    shares = torch.from_numpy(component_shares(job.plan, job.released))
    losses = []
    for _ in range(job.steps):
        images, components = job.batch(draws)
        drawn = draws.categorical(shares, _BATCH).to(job.device)
        given = condition(job.plan, drawn)
        fakes = draw_images(job.plan, generator, job.spectral, drawn, draws)
        real = real_loss(discriminator, images, condition(job.plan, components)).mean()
        losses.append(_descend(real + fake_loss(discriminator, fakes.detach(), given).mean(), discriminator, fast))
        _descend(functional.softplus(-discriminator(fakes, given)).mean(), generator, slow)
        follow(average, generator, job.steps)
    return {**to_arrays("generator", average.cpu()), **to_arrays("discriminator", discriminator.cpu())}, losses


def _descend(loss: Tensor, model: nn.Module, optimiser: torch.optim.Optimizer) -> float:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.detach())


_TRAIN: dict[str, Callable[[_Job, TorchDraws], tuple[dict[str, AnyArray], list[float]]]] = {
    "flow": _flow,
    "gan": _gan,
}
