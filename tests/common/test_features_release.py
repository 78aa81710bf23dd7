"""The features release: its sensitivity, vectors of one image alone, a fit that finds the classes, a strict file."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from support.encoders import terms_for, tiny_encoder
from support.plans import small_plan

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.training import StageJob, train
from sfumato_common.accounting.events import same_mechanisms
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.exchanges.feature_space import FeatureSpace
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.package.features import Features, FeaturesCard, read_features
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.publish.features import check_features, draw_features
from sfumato_server.rounds.strategies.features import FeaturesStrategy

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SITES = {"alder": 100, "birch": 100}


def plan_of(sigma: float = 0.5, by_site: bool = False, **more) -> Plan:
    stage = {"kind": "features", "encoder": "tiny", "noise_multiplier": sigma, "dimensions": 8, "vectors": 400, **more}
    value = small_plan(stage, released="spectral", sites=SITES, epsilon=50.0, noise=1.0)
    value["stages"][0]["by_site"] = by_site
    return parse({**value, "encoders": {"tiny": terms_for(b"", "resnet18", size=16).model_dump()}}, Plan, "test")


def cohort_of(seed: int, patients: int = 30) -> Cohort:
    images, labels, owners = arrays(seed, patients, 16)
    return Cohort(images, labels, owners)


class Summed(NoiseRecorder):
    """A recorder that keeps what it is given and adds nothing: sums over patients, in units of their noise."""

    def __init__(self) -> None:
        super().__init__(TestNoise(0), "entry")
        self.parts: list[np.ndarray] = []

    def gaussian(self, value, sensitivity, noise_multiplier):
        super().gaussian(value, sensitivity, noise_multiplier)
        self.parts.append(np.asarray(value, dtype=np.float64).ravel() / (sensitivity * noise_multiplier))
        return np.asarray(value, dtype=np.float64)


def released_by(plan: Plan, cohort: Cohort, recorder: NoiseRecorder, site: str = "alder") -> dict:
    encoders = {"tiny": tiny_encoder()}
    stage = plan.stage("features")
    return dict(train(StageJob(plan, site, stage, 1, {}, cohort, TestNoise(1), recorder, encoders)))


@pytest.mark.parametrize("by_site", [False, True])
def test_what_leaves_is_the_schema_and_costs_one_gaussian_release(by_site):
    plan, exchange = plan_of(by_site=by_site), EXCHANGES["features"]
    recorder = NoiseRecorder(TestNoise(0), "entry")
    arrays_ = released_by(plan, cohort_of(1), recorder)
    schema = exchange.returned(plan)
    assert arrays_.keys() == schema.keys()
    assert all(schema[name].matches(value) and schema[name].sound(value) for name, value in arrays_.items())
    assert same_mechanisms([plan.stage("features").event], recorder.executed)
    exchange.check_reply(plan, "alder", arrays_)
    with pytest.raises(VerificationError):
        exchange.check_reply(plan, "alder", {**arrays_, "sums": arrays_["sums"] + 1e4})


def test_vectors_are_one_images_alone_to_the_last_bit_and_never_infinite():
    plan, images = plan_of(), cohort_of(1).everything()[0][:7]
    space = FeatureSpace.of(plan, tiny_encoder())
    together = space.vectors(images)
    assert np.array_equal(together, np.concatenate([space.vectors(images[row : row + 1]) for row in range(7)]))
    assert np.array_equal(space.vectors(images[::-1])[::-1], together)
    assert 0.2 < float(np.sqrt((together**2).sum(axis=1).mean())) < 5.0
    assert np.allclose(space.matrix.T @ space.matrix, np.eye(8) * (space.matrix[:, 0] @ space.matrix[:, 0]))
    broken = dataclasses.replace(space, offset=np.full(8, np.inf))
    assert not broken.vectors(images).any()
    assert space.vectors(images[:0]).shape == (0, 8)


@pytest.mark.parametrize("radius", [None, "far"])
def test_a_patient_more_moves_each_part_by_no_more_than_its_share(radius, monkeypatch):
    """The first two parts rest on nothing that hides how far a patient moves them; all are finite."""
    plan = plan_of()
    if radius == "far":  # vectors far beyond every clip
        monkeypatch.setattr(FeatureSpace, "vectors", lambda self, images: np.full((len(images), 8), 1e30))
    whole = cohort_of(2, 12)
    images, labels, owners = whole.everything()
    kept = owners != owners.max()
    less = Cohort(images[kept], labels[kept], owners[kept])
    one, other = Summed(), Summed()
    released_by(plan, whole, one)
    released_by(plan, less, other)
    norms, centre = (one.parts[at] - other.parts[at] for at in (0, 1))
    moved = np.hypot(np.linalg.norm(norms), np.linalg.norm(centre))
    assert 0 < moved <= (1 + 1e-9) / plan.stage("features").noise_multiplier
    assert np.isfinite(np.concatenate(one.parts)).all()


@pytest.mark.parametrize("by_site", [False, True])
def test_the_fit_finds_the_classes_and_vectors_are_drawn_as_the_plan_says(by_site):
    plan, recorder = plan_of(sigma=0.01, by_site=by_site), NoiseRecorder(TestNoise(0), "entry")
    cohorts = {"alder": cohort_of(1, 80), "birch": cohort_of(2, 80)}
    given = {"encoder:tiny": {"file": np.zeros(1, np.uint8)}, "spectral": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfumato_server.rounds.strategies.features.encoder_in", lambda *_: tiny_encoder())
        strategy = FeaturesStrategy(plan, plan.stage("features"), given)
    replies = {site: released_by(plan, cohort, recorder, site) for site, cohort in cohorts.items()}
    strategy.absorb(1, replies, None)
    model = strategy.released()
    own = {name: spec for name, spec in EXCHANGES["features"].released(plan).items() if name.startswith("features/")}
    assert model.keys() == own.keys()
    assert all(spec.matches(model[name]) for name, spec in own.items())
    found = draw_features(plan, model, 3)
    assert found.vectors.shape == (400, 8)
    assert (found.sites is None) != by_site
    space = FeatureSpace.of(plan, tiny_encoder())
    vectors = {site: space.vectors(cohort.everything()[0]) for site, cohort in cohorts.items()}
    labels = {site: cohort.everything()[1] for site, cohort in cohorts.items()}
    for label in (0, 1):
        real = np.concatenate([vectors[site][labels[site] == label] for site in cohorts])
        drawn = found.vectors[found.labels == label]
        spread = real.std(axis=0)
        assert np.abs((drawn.mean(axis=0) - real.mean(axis=0)) / spread).mean() < 0.35
        assert np.abs(np.log(drawn.std(axis=0) / spread)).mean() < 0.35
    plan = plan_of(by_site=by_site)  # at so little noise as above no epsilon is stated
    assert (found.card.guarantee, found.card.epsilon) == ("heuristic", None)
    found = draw_features(plan, model, 3)
    again = read_features(found.encode())
    assert np.array_equal(again.vectors, found.vectors)
    assert again.card == found.card
    assert (again.card.guarantee, again.card.unit, again.card.adjacency) == ("formal", "patient", "add-remove")
    assert again.card.epsilon > 0
    check_features(plan, found.encode())
    with pytest.raises(VerificationError):
        check_features(plan_of(sigma=0.02, by_site=by_site), found.encode())


def small() -> Features:
    rng = np.random.default_rng(0)
    card = FeaturesCard.of("s", "0" * 64, 2.0, 1e-5, ["a", "b"], [], terms_for(b"", "vit-tiny"))
    floats = [rng.normal(size=shape).astype(np.float32) for shape in ((5, 3), (192, 3), (3,))]
    return Features(floats[0], np.array([0, 1, 0, 1, 1]), None, floats[1], floats[2], card)


def changed(**more) -> bytes:
    data = small().encode()
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    return save({**load(data), **more}, metadata=metadata)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        small().encode()[:-5],
        save({"vectors": np.zeros((2, 2), np.float32)}),
        save({"vectors": np.zeros((2, 2), np.float32)}, metadata={"card": "[" * 100_000}),
        changed(more=np.zeros(2)),
        changed(labels=np.array([0, 1, 2, 0, 0])),
        changed(labels=np.array([0, 1, -1, 0, 0])),
        changed(labels=np.zeros(4, np.int64)),
        changed(vectors=np.full((5, 3), np.nan, np.float32)),
        changed(vectors=np.zeros((5, 3))),
        changed(vectors=np.zeros(5, np.float32)),
        changed(matrix=np.zeros((3, 192), np.float32)),
        changed(sites=np.zeros(5, np.int64)),
    ],
)
def test_a_file_that_is_anything_else_is_refused(data):
    assert np.array_equal(read_features(small().encode()).labels, small().labels)
    with pytest.raises(VerificationError):
        read_features(data)


def test_a_plan_asks_for_no_more_directions_than_there_are():
    with pytest.raises(ConfigError, match="more than the encoder's numbers"):
        parse(
            {
                **plan_of().model_dump(mode="json"),
                "encoders": {"tiny": terms_for(b"", "vit-tiny", size=16).model_dump()},
                "stages": [
                    plan_of().model_dump(mode="json")["stages"][0],
                    {"kind": "features", "encoder": "tiny", "noise_multiplier": 1.0, "dimensions": 200},
                ],
            },
            Plan,
            "test",
        )
