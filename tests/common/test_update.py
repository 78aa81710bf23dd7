"""Model updates as they travel, how far a plan can move a weight, and the recorder that counts what ran."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfumato_common.accounting.events import GaussianRelease, SampledGaussian, same_mechanisms
from sfumato_common.errors import EgressRefused
from sfumato_common.generators.displacement import adam_step, within_displacement
from sfumato_common.generators.flow.displacement import BETAS as FLOW_BETAS
from sfumato_common.generators.flow.settings import FlowStage
from sfumato_common.generators.gan.displacement import GENERATOR_BETAS, GENERATOR_LEARNING_RATE
from sfumato_common.generators.gan.displacement import SITE_BETAS as GAN_BETAS
from sfumato_common.generators.gan.settings import GanStage
from sfumato_common.generators.starts import max_displacement
from sfumato_common.generators.update import UPDATE, pack_update, unpack_update, update_spec
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.sealed import Sealed, digest_of
from sfumato_common.types import ArraySpec

WEIGHTS = {"b": ArraySpec("float32", (3,)), "a/w": ArraySpec("float32", (2, 5)), "s": ArraySpec("float32", ())}


def weights(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.array(scale * rng.normal(size=spec.shape), np.float32) for name, spec in WEIGHTS.items()}


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6])
def test_an_update_comes_back_to_half_a_last_place(scale):
    before, change = weights(0, 0.0), weights(1, scale)
    packed = pack_update(before, {name: before[name] + change[name] for name in before})
    back = unpack_update(packed, WEIGHTS)
    assert {name: value.shape for name, value in back.items()} == {name: spec.shape for name, spec in WEIGHTS.items()}
    for name, value in back.items():
        assert value.dtype == np.float32
        assert (np.abs(value - change[name]) <= 2.0**-8 * np.abs(change[name])).all()


def test_the_relative_error_does_not_grow_with_the_weights():
    # the change is rounded, not the weights: 1000.25 as bfloat16 would lose the quarter altogether
    before = {"w": np.full(4, 1000.0, np.float32)}
    after = {"w": before["w"] + np.float32(0.25)}
    back = unpack_update(pack_update(before, after), {"w": ArraySpec("float32", (4,))})
    assert np.array_equal(back["w"], after["w"] - before["w"])


def test_an_update_is_on_a_public_length_and_fits_its_spec():
    spec = update_spec(WEIGHTS)
    assert (spec.dtype, spec.shape, spec.filled) == ("bfloat16", (256,), 14)
    assert update_spec({"w": ArraySpec("float32", (256,))}).shape == (256,)
    assert update_spec({"w": ArraySpec("float32", (257,))}).shape == (512,)
    packed = pack_update(weights(0), weights(1))
    assert spec.matches(packed) and spec.sound(packed)
    assert not packed[14:].any()
    assert packed.nbytes == spec.bytes
    assert not spec.sound(np.where(np.arange(256) == 14, 1, packed).astype(np.uint16)), "padding hides nothing"
    assert not spec.sound(np.where(np.arange(256) == 3, 0x7F80, packed).astype(np.uint16)), "infinite"


def test_what_is_not_finite_stays_visible():
    after = weights(1)
    after["b"][1] = np.nan
    after["a/w"][0, 0] = np.inf
    packed = pack_update(weights(0), after)
    assert not update_spec(WEIGHTS).sound(packed)


def test_only_what_changed_is_packed_and_by_name_not_by_order():
    before, after = weights(0), weights(1)
    packed = pack_update({**before, "spectral/mean": np.ones(9, np.float32)}, dict(reversed(after.items())))
    assert np.array_equal(packed, pack_update(before, after))


def test_an_update_is_a_little_more_than_half_of_its_float32_weights():
    shapes = {"w": ArraySpec("float32", (64, 64, 3, 3))}
    assert update_spec(shapes).bytes <= 0.55 * shapes["w"].bytes


@settings(max_examples=50, deadline=None)
@given(arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_rounding_twice_changes_nothing_more(change):
    spec = {"w": ArraySpec("float32", change.shape)}
    zero = {"w": np.zeros_like(change)}
    once = unpack_update(pack_update(zero, {"w": change}), spec)
    assert np.array_equal(unpack_update(pack_update(zero, once), spec)["w"], once["w"])


DP = {"sampling_rate": 0.1, "clipping_norm": 1.0, "noise_multiplier": 1.0, "learning_rate": 0.003}
GAN = GanStage(kind="gan", rounds=5, local_steps=7, generator_steps=11, **DP)
FLOW = FlowStage(kind="flow", rounds=5, local_steps=7, **DP)


def test_reach_adds_up_over_steps_and_rounds():
    assert (
        max_displacement(GAN, "discriminator", 0)
        == max_displacement(GAN, "generator", 0)
        == max_displacement(FLOW, "flow", 0)
        == 0.0
    )
    assert max_displacement(GAN, "discriminator", 3) == pytest.approx(3 * max_displacement(GAN, "discriminator", 1))
    steps = {
        "discriminator": (GAN, 7 * 0.003 * adam_step(GAN_BETAS)),
        "generator": (GAN, 11 * GENERATOR_LEARNING_RATE * adam_step(GENERATOR_BETAS)),
        "flow": (FLOW, 7 * 0.003 * adam_step(FLOW_BETAS)),
    }
    for model, (stage, exact) in steps.items():
        assert exact < max_displacement(stage, model, 1) <= exact * (1 + 2.0**-7)


def test_one_step_of_adam_by_hand():
    # b1 = 0 is a step by sign and running size: |g| / sqrt((1 - b2) g^2)
    assert adam_step((0.0, 0.99)) == pytest.approx(10.0)
    assert adam_step((0.5, 0.99)) == pytest.approx(0.5 / math.sqrt(0.01 * (1 - 0.25 / 0.99)))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.0, 10.0), st.floats(-20.0, 20.0, width=32))
def test_within_reach_is_a_distance(distance, place):
    after = {"w": np.full(3, place, np.float32)}
    held = within_displacement({"w": np.zeros(3, np.float32)}, after, distance)
    assert held == (abs(np.float32(place)) <= distance + 1e-5)


def recorder(binding: str = "entry") -> NoiseRecorder:
    return NoiseRecorder(SecureNoise(), binding)


def test_a_meter_counts_every_step_whatever_their_order():
    one = recorder()
    for _ in range(5):
        one.sampled_gaussian(np.zeros(3), 1.0, 1.1, 0.2)
    assert one.executed == (SampledGaussian(1.1, 0.2, 5),)
    one.sampled_gaussian(np.zeros(3), 7.0, 1.1, 0.2)  # the clipping norm is not part of what is charged
    assert one.executed == (SampledGaussian(1.1, 0.2, 6),)
    one.sampled_gaussian(np.zeros(3), 1.0, 1.1, 0.1)
    one.sampled_gaussian(np.zeros(3), 1.0, 1.1, 0.2)
    assert one.executed == (SampledGaussian(1.1, 0.2, 7), SampledGaussian(1.1, 0.1, 1))
    assert one.draws == 8


@pytest.mark.parametrize("sigmas", [(1.0,), (2.0, 2.0), (3.0, 0.5, 9.0)])
def test_one_shot_releases_compose_as_one_gaussian(sigmas):
    one = recorder()
    for sigma in sigmas:
        one.gaussian(np.zeros(2), 1.0, sigma)
    whole = GaussianRelease(1.0 / math.sqrt(sum(sigma**-2 for sigma in sigmas)))
    assert same_mechanisms([whole], one.executed)
    assert not same_mechanisms([GaussianRelease(whole.noise_multiplier * 1.001)], one.executed)


def test_what_a_meter_gives_is_the_value_plus_that_much_noise():
    value = np.full(40_000, 3.0)
    for drawn in (recorder().gaussian(value, 2.0, 1.5), recorder().sampled_gaussian(value, 2.0, 1.5, 0.3)):
        noise = drawn - value
        assert abs(noise.mean()) < 6 * 3.0 / 200  # six standard errors
        assert noise.std() == pytest.approx(3.0, rel=0.03)


def sealed(binding: str = "entry") -> Sealed:
    one = recorder(binding)
    one.gaussian(np.zeros(2), 1.0, 1.0)
    return one.seal_result({UPDATE: np.zeros(256, np.uint16), "w": np.ones((2, 3), np.float32)})


def with_result(change):
    """The same claims about other arrays: with the digest left as it was, and with one that fits them."""
    return lambda s: [
        replace(s, result=change(s.result)),
        replace(s, result=change(s.result), digest=digest_of(change(s.result))),
    ]


FORGERIES = {
    "a value": with_result(lambda arrays: {**arrays, "w": arrays["w"] + 1}),
    "a name": with_result(lambda arrays: {UPDATE: arrays[UPDATE], "v": arrays["w"]}),
    "a shape": with_result(lambda arrays: {**arrays, "w": arrays["w"].reshape(3, 2)}),
    "a dtype": with_result(lambda arrays: {**arrays, "w": arrays["w"].view(np.int32)}),
    "an array less": with_result(lambda arrays: {"w": arrays["w"]}),
    "an array more": with_result(lambda arrays: {**arrays, "x": arrays["w"]}),
    "bytes for an array": with_result(lambda arrays: {**arrays, "w": arrays["w"].tobytes()}),
    "the mechanism": lambda s: [replace(s, executed=(GaussianRelease(2.0),)), replace(s, executed=())],
    "the reservation": lambda s: [replace(s, binding="other")],
    "the digest": lambda s: [replace(s, digest="0" * 64)],
    "the seal": lambda s: [replace(s, _seal=bytes(32))],
    "no seal": lambda s: [replace(s, _seal=b"")],
}


@pytest.mark.parametrize("change", FORGERIES)
def test_a_seal_holds_arrays_mechanism_and_reservation_together(change):
    honest = sealed()
    honest.check()
    for forged in FORGERIES[change](honest):
        with pytest.raises(EgressRefused, match="not what a recorded mechanism sealed"):
            forged.check()


def test_the_digest_of_bytes_is_their_sha256_and_of_parts_by_name_and_form():
    assert digest_of(b"table") == hashlib.sha256(b"table").hexdigest()
    w, claims = np.arange(6, dtype=np.float32).reshape(2, 3), b"k = 5"
    by_hand = b'["claims","bytes",5]\nk = 5' + b'["w","float32",[2,3]]\n' + w.tobytes()
    assert digest_of({"w": w, "claims": claims}) == hashlib.sha256(by_hand).hexdigest()
    assert digest_of({"w": np.asfortranarray(w), "claims": claims}) == hashlib.sha256(by_hand).hexdigest()


@pytest.mark.parametrize("thing", [None, 5, "text", [np.zeros(2)], {"w": [0.0]}, {"w": "text"}, object()])
def test_nothing_but_arrays_and_bytes_can_be_sealed(thing):
    with pytest.raises(EgressRefused, match="only arrays and bytes"):
        recorder().seal_result(thing)


def test_a_seal_of_another_process_does_not_hold():
    code = (
        "import numpy as np; from sfumato_common.mechanisms.recorder import NoiseRecorder; "
        "from sfumato_common.mechanisms.noise import SecureNoise; m = NoiseRecorder(SecureNoise(), 'entry'); "
        "m.gaussian(np.zeros(2), 1.0, 1.0); print(m.seal_result({'w': np.ones(2, np.float32)})._seal.hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout
    one = recorder()
    one.gaussian(np.zeros(2), 1.0, 1.0)
    here = one.seal_result({"w": np.ones(2, np.float32)})
    here.check()
    with pytest.raises(EgressRefused):
        replace(here, _seal=bytes.fromhex(other.strip())).check()


def test_a_seal_does_not_show_itself():
    noised = sealed()
    assert noised._seal.hex() not in repr(noised)
    assert str(noised._seal) not in repr(noised)
