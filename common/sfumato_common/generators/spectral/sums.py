"""The sums that a release of moments noises, and what is read off them after the noise (see `layout` for the proof)."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sfumato_common.generators.spectral.moment_layout import Float64, MomentLayout
from sfumato_common.types import Arrays

AnyLayout = TypeVar("AnyLayout", bound=MomentLayout)
# Each measurement of a norm: at a noise multiplier of 4, 1,000 patients give it to a tenth.
NORM_WEIGHT = 0.08
# A measured norm may be this factor off its guess either way, is believed to be about half that far off before
# it is measured. A clip radius is the typical norm: on the phantom, what clipping loses is less than the noise saved.
NORM_RANGE, _NORM_PRIOR = math.log(4.0), 0.3


def patient_weights(patient_index: npt.NDArray[np.int64]) -> Float64:
    """Weights [M] of images of owners `patient_index` [M]: 1 over the owner's images, so that a patient counts once."""
    return np.asarray(1.0 / np.bincount(patient_index)[patient_index])


def in_unit_ball(vectors: Float64, radius: float) -> Float64:
    """Rows of [M, d] over `radius`, clipped to norm 1."""
    unit = vectors / radius
    return np.asarray(unit / np.maximum(1.0, np.linalg.norm(unit, axis=1, keepdims=True)))


def norms_part(vectors: Float64, guess: float, weights: Float64) -> Float64:
    """Sum over images of weight x NORM_WEIGHT [1, c] / sqrt2, [2], before noise: how far norms are from `guess`."""
    far = np.log(np.maximum(np.linalg.norm(vectors, axis=1), 1e-9) / guess) / NORM_RANGE
    both = np.column_stack([np.ones(len(vectors)), np.clip(far, -1.0, 1.0)])
    return np.asarray((both * weights[:, None]).sum(axis=0) * (NORM_WEIGHT / math.sqrt(2.0)))


def charged_norm(noised: Float64, guess: float, noise_multiplier: float) -> float:
    """A typical norm from `norms_part` after noise, drawn towards `guess` as far as the noise demands."""
    unit = NORM_WEIGHT / math.sqrt(2.0)
    count = max(float(noised[0]), 2.0 * noise_multiplier) / unit
    variance = (noise_multiplier / unit / count) ** 2
    found = float(np.clip(noised[1] / unit / count, -1.0, 1.0)) * _NORM_PRIOR**2 / (_NORM_PRIOR**2 + variance)
    return guess * math.exp(found * NORM_RANGE)


def main_noise(layout: MomentLayout, noise_multiplier: float) -> float:
    """Standard deviation of the noise on sums and moments: with the norms' share they cost one release."""
    return (
        noise_multiplier / math.sqrt(1.0 - layout.norms * NORM_WEIGHT**2) if layout.charged_radii else noise_multiplier
    )


def own_layout(layout: AnyLayout, release: Arrays, noise_multiplier: float) -> AnyLayout:
    """`layout` with the clip radii that a site's release was made with: the plan's, or those of its noised `norms`."""
    if not layout.charged_radii:
        return layout
    norms = release["norms"].astype(np.float64)
    mean_radius = charged_norm(norms[0], layout.mean_radius, noise_multiplier)
    return layout.with_radii(mean_radius, charged_norm(norms[1], layout.spread_radius, noise_multiplier))


def centre_part(layout: MomentLayout, features: Float64, weights: Float64) -> Float64:
    """Sum over images of weight x [v0, v1 f], [1 + d], before noise.

    With weights 1/m for each of a patient's m images this is that patient's contribution; over a cohort, their sum.
    """
    vectors = in_unit_ball(features, layout.mean_radius)
    shares = layout.weights
    both = np.column_stack([np.full(len(vectors), shares.total), shares.centre * vectors])
    return np.asarray((both * weights[:, None]).sum(axis=0))


def sums_part(
    layout: MomentLayout, features: Float64, labels: npt.NDArray[np.int64], weights: Float64, centre: Float64
) -> Float64:
    """Sum over images of weight x [w0, w1 a] about `centre` [d] in the class's row, [K, 1 + d], before noise."""
    vectors = in_unit_ball(features - centre, layout.spread_radius)
    contribution = (
        np.column_stack([np.full(len(vectors), layout.weights.count), layout.weights.sum * vectors]) * weights[:, None]
    )
    return np.stack([contribution[labels == k].sum(axis=0) for k in range(layout.classes)])


def moments_part(
    layout: MomentLayout, features: Float64, labels: npt.NDArray[np.int64], weights: Float64, means: Float64
) -> Float64:
    """Sum over images of weight x w2 triu_sqrt2(b b^T) about `means` [K, d], [K, d(d+1)/2], before noise."""
    row, column = np.triu_indices(layout.features)
    balance = layout.weights.moment * np.where(row == column, 1.0, math.sqrt(2.0))
    rows = []
    for k in range(layout.classes):
        vectors = in_unit_ball(features[labels == k] - means[k], layout.spread_radius)
        rows.append((vectors.T @ (vectors * weights[labels == k, None]))[row, column] * balance)
    return np.stack(rows)


def centre_of(layout: MomentLayout, noisy: Float64, noise_multiplier: float) -> Float64:
    """A centre [d] in feature units from the noised centre part, each ring of it shrunk as its noise demands."""
    total = max(float(noisy[0]), noise_multiplier) / layout.weights.total
    unit = layout.mean_radius / layout.weights.centre / total
    centre, noise = np.asarray(noisy[1:] * unit), noise_multiplier * unit
    for ring in np.unique(layout.rings):
        inside = layout.rings == ring
        centre[inside] *= max(0.0, 1.0 - noise**2 / max(float((centre[inside] ** 2).mean()), 1e-12))
    return np.asarray(in_unit_ball(centre[None], layout.mean_radius)[0] * layout.mean_radius)


def class_counts(layout: MomentLayout, noisy_sums: Float64, noise_multiplier: float) -> Float64:
    """Patients [K] of the noised sums [K, 1 + d]; a count that drowns in its noise is taken as that noise's size."""
    return np.asarray(np.maximum(noisy_sums[:, 0], noise_multiplier) / layout.weights.count)


def class_means(layout: MomentLayout, noisy_sums: Float64, centre: Float64, noise_multiplier: float) -> Float64:
    """Means [K, d] in feature units from the noised sums (post-processing); an absent class has about `centre`."""
    counts = class_counts(layout, noisy_sums, noise_multiplier)
    offsets = noisy_sums[:, 1:] * (layout.spread_radius / layout.weights.sum) / counts[:, None]
    return centre + in_unit_ball(offsets, layout.spread_radius) * layout.spread_radius
