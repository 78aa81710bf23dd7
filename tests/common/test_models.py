"""Models: sensitivity of the spectral release, exact densities, starts equal to the release, schemas, sampling."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plans import dp_sgd

from sfumato_common.errors import VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import NETWORKS
from sfumato_common.generators.components import component_shares, condition
from sfumato_common.generators.diffusion.denoiser import AdaptedDenoiser
from sfumato_common.generators.flow.flows import flow_loss
from sfumato_common.generators.flow.glow import Glow
from sfumato_common.generators.flow.matching import match_moments
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.schemas import weights_schema
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.generators.spectral.denoise import common_covariance, estimate_departure, shrink_means, symmetric
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import (
    CENTRE_SENSITIVITY,
    CENTRE_WEIGHT,
    COUNT_WEIGHT,
    MOMENT_WEIGHT,
    SUM_WEIGHT,
    SUMS_SENSITIVITY,
    TAIL_GUESS,
    TOTAL_WEIGHT,
    Layout,
    above_band,
    features_of,
)
from sfumato_common.generators.spectral.moment_layout import Geometry
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.sums import (
    NORM_WEIGHT,
    centre_part,
    charged_norm,
    in_unit_ball,
    moments_part,
    norms_part,
    sums_part,
)
from sfumato_common.generators.spectral.unclip import MOST_VARIANCE, MOST_WAY, unclip_variance, unclip_way
from sfumato_common.generators.spectral.whitening import (
    SpectralModel,
    bits_per_dim,
    dequantise,
    spectral_model,
    standard_normal_log_prob,
)
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.update import UPDATE, update_spec
from sfumato_common.generators.weights import load_network, to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes, to_unit_range

DP = dp_sgd(rounds=2)


def seeded(seed: int) -> TorchDraws:
    return TorchDraws(torch.Generator().manual_seed(seed))


def small_plan(size: int = 16, channels: int = 1, sigma: float = 0.01, labels: int = 2) -> Plan:
    value = {
        "study": "small",
        "image": {"size": size, "channels": channels},
        "labels": ["normal", "opacity", "other"][:labels],
        "sites": {"alder": {"nominal_patients": 100}, "birch": {"nominal_patients": 300}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "spread_radius": 3.0, "noise_multiplier": sigma},
            {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 4, **DP},
            {"kind": "flow", "levels": 2, "steps_per_level": 2, "hidden": 8, **DP},
            *([{"kind": "stylegan2", "channel_base": 128, "channel_max": 8, **DP}] if size in (16, 32, 64) else []),
        ],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def blobs(plan: Plan, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random images uint8 whose brightness depends on the label."""
    rng = np.random.default_rng(seed)
    size, channels = plan.image.size, plan.image.channels
    labels = rng.integers(0, len(plan.labels), count)
    matrix = dct_matrix(size)
    coefficients = rng.normal(size=(count, channels, size, size)) * public_scale(size)
    coefficients[:, :, 0, 0] += 0.2 * size * (labels[:, None] - 0.5)
    return to_bytes(matrix.T @ coefficients @ matrix), labels


def fitted(plan: Plan, count: int = 400) -> dict[str, np.ndarray]:
    images, labels = blobs(plan, count)
    layout = Layout.of(plan)
    release = noised_release(
        layout, plan.spectral.noise_multiplier, images, labels, np.ones(count), lambda part, s, m: part
    )
    return {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": release}).items()}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.sampled_from(["noise", "black", "white", "blobs"]))
def test_no_patient_contributes_more_than_the_sensitivity(seed, count, look):
    plan = small_plan()
    layout = Layout.of(plan)
    rng = np.random.default_rng(seed)
    images, labels = blobs(plan, count, seed)
    if look != "blobs":
        images = {"noise": rng.integers(0, 256, images.shape), "black": 0 * images, "white": 0 * images + 255}[look]
    weights, means = np.full(count, 1.0 / count), rng.normal(size=(2, layout.features)) * 10.0 ** rng.integers(-2, 3)
    features = features_of(layout, images.astype(np.uint8))
    assert np.linalg.norm(centre_part(layout, features, weights)) <= CENTRE_SENSITIVITY * (1 + 1e-9)
    assert np.linalg.norm(sums_part(layout, features, labels, weights, means[0])) <= SUMS_SENSITIVITY * (1 + 1e-9)
    assert np.linalg.norm(moments_part(layout, features, labels, weights, means)) <= MOMENT_WEIGHT * (1 + 1e-9)


def test_the_parts_cost_exactly_one_release():
    total = TOTAL_WEIGHT**2 + CENTRE_WEIGHT**2 + COUNT_WEIGHT**2 + SUM_WEIGHT**2 + MOMENT_WEIGHT**2
    assert total == pytest.approx(1.0, abs=1e-12)


def test_a_cohorts_sum_is_the_sum_of_its_patients():
    plan = small_plan()
    layout = Layout.of(plan)
    images, labels = blobs(plan, 30)
    patient_index = np.sort(np.random.default_rng(1).integers(0, 9, 30))
    patient_index = np.unique(patient_index, return_inverse=True)[1]
    weights = 1.0 / np.bincount(patient_index)[patient_index]
    features = features_of(layout, images)
    mine, centre = [patient_index == p for p in range(patient_index.max() + 1)], features.mean(axis=0)
    whole = sums_part(layout, features, labels, weights, centre)
    assert np.allclose(whole, sum(sums_part(layout, features[m], labels[m], weights[m], centre) for m in mine))
    whole = centre_part(layout, features, weights)
    assert np.allclose(whole, sum(centre_part(layout, features[m], weights[m]) for m in mine))


def test_moments_survive_packing():
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    matrix = matrix + matrix.T
    row, column = np.triu_indices(5)
    packed = matrix[row, column] * np.where(row == column, 1.0, math.sqrt(2.0))
    assert np.allclose(symmetric(packed[None], 5)[0], matrix)
    assert np.linalg.norm(packed) == pytest.approx(np.linalg.norm(matrix))


def covariance_noise(d: int, deviation: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.normal(size=(d, d)) * deviation / math.sqrt(2.0), 1)
    return upper + upper.T + np.diag(rng.normal(size=d) * deviation)


def wide_layout() -> Layout:
    return Layout(size=32, channels=1, bandwidth=12, classes=2, mean_radius=2.0, spread_radius=1.5)


def test_pure_noise_yields_only_the_prior():
    layout = wide_layout()
    geometry, deviation = Geometry.of(layout), 0.05
    unit, shown = np.sqrt(np.outer(layout.prior, layout.prior)), []
    for seed in range(6):
        noisy = np.diag(layout.prior) + covariance_noise(layout.features, deviation, seed)
        found = common_covariance(noisy, deviation, 1e9, layout, geometry)
        shown.append(found.shown.shape[1])
        error, before = (np.linalg.norm(matrix / unit - np.eye(len(unit))) for matrix in (found.matrix, noisy))
        assert error < 0.01 * before
    # the edge is an expectation, on both sides of the spectrum, so that directions of noise may pass it
    assert np.mean(shown) <= 3


def test_a_clear_direction_is_found_with_its_size_and_noise_is_not():
    layout = wide_layout()
    geometry, deviation = Geometry.of(layout), 0.002
    axis = np.zeros(layout.features)
    axis[[0, 2, 24, 26]] = 0.5  # even frequencies, as a mirror image has
    noisy = np.diag(layout.prior) + 0.5 * np.outer(axis, axis) + covariance_noise(layout.features, deviation)
    found = common_covariance(noisy, deviation, 1e9, layout, geometry)
    assert axis @ found.matrix @ axis == pytest.approx(0.5 + axis**2 @ layout.prior, rel=0.1)
    assert np.linalg.norm(found.shown.T @ axis) > 0.98
    error, before = (
        np.linalg.norm(value - np.diag(layout.prior) - 0.5 * np.outer(axis, axis)) for value in (found.matrix, noisy)
    )
    assert error < 0.3 * before


def test_a_few_patients_show_no_covariance_however_little_noise_there_is():
    layout = wide_layout()
    geometry, rng = Geometry.of(layout), np.random.default_rng(0)
    base = common_covariance(np.diag(layout.prior), 1e-9, 1e9, layout, geometry)
    sample = np.cov((rng.normal(size=(40, layout.features)) * np.sqrt(layout.prior)).T)
    known, taken = (estimate_departure(base, sample, 1e-9, patients, geometry).matrix for patients in (40.0, 1e9))
    unit = np.sqrt(np.outer(layout.prior, layout.prior))
    known, taken = (np.linalg.norm(matrix / unit - np.eye(len(unit))) for matrix in (known, taken))
    assert known < 0.2 * taken


def test_a_part_departs_only_where_it_clearly_differs():
    layout = wide_layout()
    geometry, deviation = Geometry.of(layout), 0.002
    base = common_covariance(np.diag(layout.prior), 1e-9, 1e9, layout, geometry)
    same = estimate_departure(
        base, base.matrix + covariance_noise(layout.features, deviation), deviation, 1e9, geometry
    )
    wider = estimate_departure(
        base, 1.8 * base.matrix + covariance_noise(layout.features, deviation), deviation, 1e9, geometry
    )
    assert np.trace(same.matrix) == pytest.approx(np.trace(base.matrix), rel=0.05)
    assert np.trace(wider.matrix) == pytest.approx(1.8 * np.trace(base.matrix), rel=0.05)
    assert np.linalg.eigvalsh(wider.matrix).min() > 0


@pytest.mark.parametrize("radius", [0.95, 1.0, 1.2])
def test_what_clipping_takes_of_a_gaussian_is_put_back(radius):
    rng, d = np.random.default_rng(0), 60
    variances = 0.9 ** np.arange(d)
    variances /= variances.sum()
    vectors = rng.normal(size=(20_000, d)) * np.sqrt(variances)
    clipped = in_unit_ball(vectors, radius) * radius
    values = np.linalg.eigvalsh(np.cov(clipped.T))
    times = unclip_variance(float(values.sum()), float((values**2).sum()), radius)
    assert values.sum() < 0.98
    assert times * values.sum() == pytest.approx(1.0, rel=0.05)
    offset = np.full(d, 0.5 / math.sqrt(d))
    mean = (in_unit_ball(vectors + offset, radius) * radius).mean(axis=0)
    way = unclip_way(float(np.linalg.norm(mean)), 1.0, float((variances**2).sum()), radius)
    assert np.linalg.norm(way * mean - offset) < 0.4 * np.linalg.norm(mean - offset) + 0.02


def test_no_noise_makes_clipping_have_taken_more_than_its_bounds():
    assert unclip_variance(5.0, 1.0, 1.0) == pytest.approx(1.0)  # more than can be left of clipped vectors
    assert 1.0 < unclip_variance(0.9, 0.81, 1.0) <= MOST_VARIANCE
    assert unclip_way(10.0, 1.0, 0.1, 0.5) == MOST_WAY
    assert unclip_variance(1e-3, 1e-7, 1.0) == 1.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(-6, 6))
def test_a_patients_part_in_the_norms_is_no_longer_than_its_weight(seed, count, decades):
    vectors = np.random.default_rng(seed).normal(size=(count, 5)) * 10.0**decades
    part = norms_part(vectors, 1.0, np.full(count, 1.0 / count))
    assert np.linalg.norm(part) <= NORM_WEIGHT * (1 + 1e-12)


def test_charged_radii_follow_the_features_and_stay_a_guess_in_noise():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(1000, 16)) / 4.0 * 0.5  # norms about 0.5
    part = norms_part(vectors, 2.0, np.ones(1000))
    assert charged_norm(part, 2.0, 1e-3) == pytest.approx(0.52, rel=0.05)
    few = norms_part(vectors[:3], 2.0, np.ones(3))
    drowned = [charged_norm(few + rng.normal(size=2) * 4.0, 2.0, 4.0) for _ in range(50)]
    assert 1.0 < min(drowned) <= max(drowned) < 4.0


def test_the_amplitude_above_the_band_is_measured_and_of_all_sites_together():
    value = small_plan(sigma=1e-3).model_dump()
    value["stages"][0] |= {"radii": "charged"}
    plan = parse(value, Plan, "test")
    layout, rng, releases = Layout.of(plan), np.random.default_rng(0), {}
    strengths = {"alder": 0.4, "birch": 1.2}
    matrix, law = dct_matrix(layout.size), public_scale(layout.size)
    for site, strength in strengths.items():
        images = matrix.T @ (rng.normal(size=(200, layout.size, layout.size)) * law * strength) @ matrix
        pixels = np.clip(np.rint((images + 1.0) * 127.5), 0, 255).astype(np.uint8)
        assert np.median(above_band(layout, pixels)) == pytest.approx(strength, rel=0.1)
        labels = np.arange(200) % 2
        releases[site] = noised_release(layout, 1e-3, pixels, labels, np.ones(200), lambda part, s, m: part)
    both = fit_release(plan, releases)["tail"]
    assert both == pytest.approx([math.hypot(0.4, 1.2) / math.sqrt(2)] * 2, rel=0.1)
    assert charged_norm(np.zeros(2), TAIL_GUESS, 4.0) == pytest.approx(TAIL_GUESS)


@pytest.mark.parametrize("radii", ["fixed", "charged"])
def test_all_draws_of_a_release_together_cost_the_plans_one(radii):
    plan = small_plan(sigma=0.8)
    layout = replace(Layout.of(plan), charged_radii=radii == "charged")
    images, labels = blobs(plan, 30)
    recorder = NoiseRecorder(TestNoise(1), "binding")
    release = noised_release(layout, 0.8, images, labels, np.ones(30), recorder.gaussian)
    (executed,) = recorder.executed
    assert executed.noise_multiplier == pytest.approx(0.8, rel=1e-9)
    assert ("norms" in release) == (radii == "charged")


def test_sites_of_their_own_keep_their_differences_and_an_absent_one_gets_the_classes():
    value = small_plan(sigma=1e-3).model_dump()
    value["stages"][0] |= {"by_site": True, "radii": "charged"}
    plan = parse(value, Plan, "test")
    layout, releases, truth = Layout.of(plan), {}, {}
    rng = np.random.default_rng(0)
    for site, brightness in (("alder", -60), ("birch", 60)):
        images, labels = blobs(plan, 300, seed=len(truth))
        images = np.clip(images.astype(np.int64) + brightness, 0, 255).astype(np.uint8)
        features = features_of(layout, images)
        truth[site] = np.stack([features[labels == k].mean(axis=0) for k in (0, 1)])
        releases[site] = noised_release(
            layout,
            1e-3,
            images,
            labels,
            np.ones(300),
            lambda part, s, m: part + s * m * rng.normal(size=part.shape),
        )
    model = fit_release(plan, releases)
    assert model["mean"].shape == (4, layout.features)
    for rows, site in ((slice(0, 2), "alder"), (slice(2, 4), "birch")):
        assert np.linalg.norm(model["mean"][rows] - truth[site]) < 0.25 * np.linalg.norm(
            truth["alder"] - truth["birch"]
        )
    alone = fit_release(plan, {"alder": releases["alder"]})
    assert np.allclose(alone["mean"][2:], alone["mean"][:2], atol=0.05)
    assert alone["shares"].sum() == pytest.approx(1.0)


def test_means_that_differ_by_noise_only_are_pulled_together():
    rng = np.random.default_rng(0)
    shares, noise = np.array([0.5, 0.5]), np.array([1.0, 1.0])
    ring = np.repeat([0, 1], 200)
    means = rng.normal(size=(2, 400))
    means[1, :200] += 20.0
    shrunk = shrink_means(means, shares, noise, ring)
    assert np.linalg.norm((shrunk[1] - shrunk[0])[200:]) < 0.4 * np.linalg.norm((means[1] - means[0])[200:])
    assert (shrunk[1] - shrunk[0])[:200].mean() == pytest.approx(20.0, abs=0.5)


@pytest.mark.parametrize("shares", [[0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [-1.0, 0.5]])
def test_a_model_that_gives_no_label_a_share_is_refused(shares):
    with pytest.raises(VerificationError, match="no label"):
        component_shares(small_plan(), {"spectral/shares": np.array(shares)})


@pytest.mark.parametrize("channels", [1, 3])
def test_fit_recovers_shares_means_and_covariance(channels):
    plan = small_plan(channels=channels, sigma=1e-4)
    layout = Layout.of(plan)
    images, labels = blobs(plan, 8000)
    model = fitted(plan, 8000)
    features = features_of(layout, images)
    assert component_shares(plan, model) == pytest.approx([np.mean(labels == 0), np.mean(labels == 1)], abs=1e-3)
    assert np.allclose(model["spectral/mean"][1], features[labels == 1].mean(axis=0), atol=2e-2)
    factor = model["spectral/factor"][0].astype(np.float64)
    true = np.cov(features[labels == 0].T)
    assert np.linalg.norm(factor @ factor - true) < 0.35 * np.linalg.norm(true)


def test_an_absent_class_stays_bounded_and_keeps_a_share():
    plan = small_plan(sigma=0.5)
    layout = Layout.of(plan)
    rng = np.random.default_rng(0)
    sums = rng.normal(size=(2, 1 + layout.features)) * 0.5
    sums[0, 0] += 300 * COUNT_WEIGHT
    centre, moments = (rng.normal(size=shape) * 0.5 for shape in (1 + layout.features, (2, layout.pairs)))
    release = {"centre": centre, "sums": sums, "moments": moments}
    model = fit_release(plan, {"alder": release})
    assert all(np.isfinite(value).all() for value in model.values())
    assert model["shares"].min() > 0.02
    assert np.linalg.norm(model["mean"], axis=1).max() <= layout.mean_radius * 1.01


@pytest.mark.parametrize("channels", [1, 3])
def test_spectral_model_inverts_and_its_determinant_is_the_jacobians(channels):
    plan = small_plan(channels=channels, labels=2)
    model = spectral_model(plan, fitted(plan)).double()
    y = torch.tensor([1, 0, 1])
    x = torch.rand(3, channels, 16, 16, dtype=torch.float64) * 2 - 1
    u, log_det = model.encode(x, y)
    assert torch.allclose(model.decode(u, y), x, atol=1e-4)
    if channels == 1:
        jacobian = torch.autograd.functional.jacobian(lambda v: model.encode(v, y[:1])[0], x[:1]).reshape(256, 256)
        assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(log_det[0].item(), rel=1e-4)


def test_float32_inversion_is_accurate():
    plan = small_plan(size=32)
    model = spectral_model(plan, fitted(plan))
    y = torch.tensor([0, 1])
    x = torch.rand(2, 1, 32, 32) * 2 - 1
    assert (model.decode(model.encode(x, y)[0], y) - x).abs().max() < 1e-4


def test_bits_per_dim_of_a_uniform_density_is_eight():
    # uniform over 256 bins of width 2/255
    assert bits_per_dim(torch.tensor([-100 * math.log(256 * 2 / 255)]), 100).item() == pytest.approx(8.0, abs=1e-5)


def test_dequantised_images_round_back():
    plan = small_plan()
    images, _ = blobs(plan, 4)
    spread = dequantise(torch.from_numpy(to_unit_range(images)), seeded(0))
    assert np.array_equal(to_bytes(spread.numpy() * (1 - 1e-7)), images)


def scrambled_flow(channels: int = 1) -> Glow:
    torch.manual_seed(0)
    flow = Glow(channels, 2, 2, 2, 8)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return flow


def test_a_displaced_flow_draws_the_released_moments_and_an_untrained_one_is_left_alone():
    plan = small_plan()
    spectral, y = spectral_model(plan, fitted(plan)), torch.tensor([0, 1]).repeat(400)
    idle = match_moments(plan, spectral, Glow(1, 2, 2, 2, 8), [0, 1])
    assert all(torch.allclose(own, left, atol=1e-5) for own, left in zip(idle.factors, spectral.factors, strict=True))
    assert torch.allclose(idle.mean, spectral.mean, atol=1e-5)
    flow = scrambled_flow()
    moved, rng = match_moments(plan, spectral, flow, [0, 1]), seeded(5)
    with torch.no_grad():
        white = flow.inverse(spectral.draw_latent(y, rng), condition(plan, y))
        before, after = (spectral.low(spectral.encode(model.decode(white, y), y)[0]) for model in (spectral, moved))
        assert torch.allclose(moved.decode(moved.encode(white, y)[0], y), white, atol=1e-3)
    assert float(before.mean(dim=0).abs().max()) > 0.3 > float(after.mean(dim=0).abs().max())
    assert (after.std(dim=0) - 1.0).abs().mean() < 0.3 * (before.std(dim=0) - 1.0).abs().mean()


def test_flow_inverts_to_1e_4_in_float32():
    flow = scrambled_flow()
    u, y = torch.randn(5, 1, 16, 16), torch.eye(2)[[0, 1, 1, 0, 1]]
    v, _ = flow(u, y)
    assert (v - u).abs().max() > 0.1
    assert (flow.inverse(v, y) - u).abs().max() < 1e-4


def test_flow_determinant_is_the_jacobians():
    flow = scrambled_flow().double()
    u, y = torch.randn(1, 1, 8, 8, dtype=torch.float64), torch.eye(2, dtype=torch.float64)[:1]
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value, y)[0], u).reshape(64, 64)
    assert torch.linalg.slogdet(jacobian)[1].item() == pytest.approx(flow(u, y)[1].item(), abs=1e-6)


def test_flow_starts_at_the_spectral_likelihood_and_at_its_samples():
    plan = small_plan()
    arrays = fitted(plan)
    spectral, flow = spectral_model(plan, arrays), initial_model("flow", plan)
    images, labels = blobs(plan, 6)
    x, y = torch.from_numpy(to_unit_range(images)), torch.from_numpy(labels)
    u, log_det = spectral.encode(x, y)
    v, more = flow(u, condition(plan, y))
    start = standard_normal_log_prob(v) + more + log_det
    assert torch.allclose(start, spectral.log_prob(x, y), rtol=1e-5)
    assert flow_loss(flow, u, condition(plan, y)).shape == (6,)
    both = {**arrays, **to_arrays("flow", flow)}
    drawn = [sample_images(plan, k, both, labels, seeded(3)) for k in ("spectral", "flow")]
    assert np.abs(drawn[0].astype(int) - drawn[1].astype(int)).max() <= 1


def test_generator_starts_at_the_spectral_samples():
    plan = small_plan()
    arrays = {**fitted(plan), **to_arrays("generator", initial_model("generator", plan))}
    labels = np.array([0, 1, 1])
    drawn = [sample_images(plan, k, arrays, labels, seeded(3)) for k in ("spectral", "gan")]
    assert np.abs(drawn[0].astype(int) - drawn[1].astype(int)).max() <= 1


def every_network() -> Plan:
    """The small plan with a stage of every network."""
    value = small_plan().model_dump(mode="json", exclude_none=True)
    value["stages"] += [
        {"kind": "codec", "noise_multiplier": 0.5, "form": {"size": 16, "cosines": 24, "kept": 8, "width": 8}},
        {"kind": "diffusion", "width": 16, "depth": 1, "sampling_steps": 3, **DP},
    ]
    return parse(value, Plan, "test")


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_models_have_no_buffers_and_couple_no_records(name):
    plan = every_network()
    model = initial_model(name, plan)
    assert not list(model.buffers())
    run = model
    x, y = torch.randn(4, 1, 16, 16), torch.eye(2)[[0, 1, 0, 1]]
    inputs: tuple[torch.Tensor, ...] = (x, y)
    if name == "generator":
        levels = model.resolutions
        inputs = (x, torch.randn(4, len(levels), 16), *(torch.randn(4, 1, r, r) for r in levels))
    if name == "stylegan2-generator":
        inputs = (torch.randn(4, 512), y)
    if name == "autoencoder":
        run, inputs = lambda images: model.decode(model.encode(images)), (x,)
    if name in {"denoiser", "adapter"}:
        # a new network says zero whatever it is given
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        run = model if name == "denoiser" else AdaptedDenoiser(initial_model("denoiser", plan), model)
        inputs = (x, torch.rand(4), y)
    whole, alone = run(*inputs), run(*(part[1:2] for part in inputs))
    first = whole[0] if isinstance(whole, tuple) else whole
    second = alone[0] if isinstance(alone, tuple) else alone
    assert torch.allclose(first[1:2], second, atol=1e-5)
    assert not torch.allclose(first[:1], first[1:2]), "it tells records apart"


def test_public_starts_are_the_same_everywhere_and_leave_the_global_generator_alone():
    plan = small_plan()
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    one = to_arrays("discriminator", initial_model("discriminator", plan))
    assert torch.rand(1) == before
    two = to_arrays("discriminator", initial_model("discriminator", plan))
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_schemas_name_what_the_models_have():
    plan = small_plan()
    spectral = fitted(plan)
    assert EXCHANGES["spectral"].released(plan).keys() == spectral.keys()
    assert all(spec.matches(spectral[name]) for name, spec in EXCHANGES["spectral"].released(plan).items())
    discriminator = to_arrays("discriminator", initial_model("discriminator", plan))
    updated = weights_schema(plan, {"discriminator": NETWORKS["discriminator"]})
    assert updated.keys() == discriminator.keys()
    assert all(spec.matches(discriminator[name]) for name, spec in updated.items())
    assert EXCHANGES["gan"].returned(plan) == {UPDATE: update_spec(updated)}
    assert EXCHANGES["spectral"].sent(plan) == {}
    assert not any(name.startswith(("generator/", "spectral/")) for name in updated)
    assert not any(name.startswith("discriminator/") for name in EXCHANGES["gan"].released(plan))
    assert {spec.dtype for kind in ("gan", "flow") for spec in EXCHANGES[kind].sent(plan).values()} == {"float32"}


@pytest.mark.parametrize("channels", [1, 3])
def test_samples_look_as_asked(channels):
    plan = small_plan(channels=channels)
    arrays = {**fitted(plan)}
    for name in ("generator", "flow"):
        arrays.update(to_arrays(name, initial_model(name, plan)))
    shape = (3, 16, 16) if channels == 1 else (3, 16, 16, 3)
    for kind in ("spectral", "gan", "flow"):
        images = sample_images(plan, kind, arrays, np.array([0, 1, 0]), seeded(0))
        assert images.dtype == np.uint8
        assert images.shape == shape
        empty = sample_images(plan, kind, arrays, np.zeros(0, dtype=np.int64), seeded(0))
        assert empty.shape == (0, *shape[1:])


def test_weights_that_do_not_fit_are_refused():
    plan = small_plan()
    arrays = to_arrays("flow", initial_model("flow", plan))
    name = next(iter(arrays))
    with pytest.raises(VerificationError, match="do not fit"):
        load_network("flow", NETWORKS["flow"], plan, {**arrays, name: np.zeros(99, dtype=np.float32)})
    with pytest.raises(VerificationError, match="missing"):
        spectral_model(plan, {})


def test_spectral_model_draws_the_released_mean():
    plan = small_plan()
    model: SpectralModel = spectral_model(plan, fitted(plan))
    drawn = model.sample(torch.ones(600, dtype=torch.int64), seeded(0))
    centre = model.decode(torch.zeros(1, 1, 16, 16), torch.tensor([1])).clamp(-1, 1)
    assert (drawn.mean(dim=0) - centre[0]).abs().mean() < 0.03


def test_a_whitened_image_does_not_depend_on_the_others_of_its_batch():
    plan = small_plan()
    model, draw = spectral_model(plan, fitted(plan)), torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 1, 16, 16, generator=draw), torch.arange(32) % 2
    white = model.encode(x, y)[0][5]
    others = torch.randn(32, 1, 16, 16, generator=draw)
    for labels in (torch.zeros(32, dtype=torch.int64), torch.ones(32, dtype=torch.int64)):
        batch, labels = others.clone(), labels.clone()
        batch[20], labels[20] = x[5], y[5]
        assert torch.equal(model.encode(batch, labels)[0][20], white)
