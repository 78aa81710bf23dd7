"""Formal sets: let go by their proof, or by a noised and charged count of copied patients; never by an exact test."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from statistics import NormalDist

import numpy as np
import pytest

from sfumato_client.anonymise import CandidateSet
from sfumato_client.audit.copies import CONFIDENCE, copied_patients, copy_threshold, most_by_noise
from sfumato_client.audit.rules import IDENTICAL
from sfumato_client.audit.verdict import let_go, private_gate, recall_verdict
from sfumato_client.dataset import Cohort
from sfumato_client.ledger import Ledger, Terms
from sfumato_client.ledger.charged import sealed_digest
from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.errors import EgressRefused, ReleaseRefused
from sfumato_common.mechanisms.noise import SecureNoise, TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.phantom import arrays
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.policy import Budget

NOISE = 4.0
RULES = GateRules()


@pytest.fixture(scope="module")
def pictures():
    """Phantom patients of two cohorts: training images with their patients, and images of strangers."""
    images, _, owners = arrays(7, 60, 32)
    strangers, _, _ = arrays(8, 60, 32)
    return np.stack(list(images)), np.unique(owners, return_inverse=True)[1], np.stack(list(strangers))


def cohort_of(images, patients):
    return Cohort(images, np.zeros(len(images), np.int64), np.asarray(patients, np.int64))


def sealed(images, level="formal"):
    made = CandidateSet("dp-sampling", "gan", level, images, np.zeros(len(images), np.int64))
    return NoiseRecorder(SecureNoise(), "entry").seal_result(made)


def untouchable():
    raise AssertionError("the data was touched")


@contextmanager
def ledger_of(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite", Budget(epsilon=10.0, delta=1e-5), site="north") as ledger:
        yield ledger, Terms("s", "ab" * 32, "gate-formal", 1, "train", Budget(epsilon=10.0, delta=1e-5))


def judge(ledger, terms, some, train, folder, noise_multiplier=NOISE):
    # drawn noise refuses an honest set once in a hundred times, as the limit says
    charge = ledger.charged(terms, [GaussianRelease(noise_multiplier)], TestNoise(1))
    return private_gate([some], train, RULES, noise_multiplier, charge, folder)


def test_without_a_gate_no_patient_is_read_and_nothing_is_charged(pictures):
    some = sealed(pictures[2])
    assert let_go([some]).candidates == (some.result,)


@pytest.mark.parametrize("level", ["syntactic", "heuristic", "formal, labels public"])
def test_only_what_an_epsilon_covers_whole_is_let_go_by_its_proof(pictures, level, tmp_path):
    some = sealed(pictures[2], level)
    with pytest.raises(ReleaseRefused, match="no epsilon covers whole"):
        let_go([some])
    with ledger_of(tmp_path) as (ledger, terms), pytest.raises(ReleaseRefused, match="no epsilon covers whole"):
        judge(ledger, terms, some, untouchable, tmp_path)
    with Ledger.open(tmp_path / "ledger.sqlite", Budget(epsilon=10.0, delta=1e-5), site="north") as ledger:
        assert ledger.events("train") == []


def test_an_altered_set_and_one_that_shows_nothing_are_refused(pictures):
    altered = sealed(pictures[2].copy())
    altered.result.images[0, 0, 0] ^= 1
    with pytest.raises(EgressRefused):
        let_go([altered])
    with pytest.raises(ReleaseRefused, match="shows nothing"):
        let_go([sealed(np.zeros_like(pictures[2]))])
    with pytest.raises(ReleaseRefused, match="shows nothing"):
        let_go([])


def test_the_charge_comes_before_the_data_and_the_report_stays(pictures, tmp_path):
    images, patients, strangers = pictures
    with ledger_of(tmp_path) as (ledger, terms):
        seen = []

        def train():
            seen.append(ledger.events("train"))
            return cohort_of(images, patients)

        some = sealed(strangers)
        assert judge(ledger, terms, some, train, tmp_path / "local").candidates == (some.result,)
        assert seen == [[GaussianRelease(NOISE)]]
        # what was decided is recalled for exactly these sets, and never asked again
        assert recall_verdict([some], sealed_digest(ledger, terms)).candidates == (some.result,)
        with pytest.raises(ReleaseRefused):
            recall_verdict([sealed(images[:20])], sealed_digest(ledger, terms))
    (report,) = (tmp_path / "local").glob("gate-*.json")
    assert json.loads(report.read_text())["approved"] is True
    assert report.stat().st_mode & 0o777 == 0o600


def test_a_memorised_cohort_is_refused_and_the_refusal_is_settled(pictures, tmp_path):
    images, patients, _ = pictures
    with ledger_of(tmp_path) as (ledger, terms):
        some = sealed(images)  # 60 patients given back; noise of 4 hides some 14
        with pytest.raises(ReleaseRefused, match="did not approve"):
            judge(ledger, terms, some, lambda: cohort_of(images, patients), tmp_path / "local")
        assert not ledger.unsettled_charges()
        with pytest.raises(ReleaseRefused):
            recall_verdict([some], sealed_digest(ledger, terms))


def test_the_count_moves_by_one_at_most_whoever_comes_or_goes(pictures):
    """The sensitivity that the noise is scaled to: every patient left out of a cohort that was partly copied."""
    images, patients, strangers = pictures
    sets = [np.concatenate([images[:25], strangers[:15]]), strangers[15:]]
    whole = copied_patients(sets, cohort_of(images, patients), RULES)
    copied = len(np.unique(patients[:25]))
    assert copied <= whole <= copied + 1
    for patient in np.unique(patients):
        rest = patients != patient
        without = copied_patients(
            sets, cohort_of(images[rest], np.unique(patients[rest], return_inverse=True)[1]), RULES
        )
        assert whole - without == int(patient in patients[:25]) or whole - without in (0, 1)
        assert abs(whole - without) <= 1
    # a patient counts once, however many images come back
    assert copied_patients(sets, cohort_of(images, np.zeros(len(images))), RULES) == 1
    assert copied_patients(sets, cohort_of(images[:0], patients[:0]), RULES) == 0


def test_the_threshold_is_a_function_of_the_candidates_alone(pictures):
    _, _, strangers = pictures
    assert copy_threshold(strangers, RULES) >= IDENTICAL
    assert copy_threshold(strangers[:1], RULES) == IDENTICAL
    assert copy_threshold(np.repeat(strangers[:1], 10, axis=0), RULES) == IDENTICAL


def test_copies_in_thin_disguise_count_and_strangers_do_not(pictures):
    images, patients, strangers = pictures
    train = cohort_of(images, patients)
    assert copied_patients([strangers], train, RULES) <= 1
    grain = np.random.default_rng(0).normal(0, 2.5, images.shape)
    for disguised in (images[:, :, ::-1], 255 - images, np.clip(images + grain, 0, 255).astype(np.uint8)):
        assert copied_patients([disguised], train, RULES) >= 0.95 * len(np.unique(patients))


def test_what_it_sees_and_what_it_cannot_see():
    """Power by the normal law: an honest set passes in 99 %, 3.6 z copied patients are found in 9 of 10, one never."""
    normal = NormalDist()
    for noise_multiplier in (1.0, 4.0, 20.0):
        limit = most_by_noise(noise_multiplier)
        assert normal.cdf(limit / noise_multiplier) == pytest.approx(CONFIDENCE)
        assert 1 - normal.cdf((limit - 3.61 * noise_multiplier) / noise_multiplier) == pytest.approx(0.9, abs=0.01)
        # seeing one patient is bounded by what the charge says: mu = 1 / z
        assert (
            1 - normal.cdf((limit - 1.0) / noise_multiplier)
            <= normal.cdf(normal.inv_cdf(0.01) + 1 / noise_multiplier) + 1e-9
        )
    assert math.isclose(most_by_noise(2.0), 2 * most_by_noise(1.0))
