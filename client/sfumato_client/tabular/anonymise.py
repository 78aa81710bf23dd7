"""CADP on a table (arXiv 2207.14625): latents of single records, clipped and noised, decoded to rows.

Scaled noised latents are standard normal again where the flow is right: with little noise a row is the record's own,
with much it is a sample of the flow. The scale is public, so it is post-processing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sfumato_client.tabular.coding import Cells, Coder
from sfumato_client.tabular.schema import LatentNoise, TableSchema
from sfumato_client.tabular.train import one_hot
from sfumato_common.accounting.events import RandomisedResponse
from sfumato_common.accounting.pld import uniform_share
from sfumato_common.mechanisms.record_recorder import RecordRecorder
from sfumato_common.tabular.inn import TableINN


@dataclass(frozen=True)
class SignalToNoise:
    """How much of a released latent is the record's, if latents are standard normal: public, computed from the schema.

    Standard deviations of a clipped latent coordinate and of its noise, and the correlation of a coordinate with its
    record's own.
    """

    signal: float
    noise: float

    @property
    def correlation(self) -> float:
        """Of a released coordinate with the record's own."""
        return self.signal / math.hypot(self.signal, self.noise)


def signal_to_noise(release: LatentNoise, width: int) -> SignalToNoise:
    """Of latents [N, `width`] under a resolved mechanism."""
    assert release.radius is not None, "a resolved schema has its radius"
    if release.clip == "l1":
        signal = min(1.0, release.radius / (width * math.sqrt(2.0 / math.pi)))
    elif release.clip == "l2":
        signal = min(1.0, release.radius / math.sqrt(width))
    else:
        signal = min(1.0, release.radius)
    diameter = 2.0 * release.radius * (width if release.clip == "elementwise" else 1)
    if release.epsilon is not None:
        return SignalToNoise(signal, math.sqrt(2.0) * diameter / release.epsilon)
    assert release.noise_multiplier is not None, "a resolved schema has its mechanism"
    return SignalToNoise(signal, release.noise_multiplier * diameter)


def anonymise(
    schema: TableSchema, flow: TableINN, cells: Cells, condition: Tensor, rng: torch.Generator, recorder: RecordRecorder
) -> tuple[Cells, Tensor]:
    """Cells [rows, C] and conditions [rows] from those of training patients [P, C], [P]; what ran is in `recorder`.

    Patients are drawn at random into `rows` places, one place each at most; a place without one holds the zero latent
    and a condition drawn from all levels.
    """
    coder, rows, count = Coder(schema.features), schema.rows, len(cells)
    places = torch.randperm(rows, generator=rng)[: min(rows, count)]
    patients = torch.randperm(count, generator=rng)[: min(rows, count)]
    flow = flow.double()
    latents = torch.zeros(rows, coder.width, dtype=torch.float64)
    own = torch.randint(schema.classes, (rows,), generator=rng)
    own[places] = condition[patients]
    with torch.no_grad():
        encoded = coder.encode(cells[patients.numpy()], rng)
        latents[places] = flow(encoded, one_hot(schema, condition[patients]).double())[0]
        noised = _noised(schema.release, latents, recorder)
        under = _conditions(schema, own, rng, recorder)
        ratio = signal_to_noise(schema.release, coder.width)
        z = noised / math.hypot(ratio.signal, ratio.noise)
        return coder.decode(flow.inverse(z, one_hot(schema, under).double())), under


def _noised(release: LatentNoise, latents: Tensor, recorder: RecordRecorder) -> Tensor:
    assert release.radius is not None, "a resolved schema has its radius"
    if release.epsilon is not None:
        return torch.from_numpy(recorder.laplace(latents.numpy(), release.radius, release.epsilon, release.clip))
    assert release.noise_multiplier is not None, "a resolved schema has its mechanism"
    return torch.from_numpy(recorder.gaussian(latents.numpy(), release.radius, release.noise_multiplier))


def _conditions(schema: TableSchema, own: Tensor, rng: torch.Generator, recorder: RecordRecorder) -> Tensor:
    """The levels [rows] under which rows are decoded; `own` is looked at only where the condition is released."""
    if not schema.condition_is_released:
        return torch.randint(schema.classes, own.shape, generator=rng)
    released = own
    if schema.label_epsilon is not None:
        released = torch.from_numpy(recorder.randomised_response(own.numpy(), schema.classes, schema.label_epsilon))
    if schema.decode == "same":
        return released
    shares = torch.from_numpy(_shares(schema, released))
    return torch.multinomial(shares, len(own), replacement=True, generator=rng)


def _shares(schema: TableSchema, released: Tensor) -> np.ndarray:
    """Shares of all levels, with what randomised response added taken out; uniform when nothing is left."""
    shares = np.bincount(released.numpy(), minlength=schema.classes) / len(released)
    if schema.label_epsilon is not None:
        drawn = uniform_share(RandomisedResponse(schema.classes, schema.label_epsilon))
        shares = np.maximum(shares - drawn / schema.classes, 0.0)
    total = shares.sum()
    return shares / total if total > 0 else np.full(schema.classes, 1.0 / schema.classes)
