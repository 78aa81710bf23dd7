"""CADP on a table (arXiv 2207.14625): latents of single records, clipped and noised, decoded to rows.

Scaled noised latents are standard normal again where the flow is right: with little noise a row is the record's own,
with much it is a sample of the flow. The scale is public, so it is post-processing.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sfumato_client.tabular.coding import Cells, Coder
from sfumato_client.tabular.histograms import refit_levels, shuffle, whole_counts
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.shares import Float64
from sfumato_client.tabular.train import one_hot
from sfumato_common.accounting.events import RandomisedResponse
from sfumato_common.accounting.pld import uniform_share
from sfumato_common.mechanisms.latent_noise import LatentMechanism
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream, Streams
from sfumato_common.tabular.inn import TableINN

_BATCH = 4096  # places


def mechanism_of(schema: TableSchema) -> LatentMechanism:
    """What a resolved schema does to the latents of its records."""
    release = schema.latents
    assert release is not None, "there are latents to be noised"
    assert release.radius is not None, "a resolved schema has its radius"
    width = Coder(schema.features).width
    return LatentMechanism(release.clip, release.radius, width, release.epsilon, release.noise_multiplier)


def anonymise(
    schema: TableSchema,
    flow: TableINN,
    cells: Cells,
    condition: Tensor,
    streams: Streams,
    recorder: NoiseRecorder,
    shares: Float64 | None = None,
) -> tuple[Cells, Tensor]:
    """Cells [rows, C] and conditions [rows] from those of training patients [P, C], [P]; what ran is in `recorder`.

    Patients are drawn at random into `rows` places, one place each at most; a place without one holds the zero latent
    and a condition drawn from all levels. Without a release of latents, those of rows are drawn from the prior.
    Conditions come in the `shares` of levels [K], where their noisy histogram was released.
    """
    coder, rows, count = Coder(schema.features), schema.rows, len(cells)
    secret, taken = streams.secret, min(rows, count)
    places = torch.from_numpy(secret.permutation(rows)[:taken])
    patients = torch.from_numpy(secret.permutation(count)[:taken])
    flow = flow.double()
    own = torch.from_numpy(secret.below(np.full(rows, schema.classes)))
    own[places] = condition[patients]
    with torch.no_grad():
        if schema.latents is None:
            z = streams.published.normal((rows, coder.width)).double()
        else:
            mechanism = mechanism_of(schema)
            vectors = torch.zeros(rows, coder.width, dtype=torch.float64)
            filled = torch.zeros(rows, 1, dtype=torch.bool)
            filled[places] = True
            vectors[places] = coder.encode(cells[patients.numpy()], secret)
            latents = torch.where(filled, _encode(schema, flow, vectors, own), 0.0)
            z = torch.from_numpy(mechanism.released(latents.numpy(), recorder) / mechanism.spread)
        under = _conditions(schema, own, streams.published, recorder, shares)
        return coder.decode(flow.inverse(z, one_hot(schema, under).double())), under


def prior_cells(schema: TableSchema, flow: TableINN, under: Tensor, published: PublishedStream) -> Cells:
    """Many cells [N, C] of the trained flow under conditions in the shares of `under`: what its columns look like."""
    times = -(-_BATCH // len(under))
    coder, many = Coder(schema.features), under.repeat(times)
    with torch.no_grad():
        z = published.normal((len(many), coder.width)).double()
        return coder.decode(flow.double().inverse(z, one_hot(schema, many).double()))


def _encode(schema: TableSchema, flow: TableINN, vectors: Tensor, condition: Tensor) -> Tensor:
    """Latents [rows, D] of every place, filled or not, in batches whose sizes follow from `rows` alone.

    The last bits of a product depend on how many are in a batch: with patients alone in it they would tell of others.
    """
    hot = one_hot(schema, condition).double()
    batches = zip(torch.split(vectors, _BATCH), torch.split(hot, _BATCH), strict=True)
    return torch.cat([flow(x, y)[0] for x, y in batches])


def _conditions(
    schema: TableSchema, own: Tensor, published: PublishedStream, recorder: NoiseRecorder, shares: Float64 | None
) -> Tensor:
    """The levels [rows] under which rows are decoded; `own` is looked at only where the condition is released."""
    if schema.decode == "histogram":
        assert shares is not None, "the condition's histogram was released"
        counts = whole_counts(shares, len(own))
        return torch.from_numpy(shuffle(np.repeat(np.arange(schema.classes), counts), published))
    if not schema.condition_is_released:
        return published.integers(schema.classes, len(own))
    released = own
    if schema.label_epsilon is not None:
        released = torch.from_numpy(recorder.randomised_response(own.numpy(), schema.classes, schema.label_epsilon))
    if schema.decode == "resampled":
        released = published.categorical(torch.from_numpy(_shares(schema, released)), len(own))
    return released if shares is None else torch.from_numpy(refit_levels(released.numpy(), shares, published))


def _shares(schema: TableSchema, released: Tensor) -> Float64:
    """Shares of all levels, with what randomised response added taken out; uniform when nothing is left."""
    shares = np.bincount(released.numpy(), minlength=schema.classes) / len(released)
    if schema.label_epsilon is not None:
        drawn = uniform_share(RandomisedResponse(schema.classes, schema.label_epsilon))
        shares = np.maximum(shares - drawn / schema.classes, 0.0)
    total = shares.sum()
    return shares / total if total > 0 else np.full(schema.classes, 1.0 / schema.classes)
