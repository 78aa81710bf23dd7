"""Inversion: codes of real images in the generator's W space (ReStyle: Alaluf et al. 2021; refined by Adam).

The encoder is trained on pairs that the released generator draws, (w, G(w)), and on nothing else: it is post-processing
of what was released, the same at every site that uses the same seed. Only `Inverter.codes` touches a record, and a
code depends on its own record alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfumato_client.anonymise.chunks import GRAIN, fill_up, on_all_cores, rows_of_chunk, rows_that_fit
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.influence import noise_of
from sfumato_client.dataset import Cohort
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import component_shares
from sfumato_common.generators.device import training_device
from sfumato_common.generators.gan.w_space import WSpace
from sfumato_common.latent.encoder import Encoder
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.study.release import Counted, Inverting
from sfumato_common.types import ByteImages, to_bytes, to_unit_range

# The encoder's were chosen on generated pairs. For the phantom's generator the mean code starts at an RMSE of 0.40, the
# closed form at 0.086, and 300 steps bring it to 0.05.
_ITERATIONS = 5
_BATCH = 8
_LEARNING_RATE = 2e-3
_CODE_WEIGHT = 1.0
_REFINEMENT_RATE = 0.05
# Adam takes a whole step along a gradient that is nothing but rounding, which depends on the batch, unless this is
# added to its length. Squares are summed over a record's pixels, so that gradients that matter are far larger.
_REFINEMENT_EPSILON = 1e-3
# Of an inverted record's spectral image, in standard deviations of each coefficient by the public power law. On the
# phantom at 32 px the error of a reconstruction is 0.106 in closed form, 0.1015 refined, 0.1027 refined and clipped.
LARGEST_CHANGE = 0.25


@dataclass(frozen=True, eq=False)
class Inverter:
    """Images -> codes in `space`, by the closed form, `encoder` and at most `refinement_steps` of Adam."""

    space: WSpace
    encoder: nn.Module
    refinement_steps: int

    @property
    def device(self) -> torch.device:
        """Where the models are, and components for them must be."""
        return self.space.spectral.matrix.device

    def codes(self, images: ByteImages, components: Tensor) -> Tensor:
        """Codes [N, D], float32 on the CPU, of images [N, S, S(, 3)] of components [N]."""
        nobody = torch.zeros(0, self.space.spectral.mean.shape[1])
        return torch.cat([nobody, *on_all_cores(self._codes, self._batches(images, components), self.device)])

    def _codes(self, batch: tuple[Tensor, Tensor, int]) -> Tensor:
        x, y, count = batch
        x, y = x.to(self.device), y.to(self.device)
        refined = self._refine(x, self._encode(x, y), y)
        return clip_codes(self.space, self.space.code_of(x, y), refined, y)[:count].cpu()

    def _batches(self, images: ByteImages, components: Tensor) -> list[tuple[Tensor, Tensor, int]]:
        """Chunks of images in [-1, 1] and components, filled up, and how many of each are wanted."""
        size, batches = rows_of_chunk(len(images), self.space.image_bytes, self.device), []
        for rows in torch.split(torch.arange(len(images)), size)[: len(images)]:  # nobody has one empty part
            whole = fill_up(rows) if len(images) > GRAIN else rows
            batches.append((torch.from_numpy(to_unit_range(images[whole.numpy()])), components[whole], len(rows)))
        return batches

    def _encode(self, x: Tensor, components: Tensor) -> Tensor:
        with torch.no_grad():
            goal = self.space.code_of(x, components)
            w = goal
            for _ in range(_ITERATIONS):
                w = w + _step_of(self, x, self.space.synthesis(w, components), goal, components)
        return w

    def _refine(self, x: Tensor, w: Tensor, components: Tensor) -> Tensor:
        w = w.clone().requires_grad_()
        optimiser = torch.optim.Adam([w], lr=_REFINEMENT_RATE, eps=_REFINEMENT_EPSILON)
        for step in range(self.refinement_steps):
            optimiser.param_groups[0]["lr"] = _REFINEMENT_RATE * (1.0 - step / self.refinement_steps)
            optimiser.zero_grad()
            # a sum of losses that each record has to itself: Adam is elementwise, so no record moves another's code
            with torch.enable_grad():
                loss = (self.space.synthesis(w, components) - x).square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        return w.detach()


def clip_codes(space: WSpace, closed: Tensor, codes: Tensor, components: Tensor) -> Tensor:
    """Codes [N, D] whose spectral images differ from those of `closed` [N, D] by a public radius at most.

    The radius is LARGEST_CHANGE deviations of the public power law, in every DCT coefficient. The closed form decodes
    to the record's own band whatever the spectral model is, and it is linear; what encoder and refinement add is
    neither, and a crafted model could lead it anywhere.
    """
    spectral = space.spectral
    limit = LARGEST_CHANGE * torch.as_tensor(spectral.layout.prior, dtype=torch.float32).sqrt().to(codes.device)
    change = spectral.features_from(codes - closed, components)
    clipped = change.clamp(-limit, limit).nan_to_num(0.0)
    within = (clipped == change).all(dim=1, keepdim=True)
    return torch.where(within, codes, closed + spectral.whiten(clipped, components))


@dataclass(frozen=True)
class Reconstruction:
    """How near images come to their originals: RMSE in units of [-1, 1], and the mean correlation of pixels."""

    rmse: float
    correlation: float


def reconstruction_report(inverter: Inverter, images: ByteImages, components: Tensor) -> dict[str, Reconstruction]:
    """Reconstructions of images [N, S, S(, 3)] that nothing was trained on, after each of the three steps of inversion.

    A figure about records: it is for the site's own eyes.
    """
    squares, products = torch.zeros(3, len(images)), torch.zeros(3, len(images))
    start = 0
    for batch, labels, count in inverter._batches(images, components):
        x, y = batch[:count].to(inverter.device), labels[:count].to(inverter.device)
        encoded = inverter._encode(x, y)
        for step, w in enumerate((inverter.space.code_of(x, y), encoded, inverter._refine(x, encoded, y))):
            with torch.no_grad():
                seen = inverter.space.synthesis(w, y)
            rows = slice(start, start + len(x))
            squares[step, rows] = (seen - x).square().flatten(1).mean(dim=1).cpu()
            products[step, rows] = functional.cosine_similarity(_centre(seen), _centre(x)).cpu()
        start += len(x)
    return {
        name: Reconstruction(float(square.mean().sqrt()), float(product.mean()))
        for name, square, product in zip(("closed form", "encoder", "refined"), squares, products, strict=True)
    }


def _centre(images: Tensor) -> Tensor:
    rows = images.flatten(1)
    return rows - rows.mean(dim=1, keepdim=True)


def _step_of(inverter: Inverter, x: Tensor, seen: Tensor, goal: Tensor, components: Tensor) -> Tensor:
    """E([x, G(w)]) [N, D]; `goal` is the closed-form code of x."""
    gap = goal - inverter.space.code_of(seen, components)
    step: Tensor = inverter.encoder(torch.cat([x, seen], dim=1), gap, components)
    return step


def space_of(job: Job[Inverting]) -> WSpace:
    """The W space of the item's model, from released arrays, on `training_device()`."""
    item = job.item

    def make() -> WSpace:
        space_of_model = GENERATORS[item.model].latent
        assert space_of_model is not None, "the plan inverts into W spaces only"
        return space_of_model(job.plan, job.models[item.model]).to(training_device())

    return job.release.once(WSpace, (item.model,), make)


def inverter_of(job: Job[Inverting]) -> Inverter:
    """The item's inverter, trained on generated pairs only, from a public seed."""
    item = job.item

    def make() -> Inverter:
        rng = torch.Generator().manual_seed(int(job.plan.digest[:12], 16))
        encoder = Encoder(job.plan, rng).to(training_device())
        inverter = Inverter(space_of(job), encoder, item.refinement_steps)
        shares = torch.as_tensor(component_shares(job.plan, job.models["spectral"], job.site))
        _train(inverter, shares, item.encoder_steps, rng)
        encoder.requires_grad_(False)
        return inverter

    return job.release.once(Inverter, inverting_settings(item), make)


def inverting_settings(item: Inverting) -> tuple[object, ...]:
    """What decides which code a record gets under a component."""
    return item.model, item.encoder_steps, item.refinement_steps


def _train(inverter: Inverter, shares: Tensor, steps: int, rng: torch.Generator) -> None:
    """Adam on E: one residual iteration a step, a fresh batch after the last iteration."""
    space, device, draws = inverter.space, inverter.device, TorchDraws(rng)
    optimiser = torch.optim.Adam(inverter.encoder.parameters(), lr=_LEARNING_RATE)
    for step in range(steps):
        if step % _ITERATIONS == 0:
            y = draws.categorical(shares, _BATCH).to(device)
            with torch.no_grad():
                z, noise = space.draw(y, draws)
                true = space.mapping(z, y)
                x = space.synthesis(true, y, noise)
                goal = w = space.code_of(x, y)
                seen = space.synthesis(w, y)
        optimiser.param_groups[0]["lr"] = _LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        w = w + _step_of(inverter, x, seen, goal, y)
        seen = space.synthesis(w, y)
        loss = (seen - x).square().mean() + _CODE_WEIGHT * (w - true).square().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        w, seen = w.detach(), seen.detach()


def patient_labels(cohort: Cohort, classes: int) -> npt.NDArray[np.int64]:
    """Each patient's most frequent label [P], the lowest on a tie."""
    counts = np.zeros((cohort.patients, classes), dtype=np.int64)
    np.add.at(counts, (cohort.patient_index, cohort.labels), 1)
    return np.asarray(counts.argmax(axis=1), dtype=np.int64)


def code_of_patient(inverter: Inverter, cohort: Cohort, patient: int, component: Tensor) -> Tensor:
    """Mean code [D] of one patient's images, computed apart from anybody else's: the same bits in any cohort."""
    images, _ = cohort.images_of(patient)
    return inverter.codes(images, component.expand(len(images))).mean(dim=0)


def drawn_images(job: Job[Counted], space: WSpace, codes: Tensor, components: Tensor) -> ByteImages:
    """Images uint8 or uint16 [N, S, S(, 3)] of codes [N, D], with noise from the published stream.

    Without noise they would be smooth above the band, unlike what the generator was trained to make: means of five of
    the phantom's patients are then a little farther from real images in both distances (KID 0.0061 against 0.0060).
    """
    device = space.spectral.matrix.device
    made = []
    rows = rows_that_fit(space.image_bytes, device)
    for w, y in zip(*(torch.split(part.to(device), rows) for part in (codes, components)), strict=True):
        with torch.no_grad():
            made.append(space.synthesis(w, y, noise_of(space, y, job.streams.published)).cpu())
    return to_bytes(torch.cat(made).numpy(), job.plan.image.bits)
