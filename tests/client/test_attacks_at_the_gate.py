"""The gate decides by attacks that the policy names, tells what others found, and refuses where a rule cannot run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.commands import speaker
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.anonymise import CandidateSet
from sfumato_client.audit.attacks import identity
from sfumato_client.audit.rehearsal import SETS, rehearse
from sfumato_client.audit.verdict import gate, judge
from sfumato_client.dataset import Cohort
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.ingest import text_networks
from sfumato_client.site.given import require_text_reader, text_reader
from sfumato_common.errors import ConfigError, DataError, ReleaseRefused
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.gate_rules import AttackRule, GateRules
from sfumato_common.study.plan import Plan


@pytest.fixture(scope="module")
def people():
    """Images and classes of 120 people who do not exist, one each: 60 members, 20 holdout patients, 40 others."""
    images, grades, patients = arrays(0, 120, 64)
    first = np.unique(patients, return_index=True)[1]
    return images[first], (grades[first] > 0).astype(np.int64)


def cohorts(people):
    images, labels = people
    return [Cohort(images[part], labels[part], np.arange(len(labels[part]))) for part in (slice(60), slice(60, 80))]


def made(people, images=None):
    images = people[0][80:] if images is None else images
    return CandidateSet("dp-sampling", "gan", "heuristic", images, people[1][80 : 80 + len(images)])


def judged(people, rules, images=None, **ports):
    return judge([made(people, images)], *cohorts(people), GateRules(declare_verdict=True, **rules), **ports)


def rule(**values):
    return AttackRule(**{"attack": "nearest-copy", "statistic": "auc", "limit": 0.6} | values)


def grafted(people, count):
    """Strangers' images with the fine structure of members."""
    from scipy.ndimage import gaussian_filter

    images = people[0].astype(np.float64)
    soft = gaussian_filter(images, (0, 1.2, 1.2))
    mixed = np.clip(np.rint(soft[80:] + 2.0 * (images[:40] - soft[:40])), 0, 255).astype(np.uint8)
    return np.concatenate([mixed[:count], people[0][80 + count :]])


def test_strangers_pass_by_default_and_every_attack_of_the_report_is_told(people):
    result = judged(people, {})
    assert result.approved is not None
    assert [found.name for found in result.tried.results] == ["nearest-copy", "domias", "trace", "attribute"]
    assert {found.of for found in result.tried.results} == {"dp-sampling (gan)"}
    assert {"nearest-copy: stand-out", "nearest-copy: auc"} < {finding.rule for finding in result.findings}


def test_fine_structure_of_members_is_refused_that_the_rules_on_thumbnails_let_pass(people):
    images = grafted(people, 6)
    blind = judged(people, {"attacks": [], "report": []}, images)
    assert blind.approved is not None, "the planted leak is one that distances of thumbnails do not see"
    result = judged(people, {"report": []}, images)
    assert result.approved is None
    (failed,) = (finding for finding in result.findings if not finding.passed)
    assert failed.rule == "nearest-copy: stand-out"
    assert "fewer training steps" in failed.advice


@pytest.mark.parametrize(("decides", "passes"), [("lower", True), ("estimate", True), ("upper", False)])
def test_the_bound_that_a_rule_names_decides(people, decides, passes):
    """Strangers on few patients: an AUC near 0.5 whose interval goes far above 0.6."""
    result = judged(people, {"attacks": [rule(decides=decides)], "report": []})
    assert (result.approved is not None) == passes
    low, high = result.tried.results[0].auc_interval
    assert low < 0.6 < high


def test_a_rule_that_asks_for_power_refuses_where_there_is_none(people):
    result = judged(people, {"attacks": [rule(limit=1.0, underpowered="refused")], "report": []})
    assert result.approved is None
    (failed,) = (finding for finding in result.findings if not finding.passed)
    assert failed.rule == "nearest-copy: power"
    assert "60 training and 20 holdout patients" in failed.compares


@pytest.mark.parametrize("attack", ["embedding-copy", "learned-pairs"])
def test_an_attack_that_decides_and_cannot_be_tried_refuses_and_one_that_is_told_is_told(people, attack):
    decided = judged(people, {"attacks": [rule(attack=attack)], "report": []})
    assert decided.approved is None
    assert attack in decided.obstacle
    told = judged(people, {"attacks": [], "report": [attack]})
    assert told.approved is not None
    (untried,) = told.tried.untried
    assert (untried.attack, bool(untried.reason)) == (attack, True)


def test_candidates_are_looked_at_for_themselves(people):
    images = people[0][80:].copy()
    images[:4] = 9
    images[4:8] = images[8]
    images[9:12] = 255 - (255 - images[9:12]) // 12
    limits = {f"{name}_share_limit": 0.05 for name in ("blank", "repeat", "range")}
    result = judged(people, {"attacks": [], "report": [], **limits}, images)
    values = {finding.rule: finding.value for finding in result.findings if finding.of == "dp-sampling (gan)"}
    assert values["blank"] == pytest.approx(4 / 40)
    assert values["repeats"] == pytest.approx(5 / 36)
    assert values["range"] >= 3 / 36
    assert result.approved is None
    honest = judged(people, {"attacks": [], "report": [], **limits})
    assert honest.approved is not None


def test_text_is_read_where_the_policy_says_so_and_a_gate_without_a_reader_refuses(people):
    rules = {"attacks": [], "report": [], "text": "refused"}
    assert "text" in judged(people, rules).obstacle
    seen = []

    def reader(picture):
        seen.append(picture)
        return len(seen) == 3

    result = judged(people, rules, has_text=reader)
    assert len(seen) == 40
    assert all(picture.dtype == np.float32 and 0 <= picture.min() <= picture.max() <= 1 for picture in seen)
    assert {finding.rule for finding in result.findings if not finding.passed} == {"text"}

    def missing(picture):
        raise ConfigError("what finds it is not installed")

    assert judged(people, rules, has_text=missing).obstacle == "what finds it is not installed"


def test_a_site_is_told_beforehand_that_nothing_reads_text(monkeypatch):
    monkeypatch.setattr(text_networks, "PACKAGE", "none_such")
    require_text_reader(GateRules())
    with pytest.raises(ConfigError, match="not installed"):
        require_text_reader(GateRules(text="refused"))


def test_letters_in_a_candidate_are_read_by_the_ingests_own_networks(people):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("rapidocr")
    from PIL import Image, ImageDraw

    reader = text_reader(GateRules(text="refused"))
    assert text_reader(GateRules()) is None
    picture = Image.new("L", (256, 256), 30)
    ImageDraw.Draw(picture).text((40, 100), "MEYER 1950", fill=230, font_size=24)
    assert reader(np.asarray(picture, np.float32) / 255)


def test_the_stewards_report_tells_the_attacks_and_no_score(people, tmp_path):
    sealed = NoiseRecorder(SecureNoise(), "entry").seal_result(made(people, people[0][:40]))
    with pytest.raises(ReleaseRefused):
        gate([sealed], *cohorts(people), GateRules(declare_verdict=True), [], tmp_path)
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    (found,) = (attack for attack in content["attacks"] if attack["name"] == "nearest-copy")
    assert found["auc"] > 0.6
    assert not any("scores" in key for key in found)
    assert content["attacks_not_tried"] == []
    assert all(finding["advice"] for finding in content["findings"])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"attacks": [{"attack": "nearest-copie", "statistic": "auc", "limit": 0.6}]}, "nearest-copy"),
        ({"attacks": [{"attack": "domias", "statistic": "auc", "limit": 0.3}]}, "chance"),
        ({"attacks": [{"attack": "domias", "statistic": "found-at-0.01", "limit": 3.0}]}, "share"),
        ({"attacks": [{"attack": "domias", "statistic": "auc", "limit": 0.6}] * 2}, "one rule each"),
        ({"report": ["domias", "domias"]}, "named once"),
        ({"repeats_share_limit": 0.5}, "repeat_share_limit"),
    ],
)
def test_a_policy_that_is_wrong_says_where(values, said):
    with pytest.raises(ConfigError, match=said):
        parse(values, GateRules, "policy.yaml")


def test_a_rehearsal_says_which_rules_would_see_a_leak(monkeypatch):
    monkeypatch.setattr(identity, "_STEPS", 15)
    rules = GateRules(declare_verdict=True, report=[], text="not-read")
    found = rehearse(40, 14, 32, 1, 40, rules)
    assert found.obstacle == ""
    assert all(list(sets) == list(SETS) for sets in found.refused.values())
    assert not any(sets["strangers"] for sets in found.refused.values())
    assert found.refused["identical"]["one copy"]
    assert found.refused["copies"]["copies"]
    assert "blank" in found.blind
    assert "40 training and 14 holdout patients" in found.power
    with pytest.raises(DataError, match="holdout"):
        rehearse(40, 2, 32, 1, 40, rules)


def test_a_rule_on_learned_pairs_is_rehearsed_on_groups_as_a_release_has_them():
    """Where nothing of groups is known the rule refuses whatever it is shown, which would tell nothing."""
    rules = GateRules(declare_verdict=True, attacks=[rule(attack="learned-pairs")], report=[], text="not-read")
    found = rehearse(60, 25, 32, 1, 60, rules)
    assert found.obstacle == ""
    (told,) = (sets for name, sets in found.refused.items() if name.startswith("learned-pairs"))
    assert told["copies"] and not told["strangers"]


def test_the_command_rehearses_at_the_stores_size_reads_no_image_and_charges_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(identity, "_STEPS", 15)
    home = make_home(tmp_path / "alder", "alder", parse(PLAN, Plan, "plan"), POLICY, 40)
    say = speaker(monkeypatch, capsys)
    code, error, _ = say("sfumato-site", "gate", "--home", home.root)
    assert code
    assert "--dry-run" in error

    def touched(self, *rows):
        raise AssertionError("an image was read")

    monkeypatch.setattr(EncryptedPixels, "__getitem__", touched)
    before = {path: path.read_bytes() for path in sorted(home.root.rglob("*")) if path.is_file()}
    code, error, out = say("sfumato-site", "gate", "--home", home.root, "--dry-run", "--candidates", 20, "--json")
    assert (code, error) == (0, "")
    told = json.loads(out)
    store = home.open_store()
    assert told["training_patients"] == store.cohort("train").patients
    assert told["refused"]["identical"]["copies"] is True
    assert told["power"]
    code, error, out = say("sfumato-site", "gate", "--home", home.root, "--dry-run", "--candidates", 20)
    assert "identical" in out
    assert {path: path.read_bytes() for path in sorted(home.root.rglob("*")) if path.is_file()} == before
