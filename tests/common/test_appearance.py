"""The appearance release: a map of one image each, its sensitivity, and what its images are made of."""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.appearance.feature_map import GRID, AppearanceLayout, FeatureMap
from sfumato_common.generators.appearance.features import centre_of_map, features_of, planes_of
from sfumato_common.generators.appearance.fit import fit_appearance
from sfumato_common.generators.appearance.phantoms import phantom_pool
from sfumato_common.generators.appearance.pose import inverse_of, matrices_of, pose_of, thumbnails, warp
from sfumato_common.generators.appearance.synthesis import appearance_model
from sfumato_common.generators.sampling import sample_images
from sfumato_common.generators.spectral.drawn import fewest_patients
from sfumato_common.generators.spectral.fit import fit_components
from sfumato_common.generators.spectral.release import noised_moments
from sfumato_common.generators.spectral.sums import NORM_WEIGHT, main_noise
from sfumato_common.imaging import fit_square
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.phantom.cameras import CAMERAS
from sfumato_common.phantom.eyes import draw_eyes
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

VALUES = {
    "study": "appearance",
    "image": {"size": 28},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 60}, "birch": {"nominal_patients": 60}},
    "privacy": {"epsilon": 100.0, "delta": 1.0e-5},
    "stages": [{"kind": "appearance", "noise_multiplier": 0.5, "phantoms": 8}],
    "release": [{"model": "appearance", "images": 4}],
    "federation": {"quorum": 1},
}


def plan_of(size: int = 28, channels: int = 1, **terms: object) -> Plan:
    values = copy.deepcopy(VALUES)
    values["image"] = {"size": size, "channels": channels}
    values["stages"][0] |= terms
    return parse(values, Plan, "plan")


def refusal(values: dict) -> str:
    with pytest.raises(ConfigError) as error:
        parse(values, Plan, "plan")
    return str(error.value)


def images_of(count: int, size: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Phantoms, noise, and a few images without any content."""
    rng, some = np.random.default_rng(seed), phantom_arrays(seed, count, size)[0][:count]
    noise = rng.integers(0, 256, some[::3].shape)
    some = some.copy()
    some[::3] = noise
    some[1], some[2] = 0, 255
    if channels == 3:
        return np.stack([some, 255 - some, np.roll(some, 3, axis=2)], axis=-1)
    return some


def exact(part, sensitivity, multiplier):
    return part


def gaussian(seed: int):
    rng = np.random.default_rng(seed)
    return lambda part, sensitivity, multiplier: part + rng.normal(size=part.shape) * sensitivity * multiplier


def release_of(plan: Plan, images, labels, weights, mechanism=exact) -> dict:
    layout = AppearanceLayout.of(plan)
    sigma = plan.stages[0].noise_multiplier
    return noised_moments(layout, sigma, features_of(layout.map, images), labels, weights, mechanism)


@pytest.mark.parametrize(
    ("size", "channels", "features"), [(28, 1, 199), (64, 1, 135), (128, 1, 151), (256, 1, 167), (64, 3, 167)]
)
def test_features_are_few_whatever_the_size(size, channels, features):
    layout = AppearanceLayout.of(plan_of(size, channels))
    assert layout.features == features == len(layout.prior) == len(layout.rings) == len(layout.map.scale)
    assert layout.prior.sum() == pytest.approx(1.0)
    low, energies, parameters = layout.map.split(layout.prior[None])
    assert [part.sum() for part in (low, energies, parameters)] == pytest.approx([0.616, 0.264, 0.12])


@pytest.mark.parametrize("size", [16, 28, 32, 48, 64, 100, 128, 512])
def test_bands_and_low_coefficients_divide_the_plane(size):
    fmap = FeatureMap.of(plan_of(size, phantoms=4))
    covered = fmap.bands.sum(axis=0).ravel()
    covered[fmap.low] += 1
    assert (covered == 1).all()
    assert fmap.bands.any(axis=(1, 2)).all()


@pytest.mark.parametrize(("size", "channels", "alignment"), [(28, 1, "chest"), (64, 1, "chest"), (32, 3, "none")])
def test_an_images_features_have_the_same_bits_whoever_else_is_there(size, channels, alignment):
    """The proof of sensitivity rests on it: features are a function of one image and of public constants."""
    detail = {} if alignment == "chest" else {"detail": "noise"}
    fmap = FeatureMap.of(plan_of(size, channels, alignment=alignment, **detail))
    images = images_of(150, size, channels)
    every = features_of(fmap, images)
    order = np.random.default_rng(1).permutation(len(images))
    assert np.array_equal(features_of(fmap, images[order]), every[order])
    assert np.array_equal(features_of(fmap, images[3:4]), every[3:4])
    more = np.concatenate([images_of(30, size, channels, 5), images])
    assert np.array_equal(features_of(fmap, more)[30:], every)
    assert np.isfinite(every).all() and every.shape == (150, fmap.features)
    assert features_of(fmap, images[:0]).shape == (0, fmap.features)


def test_a_vector_that_is_not_finite_becomes_zero(monkeypatch):
    fmap = FeatureMap.of(plan_of())
    images = images_of(6, 28)
    before = features_of(fmap, images)

    def broken(values):
        planes = planes_of(values)
        planes[2, 0, 9, 9] = np.nan
        return planes

    monkeypatch.setattr("sfumato_common.generators.appearance.features.planes_of", broken)
    after = features_of(fmap, images)
    assert not after[2].any()
    assert np.array_equal(np.delete(after, 2, axis=0), np.delete(before, 2, axis=0))


def test_shares_of_the_budget_make_one_release():
    layout = AppearanceLayout.of(plan_of())
    own = layout.weights
    squares = own.centre_sensitivity**2 + own.sums_sensitivity**2 + own.moment**2
    assert squares == pytest.approx(1.0, abs=1e-12)
    assert own.moment == pytest.approx(0.757, abs=1e-3)
    # each part's noise over its sensitivity is a multiplier; all mechanisms together cost the stage's one release
    main = main_noise(layout, 0.8)
    assert layout.norms * (NORM_WEIGHT / 0.8) ** 2 + squares / main**2 == pytest.approx(1 / 0.8**2)
    assert main_noise(replace(layout, charged_radii=False), 0.8) == 0.8


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3)])
def test_a_patient_more_or_less_moves_the_release_by_one_at_most(size, channels):
    """Against the same noisy centre and means, as adaptive composition asks: here those that come of no noise."""
    plan = plan_of(size, channels, radii="fixed")
    layout = AppearanceLayout.of(plan)
    rng, images = np.random.default_rng(0), images_of(60, size, channels)
    patients, labels = np.repeat(np.arange(30), 2), rng.integers(0, 2, 60)
    features, weights = features_of(layout.map, images), np.full(60, 0.5)
    seen: list[np.ndarray] = []

    def record(part, sensitivity, multiplier):
        seen.append(part)
        return fixed[len(seen) - 1] if fixed else part

    fixed: list[np.ndarray] = []
    noised_moments(layout, 1.0, features, labels, weights, record)
    fixed, whole = list(seen), list(seen)
    furthest = 0.0
    for patient in range(30):
        seen, rows = [], patients != patient
        noised_moments(layout, 1.0, features[rows], labels[rows], weights[rows], record)
        moved = math.sqrt(sum(float(((a - b) ** 2).sum()) for a, b in zip(whole, seen, strict=True)))
        furthest = max(furthest, moved)
    assert 0.5 < furthest <= 1.0 + 1e-6


def test_pose_finds_a_known_shift_and_warps_undo_each_other():
    fmap = FeatureMap.of(plan_of(64, phantoms=30))
    template = centre_of_map(fmap).template
    theta = torch.tensor([[0.12, -0.08, 0.05, 0.04, 0.05]], dtype=torch.float64)
    image = torch.from_numpy(template)[None, None]
    moved = warp(image, inverse_of(matrices_of(theta)))
    found = pose_of(moved[:, 0].numpy(), template)
    assert np.abs(found - theta.numpy()).max() < 0.06
    back = warp(moved, matrices_of(theta))
    inner = slice(6, -6)
    assert float((back - image)[..., inner, inner].abs().mean()) < 0.1
    assert np.abs(pose_of(np.full((3, 24, 24), 1e6), template)).max() <= 0.3 + 1e-6


def test_thumbnails_keep_a_flat_image_and_its_mean():
    assert np.allclose(thumbnails(np.full((2, 28, 28), 0.7)), 0.7)
    assert thumbnails(np.random.default_rng(0).normal(size=(1, 512, 512))).shape == (1, 24, 24)


def test_the_public_pool_is_the_same_everywhere():
    pool = phantom_pool("chest", 28, 8)
    assert pool.dtype == np.uint8 and pool.shape[1:] == (28, 28)
    assert hashlib.sha256(pool.tobytes()).hexdigest() == POOL
    larger = phantom_pool("chest", 28, 12)
    assert np.array_equal(larger[: len(pool)], pool)


POOL = "ec40c7ad44cd1c52eb04a0cbe045504d154e933b0375e0c35de47ff411f1f231"


def fitted(plan: Plan, seed: int = 0, patients: int = 60, sites: tuple[str, ...] = ("alder", "birch")) -> dict:
    channels = plan.image.channels
    releases = {}
    for number, site in enumerate(sites):
        rng = np.random.default_rng(seed + number)
        images = images_of(max(patients, 6), plan.image.size, channels, seed)[:patients]
        mechanism = gaussian(seed + number)
        releases[site] = release_of(plan, images, rng.integers(0, 2, patients), np.ones(patients), mechanism)
    return {f"appearance/{name}": value for name, value in fit_appearance(plan, releases).items()}


@pytest.mark.parametrize("detail", ["noise", "phantom", "mixed"])
def test_images_follow_from_the_release_and_the_draws_alone(detail):
    plan = plan_of(detail=detail)
    arrays, components = fitted(plan), np.array([0, 1, 1, 0])
    one, two = (
        sample_images(plan, "appearance", arrays, components, TorchDraws(torch.Generator().manual_seed(3)))
        for _ in range(2)
    )
    assert np.array_equal(one, two) and one.std() > 5


@pytest.mark.parametrize(("size", "channels"), [(28, 1), (64, 1), (32, 3)])
def test_numbers_of_an_image_come_back_from_what_is_drawn_of_them(size, channels):
    """Exposure, pose and energies of an image are found again in an image that was made of them."""
    terms = {"detail": "noise", "alignment": "chest" if channels == 1 else "none"}
    plan = plan_of(size, channels, **terms)
    fmap = FeatureMap.of(plan)
    images = phantom_arrays(5, 20, size)[0][:20]
    images = images if channels == 1 else np.stack([images, images // 2, images // 3], axis=-1)
    features, centre = features_of(fmap, images), centre_of_map(fmap)
    numbers = torch.from_numpy(features * fmap.scale + centre.numbers).float()
    draws = TorchDraws(torch.Generator().manual_seed(0))
    made = appearance_model(plan, fitted(plan)).synthesise(numbers, draws).numpy()
    shown = np.clip(np.rint((made + 1.0) * 127.5), 0, 255).astype(np.uint8)
    shown = shown[:, 0] if channels == 1 else shown.transpose(0, 2, 3, 1)
    again = features_of(fmap, shown) * fmap.scale + centre.numbers
    wanted = features * fmap.scale + centre.numbers
    (low, energies, parameters), (low2, energies2, parameters2) = fmap.split(wanted), fmap.split(again)
    assert np.corrcoef(low.ravel(), low2.ravel())[0, 1] > 0.97
    assert np.abs(energies2 - energies).mean() < 0.3
    assert np.abs(parameters2[:, :2] - parameters[:, :2]).max() < 0.35
    if channels == 3:
        assert np.allclose(shown.mean(axis=(0, 1, 2)), images.mean(axis=(0, 1, 2)), atol=12.0)


def test_every_honest_fit_is_taken_and_a_crafted_one_is_not():
    for terms in ({}, {"radii": "fixed"}, {"by_site": True}):
        plan = plan_of(**terms)
        check = GENERATORS["appearance"].check_fixed
        for patients, sites in ((60, ("alder", "birch")), (3, ("alder", "birch")), (60, ("birch",))):
            check(plan, fitted(plan, patients, patients, sites))
    arrays = fitted(plan)
    for name, change in (
        ("shares", lambda a: a * 1.1),
        ("mean", lambda a: a + 9.0),
        ("factor", lambda a: a * 200.0),
        ("factor", lambda a: a + np.triu(np.ones_like(a), 1)),
        ("signal", lambda a: a * 2.0 + np.eye(a.shape[1])),
    ):
        key = f"appearance/{name}"
        with pytest.raises(VerificationError, match=f"appearance model's '{name}'"):
            check(plan, {**arrays, key: change(arrays[key]).astype(np.float32)})


def test_a_crafted_reply_is_refused_and_honest_noise_never():
    plan, rng = plan_of(), np.random.default_rng(0)
    check = EXCHANGES["appearance"].check_reply
    labels = rng.integers(0, 2, 60)
    images, layout = images_of(60, 28), AppearanceLayout.of(plan)
    features = features_of(layout.map, images)
    for seed in range(20):
        arrays = noised_moments(layout, 0.5, features, labels, np.ones(60), gaussian(seed))
        check(plan, "alder", arrays)
    for part, place, value in (("centre", 0, 60.0), ("sums", (0, 1), 90.0), ("moments", (0, 0), -60.0)):
        crafted = {name: array.copy() for name, array in arrays.items()}
        crafted[part][place] = value
        with pytest.raises(VerificationError, match="beyond what the plan makes possible"):
            check(plan, "alder", crafted)


def test_a_site_of_few_patients_draws_from_the_classes_of_all():
    plan, rng = plan_of(by_site=True), np.random.default_rng(0)
    sigma = 0.5
    enough = fewest_patients(AppearanceLayout.of(plan), sigma)
    # of counts that drown in noise one is taken as that noise's size, about 4 patients a class
    few = int(enough) - 20
    assert few > 10
    releases = {}
    for site, count, darker in (("alder", 400, 2), ("birch", few, 1)):
        images = phantom_arrays(3, count, 28, site)[0][:count] // darker
        releases[site] = release_of(plan, images, rng.integers(0, 2, count), np.ones(count))
    model, layout = fit_appearance(plan, releases), AppearanceLayout.of(plan)
    apart = fit_components(plan, layout, sigma, releases, by_site=True).arrays(layout)
    # a few patients' own noise would show in every image of theirs
    assert np.abs(apart["factor"][2] - model["factor"][2]).max() > 1e-3
    assert not np.allclose(apart["mean"][2:], model["mean"][2:], atol=1e-3)
    assert np.allclose(apart["factor"][:2], model["factor"][:2], atol=1e-6), "the larger site is as it was"
    shares = model["shares"].reshape(2, 2).sum(axis=1)
    assert shares[1] == pytest.approx(60 / (60 + 400), rel=0.1), "counted by what was agreed, not by what is there"


@pytest.mark.parametrize("detail", ["noise", "phantom", "mixed"])
def test_a_stage_says_in_plain_words_whose_detail_its_images_show(detail):
    said = plan_of(detail=detail).stages[0].foreign_detail
    assert said.startswith("Overall shape") and "belongs to no patient" in said
    assert ("phantom" in said, "noise" in said) == (detail != "noise", detail != "phantom")


def test_plans_say_what_cannot_be():
    wrong = copy.deepcopy(VALUES)
    wrong["stages"][0]["alignment"] = "none"
    assert "the phantom's lines need its place" in refusal(wrong)
    wrong["stages"][0] |= {"detail": "noise", "coefficients": 300}
    assert "more than a quarter" in refusal(wrong)
    spectral = {"kind": "spectral", "bandwidth": 8, "clip_radius": 2.0, "noise_multiplier": 0.5}
    both = {**VALUES, "stages": [spectral, *VALUES["stages"]]}
    assert parse(both, Plan, "plan").base == "spectral"
    assert "must be 'spectral'" in refusal({**VALUES, "stages": [*VALUES["stages"], spectral]})
    apart = copy.deepcopy(both)
    apart["stages"][0]["by_site"] = True
    assert "must agree" in refusal(apart)
    assert parse(VALUES, Plan, "plan").base == "appearance"


def fundus_plan(size: int = 64, **terms: object) -> Plan:
    return plan_of(size, 3, **{"alignment": "fundus", "detail": "phantom", "phantoms": 12, **terms})


def test_left_eyes_are_told_from_right_ones_and_give_the_same_features():
    fmap = FeatureMap.of(fundus_plan(phantoms=45))
    eyes = [draw_eyes(3, "alder", number, CAMERAS[sorted(CAMERAS)[number % 3]]) for number in range(12)]
    pictures = [fit_square(image, 64) for person in eyes for image in person.images]
    images = np.stack([np.rint(picture * 255).astype(np.uint8) for picture in pictures])
    right = np.array([view == "R" for person in eyes for view in person.views])
    features, mirrored = features_of(fmap, images), features_of(fmap, np.ascontiguousarray(images[:, :, ::-1]))
    assert ((features[:, -1] > 0) == right).mean() >= 0.95
    assert np.allclose(features[:, :-1], mirrored[:, :-1], atol=1e-6)
    assert np.allclose(features[:, -1], -mirrored[:, -1])


def test_a_fundus_has_a_black_frame_and_both_sides():
    plan = fundus_plan()
    images, labels, _ = phantom_arrays(5, 60, 64, modality="fundus")
    sums = {site: release_of(plan, images, labels, np.full(len(images), 0.5)) for site in plan.sites}
    arrays = {f"appearance/{name}": value for name, value in fit_appearance(plan, sums).items()}
    GENERATORS["appearance"].check_fixed(plan, arrays)
    draws = TorchDraws(torch.Generator().manual_seed(3))
    drawn = sample_images(plan, "appearance", arrays, np.arange(24) % 2, draws)
    assert drawn[:, [0, 0, -1, -1], [0, -1, 0, -1]].max() <= 8, "corners"
    middle = drawn[:, 24:40, 24:40].astype(float).mean(axis=(0, 1, 2))
    assert middle[0] > middle[1] > middle[2] and middle[0] > 90, "red before green before blue"
    sides = np.sign(features_of(FeatureMap.of(plan), drawn)[:, -1])
    assert 4 <= (sides > 0).sum() <= 20


def test_fundi_are_in_colour_and_say_whose_their_frame_is():
    wrong = copy.deepcopy(VALUES)
    wrong["stages"][0]["alignment"] = "fundus"
    assert "channels: 3" in refusal(wrong)
    assert "black frame" in fundus_plan().stages[0].foreign_detail
    assert "frame" not in plan_of().stages[0].foreign_detail
    pool = phantom_pool("fundus", 28, 6)
    assert hashlib.sha256(pool.tobytes()).hexdigest() == EYES and pool.shape[1:] == (28, 28, 3)


EYES = "41a1cab31ac19f73f3fa72af4d2fca2639bfb5bdf57fcc72b7fe790af7f42a68"


@pytest.mark.slow
def test_512_pixels_fit_and_draw():
    plan = plan_of(512, phantoms=4)
    images = phantom_arrays(3, 4, 512)[0][:4]
    fmap = FeatureMap.of(plan)
    assert features_of(fmap, images).shape == (4, 183)
    arrays = {
        f"appearance/{n}": v
        for n, v in fit_appearance(
            plan, {"alder": release_of(plan, images, np.array([0, 1, 0, 1]), np.ones(4))}
        ).items()
    }
    drawn = sample_images(plan, "appearance", arrays, np.array([0, 1]), TorchDraws(torch.Generator().manual_seed(0)))
    assert drawn.shape == (2, 512, 512) and GRID == 4
