"""Two attacks on what is published, by linear algebra: both rebuild who is where if one generator draws all, none now.

Both were carried out once, when secrets and outputs came from one torch.Generator: on 8,000 rows of a table, and on 193
images of `dp-glow`. Here each is planted again beside a run of today, and one elimination answers for both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tests.client.test_dp_glow import cohort_of, job_of, plan_with
from tests.client.test_tabular import TRAINING, features, schema_of
from tests.common.mersenne import earlier, equations, generator_with, outputs_of, states_behind

from sfumato_client.anonymise import anonymise as anonymised
from sfumato_client.tabular.anonymise import anonymise as anonymised_table
from sfumato_client.tabular.terms import resolve_terms
from sfumato_client.tabular.train import first_flow
from sfumato_common.mechanisms.draws import Draws, TorchDraws
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams

ROWS, NORMALS = 10_300, 10_700  # outputs of which the attacker knows two bits, of nearly all normals


class Shown(Draws):
    """A published stream beside which the attacker writes down all normals that an image shows."""

    def __init__(self, draws: Draws) -> None:
        self._draws, self.normals = draws, np.zeros(0)

    def normal(self, shape):
        drawn = self._draws.normal(shape)
        self.normals = np.append(self.normals, drawn.numpy().ravel().astype(np.float64))
        return drawn

    def categorical(self, weights, count):
        return self._draws.categorical(weights, count)

    def integers(self, below, count):
        return self._draws.integers(below, count)


class Enough(Exception):
    """Something is about to be published."""


class Nothing(Draws):
    """A published stream that stops before the first draw: what a run did until then was secret."""

    def normal(self, shape):
        raise Enough

    def categorical(self, weights, count):
        raise Enough

    def integers(self, below, count):
        raise Enough


class OneGenerator:
    """Streams as they once were: `secret` and `published` draw from one torch.Generator."""

    def __init__(self, generator: torch.Generator, published: Draws | None = None) -> None:
        self._generator, self._draws = generator, TorchDraws(generator)
        self.secret = self
        self.published = published or self._draws
        self.orders: list[list[int]] = []
        self.uniform, self.categorical = self._draws.uniform, self._draws.categorical

    def permutation(self, count):
        order = torch.randperm(count, generator=self._generator).numpy()
        self.orders.append(order.tolist())
        return order

    def below(self, limits):
        return torch.randint(int(limits[0]), (len(limits),), generator=self._generator).numpy()

    def choice(self, count):
        return int(self.below([count])[0])

    def uniform64(self, shape):
        return torch.rand(shape, generator=self._generator, dtype=torch.float64)


def secrets(run, generator: torch.Generator) -> list[list[int]]:
    """The orders that `run` draws from `generator` before it publishes anything."""
    streams = OneGenerator(generator, Nothing())
    try:
        run(streams)
    except Enough:
        return streams.orders
    raise AssertionError("the run publishes nothing")


def assert_only_the_planted_generator_is_found(run, planted: OneGenerator, system, answers) -> None:
    """`answers` [R, 2]: the planted run's and today's; with the state found, the attacker draws the secrets again."""
    found, today = states_behind(system, answers)
    assert today is None, "bits of the published stream are an MT19937's"
    assert found is not None and planted.orders
    before = generator_with(earlier(found, outputs_of(lambda generator: secrets(run, generator))))
    assert secrets(run, before) == planted.orders


def test_a_published_table_does_not_show_who_is_behind_which_row():
    levels = {"kind": "categorical", "levels": ["A", "B", "C", "D"]}
    number = {"kind": "numeric", "low": 0.0, "high": 100.0}
    schema = resolve_terms(
        schema_of(
            rows=ROWS,
            columns={"age": number, "pain": number, "ward": levels},
            condition="ward",
            label_epsilon=None,
            decode="randomised",
            training=TRAINING | {"couplings": 1, "nominal_patients": 4000, "sampling_rate": 0.01},
        )
    )
    cells, _ = features(300)
    flow, ward = first_flow(schema), torch.arange(300) % 4

    def run(streams):
        _, under = anonymised_table(schema, flow, cells[:, :2], ward, streams, NoiseRecorder(TestNoise(0), "entry"))
        return under.numpy()

    planted = OneGenerator(torch.Generator().manual_seed(7))
    published = [run(planted), run(Streams.of(TestNoise(7)))]
    bits = np.arange(2)
    answers = np.stack([(under[:, None] >> bits & 1).ravel() for under in published], axis=1)
    assert_only_the_planted_generator_is_found(run, planted, equations(ROWS, bits), answers)


def quarters(cosines: np.ndarray, sines: np.ndarray, inverted: bool) -> np.ndarray:
    """Four times the two uniforms behind pairs of normals (Box and Muller 1958); torch takes 1 - u for the radius."""
    radial = np.exp(-0.5 * (cosines**2 + sines**2))
    angular = np.arctan2(sines, cosines) / (2 * np.pi) % 1.0
    return 4.0 * np.stack([1.0 - radial if inverted else radial, angular])


def test_published_images_do_not_show_who_is_behind_which_image():
    plan = plan_with(images=44, label="public")  # of 16 x 16 pixels: 11,264 normals
    job = job_of(plan, cohort_of(plan, 60))

    def run(streams):
        anonymised(replace(job, streams=streams, recorder=NoiseRecorder(TestNoise(0), "entry")))

    planted = OneGenerator(torch.Generator().manual_seed(8))
    planted.published = Shown(planted.published)
    streams = Streams.of(TestNoise(8))
    streams = replace(streams, published=Shown(streams.published))
    run(planted)
    run(streams)
    # torch draws 8 radii, 8 angles, and so on; the key stream all radii, then all angles
    torchs = planted.published.normals.reshape(-1, 2, 8)
    ours = streams.published.normals.reshape(2, -1)
    uniforms = np.stack(
        [
            quarters(torchs[:, 0], torchs[:, 1], inverted=True).transpose(1, 0, 2).ravel(),
            quarters(ours[0], ours[1], inverted=False).ravel(),
        ],
        axis=1,
    )[:NORMALS]
    sure = (np.abs(uniforms - uniforms.round()) > 1e-3).all(axis=1)
    values = uniforms[sure].astype(np.int64)
    bits = np.arange(2)
    answers = (values[:, None, :] >> bits[:, None] & 1).reshape(-1, 2)
    system = equations(NORMALS, 22 + bits)[np.repeat(sure, 2)]
    assert_only_the_planted_generator_is_found(run, planted, system, answers)
