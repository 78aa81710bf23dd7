"""Sixteen bits a value: nothing from a release to a picture rounds to eight, and likelihoods know the depth."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.spectral.dct import public_scale, quantisation
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import COUNT_WEIGHT, Layout, features_of
from sfumato_common.generators.spectral.whitening import bits_per_dim, dequantise, spectral_model
from sfumato_common.imaging import decode_png, encode_png, pixel_hash
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import to_bytes, to_eight_bits, to_unit_range


def seeded(seed: int) -> TorchDraws:
    return TorchDraws(torch.Generator().manual_seed(seed))


def plan_of(bits: int) -> Plan:
    value = {
        "study": "deep",
        "image": {"size": 32, "bits": bits},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 3.0, "noise_multiplier": 0.1}],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


def released(plan: Plan) -> dict[str, np.ndarray]:
    layout = Layout.of(plan)
    sums = np.zeros((2, 1 + layout.features), np.float32)
    sums[:, 0] = 100 * COUNT_WEIGHT
    moments = np.zeros((2, layout.pairs), np.float32)
    centre = np.zeros(1 + layout.features, np.float32)
    fitted = fit_release(plan, {"alder": {"centre": centre, "sums": sums, "moments": moments}})
    return {f"spectral/{name}": value for name, value in fitted.items()}


@pytest.mark.parametrize("bits", [8, 16])
def test_every_value_goes_to_floats_and_back(bits):
    values = np.arange(1 << bits).astype(f"u{bits // 8}").reshape(1 << (bits // 2), -1)[None]
    assert np.array_equal(to_bytes(to_unit_range(values), bits), values)
    assert to_bytes(np.full((1, 1, 2, 2), 1.7), bits).max() == (1 << bits) - 1


def test_a_screen_sees_the_nearest_of_256_levels():
    deep = np.array([0, 128, 129, 257, 65535], np.uint16)
    assert to_eight_bits(deep).tolist() == [0, 0, 1, 1, 255]
    shallow = np.array([3, 255], np.uint8)
    assert to_eight_bits(shallow) is shallow


def test_a_sixteen_bit_picture_round_trips_and_its_hash_covers_both_bytes():
    pixels = np.random.default_rng(0).integers(0, 1 << 16, (16, 16)).astype(np.uint16)
    png = encode_png(pixels)
    found = decode_png(png)
    assert found.dtype == np.uint16
    assert np.array_equal(found, pixels)
    low, high = pixels.copy(), pixels.copy()
    low[0, 0] ^= 1
    high[0, 0] ^= 1 << 15
    assert len({pixel_hash(item) for item in (pixels, low, high)}) == 3


def test_colour_of_sixteen_bits_is_refused_where_it_is_asked_for_and_where_it_is_made():
    with pytest.raises(ConfigError, match="grey images only"):
        parse({"size": 32, "channels": 3, "bits": 16}, ImageForm, "form")
    with pytest.raises(ValueError, match="uint16"):
        encode_png(np.zeros((16, 16, 3), np.uint16))


def test_a_picture_of_another_depth_in_its_header_is_refused():
    png = encode_png(np.zeros((16, 16), np.uint16))
    with pytest.raises(VerificationError):
        decode_png(png.replace(b"\x10\x00\x00\x00\x00", b"\x08\x00\x00\x00\x00", 1))


@pytest.mark.parametrize("bits", [8, 16])
def test_samples_have_the_plans_depth_and_use_it(bits):
    plan = plan_of(bits)
    images = sample_images(plan, "spectral", released(plan), np.arange(20) % 2, seeded(0))
    assert images.dtype == np.dtype(f"u{bits // 8}")
    if bits == 16:
        assert len(np.unique(images % 256)) == 256
    assert sample_images(plan, "spectral", released(plan), np.zeros(0, np.int64), seeded(0)).dtype == images.dtype


def test_features_and_the_density_do_not_depend_on_the_depth_but_its_floor_does():
    deep, _, _ = arrays(seed=1, patients=3, size=32, bits=16)
    coarse = to_eight_bits(deep)
    first, second = (features_of(Layout.of(plan_of(bits)), images) for bits, images in ((16, deep), (8, coarse)))
    assert np.abs(first - second).max() < 0.05 * np.abs(second).max()
    law = public_scale(512, 16)
    assert (law < public_scale(512, 8)).all()
    assert quantisation(16) == pytest.approx(quantisation(8) / 257)


@pytest.mark.parametrize("bits", [8, 16])
def test_bits_per_dim_of_a_uniform_density_is_the_depth(bits):
    top = (1 << bits) - 1
    log_prob = torch.tensor([-100 * math.log((top + 1) * 2 / top)])
    assert bits_per_dim(log_prob, 100, bits).item() == pytest.approx(bits, abs=1e-4)


def test_dequantised_images_round_back_and_fill_their_bins():
    images = np.random.default_rng(0).integers(1, (1 << 16) - 1, (4, 32, 32)).astype(np.uint16)
    spread = dequantise(torch.from_numpy(to_unit_range(images)), seeded(0), 16).numpy()
    offset = (spread[:, 0].astype(np.float64) + 1) * 32767.5 - images
    assert np.abs(offset).max() <= 0.51
    assert offset.std() == pytest.approx(1 / math.sqrt(12), rel=0.05)


def test_an_exact_density_costs_eight_bits_more_for_eight_bits_more():
    deep, _, _ = arrays(seed=2, patients=4, size=32, bits=16)
    y = torch.zeros(len(deep), dtype=torch.int64)
    figures = []
    for bits, images in ((16, deep), (8, to_eight_bits(deep))):
        model = spectral_model(plan_of(bits), released(plan_of(bits)))
        spread = dequantise(torch.from_numpy(to_unit_range(images)), seeded(0), bits)
        figures.append(float(bits_per_dim(model.log_prob(spread, y), 32 * 32, bits).mean()))
    assert figures[0] - figures[1] == pytest.approx(8.0, abs=0.3)
