"""Local differential privacy in a flow's latent space: what DP-GLOW and CADP share, all but the labels.

A public number of places, each with the latent of one patient's record or with zero; every latent is clipped and noised
on its own, once, through the job's recorder. What follows, shrinking, drawing the other coordinates and decoding, uses
public numbers and released models alone, and is post-processing.

Coordinates. Latents are images again (whitening is ZCA, and a flow puts each latent where its pixels were; after a
codec or an appearance release, small images of codes, of which only the places of numbers are coordinates), so they are
taken to their DCT coefficients, an orthonormal change of basis, in the order in which the public power law of
`dct.public_scale` falls: coarsest frequency first, channels side by side. One definition for every architecture. On the
phantom at 32 px (flows of three levels, epsilon 10) holdout images decoded from the first 64 of 1024, the others
zero, are off by 0.194 (GLOW) and 0.205 (conditional INN) of the range's half, root mean square; from none by 0.288; and
from the first 64 of GLOW's last split by 0.289: near a flow's start those are every eighth pixel, and not coarse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sfumato_client.anonymise.contract import Job
from sfumato_client.anonymise.latent_report import latent_report, mechanism_of
from sfumato_common.files import write_atomic
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.components import component_shares, components_of, condition, labels_of
from sfumato_common.generators.device import training_device
from sfumato_common.generators.flow.matching import match_moments
from sfumato_common.generators.settings import white_form
from sfumato_common.generators.spectral.dct import public_scale
from sfumato_common.generators.whitening import whitening_of
from sfumato_common.mechanisms.draws import Draws
from sfumato_common.mechanisms.streams import PublishedStream, SecretStream
from sfumato_common.memory import TILE
from sfumato_common.rows import by_chunks
from sfumato_common.study.latents import Cadp, DpGlow, Latent
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, ByteImages, pixel_dtype, to_bytes, values_of

Float64 = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
_BLOCK_PIXELS = 2**20  # of latents that are drawn at once, which is part of what the streams mean


@dataclass(frozen=True, eq=False)
class Places:
    """The public number M of places: images [M, S, S(, 3)], labels [M], and whose they are [M], -1 where nobody's."""

    images: AnyArray
    labels: Labels
    patients: npt.NDArray[np.int64]

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """Whether a patient fills the place [M]."""
        return self.patients >= 0


def drawn_places(job: Job[Latent]) -> Places:
    """Training patients drawn without replacement into random places, one record each; never too few.

    A place without a patient is black, with a label drawn by the released shares, and its latent will be zero. Nothing
    but `patients`, which stays here, depends on the number of patients.
    """
    count, form = job.item.images, job.plan.image
    images, placed = np.zeros((count, *form.shape), dtype=pixel_dtype(form.bits)), np.full(count, -1, dtype=np.int64)
    secret = job.streams.secret
    labels = drawn_labels(job, secret)
    patients, order = secret.permutation(job.cohort.patients), secret.permutation(count)
    for patient, place in zip(patients.tolist(), order.tolist(), strict=False):
        mine, own = job.cohort.images_of(patient)
        chosen = secret.choice(len(own))
        images[place], labels[place], placed[place] = mine[chosen], own[chosen], patient
    return Places(images, labels, placed)


def drawn_labels(job: Job[Latent], draws: SecretStream | PublishedStream) -> Labels:
    """Labels [M] for the item's places, drawn by the released shares at this site: no record is read.

    From the secret stream where a patient's label may take a drawn one's place: which ones were drawn shows who came.
    """
    shares = torch.as_tensor(component_shares(job.plan, job.models[job.plan.base], job.site))
    return labels_of(job.plan, draws.categorical(shares, job.item.images).numpy())


def coarse_first(size: int, channels: int) -> npt.NDArray[np.int64]:
    """Order [D = C S S] of flat DCT coefficients [C, S, S]: as the public power law falls, then by row and channel."""
    law = np.broadcast_to(public_scale(size), (channels, size, size)).ravel()
    channel, down, _ = (index.ravel() for index in np.indices((channels, size, size)))
    # rounded: frequencies of one length must not be told apart by a sum's last bit
    return np.lexsort((channel, down, -np.round(law, 12)))


def codec_of(job: Job[Latent]) -> LatentCodec:
    """The codec of the item's model at this site, made once a release: matching moments takes thousands of draws."""
    model = job.item.model
    return job.release.once(LatentCodec, (model,), lambda: LatentCodec(job.plan, model, job.models[model], job.site))


class LatentCodec:
    """Images to rows of latents, coarsest coordinate first, and back, by a released flow (model `kind`) at one site.

    Both ways pass the whitening whose moments match the flow's samples (`matched`): as images are drawn, and so
    that a record's latents are standard normal where the flow's training displaced them.
    """

    def __init__(self, plan: Plan, kind: str, arrays: Arrays, site: str) -> None:
        flow_of = GENERATORS[kind].flow
        assert flow_of is not None, "the plan noises latents of flows only"
        flow, whitening = flow_of(plan, arrays), whitening_of(plan, arrays)
        own = components_of(plan, site, torch.arange(len(plan.labels))).tolist()
        self._device = training_device()
        self._whitening = match_moments(plan, whitening, flow, own).to(self._device)
        self._flow = flow.to(self._device)
        self._plan, self._site = plan, site
        order = coarse_first(whitening.form.size, whitening.form.channels)
        self._order = torch.from_numpy(order[np.isin(order, whitening.form.places)]).to(self._device)
        self._block = max(TILE, _BLOCK_PIXELS // plan.image.size**2)

    def encode(self, images: AnyArray, labels: Labels, keep: int, secret: SecretStream) -> Float64:
        """The `keep` coarsest latents [M, keep] of dequantised images [M, S, S(, 3)] with labels [M].

        Each row is of its own record: chunks are whole tiles, whoever is in them.
        """

        def latents(x: Tensor, y: Tensor) -> Tensor:
            u = self._whitening.white(x, y)
            return self._flat(self._flow(u, condition(self._plan, y))[0])[:, self._order[:keep]]

        rows = []
        for first in range(0, len(images), self._block):
            part = slice(first, first + self._block)
            values = torch.from_numpy(values_of(self._whitening.records(images[part])))
            x = self._whitening.spread(values, secret).to(self._device)
            rows.append(by_chunks(latents, x, self._components(labels[part])).cpu())
        return torch.cat(rows).double().numpy()

    def decode(self, rows: Float64, labels: Labels, draws: Draws) -> ByteImages:
        """Images [M, S, S(, 3)] of rows [M, m] under labels [M]; all coordinates after m are drawn from the prior."""
        keep, images = rows.shape[1], []

        def shown(latent: Tensor, own: Tensor, y: Tensor, *noise: Tensor) -> Tensor:
            z = self._flat(latent)
            z[:, self._order[:keep]] = own
            white = self._flow.inverse(self._image(z), condition(self._plan, y))
            return self._whitening.decode(white, y, *noise).nan_to_num(0.0).clamp(-1.0, 1.0)

        for first in range(0, len(rows), self._block):
            part = slice(first, first + self._block)
            y = self._components(labels[part])
            latent, noise = self._whitening.draw_latent(y, draws), self._whitening.draw_noise(len(y), draws)
            x = by_chunks(shown, latent, torch.from_numpy(rows[part]).to(latent), y, *noise)
            images.append(to_bytes(x.cpu().numpy(), self._plan.image.bits))
        return np.concatenate(images)

    def gains(self, item: Latent) -> Float64:
        """Factors [m] that give noised latents the prior's spread again, from public numbers.

        Of a released coordinate's variance s^2 + v, v is noise; with w = s^2 / (s^2 + v), the record's part of it, and
        the prior's temperature t there (as images are drawn; below 1 above the spectral band), it
        becomes w + (1 - w) t^2: all of the record where the noise is nothing, the prior where it is all.
        """
        mechanism = mechanism_of(item, len(self._order))
        temperature = self._whitening.temperature[self._order[: mechanism.width].cpu().numpy()]
        signal, noise = mechanism.signal**2, mechanism.noise**2
        share = signal / (signal + noise)
        return np.asarray(np.sqrt((share + (1.0 - share) * temperature**2) / (signal + noise)))

    def _components(self, labels: Labels) -> Tensor:
        return components_of(self._plan, self._site, torch.from_numpy(labels)).to(self._device)

    def _flat(self, v: Tensor) -> Tensor:
        matrix = self._whitening.matrix
        return (matrix @ v @ matrix.T).flatten(1)

    def _image(self, z: Tensor) -> Tensor:
        matrix = self._whitening.matrix
        return matrix.T @ z.view(len(z), *self._whitening.form.shape) @ matrix


def noised_latents(job: Job[DpGlow | Cadp], codec: LatentCodec, places: Places) -> Float64:
    """Rows [M, m] ready to decode: encoded, zero where no patient is, clipped and noised, shrunk to the prior.

    Leaves `latent_report` in the steward's folder.
    """
    item, dimensions = job.item, white_form(job.plan).numbers
    mechanism = mechanism_of(item, dimensions)
    rows = codec.encode(places.images, places.labels, mechanism.width, job.streams.secret)
    rows[~places.filled] = 0.0
    released = mechanism.released(rows, job.recorder) * codec.gains(item)
    if job.steward_folder is not None:
        report = latent_report(item, dimensions, job.plan.privacy.delta, len(job.plan.labels), job.plan.private)
        write_atomic(job.steward_folder / f"{item.method}-{item.model}.txt", report.text, mode=0o600)
    return released
