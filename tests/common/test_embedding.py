"""Mean embeddings: sensitivity by search, features of one image alone, what noise may not move, a fit that nears."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.encoders import terms_for, tiny_encoder

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.generators.components import component_count
from sfumato_common.generators.embedding.features import (
    COUNT_WEIGHT,
    FEATURE_WEIGHT,
    SENSITIVITY,
    Embedding,
    embedding_sums,
    unit_of,
)
from sfumato_common.generators.embedding.fit import fit_generator, targets
from sfumato_common.generators.embedding.scattering import group_sizes, scattering
from sfumato_common.generators.gan.w_space import draw_images
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_unit_range

SIZE = 16


def plan_of(channels: int = 1, by_site: bool = False, steps: int = 40, width: int = 8, given: bool = False) -> Plan:
    spectral = {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": 0.5, "by_site": by_site}
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.1, "clipping_norm": 1.0, "learning_rate": 1e-3}
    encoder = {"encoder": "tiny"} if given else {}
    terms = terms_for(b"", "resnet18", size=SIZE).model_dump()
    value = {
        **({"encoders": {"tiny": terms}} if given else {}),
        "study": "small",
        "image": {"size": SIZE, "channels": channels},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 100}, "birch": {"nominal_patients": 300}},
        "privacy": {"epsilon": 50.0, "delta": 1e-5},
        "stages": [
            spectral,
            {"kind": "embedding", "noise_multiplier": 0.01, "generator_steps": steps, "width": width, **encoder},
            {"kind": "gan", "width": 8, "noise_multiplier": 2.0, **dp},
        ],
        "release": [{"model": "embedding", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def spectral_arrays(plan: Plan, spread: float = 0.3) -> dict[str, np.ndarray]:
    layout, count = Layout.of(plan), component_count(plan)
    d = layout.features
    arrays = {
        "shares": np.full(count, 1.0 / count),
        "mean": np.linspace(-0.4, 0.4, count)[:, None] * np.eye(d)[:1],
        "factor": np.stack([np.eye(d)] * count) * spread,
        "signal": np.stack([np.eye(d)] * count),
        "tail": np.ones(count),
    }
    return {f"spectral/{name}": value.astype(np.float32) for name, value in arrays.items()}


def images_of(seed: int, count: int, look: str, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (count, SIZE, SIZE) if channels == 1 else (count, SIZE, SIZE, 3)
    if look == "flat":
        return np.broadcast_to(rng.integers(0, 256, (count, *[1] * (len(shape) - 1))), shape).astype(np.uint8)
    images = rng.integers(0, 256, shape)
    return (images if look == "noise" else 255 * (images > 127)).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.sampled_from(["noise", "black-white", "flat"]),
    st.sampled_from([1, 3]),
    st.booleans(),
    st.sampled_from([1e-4, 0.3, 1e3]),
)
def test_adding_a_patient_never_moves_the_sums_by_more_than_the_sensitivity(seed, count, look, channels, by_site, wide):
    """Whatever the patient's images, their number and labels, and whatever spectral model the coordinator sent."""
    plan = plan_of(channels, by_site)
    rng = np.random.default_rng(seed)
    inbound = spectral_arrays(plan, wide)
    others, mine = images_of(seed + 1, 3, "noise", channels), images_of(seed, count, look, channels)
    labels, own = rng.integers(0, 2, 3), rng.integers(0, 2, count)
    before = embedding_sums(plan, "birch", inbound, others, labels, np.ones(3))
    after = embedding_sums(
        plan,
        "birch",
        inbound,
        np.concatenate([mine, others]),
        np.concatenate([own, labels]),
        np.concatenate([np.full(count, 1.0 / count), np.ones(3)]),
    )
    assert np.linalg.norm(after - before) <= SENSITIVITY * (1 + 1e-9)


@pytest.mark.parametrize("wide", [1e-4, 0.3, 1e3])
@pytest.mark.parametrize("factor", [1.0, 1e30])
def test_the_sensitivity_is_the_same_in_a_given_encoders_features_whatever_they_are(wide, factor):
    plan, encoder = plan_of(channels=3, given=True), tiny_encoder()
    encoder.network.conv.weight.mul_(factor)  # features without bound, as no published network has them
    inbound = spectral_arrays(plan, wide)
    others, mine = images_of(1, 3, "noise", 3), images_of(2, 4, "black-white", 3)
    labels, own = np.array([0, 1, 1]), np.array([0, 1, 1, 0])
    before = embedding_sums(plan, "birch", inbound, others, labels, np.ones(3), encoder)
    after = embedding_sums(
        plan,
        "birch",
        inbound,
        np.concatenate([mine, others]),
        np.concatenate([own, labels]),
        np.concatenate([np.full(4, 0.25), np.ones(3)]),
        encoder,
    )
    assert np.linalg.norm(after - before) <= SENSITIVITY * (1 + 1e-9)
    assert np.linalg.norm(after - before) > 0.1


def test_an_encoder_stands_in_for_scattering_and_must_be_brought():
    plan, plain = plan_of(given=True), plan_of()
    embedding = Embedding(plan, tiny_encoder())
    low, *scattered, one, two = Embedding(plain).groups
    assert embedding.groups == [low, 512, one, two]
    assert scattered
    images = torch.from_numpy(to_unit_range(images_of(0, 3, "noise")))
    assert torch.allclose(embedding.features(images)[:, low : low + 512], tiny_encoder()(images), atol=1e-6)
    with pytest.raises(VerificationError, match="nobody brought it"):
        Embedding(plan).features(images)


def test_the_fit_follows_a_given_encoders_features():
    plan, encoder = plan_of(steps=30, given=True), tiny_encoder()
    arrays, labels = spectral_arrays(plan), torch.arange(2).repeat(60)
    embedding = Embedding(plan, encoder)
    images = images_of(0, 120, "black-white")
    sums = embedding_sums(plan, "alder", arrays, images, labels.numpy(), np.ones(120), encoder)
    fitted = fit_generator(plan, arrays, {"alder": sums}, torch.Generator().manual_seed(1), encoder)
    wanted = torch.from_numpy(targets(plan, embedding, {"alder": sums}, 0.01))
    reference = embedding.reference(plan, arrays, torch.arange(2))

    def distance(network: torch.nn.Module) -> float:
        with torch.no_grad():
            draws = TorchDraws(torch.Generator().manual_seed(3))
            drawn = draw_images(plan, network, spectral_model(plan, arrays), labels, draws)
            features = embedding.standardise(embedding.features(drawn), reference, labels)
        return float((features.view(60, 2, -1).mean(dim=0) - wanted)[:, 16 : 16 + 512].square().mean())

    assert distance(fitted) < 0.9 * distance(initial_model("generator", plan))


def test_the_bound_is_reached_so_that_no_noise_is_wasted():
    plan = plan_of()
    inbound = spectral_arrays(plan, 1e-4)  # images far from it: every group is clipped
    sums = embedding_sums(plan, "alder", inbound, images_of(0, 1, "black-white"), np.array([1]), np.ones(1))
    assert np.linalg.norm(sums) > 0.9 * SENSITIVITY
    assert sums[1, 0] == pytest.approx(COUNT_WEIGHT)
    assert not sums[0].any()
    assert math.hypot(COUNT_WEIGHT, FEATURE_WEIGHT) == pytest.approx(SENSITIVITY)


def test_crafted_arrays_that_make_features_infinite_yield_nothing_at_all():
    plan = plan_of()
    arrays = spectral_arrays(plan)
    inbound = {**arrays, "spectral/mean": np.full_like(arrays["spectral/mean"], np.nan)}
    sums = embedding_sums(plan, "alder", inbound, images_of(0, 4, "noise"), np.zeros(4, dtype=np.int64), np.ones(4))
    assert np.isfinite(sums).all()
    assert sums[0, 0] == pytest.approx(4 * COUNT_WEIGHT)


def test_an_images_features_do_not_depend_on_who_else_is_there():
    plan = plan_of()
    inbound = spectral_arrays(plan)
    images, labels = images_of(0, 7, "noise"), np.array([0, 1, 0, 1, 1, 0, 1])
    each = [embedding_sums(plan, "alder", inbound, images[i : i + 1], labels[i : i + 1], np.ones(1)) for i in range(7)]
    together = np.zeros_like(each[0])
    for one in each:
        together += one
    assert np.array_equal(embedding_sums(plan, "alder", inbound, images, labels, np.ones(7)), together)


@pytest.mark.parametrize("size", [16, 28, 64, 100])
def test_scattering_is_blind_to_brightness_and_sees_orientation(size):
    flat = scattering(torch.full((1, 1, size, size), 0.7))
    assert flat.shape == (1, sum(group_sizes(size)))
    assert flat.max() < 2e-3
    wave = torch.cos(0.75 * math.pi * torch.arange(size)).expand(1, 1, size, size)
    first = scattering(wave)[0, :64].view(4, 16).mean(dim=1)  # level 0 by orientation of the wave vector
    assert first.argmax() == 0
    turned = scattering(wave.transpose(2, 3))[0, :64].view(4, 16).mean(dim=1)
    assert turned.argmax() == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_the_spectral_models_own_images_embed_near_zero_and_others_do_not(channels):
    plan = plan_of(channels)
    arrays, embedding = spectral_arrays(plan), Embedding(plan)
    components = torch.arange(2).repeat(150)
    reference = embedding.reference(plan, arrays, torch.arange(2))
    drawn = spectral_model(plan, arrays).sample(components, TorchDraws(torch.Generator().manual_seed(99)))
    own = embedding.standardise(embedding.features(drawn), reference, components)
    assert own.shape == (300, embedding.length)
    assert own.mean(dim=0).square().mean().sqrt() < 0.15
    strange = torch.from_numpy(to_unit_range(images_of(0, 300, "black-white", channels)))
    assert embedding.standardise(embedding.features(strange), reference, components).mean(dim=0).norm() > 5.0


def test_a_site_finds_the_coordinators_reference_for_its_own_components():
    plan = plan_of(by_site=True)
    arrays, embedding = spectral_arrays(plan), Embedding(plan)
    whole = embedding.reference(plan, arrays, torch.arange(4))
    part = embedding.reference(plan, arrays, torch.tensor([2, 3]))
    assert torch.equal(part.centre[2:], whole.centre[2:])
    assert torch.equal(part.scale[2:], whole.scale[2:])
    assert not part.centre[:2].any()


def sums_of(embedding: Embedding, means: np.ndarray, counts: np.ndarray, sigma: float, seed: int) -> np.ndarray:
    """Sums [K, 1 + D] of `counts` patients whose standardised features are `means`, noised."""
    features = FEATURE_WEIGHT * means * counts[:, None] / unit_of(embedding)
    sums = np.column_stack([COUNT_WEIGHT * counts, features])
    return sums + sigma * np.random.default_rng(seed).normal(size=sums.shape)


def test_noise_alone_is_taken_as_no_difference_and_a_clear_one_stays():
    plan = plan_of()
    embedding, counts = Embedding(plan), np.array([200.0, 100.0])
    means = np.zeros((2, embedding.length))
    noise = sums_of(embedding, means, counts, 2.0, 0)
    found = targets(plan, embedding, {"alder": noise}, 2.0)
    raw = unit_of(embedding) / (FEATURE_WEIGHT * counts[0]) * 2.0
    assert np.sqrt((found**2).mean()) < 0.25 * raw
    means[:, :16] = 1.0
    means[1, 16:80] = 2.0
    found = targets(plan, embedding, {"alder": sums_of(embedding, means, counts, 0.1, 1)}, 0.1)
    assert np.abs(found - means).mean() < 0.05


def test_by_site_rows_follow_their_site_and_a_silent_site_its_labels():
    plan = plan_of(by_site=True)
    embedding, counts = Embedding(plan), np.array([500.0, 500.0])
    means = np.zeros((2, embedding.length))
    means[1] = 1.0
    found = targets(plan, embedding, {"birch": sums_of(embedding, means, counts, 0.05, 0)}, 0.05)
    assert found.shape == (4, embedding.length)
    assert np.allclose(found[2:], means, atol=0.1)
    assert np.allclose(found[:2], means, atol=0.1)
    other = sums_of(embedding, 1.0 - means, counts, 0.05, 1)
    both = targets(plan, embedding, {"birch": sums_of(embedding, means, counts, 0.05, 0), "alder": other}, 0.05)
    assert np.allclose(both[:2], 1.0 - means, atol=0.15)
    assert np.allclose(both[2:], means, atol=0.15)


def test_an_embedding_without_a_difference_leaves_the_generator_where_it_starts():
    plan = plan_of(steps=3)
    embedding = Embedding(plan)
    sums = sums_of(embedding, np.zeros((2, embedding.length)), np.array([100.0, 100.0]), 0.0, 0)
    fitted = fit_generator(plan, spectral_arrays(plan), {"alder": sums}, torch.Generator().manual_seed(0))
    start = to_arrays("generator", initial_model("generator", plan))
    assert all(np.array_equal(value, start[name]) for name, value in to_arrays("generator", fitted).items())


def test_the_fit_comes_nearer_to_the_released_embedding_and_repeats():
    plan = plan_of(steps=40)
    arrays, embedding = spectral_arrays(plan), Embedding(plan)
    draws = TorchDraws(torch.Generator().manual_seed(5))
    # the same images with a fine texture that the spectral model lacks
    labels = torch.arange(2).repeat(100)
    texture = 0.25 * torch.cos(0.75 * math.pi * torch.arange(SIZE)).expand(SIZE, SIZE)
    images = (spectral_model(plan, arrays).sample(labels, draws) + texture).clamp(-1, 1)
    grey = ((images[:, 0] + 1) * 127.5).round().byte().numpy()
    sums = embedding_sums(plan, "alder", arrays, grey, labels.numpy(), np.ones(200))
    runs = [fit_generator(plan, arrays, {"alder": sums}, torch.Generator().manual_seed(1)) for _ in range(2)]
    first, second = (to_arrays("generator", run) for run in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    wanted = torch.from_numpy(targets(plan, embedding, {"alder": sums}, 0.01))
    reference = embedding.reference(plan, arrays, torch.arange(2))

    def distance(network: torch.nn.Module) -> float:
        with torch.no_grad():
            draws = TorchDraws(torch.Generator().manual_seed(3))
            drawn = draw_images(plan, network, spectral_model(plan, arrays), labels, draws)
            features = embedding.standardise(embedding.features(drawn), reference, labels)
        return float((features.view(100, 2, -1).mean(dim=0) - wanted).square().mean())

    assert distance(runs[0]) < 0.9 * distance(initial_model("generator", plan))


def test_embedding_and_gan_must_agree_on_the_generators_width():
    with pytest.raises(ConfigError, match="same width"):
        plan_of(width=16)
