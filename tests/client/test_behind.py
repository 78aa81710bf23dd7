"""Who stands behind an image is kept encrypted, bound to its set and its patients, and known to the gate alone."""

import json

import numpy as np
import pytest
from support.averages import behind_images, honest, job_of, plan_of, site_cohort
from support.damaged import flipped
from support.planted_factors import planted

from sfumato_client.anonymise import CandidateSet, anonymise
from sfumato_client.audit.attacks import identity
from sfumato_client.audit.verdict import judge
from sfumato_client.dataset import Cohort
from sfumato_client.release.folder import ReleaseFolder
from sfumato_client.site.behind import keep_behind, read_behind
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.study.gate_rules import AttackRule, GateRules

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
ASKS = GateRules(declare_verdict=True, attacks=[], report=["learned-pairs"])
KEY = bytes(range(32))
WALK = {"points": 2, "images": 6, "groups": "within-label"}


@pytest.fixture(scope="module")
def made():
    """A job of k-same, and its set as it was sealed."""
    job = job_of(plan_of(distance="random"), honest())
    return job, NoiseRecorder(SecureNoise(), "entry").seal_result(anonymise(job))


def test_what_is_kept_is_who_is_behind_and_is_erased(made, tmp_path):
    job, sealed = made
    folder = ReleaseFolder(tmp_path, KEY)
    keep_behind(folder, job, sealed, ASKS)
    (path,) = tmp_path.iterdir()
    assert (path.suffix, path.stat().st_mode & 0o777) == (".behind", 0o600)
    found = read_behind(folder, [(job.item, sealed)], job.cohort, ASKS)[sealed.result.name]
    assert [sorted(own.tolist()) for own in found] == [sorted(own.tolist()) for own in behind_images(job)]
    data = path.read_bytes()
    assert sealed.digest.encode() not in data, "it lies encrypted"
    assert b"behind" not in data
    folder.erase_behind()
    assert list(tmp_path.iterdir()) == []
    assert read_behind(folder, [(job.item, sealed)], job.cohort, ASKS) == {}


def test_nothing_is_kept_where_no_attack_asks_and_nothing_without_a_key(made, tmp_path):
    job, sealed = made
    keep_behind(ReleaseFolder(tmp_path, KEY), job, sealed, GateRules(declare_verdict=True))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="store's key"):
        keep_behind(ReleaseFolder(tmp_path), job, sealed, ASKS)


def test_what_was_kept_of_another_set_or_of_other_patients_is_unknown_and_what_is_damaged_is_said(made, tmp_path):
    job, sealed = made
    folder = ReleaseFolder(tmp_path, KEY)
    keep_behind(folder, job, sealed, ASKS)
    images = sealed.result.images.copy()
    images[0, 0, 0] ^= 1
    other = CandidateSet("k-same", "gan", sealed.result.guarantee, images, sealed.result.labels, 5)
    again = NoiseRecorder(SecureNoise(), "entry").seal_result(other)
    assert read_behind(folder, [(job.item, again)], job.cohort, ASKS) == {}
    assert read_behind(folder, [(job.item, sealed)], site_cohort(2), ASKS) == {}
    (path,) = tmp_path.iterdir()
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(VerificationError, match="damaged"):
        read_behind(folder, [(job.item, sealed)], job.cohort, ASKS)


def test_all_points_of_a_walk_have_both_its_groups_behind_them():
    job = job_of(plan_of("linear-walk", distance="random", **WALK), honest())
    found = anonymise(job)
    assert len(job.behind.patients) == len(found.images)
    groups = [set(own.tolist()) for own in job.behind.patients]
    assert min(map(len, groups)) >= found.patients >= 2 * job.item.k


def test_no_set_and_no_report_says_who_is_behind(made):
    job, sealed = made
    assert not any("behind" in name for name in (*vars(sealed.result), *sealed.result.parts()))
    assert set(sealed.result.parts()) == {"claims", "images", "labels"}
    assert str(behind_images(job)[0].tolist()) not in str(vars(job.item))


@pytest.mark.parametrize("leak", ["averages", "nobody"])
def test_pairs_decide_where_the_gate_knows_who_is_behind_and_refuse_where_it_does_not(leak, monkeypatch):
    monkeypatch.setattr(identity, "_STEPS", 15)
    members, holdout, known = planted("honest", 0)
    rng = np.random.default_rng(0)
    first = np.unique(members.patient_index, return_index=True)[1]
    source = holdout.images[rng.permutation(len(holdout.images))] if leak == "nobody" else members.images[first]
    made = np.stack([source[group].mean(axis=0).round().astype(np.uint8) for group in known.behind])
    item = CandidateSet("k-same", "gan", "syntactic", made, np.zeros(len(made), np.int64), 5)
    sides = [Cohort(side.images, side.labels, side.patient_index) for side in (members, holdout)]
    rule = AttackRule(attack="learned-pairs", statistic="auc", decides="estimate", limit=0.65)
    rules = GateRules(
        declare_verdict=True, attacks=[rule], report=[], relative_distance_floor=0.01, identity_share_limit=1.0,
        copy_share_limit=1.0,
    )  # fmt: skip
    result = judge([item], *sides, rules, behind={item.name: known.behind})
    (found,) = (finding for finding in result.findings if finding.rule == "learned-pairs: auc")
    assert (result.obstacle, found.passed) == ("", leak == "nobody")
    told = json.dumps(result.to_json())
    assert "behind" not in told.replace("who is behind", "").replace("is behind", "")
    unknown = judge([item], *sides, rules)
    assert unknown.approved is None
    assert "who is behind which image is not known" in unknown.obstacle
