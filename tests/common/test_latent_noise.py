"""Noise on latents: one mechanism for images and tables, and what a clip leaves of a standard normal, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato_client.anonymise.latent_report import mechanism_of as image_mechanism
from sfumato_client.tabular.anonymise import mechanism_of as table_mechanism
from sfumato_client.tabular.schema import TableSchema
from sfumato_common.accounting.events import LocalGaussian, LocalLaplace
from sfumato_common.mechanisms.clipping import clip_rows
from sfumato_common.mechanisms.latent_noise import LatentMechanism, clipped_deviation
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse
from sfumato_common.study.latents import DpGlow

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
WIDTHS = (1, 2, 3, 6, 30, 200, 3000)
# parts of the norm that a standard normal vector has in the mean, or of 1 where coordinates are cut one by one
PARTS = (0.1, 0.7, 1.0, 1.2, 3.0)


def usual(clip, width):
    return {"l1": width * math.sqrt(2 / math.pi), "l2": math.sqrt(width), "elementwise": 1.0}[clip]


@pytest.mark.parametrize("clip", ["l1", "l2", "elementwise"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_deviation_of_a_clipped_standard_normal_is_what_simulation_finds(clip, width):
    rows = np.random.default_rng(width).normal(size=(min(100_000, 2_000_000 // width), width))
    for part in PARTS:
        radius = part * usual(clip, width)
        squares = (clip_rows(rows, radius, clip) ** 2).mean(axis=1)
        found, error = squares.mean(), squares.std() / math.sqrt(len(squares))
        # five standard errors, and what `clipped` takes off so that no rounding leaves the ball
        assert abs(clipped_deviation(clip, radius, width) ** 2 - found) < 5 * error + 1e-9 * found


def test_limits_that_are_known_exactly():
    # (cos^2 / (|cos| + |sin|)^2) in the mean over a circle is 1 / pi: two coordinates in a tiny L1 ball
    assert clipped_deviation("l1", 1e-5, 2) == pytest.approx(1e-5 / math.sqrt(math.pi), rel=1e-5)
    assert clipped_deviation("l2", 1e-5, 4) == pytest.approx(0.5e-5, rel=1e-9)
    for clip in ("l1", "l2", "elementwise"):
        assert clipped_deviation(clip, 1e4, 50) == pytest.approx(1.0, abs=1e-9)
        # one coordinate: every clip is the same one
        assert clipped_deviation(clip, 1.0, 1) == pytest.approx(0.71837, abs=1e-5)
    # at a great width the norm is known: a ball of that radius takes next to nothing
    for clip in ("l1", "l2"):
        assert 0.995 < clipped_deviation(clip, usual(clip, 16_384), 16_384) < 1.0
        assert clipped_deviation(clip, 0.5 * usual(clip, 16_384), 16_384) == pytest.approx(0.5, rel=1e-3)


MECHANISMS = {
    "l1": LatentMechanism("l1", 3.0, 8, epsilon=2.0),
    "elementwise": LatentMechanism("elementwise", 1.0, 8, epsilon=6.0),
    "l2": LatentMechanism("l2", 2.0, 8, noise_multiplier=0.7),
}


@pytest.mark.parametrize("clip", MECHANISMS)
def test_what_is_released_spreads_and_correlates_as_stated(clip):
    mechanism, recorder = MECHANISMS[clip], NoiseRecorder(TestNoise(4), "entry")
    rows = np.random.default_rng(0).normal(size=(40_000, 8))
    released, own = mechanism.released(rows, recorder), clip_rows(rows, mechanism.radius, clip)
    assert recorder.executed == ((LocalGaussian(0.7),) if clip == "l2" else (LocalLaplace(mechanism.epsilon),))
    assert released.std() == pytest.approx(mechanism.spread, rel=0.02)
    assert (released - own).std() == pytest.approx(mechanism.noise, rel=0.02)
    assert own.std() == pytest.approx(mechanism.signal, rel=0.02)
    assert np.corrcoef(released.ravel(), own.ravel())[0, 1] == pytest.approx(mechanism.correlation, abs=0.01)
    with pytest.raises(AssertionError):
        mechanism.released(rows[:, :7], recorder)


def test_images_and_tables_say_the_same_of_the_same_noise():
    numbers = {str(at): {"kind": "numeric", "low": 0.0, "high": 1.0} for at in range(64)}
    for terms in (
        {"clip": "elementwise", "radius": 1.0, "epsilon": 640.0},
        {"clip": "l1", "radius": 50.0, "epsilon": 20.0},
        {"clip": "l2", "radius": 8.0, "mechanism": "gaussian", "noise_multiplier": 0.5},
    ):
        image = image_mechanism(DpGlow(method="dp-glow", images=1, **terms), 64)
        schema = {"table": "t", "rows": 9, "privacy": {"epsilon": 9.0}, "rows_are_patients": True, "columns": numbers}
        assert table_mechanism(parse({**schema, "release": terms}, TableSchema, "t")) == image
    assert MECHANISMS["elementwise"].signal == pytest.approx(0.71837, abs=1e-5)
