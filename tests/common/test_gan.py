"""The generator's W space: it starts at the spectral samples; its codes, noise and sizes are what methods rely on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.plans import dp_sgd

from sfumato_client.training.dp.engines import ENGINES
from sfumato_common.generators.gan.discriminator import Discriminator, real_loss
from sfumato_common.generators.gan.generator import LARGEST_CORRECTION, LARGEST_SHIFT, Generator, resolutions
from sfumato_common.generators.gan.w_space import Noise, WSpace, draw_images
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.starts import initial_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

DP = dp_sgd(local_steps=1)
COMPONENTS = torch.tensor([0, 1, 1, 0])


def plan_of(size: int = 16, channels: int = 1) -> Plan:
    value = {
        "study": "small",
        "image": {"size": size, "channels": channels},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "noise_multiplier": 1.0},
            {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 4, **DP},
        ],
        "release": [{"model": "gan", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def release_of(plan: Plan) -> dict[str, np.ndarray]:
    """A released spectral model with a mean, a full covariance and directions of both kinds in each class."""
    layout, rng = Layout.of(plan), np.random.default_rng(0)
    k, d = layout.classes, layout.features
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0]
    arrays = {
        "shares": np.full(k, 1.0 / k),
        "mean": 0.3 * rng.normal(size=(k, d)),
        "factor": np.stack([0.1 * (basis * rng.uniform(0.5, 2.0, d)) @ basis.T] * k),
        "signal": np.stack([basis[:, : d // 2] @ basis[:, : d // 2].T] * k),
        "tail": np.ones(k),
    }
    return {f"spectral/{name}": value.astype(np.float32) for name, value in arrays.items()}


def space_of(plan: Plan, trained: bool = False) -> WSpace:
    generator = initial_model("generator", plan)
    if trained:
        draw = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter += 0.2 * torch.randn(parameter.shape, generator=draw)
    return WSpace(plan, generator, spectral_model(plan, release_of(plan)))


def seeded(seed: int = 0) -> TorchDraws:
    return TorchDraws(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_generator_starts_exactly_at_the_spectral_sampler(channels):
    plan = plan_of(channels=channels)
    space = space_of(plan)
    expected = space.spectral.sample(COMPONENTS, seeded())
    found = draw_images(plan, space.generator, space.spectral, COMPONENTS, seeded())
    assert torch.allclose(found, expected, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_trained_generator_leaves_its_start_within_its_bounds(channels):
    plan = plan_of(channels=channels)
    space, start = space_of(plan, trained=True), space_of(plan)
    z, noise = space.draw_latent(COMPONENTS, seeded())
    w = space.mapping(z, COMPONENTS)
    assert 0.01 < (w - z).abs().max() <= LARGEST_SHIFT
    moved = space.decode(w, COMPONENTS, noise) - start.decode(w, COMPONENTS, noise)
    assert 0.01 < moved.abs().max() <= 2.0 * LARGEST_CORRECTION
    # class means are the spectral release's to set: the correction has next to no coarse part
    coarse = torch.nn.functional.avg_pool2d(moved, 8).abs().mean()
    assert coarse < 0.35 * moved.abs().mean()


def test_noise_that_is_given_again_makes_the_same_image_and_other_noise_does_not():
    space = space_of(plan_of(), trained=True)
    w = space.mapping(space.draw_z(COMPONENTS, seeded()), COMPONENTS)
    noise = space.draw_noise(COMPONENTS, seeded(1))
    one, two = space.decode(w, COMPONENTS, noise), space.decode(w, COMPONENTS, noise)
    assert torch.equal(one, two)
    again = space.decode(w, COMPONENTS, space.draw_noise(COMPONENTS, seeded(1)))
    assert torch.equal(one, again)
    for changed in (
        space.draw_noise(COMPONENTS, seeded(2)),
        Noise(0.0 * noise.tail, noise.maps),
        Noise(noise.tail, [0.0 * part for part in noise.maps]),
    ):
        assert (space.decode(w, COMPONENTS, changed) - one).abs().max() > 1e-3
    assert torch.equal(space.decode(w, COMPONENTS), space.decode(w, COMPONENTS))


def test_the_mean_of_codes_is_the_code_of_the_mean_image():
    space = space_of(plan_of())
    same = torch.zeros(6, dtype=torch.int64)
    w = 0.3 * space.draw_z(same, seeded())  # far from clamping
    mean = space.decode(w.mean(dim=0, keepdim=True), same[:1])
    assert torch.allclose(mean[0], space.decode(w, same).mean(dim=0), atol=1e-5)


def test_images_have_a_code_in_closed_form():
    space = space_of(plan_of())
    w = 0.3 * space.draw_z(COMPONENTS, seeded())
    assert torch.allclose(space.encode(space.decode(w, COMPONENTS), COMPONENTS), w, atol=1e-3)


def test_truncation_goes_from_the_components_mean_to_the_code():
    space = space_of(plan_of(), trained=True)
    w = space.mapping(space.draw_z(COMPONENTS, seeded()), COMPONENTS)
    mean = space.centre(COMPONENTS)
    assert torch.allclose(space.truncate(w, COMPONENTS, 1.0), w, atol=1e-6)
    assert torch.equal(space.truncate(w, COMPONENTS, 0.0), mean)
    assert torch.allclose(space.truncate(w, COMPONENTS, 0.5), (mean + w) / 2.0, atol=1e-6)
    assert torch.equal(mean, space.centre(COMPONENTS))
    assert torch.equal(mean[1], mean[2])
    assert (mean[0] - mean[1]).abs().max() > 1e-3
    drawn = space.mapping(space.draw_z(torch.ones(4000, dtype=torch.int64), seeded(9)), torch.ones(4000).long())
    assert torch.allclose(drawn.mean(dim=0), mean[1], atol=0.12)


def test_mixing_takes_shape_from_one_code_and_look_from_the_other():
    space = space_of(plan_of(), trained=True)
    one, two = (space.mapping(space.draw_z(COMPONENTS, seeded(s)), COMPONENTS) for s in (0, 1))
    draw = lambda w: space.decode(w, COMPONENTS)  # noqa: E731
    assert torch.equal(draw(space.mix(one, two, space.layers)), draw(one))
    assert torch.equal(draw(space.mix(one, two, 0)), draw(two))
    mixed = draw(space.mix(one, two))
    assert not torch.equal(mixed, draw(one))
    assert (mixed - draw(one)).abs().mean() < (mixed - draw(two)).abs().mean()


def test_images_are_differentiable_in_the_generators_weights_and_in_codes():
    plan = plan_of()
    space = space_of(plan, trained=True)
    draw_images(plan, space.generator, space.spectral, COMPONENTS, seeded()).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in space.generator.parameters())
    w = space.draw_z(COMPONENTS, seeded()).requires_grad_()
    space.decode(w, COMPONENTS).square().mean().backward()
    assert w.grad is not None and w.grad.any()


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    space = space_of(plan_of(), trained=True)
    z, noise = space.draw_latent(COMPONENTS, seeded())
    whole = space.decode(space.mapping(z, COMPONENTS), COMPONENTS, noise)
    own = Noise(noise.tail[1:2], [part[1:2] for part in noise.maps])
    alone = space.decode(space.mapping(z[1:2], COMPONENTS[1:2]), COMPONENTS[1:2], own)
    assert torch.allclose(whole[1:2], alone, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (28, [7, 14, 28]),
        (32, [8, 16, 32]),
        (36, [9, 18, 36]),
        (64, [8, 16, 32, 64]),
        (512, [8, 16, 32, 64, 128, 256, 512]),
    ],
)
def test_resolutions_are_halves_down_to_seven_or_more(size, expected):
    assert resolutions(size) == expected


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [20, 28, 36, 64, 100, 128])
def test_every_size_builds_and_runs(size, channels):
    plan = plan_of(size, channels)
    space = space_of(plan, trained=True)
    images = draw_images(plan, space.generator, space.spectral, COMPONENTS[:2], seeded())
    assert images.shape == (2, channels, size, size)
    assert images.isfinite().all()
    assert images.abs().max() <= 1.0
    discriminator = initial_model("discriminator", plan)
    assert discriminator(images, torch.eye(2)).shape == (2,)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_largest_size_has_the_form_of_the_smaller_ones(channels):
    with torch.device("meta"):
        generator = Generator(512, channels, 1024 * channels, 4, 24)
        discriminator = Discriminator(channels, 4, 24, 512)
        codes, given = torch.empty(2, 7, 1024 * channels), torch.empty(2, 4)
        maps = [torch.empty(2, 1, r, r) for r in generator.resolutions]
        images = generator(torch.empty(2, channels, 512, 512), codes, *maps)
        assert images.shape == (2, channels, 512, 512)
        assert discriminator.features(images).shape[2:] == (8, 8)
        assert discriminator(images, given).shape == (2,)
    assert sum(parameter.numel() for parameter in generator.parameters()) < 3_000_000 * channels


@pytest.mark.parametrize(("size", "channels"), [(28, 3), (64, 1), (128, 1)])
def test_every_depth_of_the_discriminator_has_exact_gradients_of_each_record(size, channels):
    discriminator = initial_model("discriminator", plan_of(size, channels))
    records = [seeded().normal((3, channels, size, size)), torch.eye(2)[[0, 1, 1]]]
    exact, fast = (
        ENGINES[name](discriminator, real_loss).clipped_sum(records, 0.05) for name in ("loop", "bookkeeping")
    )
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(exact, fast, strict=True))
    assert max(float(part.abs().max()) for part in exact) > 1e-4
