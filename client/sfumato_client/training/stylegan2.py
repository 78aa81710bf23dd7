"""StyleGAN2 stage at the site: the discriminator by DP-SGD; without privacy, both networks on local batches.

Under DP-SGD nothing else reads real images: the gradient penalty is on generated ones, nothing is augmented, and the
discriminator has no minibatch deviation. Generated images are public, so that they add no noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sfumato_client.training import StageJob
from sfumato_client.training.dp.batches import PatientBatch, patient_batches
from sfumato_client.training.dp.engines import private_engine
from sfumato_client.training.dp.proximal import Proximal
from sfumato_client.training.dp.step import PrivateGradient
from sfumato_common.errors import EgressRefused
from sfumato_common.generators.components import component_shares, components_of, condition, condition_width
from sfumato_common.generators.device import training_device
from sfumato_common.generators.gan.discriminator import fake_loss, real_loss
from sfumato_common.generators.stylegan2.discriminator import Discriminator
from sfumato_common.generators.stylegan2.displacement import BETAS
from sfumato_common.generators.stylegan2.generator import CODE, Generator
from sfumato_common.generators.stylegan2.networks import DISCRIMINATOR, GENERATOR, discriminator, generator
from sfumato_common.generators.stylegan2.noise import draw_noise
from sfumato_common.generators.stylegan2.settings import StyleGan2Stage
from sfumato_common.generators.stylegan2.training import PENALTY_EVERY, Recipe, Training, gradient_penalty
from sfumato_common.generators.update import UPDATE, pack_update
from sfumato_common.generators.weights import load_network, to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.streams import SecretStream, working_generator
from sfumato_common.types import Arrays


def train_networks(job: StageJob[StyleGan2Stage]) -> Arrays:
    """`local_steps` on what the plan lets sites train; the change of its weights."""
    return _train_both(job) if job.stage.sites_train == "both" else _train_discriminator(job)


def _load(job: StageJob[StyleGan2Stage], device: torch.device) -> tuple[Generator, Discriminator]:
    made = load_network(GENERATOR, generator, job.plan, job.inbound)
    judge = load_network(DISCRIMINATOR, discriminator, job.plan, job.inbound)
    return made.to(device), judge.to(device)


def _batches(job: StageJob[StyleGan2Stage]) -> Iterator[list[PatientBatch]]:
    form = (job.plan.image.channels, job.plan.image.size, job.plan.image.size)
    nominal = job.plan.sites[job.site].nominal_patients
    return patient_batches(job.cohort, job.stage, nominal, SecretStream(job.noise), form)


def _given(job: StageJob[StyleGan2Stage], batch: PatientBatch) -> Tensor:
    return condition(job.plan, components_of(job.plan, job.site, batch.labels))


def _train_discriminator(job: StageJob[StyleGan2Stage]) -> Arrays:
    """DP-SGD with a fixed number of generated images beside the patients, and a penalty on them now and then."""
    stage, plan, device = job.stage, job.plan, training_device()
    maker, judge = _load(job, device)
    shares = torch.from_numpy(component_shares(plan, job.inbound, job.site))
    # fakes are neither secret nor published, so that they may come from a fast generator, under a key of its own
    draws = TorchDraws(working_generator(job.noise))
    parameters = list(judge.parameters())
    optimiser = torch.optim.Adam(parameters, lr=stage.learning_rate, betas=BETAS)
    form = (plan.image.channels, plan.image.size, plan.image.size)
    engine = private_engine(judge, real_loss, stage.engine, (form, (condition_width(plan),)), job.ranks)
    private, proximal = PrivateGradient(job, engine), Proximal(parameters, stage.proximal)
    for step, batches in enumerate(_batches(job)):
        real = private(
            ((batch.images.to(device), _given(job, batch).to(device)), batch.weights.to(device)) for batch in batches
        )
        wanted = condition(plan, draws.categorical(shares, stage.fakes)).to(device)
        z, noise = draws.normal((stage.fakes, CODE)), draw_noise(plan.image.size, stage.fakes, draws)
        with torch.no_grad():
            fakes = maker(z.to(device), wanted, [part.to(device) for part in noise]).clamp(-1.0, 1.0)
        loss = fake_loss(judge, fakes, wanted).mean()
        if stage.penalty and step % PENALTY_EVERY == 0:
            loss = loss + 0.5 * stage.penalty * PENALTY_EVERY * gradient_penalty(judge, fakes, wanted).mean()
        fake = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, first, second in zip(parameters, proximal(real), fake, strict=True):
            parameter.grad = first if second is None else first + second
        optimiser.step()
    return {UPDATE: pack_update(job.inbound, to_arrays(DISCRIMINATOR, judge))}


def _train_both(job: StageJob[StyleGan2Stage]) -> Arrays:
    """The published training on this site's images; what leaves goes through a recorder that protects nothing.

    Raises EgressRefused where the charge is one of a private plan.
    """
    if job.recorder.protects:
        raise EgressRefused("both networks of a stylegan2 stage are trained without privacy, and this plan is private")
    stage, plan, device = job.stage, job.plan, training_device()
    shares = torch.from_numpy(component_shares(plan, job.inbound, job.site))
    draws = TorchDraws(working_generator(job.noise))
    augments = stage.augmentation == "adaptive"
    recipe = Recipe(stage.learning_rate, stage.penalty, stage.path_length, augments)
    training = Training(*_load(job, device), recipe, draws.on(device))
    for batches in _batches(job):
        rows = [
            (batch.images[kept], _given(job, batch)[kept])
            for batch in batches
            for kept in [batch.weights.flatten() > 0]
        ]
        images, given = (torch.cat(part).to(device) for part in zip(*rows, strict=True))
        if len(images):
            wanted = condition(plan, draws.categorical(shares, len(images))).to(device)
            training.step(images, given, wanted)
    after = {**to_arrays(GENERATOR, training.generator), **to_arrays(DISCRIMINATOR, training.discriminator)}
    flat = np.concatenate([(after[name] - job.inbound[name]).ravel() for name in sorted(after)])
    whole, moved, first = job.recorder.gaussian(flat, stage.clipping_norm, stage.noise_multiplier), {}, 0
    for name in sorted(after):
        value = job.inbound[name]
        moved[name] = np.asarray(value + whole[first : first + value.size].reshape(value.shape), np.float32)
        first += value.size
    return {UPDATE: pack_update(job.inbound, moved)}
