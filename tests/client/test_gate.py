"""The first gate: copies in any thin disguise are refused, honest images pass, and an approval cannot be forged."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import pickle
import stat
from contextlib import contextmanager

import numpy as np
import pytest

from sfumato_client.anonymise import CandidateSet
from sfumato_client.audit.rules import IDENTICAL, RULES, Distances, apply
from sfumato_client.audit.verdict import Approved, gate, judge
from sfumato_client.dataset import Cohort
from sfumato_client.ledger import Ledger, Terms
from sfumato_common.errors import EgressRefused, LedgerError, PolicyRefusal, ReleaseRefused
from sfumato_common.files import canonical_json
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.nearest import is_flat, nearest_distances
from sfumato_common.study.costs import GATE_VERDICT
from sfumato_common.study.gate_rules import GateRules
from sfumato_common.study.policy import Budget

BUDGET = Budget(epsilon=1.0, delta=1e-5)
# what attacks are told besides has tests of its own (test_attacks_at_the_gate.py)
RULES_ON = GateRules(declare_verdict=True, report=[])


def radiographs(count, seed, size=64):
    """Chest-like pictures uint8 [N, S, S]: lungs, ribs and soft tissue of a random body, grain on top."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    pictures = np.empty((count, size, size))
    for at in range(count):
        height, width, tilt = rng.uniform(0.5, 0.8), rng.uniform(0.25, 0.42), rng.normal(0, 0.1)
        u, v = x + tilt * y + rng.normal(0, 0.08), y + rng.normal(0, 0.1)
        lungs = sum(np.exp(-(((u - side) / width) ** 4) - (v / height) ** 4) for side in (-0.45, 0.45))
        ribs = 0.15 * np.cos(rng.uniform(14, 24) * (v + rng.uniform(0.1, 0.6) * u**2) + rng.uniform(0, 6))
        blobs = sum(
            rng.normal(0, 0.4) * np.exp(-((x - rng.uniform(-1, 1)) ** 2 + (y - rng.uniform(-1, 1)) ** 2) / 0.05)
            for _ in range(8)
        )
        pictures[at] = rng.normal(150, 10) - rng.uniform(60, 90) * lungs * (1 + ribs) + 25 * blobs
    return clip(pictures + rng.normal(0, 3, pictures.shape))


def clip(pictures):
    return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def cohort(images):
    count = len(images)
    return Cohort(images, np.zeros(count, np.int64), np.arange(count))


def candidates(images, model="gan"):
    return CandidateSet("dp-sampling", model, "formal", images, np.zeros(len(images), np.int64))


def sealed(images):
    """The candidates as their charge sealed them."""
    return NoiseRecorder(SecureNoise(), "entry").seal_result(candidates(images))


TRAIN, HOLDOUT, FRESH = radiographs(200, 1), radiographs(40, 2), radiographs(120, 3)


def verdict(images, train=TRAIN, holdout=HOLDOUT, rules=RULES_ON):
    return judge([candidates(images)], cohort(train), cohort(holdout), rules)


def test_honest_images_pass():
    result = verdict(FRESH)
    assert result.approved is not None
    assert all(finding.passed for finding in result.findings)
    assert result.approved.candidates[0].images is not None


def noisy(images, sd, seed=9):
    return clip(images + np.random.default_rng(seed).normal(0, sd * 127.5, images.shape))


DISGUISES = {
    "none": lambda copies: copies,
    "noise": lambda copies: noisy(copies, 0.02),
    "shift": lambda copies: np.roll(copies, 1, 2),
    "diagonal shift": lambda copies: np.roll(copies, (1, -1), (1, 2)),
    "mirror": lambda copies: copies[:, :, ::-1],
    "brightness": lambda copies: clip(copies * 0.7 + 30.0),
    "polarity": lambda copies: 255 - copies,
    "mirror, polarity, brightness, shift, noise": lambda copies: noisy(
        clip(255 - 0.8 * np.roll(copies[:, :, ::-1], 1, 1)), 0.02
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("planted", [1, 6])
def test_a_few_copies_among_many_honest_images_are_refused(disguise, planted):
    images = FRESH.copy()
    images[:planted] = DISGUISES[disguise](TRAIN[50 : 50 + planted])
    result = verdict(images)
    assert result.approved is None
    assert not next(finding for finding in result.findings if finding.rule == "identical").passed


def test_copies_under_heavy_noise_are_refused_by_their_share():
    images = FRESH.copy()
    images[:6] = noisy(TRAIN[:6], 0.1)
    passed = {finding.rule: finding.passed for finding in verdict(images).findings}
    assert not passed["copies"]


def test_a_set_that_hugs_the_training_images_is_refused_by_its_median():
    blends = clip(0.85 * TRAIN[:100] + 0.15 * TRAIN[100:])
    rules = GateRules(declare_verdict=True, copy_share_limit=1.0)
    passed = {finding.rule: finding.passed for finding in verdict(blends, rules=rules).findings}
    assert not passed["median"]


def test_one_bad_set_refuses_all():
    good, bad = candidates(FRESH), candidates(TRAIN[:20], "flow")
    for sets in ([good, bad], [bad, good], [candidates(TRAIN[:20]), good]):
        assert judge(sets, cohort(TRAIN), cohort(HOLDOUT), RULES_ON).approved is None


def test_one_near_duplicate_among_few_held_out_images_does_not_disarm_the_gate():
    holdout = HOLDOUT[:8].copy()
    holdout[0] = TRAIN[0]
    images = FRESH.copy()
    images[:10] = noisy(TRAIN[:10], 0.1)
    assert verdict(images, holdout=holdout).approved is None
    assert verdict(FRESH, holdout=holdout).approved is not None


@pytest.mark.parametrize(
    ("images", "train", "holdout"),
    [
        (FRESH, TRAIN, HOLDOUT[:0]),
        (FRESH, TRAIN, HOLDOUT[:4]),
        (FRESH, TRAIN[:0], HOLDOUT),
        (FRESH, np.full_like(TRAIN, 7), HOLDOUT),
        (FRESH, TRAIN, np.full_like(HOLDOUT, 7)),
        (FRESH, TRAIN, TRAIN[:40]),
        (FRESH[:0], TRAIN, HOLDOUT),
        (np.full_like(FRESH, 200), TRAIN, HOLDOUT),
        (radiographs(20, 4, size=32), TRAIN, HOLDOUT),
    ],
    ids=["no-holdout", "tiny-holdout", "no-train", "flat-train", "flat-holdout", "leak", "none", "flat", "size"],
)
def test_a_check_that_cannot_run_refuses(images, train, holdout):
    result = verdict(images, train, holdout)
    assert result.approved is None
    assert result.obstacle


def test_no_candidates_no_approval():
    assert judge([], cohort(TRAIN), cohort(HOLDOUT), RULES_ON).approved is None


def test_flat_candidates_do_not_dilute_copies():
    images = np.concatenate([FRESH[:10], noisy(TRAIN[:2], 0.1), np.full((500, 64, 64), 9, np.uint8)])
    passed = {finding.rule: finding.passed for finding in verdict(images).findings}
    assert not passed["copies"]


def test_a_value_that_is_no_number_does_not_pass():
    nan = np.full(5, np.nan, np.float32)
    for distances in (Distances(nan, nan), Distances(nan, np.ones(5, np.float32))):
        assert not next(f for f in apply("gan", distances, RULES_ON) if f.rule == "median").passed
    assert len(RULES) == 3


def test_an_approval_cannot_be_forged_copied_onto_others_or_altered():
    approved = verdict(FRESH).approved
    other = (candidates(TRAIN),)
    with pytest.raises(ReleaseRefused):
        Approved(other, b"")
    with pytest.raises(ReleaseRefused):
        Approved(other, approved._seal)
    with pytest.raises(ReleaseRefused):
        dataclasses.replace(approved, candidates=other)
    forged = object.__new__(Approved)
    object.__setattr__(forged, "candidates", other)
    object.__setattr__(forged, "_seal", approved._seal)
    with pytest.raises(ReleaseRefused):
        forged.check()
    copy.copy(approved).check()
    altered = pickle.loads(pickle.dumps(approved))
    altered.candidates[0].images[0] = TRAIN[0]
    with pytest.raises(ReleaseRefused):
        altered.check()
    relabelled = pickle.loads(pickle.dumps(approved))
    relabelled.candidates[0].labels[0] = 1
    with pytest.raises(ReleaseRefused):
        relabelled.check()


class Untouchable:
    """A cohort that must not be read."""

    def everything(self):
        raise AssertionError("the data was touched")


def test_undeclared_verdict_is_refused_before_charge_and_data(tmp_path):
    @contextmanager
    def charge():
        raise AssertionError("charged")
        yield

    with pytest.raises(PolicyRefusal, match="declare_verdict"):
        gate([sealed(FRESH)], Untouchable(), Untouchable(), GateRules(), [charge()], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_charge_comes_before_the_data_and_once_a_plan(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="north") as ledger:

        def charges():
            return [
                ledger.charged(Terms("s", "ab" * 32, purpose, 1, cohort, BUDGET), [GATE_VERDICT], SecureNoise())
                for purpose, cohort in (("gate", "train"), ("gate-control", "holdout"))
            ]

        class Watched(Cohort):
            def everything(self):
                assert ledger.events("train") == ledger.events("holdout") == [GATE_VERDICT]
                assert len(ledger.unsettled_charges()) == 2
                return super().everything()

        train = Watched(TRAIN, np.zeros(len(TRAIN), np.int64), np.arange(len(TRAIN)))
        fresh = sealed(FRESH)
        approved = gate([fresh], train, cohort(HOLDOUT), RULES_ON, charges(), tmp_path / "local")
        assert isinstance(approved, Approved)
        # what the ledger keeps the hash of: the bit, and the digest of the very set
        said = canonical_json({"approved": True, "sets": [fresh.digest]})
        assert set(ledger.settled_results().values()) == {hashlib.sha256(said).hexdigest()}
        with pytest.raises(LedgerError):
            gate([fresh], Untouchable(), Untouchable(), RULES_ON, charges(), tmp_path / "local")
        assert not ledger.unsettled_charges()


def test_a_set_that_is_not_as_it_was_sealed_is_refused_before_charge_and_data(tmp_path):
    altered = sealed(FRESH.copy())
    altered.result.images[3, 5, 5] ^= 1
    with pytest.raises(EgressRefused, match="not what a recorded mechanism sealed"):
        gate([altered], Untouchable(), Untouchable(), RULES_ON, [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_settled_as_one(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite", BUDGET, site="north") as ledger:
        copies = sealed(TRAIN[:20])
        terms = Terms("s", "ab" * 32, "gate", 1, "train", BUDGET)
        charge = ledger.charged(terms, [GATE_VERDICT], SecureNoise())
        with pytest.raises(ReleaseRefused):
            gate([copies], cohort(TRAIN), cohort(HOLDOUT), RULES_ON, [charge], tmp_path / "local")
        said = canonical_json({"approved": False, "sets": [copies.digest]})
        assert list(ledger.settled_results().values()) == [hashlib.sha256(said).hexdigest()]


def test_a_refusal_says_nothing_and_the_report_stays(tmp_path):
    images = FRESH.copy()
    images[0] = TRAIN[0]
    with pytest.raises(ReleaseRefused) as caught:
        gate([sealed(images)], cohort(TRAIN), cohort(HOLDOUT), RULES_ON, [], tmp_path)
    assert not any(character.isdigit() for character in str(caught.value))
    (report,) = tmp_path.iterdir()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    content = json.loads(report.read_text())
    assert content["approved"] is False
    assert {finding["rule"]: finding["passed"] for finding in content["findings"]}["identical"] is False
    # a release may ask several methods for images of one model
    assert {finding["of"] for finding in content["findings"]} == {"dp-sampling (gan)"}
    quantiles = content["distance_quantiles_0_1_5_25_50_75_100"]
    assert [part["of"] for part in quantiles] == ["holdout", "dp-sampling (gan)"]


def test_nearest_distances_agree_with_the_slow_oracle():
    queries, real = FRESH[:6], TRAIN[:9]

    def pooled(image, top, left):
        window = image[top : top + 62, left : left + 62].astype(float)
        cells = np.pad(window.reshape(31, 2, 31, 2).mean((1, 3)), 1, mode="edge")
        weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
        blurred = sum(weights[i, j] * cells[i : i + 31, j : j + 31] for i in range(3) for j in range(3))
        blurred -= blurred.mean()
        return blurred / np.linalg.norm(blurred)

    for query, found in zip(queries, nearest_distances(queries, real), strict=True):
        slow = min(
            min(np.linalg.norm(view - target), np.linalg.norm(view + target))
            for target in (pooled(image, 1, 1) for image in real)
            for picture in (query, query[:, ::-1])
            for view in (pooled(picture, top, left) for top in range(3) for left in range(3))
        )
        assert found == pytest.approx(slow, abs=2e-4)


@pytest.mark.parametrize("size", [16, 28, 48, 64, 100, 256])
def test_nearest_distances_work_at_every_size_and_in_colour(size):
    images = np.random.default_rng(0).integers(0, 256, (5, size, size, 3), dtype=np.uint8)
    assert nearest_distances(images[:3], images).max() < 1e-3
    assert nearest_distances(images[:3], images[3:]).min() > IDENTICAL
    assert nearest_distances(images[:3].astype(np.uint16) * 257, images).max() < 1e-3


def test_distances_refuse_what_cannot_be_compared_and_know_flat_images():
    with pytest.raises(ValueError):
        nearest_distances(FRESH, TRAIN[:0])
    with pytest.raises(ValueError):
        nearest_distances(FRESH[:, :32], TRAIN)
    flat = np.full((2, 64, 64), 3, np.uint8)
    assert is_flat(flat).all()
    assert not is_flat(FRESH).any()
    assert nearest_distances(flat, TRAIN).min() == pytest.approx(2**0.5)
