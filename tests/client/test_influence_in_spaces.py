"""Crafted networks in the codec's and StyleGAN2's spaces: no patient moves an image's final bytes farther than said."""

from __future__ import annotations

import numpy as np
import pytest
from support.plans import dp_sgd, small_plan

from sfumato_client.anonymise import Job, Release, anonymise, influence
from sfumato_client.dataset import Cohort
from sfumato_common.errors import ReleaseRefused
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes, to_unit_range

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SIZE, K, GRAIN = 16, 4, 2.0 / 255
FORM = {"size": SIZE, "cosines": 48, "kept": 16, "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
STAGES = {
    "codec": {"kind": "codec", "noise_multiplier": 0.1, "form": FORM},
    "stylegan2": dp_sgd(kind="stylegan2", channel_base=128, channel_max=8),
}
NETWORK = {"codec": "autoencoder", "stylegan2": "stylegan2-generator"}


def plan_of(kind: str) -> Plan:
    value = small_plan(STAGES[kind], released=kind, sites={"alder": 40}, epsilon=1e3)
    item = {"method": "k-same", "model": kind, "images": 4, "k": K, "distance": "random", "refinement_steps": 4}
    return parse({**value, "release": [item]}, Plan, "test")


def crafted(plan: Plan, kind: str, seed: int, size: float) -> dict[str, np.ndarray]:
    """Moments of ones, and a network whose weights are `size` times a start's and as much chance."""
    arrays = {name: np.ones(spec.shape, spec.dtype) for name, spec in GENERATORS[kind].released(plan).items()}
    arrays["spectral/shares"] /= 2.0
    rng = np.random.default_rng(seed)
    for name, value in to_arrays(NETWORK[kind], initial_model(NETWORK[kind], plan)).items():
        spread = 1.0 / np.sqrt(value[0].size) if value.ndim > 1 else 0.1
        arrays[name] = np.asarray(size * (value + rng.normal(0.0, spread, value.shape)), value.dtype)
    return arrays


def moves(images: np.ndarray) -> np.ndarray:
    """How far the image moves without each patient, a ring."""
    seen = to_unit_range(images)
    return influence.by_ring(seen[1:] - seen[:1])


@pytest.mark.parametrize("size", [1.0, 4.0, 16.0])
@pytest.mark.parametrize("kind", sorted(STAGES))
def test_whatever_network_comes_no_image_is_moved_far_by_one_of_its_patients(kind, size, monkeypatch):
    plan, noise, seen, held = plan_of(kind), TestNoise(0), [], influence.restrain
    arrays = crafted(plan, kind, int(size), size)
    models = {"spectral": {name: value for name, value in arrays.items() if name.startswith("spectral/")}, kind: arrays}
    cohort = Cohort(*phantom_arrays(5, 40, SIZE))

    def spy(plain, made, allowed, bits):
        seen.append((plain, made, allowed, held(plain, made, allowed, bits)))
        return seen[-1][-1]

    monkeypatch.setattr(influence, "restrain", spy)
    release = Release(plan, "alder", models, cohort)
    try:
        images = anonymise(Job(release, plan.release[0], Streams.of(noise), NoiseRecorder(noise, "entry"))).images
    except ReleaseRefused:
        pytest.fail("what an image is drawn back to is no average")
    assert {image.tobytes() for image in images} == {found.tobytes() for *_, found in seen}, "all are looked at"
    farthest = max(float((moves(to_bytes(made)) / (allowed + GRAIN)).max()) for _, made, allowed, _ in seen)
    assert size == 1.0 or farthest > 2.0, "without the rule patients would move images too far"
    for plain, made, allowed, found in seen:
        kept = [to_bytes(plain + share * (made - plain)) for share in influence.KEPT]
        variants = next(some for some in kept if np.array_equal(some[0], found))
        assert (moves(variants) <= allowed + GRAIN).all()
