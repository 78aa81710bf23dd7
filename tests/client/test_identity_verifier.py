"""The identity verifier knows training patients again and leaves strangers alone; the gate asks it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.encoders import tiny_encoder

from sfumato_client.anonymise import CandidateSet
from sfumato_client.audit import measured
from sfumato_client.audit.attacks import identity
from sfumato_client.audit.attacks.identity import (
    Matches,
    given_verifier,
    measure_recognition,
    re_identification,
    train_verifier,
)
from sfumato_client.audit.rules import IDENTITY_CONFIDENCE, IDENTITY_LEVEL, RECORD_RULES, apply_to_records
from sfumato_client.audit.verdict import judge
from sfumato_client.dataset import Cohort
from sfumato_common.errors import DataError
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import Layout
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.memory import VARIABLE
from sfumato_common.metrics.nearest import fingerprints, nearest_distances
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes

SIZE = 32
RULES = GateRules(declare_verdict=True, report=[])


def drawn(patients, first):
    """Phantom patients: images, labels, patient_index."""
    return arrays(11, patients, SIZE, first=first)


def without_last_images(images, labels, patient_index):
    """The cohort less one image of each patient who has several, and those images with their patient_index."""
    last = np.append(patient_index[1:] != patient_index[:-1], True) & (np.bincount(patient_index)[patient_index] > 1)
    return Cohort(images[~last], labels[~last], patient_index[~last]), images[last], patient_index[last]


TRAIN, SECOND, WHOSE = without_last_images(*drawn(90, 1))
HOLDOUT = Cohort(*drawn(60, 1000))
FRESH = drawn(40, 3000)[0][:60]


@pytest.fixture(scope="module")
def verifier():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "_STEPS", 120)
        return train_verifier(TRAIN)


@pytest.fixture
def trained(monkeypatch, verifier):
    """Lets `judge` find the verifier of TRAIN at once."""
    monkeypatch.setattr(measured, "train_verifier", lambda train: verifier)


def noised(images, sd=25.0):
    rng = np.random.default_rng(5)
    return np.clip(np.rint(images + rng.normal(0, sd, images.shape)), 0, 255).astype(np.uint8)


def prior_samples(count):
    """Images of a spectral model that was fitted to the training patients."""
    value = {
        "study": "small",
        "image": {"size": SIZE},
        "labels": ["normal", "opacity"],
        "sites": {"alder": {"nominal_patients": 90}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [{"kind": "spectral", "bandwidth": 10, "clip_radius": 4.0, "noise_multiplier": 0.01}],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    plan = parse(value, Plan, "test")
    images, labels, _ = TRAIN.everything()
    release = noised_release(Layout.of(plan), 0.01, images, labels, np.ones(len(images)), lambda part, s, m: part)
    released = {f"spectral/{name}": value for name, value in fit_release(plan, {"alder": release}).items()}
    draws = TorchDraws(torch.Generator().manual_seed(0))
    return to_bytes(spectral_model(plan, released).sample(torch.arange(count) % 2, draws).numpy())


def test_further_images_of_training_patients_find_their_patient(verifier):
    found = measure_recognition(verifier, SECOND, WHOSE)
    assert found.chance == pytest.approx(1 / TRAIN.patients)
    assert found.low > 20 * found.chance
    assert found.low < found.share < found.high
    assert measure_recognition(verifier, FRESH[: len(WHOSE)], WHOSE[: len(FRESH)]).share < 0.1


def test_noised_copies_are_found_and_strangers_are_not(verifier):
    holdout_images = HOLDOUT.everything()[0]
    copies = re_identification(verifier, noised(TRAIN.everything()[0][:50]), holdout_images)
    assert copies.share(0.05) > 0.7
    assert copies.relative(0.05) > 10
    assert copies.share(0.01) > 0.5
    (finding,) = apply_to_records("gan", copies, RULES)
    assert not finding.passed
    for honest in (FRESH, prior_samples(60)):
        found = re_identification(verifier, honest, holdout_images)
        assert found.share(0.05) < 0.15
        (finding,) = apply_to_records("gan", found, RULES)
        assert finding.passed


def test_the_best_match_of_a_training_image_is_itself(verifier):
    images, _, patient_index = TRAIN.everything()
    scores, who = verifier.best(images[:20])
    assert scores.min() > 0.999
    assert (who == patient_index[:20]).all()
    alone, _ = verifier.best(images[3:4])
    assert alone[0] == pytest.approx(scores[3], abs=1e-5)
    assert verifier.best(images[:0])[0].shape == (0,)


def test_the_same_cohort_has_the_same_verifier(monkeypatch):
    monkeypatch.setattr(identity, "_STEPS", 3)
    torch.manual_seed(1)
    one = train_verifier(TRAIN)
    torch.manual_seed(2)
    assert torch.equal(one.gallery, train_verifier(TRAIN).gallery)


def made(images, patients=10):
    return CandidateSet("k-same", "gan", "syntactic", images, np.zeros(len(images), np.int64), patients)


def passed(result):
    return {finding.rule: finding.passed for finding in result.findings}


@pytest.mark.usefixtures("trained")
def test_the_gate_refuses_sets_from_records_in_which_training_patients_are_known_again():
    good, bad = judge([made(FRESH)], TRAIN, HOLDOUT, RULES), judge([made(SECOND)], TRAIN, HOLDOUT, RULES)
    assert good.approved is not None
    assert bad.approved is None
    assert {rule for rule, fine in passed(bad).items() if not fine} == {"identity"}, "no other rule sees it"
    few = FRESH.copy()
    few[:30] = SECOND[:30]
    assert not passed(judge([made(few)], TRAIN, HOLDOUT, RULES))["identity"]
    both = judge([made(FRESH), made(SECOND)], TRAIN, HOLDOUT, RULES)
    assert both.approved is None
    lax = GateRules(declare_verdict=True, identity_share_limit=1.0)
    assert judge([made(SECOND)], TRAIN, HOLDOUT, lax).approved is not None
    report = bad.to_json()
    assert [part["of"] for part in report["match_quantiles_0_1_5_25_50_75_100"]] == [
        "holdout",
        "k-same (gan)",
    ]
    assert judge([made(FRESH)], TRAIN, HOLDOUT, RULES).to_json() == good.to_json()


@pytest.mark.usefixtures("trained")
def test_a_given_encoder_is_a_second_verifier_under_the_same_limit():
    encoder, rng = tiny_encoder(SIZE), np.random.default_rng(0)
    copies = np.clip(TRAIN.everything()[0][:60] + rng.normal(0, 4, (60, SIZE, SIZE)), 0, 255).astype(np.uint8)
    names = ["k-same (gan)", "k-same (gan), by the given encoder"]
    for images, known in ((FRESH, False), (copies, True)):
        result = judge([made(images)], TRAIN, HOLDOUT, RULES, encoder)
        found = {finding.of: finding.passed for finding in result.findings if finding.rule == "identity"}
        assert list(found) == names
        assert found[names[1]] != known
    rows = [row["of"] for row in result.to_json()["match_quantiles_0_1_5_25_50_75_100"]]
    assert rows == ["holdout", "holdout, by the given encoder", *names]
    second = given_verifier(encoder, TRAIN)
    assert second.gallery.norm(dim=1).allclose(torch.ones(len(second.gallery)))
    with pytest.raises(DataError):
        given_verifier(encoder, Cohort(copies[:2], np.zeros(2, np.int64), np.zeros(2, np.int64)))


def test_sets_that_no_record_was_read_for_are_not_put_to_it(monkeypatch):
    def never(train):
        raise AssertionError("trained for nothing")

    monkeypatch.setattr(measured, "train_verifier", never)
    result = judge([made(FRESH, patients=0)], TRAIN, HOLDOUT, RULES)
    assert result.approved is not None
    assert "identity" not in passed(result)


def test_a_verifier_that_cannot_be_trained_refuses(monkeypatch):
    images, labels, _ = TRAIN.everything()
    monkeypatch.setattr(identity, "_STEPS", 2)
    alone = Cohort(images[:6], labels[:6], np.zeros(6, np.int64))
    others_flat = Cohort(
        np.concatenate([images[:3], np.full_like(images[:3], 9)]), labels[:6], np.array([0] * 3 + [1] * 3)
    )
    for cohort in (alone, others_flat):
        result = judge([made(FRESH)], cohort, HOLDOUT, RULES)
        assert result.approved is None
        assert "two patients" in result.obstacle
        assert not any(character.isdigit() for character in result.obstacle)
    monkeypatch.setattr(identity, "_LEARNING_RATE", 1e30)
    with pytest.raises(DataError):
        train_verifier(TRAIN)
    result = judge([made(FRESH)], TRAIN, HOLDOUT, RULES)
    assert result.approved is None
    assert "finite" in result.obstacle


@pytest.mark.usefixtures("trained")
def test_a_score_that_is_no_number_refuses(monkeypatch, verifier):
    broken = replace(verifier, gallery=torch.full_like(verifier.gallery, torch.nan))
    monkeypatch.setattr(measured, "train_verifier", lambda train: broken)
    result = judge([made(FRESH)], TRAIN, HOLDOUT, RULES)
    assert result.approved is None
    assert "finite" in result.obstacle


def matches(candidates, strangers):
    return Matches(np.asarray(candidates, np.float32), np.asarray(strangers, np.float32))


def test_thresholds_are_what_strangers_reach_in_that_share_of_cases():
    found = matches([0.5, 94.5, 95.5, 98.5, 200.0], np.arange(99))
    assert found.threshold(0.05) == 94.0
    assert found.threshold(0.01) == 98.0
    assert found.share(0.05) == pytest.approx(0.8)
    assert found.relative(0.05) == pytest.approx(16.0)
    few = matches([1.0], [0.1, 0.2, 0.3, 0.4, 0.5])
    assert few.threshold(0.05) == 0.5, "five strangers have no 5 %: the largest stands for a sixth"
    assert few.relative(0.05) == pytest.approx(6.0)


@pytest.mark.parametrize(("candidates", "strangers"), [(20, 40), (20, 5), (100, 19), (300, 400), (1, 25)])
def test_strangers_are_refused_once_in_a_hundred_at_most(candidates, strangers):
    rng = np.random.default_rng(candidates)
    runs = [matches(rng.random(candidates), rng.random(strangers)) for _ in range(3000)]
    limit = runs[0].share_by_chance(IDENTITY_LEVEL, IDENTITY_CONFIDENCE)
    shares = np.array([found.share(IDENTITY_LEVEL) for found in runs])
    assert (shares > limit).mean() < 0.016  # one in a hundred, and three standard errors
    assert candidates == 1 or (shares > limit - 2.5 / candidates).mean() > 0.01, "no larger than it need be"


def test_the_policys_limit_counts_where_chance_allows_less():
    found = matches(np.linspace(0, 1, 2000), np.linspace(0, 1, 2000))
    (rule,) = RECORD_RULES
    assert rule.limit(found, RULES) == RULES.identity_share_limit == 0.10
    assert rule.limit(found, GateRules(identity_share_limit=0.0)) == found.share_by_chance(0.05, 0.99) < 0.08
    (finding,) = apply_to_records("gan", found, RULES)
    assert finding.passed and finding.value == pytest.approx(0.05, abs=0.002)
    assert rule.limit(matches(np.zeros(20), np.linspace(0, 1, 400)), RULES) == pytest.approx(0.2)


def test_the_verifier_and_the_fingerprints_are_the_same_with_little_and_much_memory(monkeypatch):
    monkeypatch.setattr(identity, "_STEPS", 3)
    images, _, patients = arrays(9, 30, 64)
    found = []
    for budget in ("1", "64GiB"):
        monkeypatch.setenv(VARIABLE, budget)
        verifier = train_verifier(Cohort(images, np.zeros(len(images), dtype=np.int64), patients))
        found.append((*verifier.best(images[:9]), fingerprints(images), nearest_distances(images[:9], images[9:])))
    for few, many in zip(*found, strict=True):
        assert np.array_equal(few, many)
