"""Codes of images in StyleGAN2's space: what the encoder, Adam and a code a layer each bring, and what bounds them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from support.plans import dp_sgd
from support.stylegan2 import drawing_films

from sfumato_common.generators.stylegan2.encoder import Comparison
from sfumato_common.generators.stylegan2.generator import CODE, code_layers
from sfumato_common.generators.stylegan2.space import StyleSpace, space_of
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import Arrays, to_unit_range

SHARES = torch.tensor([0.5, 0.5], dtype=torch.float64)
Y = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])
SIZE = 16


def plan_with(codes: str) -> Plan:
    value = {
        "study": "codes",
        "image": {"size": SIZE},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 60}},
        "privacy": {"epsilon": 100.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 6, "clip_radius": 4.0, "noise_multiplier": 1.0},
            {"kind": "stylegan2", "channel_base": 512, "channel_max": 16, "codes": codes, **dp_sgd()},
        ],
        "release": [{"model": "stylegan2", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


@cache
def weights() -> Arrays:
    return drawing_films(plan_with("w"))


@cache
def space_with(codes: str) -> StyleSpace:
    return space_of(plan_with(codes), weights())


def drawn(space: StyleSpace) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and their images with noise, from a seed that no training uses."""
    codes, noise = space.draw(Y, TorchDraws(torch.Generator().manual_seed(99)))
    return codes, space.decode(codes, Y, noise)


def error(space: StyleSpace, codes: torch.Tensor, images: torch.Tensor) -> float:
    return float((space.decode(codes, Y) - images).square().mean().sqrt())


def test_codes_are_one_an_image_or_one_a_layer():
    one, each = space_with("w"), space_with("w+")
    layers = code_layers(SIZE)
    assert (one.dimension, one.layers) == (CODE, layers)
    assert (each.dimension, each.layers) == (layers * CODE, 1)
    codes, images = drawn(one)
    wide, same = drawn(each)
    assert torch.equal(wide, codes.repeat(1, layers)) and torch.equal(same, images)
    assert torch.equal(each.encode(images, Y), one.encode(images, Y).repeat(1, layers))
    # one layer's code, the image's own, changes alone
    moved = wide.clone()
    moved[:, -CODE:] += 3.0
    assert (each.decode(moved, Y) - each.decode(wide, Y)).abs().max() > 1e-3
    assert "codes" not in plan_with("w").model_dump(mode="json")["stages"][1], "plans from before keep their digest"


@pytest.mark.parametrize("codes", ["w", "w+"])
def test_an_encoder_that_learned_from_draws_comes_nearer_than_the_affine_map(codes):
    space = space_with(codes)
    images = drawn(space)[1]
    stages = space.encoding(SHARES, 5, 150, 0).stages(images, Y)
    assert list(stages) == ["affine", "encoder"]
    assert error(space, stages["encoder"], images) < 0.9 * error(space, stages["affine"], images)


def test_steps_that_are_not_asked_for_are_not_taken():
    space = space_with("w")
    images = drawn(space)[1]
    bare = space.encoding(SHARES, 5, 0, 0)
    assert list(bare.stages(images, Y)) == ["affine"]
    assert torch.equal(bare(images, Y), space.encode(images, Y))
    refined = space.encoding(SHARES, 5, 0, 20).stages(images, Y)
    assert list(refined) == ["affine", "refined"]
    assert error(space, refined["refined"], images) < 0.9 * error(space, refined["affine"], images)


def test_a_code_a_layer_comes_nearer_to_films_by_the_same_steps():
    x = torch.from_numpy(to_unit_range(phantom_arrays(3, 8, SIZE)[0][:8]))
    found = {codes: space_with(codes).encoding(SHARES, 5, 0, 40)(x, Y) for codes in ("w", "w+")}
    assert error(space_with("w+"), found["w+"], x) < error(space_with("w"), found["w"], x)


@pytest.mark.parametrize("codes", ["w", "w+"])
def test_no_number_leaves_the_prior_whatever_the_image(codes):
    space = space_with(codes)
    strange = torch.randn(8, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(4)).sign()
    inversion = space.encoding(SHARES, 5, 3, 60)
    away = (inversion(strange, Y) - space.centre(Y)).abs() / space.spread
    assert 2.0 < away.max() <= 4.0 + 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_a_comparison_is_of_each_image_alone_and_sees_what_is_fine(channels):
    compare = Comparison(channels)
    x = 0.3 * torch.randn(4, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(2))
    assert torch.equal(compare(x, x), torch.zeros(4))
    y = x.flip(0)
    alone = torch.cat([compare(x[row : row + 1], y[row : row + 1]) for row in range(4)])
    assert torch.allclose(compare(x, y), alone, atol=1e-5)
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), "replicate"), 3, 1)
    brighter = x + (blurred - x).square().mean().sqrt()
    assert (compare.perception(blurred, x) > compare.perception(brighter, x)).all(), "at the same error of pixels"
    assert torch.equal(compare(x, y), Comparison(channels)(x, y)), "its seed is public"
