"""Methods as functions of a latent space: each against what its definition says of the simplest case."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sfumato_client.anonymise.identities import anonymity
from sfumato_client.anonymise.in_latent_space import group_patients, k_salsa, linear_walk, plan_walk
from sfumato_client.anonymise.influence import noise_of
from sfumato_client.anonymise.self_supervised import train
from sfumato_client.dataset import Cohort
from sfumato_common.generators.gan.w_space import WSpace
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.generators.starts import initial_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_unit_range

DP = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "learning_rate": 1e-3}
PLAN = parse(
    {
        "study": "small",
        "image": {"size": 16},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 50}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 6, "clip_radius": 4.0, "noise_multiplier": 1.0},
            {"kind": "gan", "width": 8, "noise_multiplier": 1.0, **DP},
        ],
        "release": [{"model": "gan", "images": 4}],
        "federation": {"quorum": 1},
    },
    Plan,
    "test",
)


@pytest.fixture(scope="module")
def space():
    layout, rng = Layout.of(PLAN), np.random.default_rng(0)
    k, d = layout.classes, layout.features
    released = {
        "shares": np.full(k, 1.0 / k),
        "mean": 0.3 * rng.normal(size=(k, d)),
        "factor": np.stack([0.3 * np.eye(d)] * k),
        "signal": np.stack([np.eye(d)] * k),
        "tail": np.ones(k),
    }
    spectral = spectral_model(PLAN, {f"spectral/{name}": value.astype(np.float32) for name, value in released.items()})
    generator = initial_model("generator", PLAN).requires_grad_(False)
    for parameter in generator.parameters():
        parameter += 0.1 * torch.from_numpy(rng.normal(size=parameter.shape)).float()
    return WSpace(PLAN, generator, spectral)


@pytest.fixture(scope="module")
def cohort(space):
    """One image, code, component and label a patient."""
    images, labels, patients = arrays(3, 30, 16)
    first = np.unique(patients, return_index=True)[1]
    components = torch.from_numpy(labels[first])
    return images[first], space.encode(torch.from_numpy(to_unit_range(images[first])), components), components


@pytest.fixture(scope="module")
def ends(cohort):
    _, codes, components = cohort
    healthy = codes[components == 0]
    return torch.stack([torch.stack([healthy[:5].mean(dim=0), healthy[5:10].mean(dim=0)])] * 2)


def seeded():
    return torch.Generator().manual_seed(5)


ZEROS = torch.zeros(2, dtype=torch.int64)


def test_groups_are_disjoint_of_one_label_and_have_k_patients(cohort):
    _, codes, components = cohort
    groups = group_patients(codes, components.numpy(), k=4)
    everybody = np.concatenate(groups)
    assert len(everybody) == len(set(everybody.tolist())) == len(codes)
    assert all(len(group) >= 4 and len(set(components[torch.from_numpy(group)].tolist())) == 1 for group in groups)
    with pytest.raises(ValueError, match="k"):
        group_patients(codes, components.numpy(), k=1)


def test_a_linear_walk_shows_even_steps_between_its_ends(space, ends):
    images = linear_walk(space, ends, ZEROS, 3, seeded())
    assert images.shape == (2, 3, 1, 16, 16)
    noise = space.draw_noise(torch.zeros(6, dtype=torch.int64), TorchDraws(seeded()))
    codes = torch.stack([ends[0, 0] + step * (ends[0, 1] - ends[0, 0]) for step in (0.25, 0.5, 0.75)] * 2)
    with torch.no_grad():
        assert torch.allclose(images.flatten(0, 1), space.decode(codes, ZEROS.repeat(3), noise), atol=1e-6)


@pytest.mark.parametrize(("elastic", "nearer"), [("absolute", 16.0), ("relative", 1.0)])
def test_a_walk_that_nothing_bends_is_the_straight_one(space, ends, elastic, nearer):
    nobody = nn.Sequential(nn.Flatten(), nn.Linear(256, 3))
    close = ends / nearer  # exact in binary
    straight = linear_walk(space, close, ZEROS, 3, seeded())
    terms = {"identity_weight": 0.0, "class_weight": 0.0, "elastic": elastic}
    bent = plan_walk(space, close, ZEROS, ZEROS, nobody, nobody, seeded(), points=3, steps=1, **terms)
    # Adam takes the rounding of a gradient of nothing for a small step
    assert torch.allclose(bent, straight, atol=0.02)


def test_a_bent_walk_looks_less_like_anybody(space, ends):
    torch.manual_seed(0)
    who, what = (nn.Sequential(nn.Flatten(), nn.Linear(256, count)) for count in (9, 2))
    straight = linear_walk(space, ends, ZEROS, 3, seeded())
    bent = plan_walk(
        space, ends, ZEROS, ZEROS, who, what, seeded(), points=3, steps=30, identity_weight=100.0, class_weight=0.0
    )
    near, far = (float(anonymity(who(images.flatten(0, 1))).mean().detach()) for images in (bent, straight))
    assert near < 0.8 * far
    with pytest.raises(ValueError, match="steps"):
        plan_walk(space, ends, ZEROS, ZEROS, who, what, seeded(), steps=0)


def test_k_salsa_without_a_pull_is_the_image_of_the_mean_code(space, cohort):
    images, codes, components = cohort
    groups = group_patients(codes, components.numpy(), k=5)[:2]
    people = np.arange(len(images))
    terms = {"net": train(Cohort(images, np.zeros_like(people), people), 2, seeded()), "steps": 3}
    still = k_salsa(space, images, codes, components, groups, seeded(), **terms, content_weight=0.0, style_weight=0.0)
    moved = k_salsa(space, images, codes, components, groups, seeded(), **terms)
    means = torch.stack([codes[torch.from_numpy(group)].mean(dim=0) for group in groups])
    own = torch.stack([components[group[0]] for group in groups])
    assert still.shape == moved.shape == (2, 1, 16, 16)
    with torch.no_grad():
        expected = space.decode(means, own, noise_of(space, own, TorchDraws(seeded())))
    assert torch.allclose(still, expected, atol=1e-5)
    assert not torch.allclose(moved, still, atol=1e-3)


def test_k_salsa_of_one_patient_is_refused(space, cohort):
    images, codes, components = cohort
    with pytest.raises(ValueError, match="k"):
        k_salsa(space, images, codes, components, [np.array([3])], seeded())
