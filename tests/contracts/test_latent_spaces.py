"""The contract that every latent space keeps: what methods on averages promise of patients rests on it.

A space that is added has a case in `CASES`, and inherits all tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from support.plans import dp_sgd
from support.stylegan2 import drawing_films, in_colour

from sfumato_common.generators import GENERATORS
from sfumato_common.generators.appearance.feature_map import AppearanceLayout
from sfumato_common.generators.codec.layout import CodecLayout
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.latent.space import LatentSpace
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import AnyArray, Arrays, to_unit_range

Y = torch.tensor([0, 1, 1, 0, 1, 0])


@dataclass(frozen=True)
class Case:
    """A plan's stages and image, what its models have released, and how exact `encode` is on `decode`'s images.

    `correlation` is the least of a code's with that of its image, over the coordinates that an image shows.
    """

    kind: str
    image: dict[str, int]
    stages: list[dict[str, object]]
    correlation: float


def _chest(**terms: object) -> dict[str, object]:
    return {"kind": "appearance", "noise_multiplier": 0.5, "phantoms": 8, **terms}


def _codec(size: int, channels: int) -> dict[str, object]:
    form = {"size": size, "channels": channels, "cosines": 48, "kept": 24, "width": 8, "decoder_blocks": 2}
    return {"kind": "codec", "noise_multiplier": 0.5, "form": form}


SPECTRAL = {"kind": "spectral", "bandwidth": 6, "clip_radius": 4.0, "noise_multiplier": 1.0}
GAN = {"kind": "gan", "width": 8, "generator_steps": 2, "fakes": 4, **dp_sgd()}
STYLEGAN2 = {"kind": "stylegan2", "channel_base": 512, "channel_max": 16, **dp_sgd()}
EMBEDDING = {"kind": "embedding", "width": 8, "noise_multiplier": 1.0}
CASES = {
    "W": Case("gan", {"size": 16}, [SPECTRAL, GAN], 0.97),
    "W of an embedding": Case("embedding", {"size": 16}, [SPECTRAL, EMBEDDING], 0.97),
    "W in colour": Case("gan", {"size": 16, "channels": 3}, [SPECTRAL, GAN], 0.97),
    "W of a StyleGAN2": Case("stylegan2", {"size": 16}, [SPECTRAL, STYLEGAN2], 0.9),
    "W+ of a StyleGAN2": Case("stylegan2", {"size": 16}, [SPECTRAL, {**STYLEGAN2, "codes": "w+"}], 0.9),
    "W of a StyleGAN2 in colour": Case("stylegan2", {"size": 16, "channels": 3}, [SPECTRAL, STYLEGAN2], 0.8),
    "appearance of chests": Case("appearance", {"size": 48}, [_chest()], 0.9),
    "appearance of chests in phantom detail": Case("appearance", {"size": 32}, [_chest(detail="phantom")], 0.8),
    "appearance of chests in colour": Case("appearance", {"size": 48, "channels": 3}, [_chest()], 0.8),
    "appearance of eyes": Case("appearance", {"size": 48, "channels": 3}, [_chest(alignment="fundus")], 0.7),
    "codec": Case("codec", {"size": 32}, [_codec(32, 1)], 0.97),
    "codec in colour": Case("codec", {"size": 16, "channels": 3}, [_codec(16, 3)], 0.9),
    "appearance as it lies": Case("appearance", {"size": 48}, [_chest(alignment="none", detail="noise")], 0.9),
}


def plan_of(case: Case) -> Plan:
    value = {
        "study": "spaces",
        "image": case.image,
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 60}},
        "privacy": {"epsilon": 100.0, "delta": 1e-5},
        "stages": case.stages,
        "release": [{"model": case.kind, "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def released(plan: Plan, kind: str) -> dict[str, Arrays]:
    """Two components of unlike means, with a full covariance; networks far from their start."""
    rng = np.random.default_rng(0)

    def gaussians(name: str, features: int, spread: np.ndarray, **more: np.ndarray) -> dict[str, np.ndarray]:
        basis = np.linalg.qr(rng.normal(size=(features, features)))[0]
        factor = spread[:, None] * (np.eye(features) + 0.1 * basis)
        arrays = {"shares": np.full(2, 0.5), "mean": 0.3 * rng.normal(size=(2, features)) * spread, **more}
        found = {**arrays, "factor": np.stack([0.5 * factor] * 2)}
        return {f"{name}/{key}": value.astype(np.float32) for key, value in found.items()}

    if kind == "appearance":
        layout = AppearanceLayout.of(plan)
        return gaussians(kind, layout.features, np.sqrt(layout.prior))
    if kind == "codec":
        codec, draw = initial_model("autoencoder", plan), torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in codec.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
        codes = CodecLayout.of(plan)
        return {**gaussians(kind, codes.features, np.sqrt(codes.prior)), **to_arrays("autoencoder", codec)}
    band = Layout.of(plan)
    spread, d = np.sqrt(band.prior), band.features
    arrays = gaussians("spectral", d, spread, signal=np.stack([np.eye(d)] * 2), tail=np.ones(2))
    if kind == "stylegan2":
        return {**arrays, **drawing_films(plan)}
    generator, draw = initial_model("generator", plan), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)
    return {**arrays, **to_arrays("generator", generator)}


@cache
def space_of(name: str) -> LatentSpace:
    case = CASES[name]
    plan, build = plan_of(case), GENERATORS[case.kind].latent
    assert build is not None
    return build(plan, released(plan, case.kind))


@cache
def images_of(name: str) -> torch.Tensor:
    image = CASES[name].image
    modality = "fundus" if "eyes" in name else "chest"
    some: AnyArray = phantom_arrays(3, 6, image["size"], modality=modality)[0][:6]
    if image.get("channels") == 3 and some.ndim == 3:
        some = in_colour(some)
    return torch.from_numpy(to_unit_range(some))


def draws(seed: int = 0) -> TorchDraws:
    return TorchDraws(torch.Generator().manual_seed(seed))


@pytest.fixture(params=list(CASES))
def name(request) -> str:
    return request.param


@pytest.fixture
def space(name) -> LatentSpace:
    return space_of(name)


def test_every_generator_with_a_space_has_a_case_here():
    assert {case.kind for case in CASES.values()} == {kind for kind, record in GENERATORS.items() if record.latent}


def test_draws_of_the_prior_are_finite_images_of_what_the_plan_says(name, space):
    image = CASES[name].image
    codes, noise = space.draw(Y, draws())
    assert codes.shape == (6, space.dimension) == space.centre(Y).shape
    assert len(noise) == 6
    drawn = space.decode(codes, Y, noise)
    for made in (drawn, space.decode(codes, Y), space.plain(drawn, codes, Y, noise)):
        assert made.shape == (6, image.get("channels", 1), image["size"], image["size"])
        assert bool(torch.isfinite(made).all()) and made.abs().max() <= 1.0 and made.std() > 0.02
    layered = codes[:, None].repeat(1, space.layers, 1)
    assert torch.allclose(space.decode(layered, Y, noise), space.decode(codes, Y, noise), atol=1e-6)
    assert space.image_bytes >= 4 * image.get("channels", 1) * image["size"] ** 2


def test_any_finite_code_is_an_image(space):
    noise = space.draw_noise(Y, draws())
    for size in (0.0, 30.0, 1e4):
        codes = size * torch.randn(6, space.dimension, generator=torch.Generator().manual_seed(1))
        made = space.decode(codes, Y, noise)
        assert bool(torch.isfinite(made).all()) and made.abs().max() <= 1.0


def test_images_have_codes_whose_images_are_like_them(name, space):
    images = images_of(name)
    codes = space.encode(images, Y)
    assert codes.shape == (6, space.dimension) and codes.std() > 0.1
    seen, rows = space.decode(codes, Y).flatten(1), images.flatten(1)
    alike = [float(np.corrcoef(one, other)[0, 1]) for one, other in zip(seen, rows, strict=True)]
    assert np.mean(alike) > 0.7, "they are reconstructions"


def test_codes_come_back_from_what_is_drawn_of_them(name, space):
    """Of codes as images have them; what an image shows of its noise is no part of its code."""
    codes = space.encode(images_of(name), Y)
    again = space.encode(space.decode(codes, Y, space.draw_noise(Y, draws())), Y)
    found = np.corrcoef(again.flatten().numpy(), codes.flatten().numpy())[0, 1]
    assert found > CASES[name].correlation


def test_everything_is_deterministic_and_noise_alone_is_random(name, space):
    one, two, other = (space.draw(Y, draws(seed)) for seed in (0, 0, 1))
    assert torch.equal(one[0], two[0]) and not torch.equal(one[0], other[0])
    assert torch.equal(space.decode(*_at(one, Y)), space.decode(*_at(two, Y)))
    fixed = one[0]
    assert (space.decode(fixed, Y, one[1]) - space.decode(fixed, Y, other[1])).abs().max() > 1e-3
    assert torch.equal(space.encode(images_of(name), Y), space.encode(images_of(name), Y))
    assert torch.equal(space.centre(Y), space.centre(Y))
    assert torch.equal(space.decode(fixed, Y, space.draw_noise(Y, draws())), space.decode(*_at(one, Y)))


def _at(drawn, components):
    codes, noise = drawn
    return codes, components, noise


def test_no_row_depends_on_another(name, space):
    images, (codes, noise) = images_of(name), space.draw(Y, draws())
    others = images.clone()
    others[[0, 2, 3, 5]] = -others[[0, 2, 3, 5]].flip(0)
    assert torch.equal(space.encode(others, Y)[[1, 4]], space.encode(images, Y)[[1, 4]])
    unlike, changed = 1 - Y, codes.clone()
    unlike[[1, 4]], changed[[0, 2, 3, 5]] = Y[[1, 4]], -3.0 * changed[[0, 2, 3, 5]]
    assert torch.equal(space.decode(changed, unlike, noise)[[1, 4]], space.decode(codes, Y, noise)[[1, 4]])
    plain = space.plain(others, changed, unlike, noise)
    assert torch.equal(plain[[1, 4]], space.plain(images, codes, Y, noise)[[1, 4]])
    alone = [space.encode(images[row : row + 1], Y[row : row + 1])[0] for row in range(6)]
    assert torch.allclose(torch.stack(alone), space.encode(images, Y), atol=2e-5)
    rows = torch.tensor([4, 1])
    assert torch.allclose(
        space.decode(codes[rows], Y[rows], noise.at(rows)), space.decode(codes, Y, noise)[rows], atol=2e-5
    )


def test_noise_is_cut_and_joined_row_by_row(space):
    codes, noise = space.draw(Y, draws())
    parts = [noise.at(torch.tensor([row])) for row in range(6)]
    joined = parts[0].joined(parts[1:])
    assert len(joined) == 6 and len(parts[0]) == 1
    assert torch.equal(space.decode(codes, Y, joined), space.decode(codes, Y, noise))


def test_gradients_flow_from_images_into_their_own_codes(space):
    codes, noise = space.draw(Y, draws())
    codes = (0.5 * codes).detach().requires_grad_()
    images = space.decode(codes, Y, noise)
    (images[1] * torch.randn(images[1].shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    assert codes.grad is not None and bool(torch.isfinite(codes.grad).all())
    assert (codes.grad[1] != 0).float().mean() > 0.5
    assert not codes.grad[[0, 2, 3, 4, 5]].any()


def test_everything_is_made_where_the_space_is(name, space):
    """What is made without a word of where would land on the default device: here one that nothing else is on."""
    images, (codes, noise) = images_of(name), space.draw(Y, draws())
    codes = codes.detach().requires_grad_()
    with torch.device("meta"):
        again, drawn = space.draw(Y, draws())
        encoded, made = space.encode(images, Y), space.decode(codes, Y, noise)
        made.square().sum().backward()
        silent, plain, centre = space.decode(codes, Y), space.plain(images, codes, Y, noise), space.centre(Y)
        redrawn = space.decode(again, Y, drawn)
    assert all(part.device == space.device for part in (encoded, made, silent, plain, centre, redrawn, codes.grad))
    assert torch.equal(encoded, space.encode(images, Y)) and torch.equal(made, space.decode(codes, Y, noise))


def test_images_without_anything_in_them_have_slopes_too(space):
    codes = torch.zeros(6, space.dimension, requires_grad=True)
    space.decode(codes, Y).square().sum().backward()
    assert codes.grad is not None and bool(torch.isfinite(codes.grad).all())


def test_components_are_told_apart_by_their_priors(space):
    apart = (space.centre(torch.tensor([0])) - space.centre(torch.tensor([1]))).norm()
    assert apart > 0.1
    for component in (0, 1):
        same = torch.full((3000,), component)
        drawn, _ = space.draw(same, draws(2))
        away = (drawn.mean(dim=0) - space.centre(same[:1])[0]).norm()
        assert away < 0.7 * apart, "the centre is the mean of what is drawn"


def test_what_is_plain_is_affine_in_what_is_averaged(name, space):
    """The fall-back of `influence.py`: leaving one out moves a plain image as it moves an average, and no more."""
    images, one = 0.3 * images_of(name), torch.ones(6, dtype=torch.int64)
    codes, noise = space.encode(images, one), space.draw_noise(one[:1], draws()).at(torch.zeros(6, dtype=torch.int64))
    wanted = space.plain(images, codes, one, noise)
    assert wanted.std() > 0.05 and wanted.abs().max() < 1.0, "nothing is clamped"
    mean = space.plain(images.mean(dim=0, keepdim=True), codes.mean(dim=0, keepdim=True), one[:1], noise.at(one[:1]))
    assert torch.allclose(mean[0], wanted.mean(dim=0), atol=1e-4)


def test_the_encoding_reads_no_record_and_says_its_stages(name, space):
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    one, two = (space.encoding(shares, 3, 4, 2) for _ in range(2))
    images = images_of(name)
    codes = one(images, Y)
    assert codes.shape == (6, space.dimension) and not codes.requires_grad
    assert torch.equal(codes, two(images, Y))
    stages = one.stages(images, Y)
    assert stages and all(found.shape == codes.shape for found in stages.values())
    others = images.clone()
    others[1:] = -others[1:]
    assert torch.allclose(one(others, Y)[0], codes[0], atol=1e-3)
