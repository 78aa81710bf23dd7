"""A diagonal and a few directions: every short cut agrees with the dense solver that it stands in for."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.structured import Structured, pairs_beyond, spectral_radius
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

FLOOR = 0.3


def covariance(features: int = 640, directions: int = 6, seed: int = 0) -> Structured:
    """One with eigenvalues far apart, and directions so narrow that the diagonal beneath them is negative."""
    rng = np.random.default_rng(seed)
    deviations = np.exp(0.5 * rng.normal(size=features) - 2.0 * np.arange(features) / features)
    narrow = rng.normal(size=(features, directions)) * np.exp(-np.arange(features) / 25.0)[:, None]
    shown, _ = np.linalg.qr(narrow)
    white = Structured.of_diagonal(np.ones(features)).plus(shown, np.linspace(15.0, -0.8, directions))
    return white.with_variances(np.ones(features)).raised(FLOOR).scaled(deviations)


def root_of(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values)) @ vectors.T


@pytest.mark.parametrize(("features", "directions"), [(640, 6), (90, 6), (640, 200)])
def test_roots_are_the_dense_solvers(features, directions):
    found = covariance(features, directions)
    assert (found.diagonal < 0).any()
    root, inverse = found.root().matrix, found.root(inverse=True).matrix
    expected = root_of(found.matrix)
    assert np.abs(root - expected).max() < 1e-6 * np.abs(expected).max()
    assert np.abs(root @ inverse - np.eye(features)).max() < 1e-5


def test_eigenvalues_are_lifted_and_nothing_else():
    features = 640
    rng = np.random.default_rng(1)
    shown, _ = np.linalg.qr(rng.normal(size=(features, 5)))
    low = Structured.of_diagonal(rng.uniform(0.5, 2.0, features)).plus(shown, np.array([9.0, 4.0, -0.9, -1.4, -2.0]))
    values, vectors = np.linalg.eigh(low.matrix)
    assert (values < FLOOR).sum() >= 2
    expected = (vectors * np.maximum(values, FLOOR)) @ vectors.T
    assert np.allclose(low.raised(FLOOR).matrix, expected, atol=1e-7)


def test_what_shows_nothing_stays_as_it_is():
    """A diagonal of ones has no direction before another: Lanczos among its eigenvalues would not end."""
    features = 700
    plain = Structured.of_diagonal(np.ones(features))
    assert plain.raised(FLOOR) is plain
    assert np.allclose(plain.root().matrix, np.eye(features), atol=1e-9)
    assert plain.extremes() == pytest.approx((1.0, 1.0))
    axis = np.eye(features)[:, :2]
    low = plain.plus(axis, np.array([-0.9, 3.0]))
    assert np.allclose(low.raised(FLOOR).variances, [FLOOR, 4.0, *np.ones(features - 2)], atol=1e-8)
    assert np.allclose(Structured.of_diagonal(np.where(axis[:, 0] > 0, 0.1, 1.0)).raised(FLOOR).variances.min(), FLOOR)
    nothing = np.zeros((features, features))
    assert spectral_radius(nothing) == 0.0 and len(pairs_beyond(nothing, 0.0)[0]) == 0


def test_more_pairs_are_looked_for_until_one_is_within():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(640, 640))
    matrix = (noise + noise.T) / np.sqrt(2.0 * 640)
    shown, _ = np.linalg.qr(rng.normal(size=(640, 30)))
    matrix += (shown * np.linspace(3.0, 8.0, 30)) @ shown.T
    values, vectors = pairs_beyond(matrix, 2.5)
    every = np.linalg.eigvalsh(matrix)
    assert len(values) == (np.abs(every) > 2.5).sum() == 30
    assert np.allclose(matrix @ vectors, vectors * values, atol=0.02)
    assert spectral_radius(matrix) == pytest.approx(np.abs(every).max(), rel=1e-3)


def test_products_extremes_and_compression():
    found, other = covariance(), covariance(seed=3)
    root = other.root()
    assert np.allclose(found.between(root).matrix, root.matrix @ found.matrix @ root.matrix, atol=1e-5)
    assert np.allclose(found.compressed().matrix, found.matrix, atol=1e-6)
    assert (found.compressed().diagonal > 0).all()
    values = np.linalg.eigvalsh(found.matrix)
    least, largest = found.extremes()
    assert largest == pytest.approx(values[-1], rel=1e-2) and abs(least - values[0]) < 1e-2 * values[-1]
    assert np.allclose(found.variances, np.diag(found.matrix))


@pytest.mark.slow
@pytest.mark.timeout(900)  # wall time; what is bounded is the processor's
def test_the_widest_band_in_colour_is_fitted_by_site_within_a_minute_of_a_core():
    sites = ("alder", "birch", "cedar")
    spectral = {"kind": "spectral", "bandwidth": 32, "clip_radius": 1.8, "spread_radius": 0.9, "noise_multiplier": 0.5}
    value = {
        "study": "wide",
        "image": {"size": 64, "channels": 3},
        "labels": ["normal", "retinopathy"],
        "sites": {site: {"nominal_patients": 240} for site in sites},
        "privacy": {"epsilon": 50.0, "delta": 1e-5},
        "stages": [{**spectral, "radii": "charged", "by_site": True}],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    plan = parse(value, Plan, "test")
    layout, releases, rng = Layout.of(plan), {}, np.random.default_rng(1)

    def gaussian(part, sensitivity, multiplier):
        # numpy's: the recorder takes minutes for thirty million numbers, and its noise is not what is measured
        return part + rng.normal(size=part.shape) * sensitivity * multiplier

    for site in sites:
        images, labels, patients = arrays(7, 240, 64, site, modality="fundus")
        releases[site] = noised_release(layout, 0.5, images, labels, patient_weights(patients), gaussian)
    began = time.process_time()
    model = fit_release(plan, releases)
    seconds = time.process_time() - began
    print(f"{layout.features} features, {len(model['factor'])} components: {seconds:.0f} processor seconds")
    assert layout.features == 3072 and seconds < 60.0
    assert all(np.linalg.eigvalsh(factor)[0] > 0 for factor in model["factor"][:1])
