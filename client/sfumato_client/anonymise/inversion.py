"""Codes of real images in a latent space, and images of codes: the site's side of whatever space an item names.

How a space encodes is its own (`latent.space`). Only `Inverter.codes` touches a record, and a code depends on its own
record alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from sfumato_client.anonymise.chunks import on_all_cores, rows_of_chunk, rows_that_fit
from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.influence import noise_of
from sfumato_client.dataset import Cohort
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import component_shares
from sfumato_common.generators.device import training_device
from sfumato_common.latent.space import Encoding, LatentSpace
from sfumato_common.memory import TILE
from sfumato_common.rows import fill_up
from sfumato_common.study.counted import Counted
from sfumato_common.study.release import Inverting
from sfumato_common.types import ByteImages, to_bytes, to_unit_range


@dataclass(frozen=True, eq=False)
class Inverter:
    """Images -> codes in `space`, by its `encoding`."""

    space: LatentSpace
    encoding: Encoding

    @property
    def device(self) -> torch.device:
        """Where the models are, and components for them must be."""
        return self.space.device

    def codes(self, images: ByteImages, components: Tensor) -> Tensor:
        """Codes [N, D], float32 on the CPU, of images [N, S, S(, 3)] of components [N]."""
        nobody = torch.zeros(0, self.space.dimension)
        return torch.cat([nobody, *on_all_cores(self._codes, self._batches(images, components), self.device)])

    def _codes(self, batch: tuple[Tensor, Tensor, int]) -> Tensor:
        x, y, count = batch
        return self.encoding(x.to(self.device), y.to(self.device))[:count].cpu()

    def _batches(self, images: ByteImages, components: Tensor) -> list[tuple[Tensor, Tensor, int]]:
        """Chunks of images in [-1, 1] and components, filled up, and how many of each are wanted."""
        size, batches = rows_of_chunk(len(images), self.space.image_bytes, self.device), []
        for rows in torch.split(torch.arange(len(images)), size)[: len(images)]:  # nobody has one empty part
            whole = fill_up(rows) if len(images) > TILE else rows
            batches.append((torch.from_numpy(to_unit_range(images[whole.numpy()])), components[whole], len(rows)))
        return batches


@dataclass(frozen=True, eq=False)
class SharedSpace:
    """The space in which all items of one model walk."""

    space: LatentSpace


@dataclass(frozen=True)
class Reconstruction:
    """How near images come to their originals: RMSE in units of [-1, 1], and the mean correlation of pixels."""

    rmse: float
    correlation: float


def reconstruction_report(inverter: Inverter, images: ByteImages, components: Tensor) -> dict[str, Reconstruction]:
    """Reconstructions of images [N, S, S(, 3)] that nothing was trained on, after each step of the encoding.

    A figure about records: it is for the site's own eyes.
    """
    squares: dict[str, list[Tensor]] = {}
    products: dict[str, list[Tensor]] = {}
    for batch, labels, count in inverter._batches(images, components):
        x, y = batch[:count].to(inverter.device), labels[:count].to(inverter.device)
        for step, w in inverter.encoding.stages(x, y).items():
            with torch.no_grad():
                seen = inverter.space.decode(w, y)
            squares.setdefault(step, []).append((seen - x).square().flatten(1).mean(dim=1).cpu())
            products.setdefault(step, []).append(functional.cosine_similarity(_centre(seen), _centre(x)).cpu())
    return {
        step: Reconstruction(float(torch.cat(squares[step]).mean().sqrt()), float(torch.cat(products[step]).mean()))
        for step in squares
    }


def _centre(images: Tensor) -> Tensor:
    rows = images.flatten(1)
    return rows - rows.mean(dim=1, keepdim=True)


def space_of(job: Job[Inverting]) -> LatentSpace:
    """The latent space of the item's model, from released arrays, on `training_device()`."""
    item = job.item

    def make() -> SharedSpace:
        space_of_model = GENERATORS[item.model].latent
        assert space_of_model is not None, "the plan inverts into latent spaces only"
        return SharedSpace(space_of_model(job.plan, job.models[item.model]).to(training_device()))

    return job.release.once(SharedSpace, (item.model,), make).space


def inverter_of(job: Job[Inverting]) -> Inverter:
    """The item's inverter, which learned from draws of the space alone, from a public seed."""
    item = job.item

    def make() -> Inverter:
        space, seed = space_of(job), int(job.plan.study_digest[:12], 16)
        shares = torch.as_tensor(component_shares(job.plan, job.models[job.plan.base], job.site))
        return Inverter(space, space.encoding(shares, seed, item.encoder_steps, item.refinement_steps))

    return job.release.once(Inverter, inverting_settings(item), make)


def inverting_settings(item: Inverting) -> tuple[object, ...]:
    """What decides which code a record gets under a component."""
    return item.model, item.encoder_steps, item.refinement_steps


def patient_labels(cohort: Cohort, classes: int) -> npt.NDArray[np.int64]:
    """Each patient's most frequent label [P], the lowest on a tie."""
    counts = np.zeros((cohort.patients, classes), dtype=np.int64)
    np.add.at(counts, (cohort.patient_index, cohort.labels), 1)
    return np.asarray(counts.argmax(axis=1), dtype=np.int64)


def code_of_patient(inverter: Inverter, cohort: Cohort, patient: int, component: Tensor) -> Tensor:
    """Mean code [D] of one patient's images, computed apart from anybody else's: the same bits in any cohort."""
    images, _ = cohort.images_of(patient)
    return inverter.codes(images, component.expand(len(images))).mean(dim=0)


def drawn_images(job: Job[Counted], space: LatentSpace, codes: Tensor, components: Tensor) -> ByteImages:
    """Images uint8 or uint16 [N, S, S(, 3)] of codes [N, D], with noise from the published stream.

    Without noise they would be smooth above the band, unlike what the generator was trained to make: means of five of
    the phantom's patients are then a little farther from real images in both distances (KID 0.0061 against 0.0060).
    """
    device = space.device
    made = []
    rows = rows_that_fit(space.image_bytes, device)
    for w, y in zip(*(torch.split(part.to(device), rows) for part in (codes, components)), strict=True):
        with torch.no_grad():
            made.append(space.decode(w, y, noise_of(space, y, job.streams.published)).cpu())
    return to_bytes(torch.cat(made).numpy(), job.plan.image.bits)
