"""Another plan under the same name, an altered plan, another site's plan: what was not accepted is not done."""

import copy
import json
import sys

import pytest
import yaml
from support.hospital import ONE_SITE, make_hospital

from sfumato_client.cli import main as cli
from sfumato_common.errors import PolicyRefusal
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan


def changed(**changes) -> Plan:
    values = copy.deepcopy(ONE_SITE)
    values["stages"][1].update(changes)
    return parse(values, Plan, "plan")


@pytest.mark.parametrize(
    "change",
    [{"noise_multiplier": 0.01}, {"clipping_norm": 100.0}, {"rounds": 900}, {"sampling_rate": 0.5}, {"width": 16}],
)
def test_a_weaker_plan_of_the_same_name_is_neither_carried_out_nor_accepted(fresh, change):
    other = changed(**change)
    for kind, stage in (("hello", ""), ("stage", "spectral"), ("make", ""), ("send", ""), ("utility", "")):
        request = fresh.request(kind, stage, 1 if stage else 0, plan_hash=other.digest)
        fresh.refuses(request, "policy-refused", "was not accepted here")
    with pytest.raises(PolicyRefusal, match="another plan named 'tiny' was accepted here before"):
        fresh.home.pin(other)
    fresh.refuses(fresh.request("stage", "spectral", 1, plan_hash=other.digest), "policy-refused", "was not accepted")


def test_the_command_line_does_not_accept_it_either(fresh, tmp_path, monkeypatch, capsys):
    file = tmp_path / "weaker.yaml"
    file.write_text(yaml.safe_dump(changed(clipping_norm=2.0).model_dump(mode="json")))
    words = ["sfumato-site", "accept", "--home", str(fresh.home.root), str(file), "--yes"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == PolicyRefusal.exit_code
    assert "another plan named 'tiny' was accepted here before" in capsys.readouterr().err
    assert [path.stem for path in (fresh.home.root / "plans").iterdir()] == [fresh.plan.digest]


def test_the_same_plan_may_be_accepted_again(fresh):
    fresh.home.pin(fresh.plan)
    assert len(list((fresh.home.root / "plans").iterdir())) == 1


def test_a_plan_accepted_at_another_site_is_not_accepted_here(fresh, tmp_path):
    values = {**ONE_SITE, "study": "other", "sites": {**ONE_SITE["sites"], "birch": {"nominal_patients": 40}}}
    birch = make_hospital(tmp_path / "birch", "birch", values)
    request = birch.request("stage", "spectral", 1)
    assert birch.ask(request).status == "ok"
    fresh.refuses(request, "policy-refused", "was not accepted here")


def plan_file(hospital):
    return hospital.home.root / "plans" / f"{hospital.plan.digest}.json"


def test_an_altered_plan_file_is_not_carried_out(fresh):
    values = json.loads(plan_file(fresh).read_text())
    values["stages"][0]["noise_multiplier"] = 1e-6
    plan_file(fresh).write_text(json.dumps(values))
    fresh.refuses(fresh.request("stage", "spectral", 1), "policy-refused", "does not have the hash it is filed under")


def test_another_plan_filed_under_the_accepted_hash_is_not_carried_out(fresh):
    plan_file(fresh).write_text(json.dumps(changed(noise_multiplier=0.01).model_dump(mode="json")))
    fresh.refuses(fresh.request("stage", "spectral", 1), "policy-refused", "does not have the hash it is filed under")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": "tiny", "noise": "none"}', "{" * 5000])
def test_a_plan_file_that_is_no_plan_is_not_carried_out(fresh, text):
    plan_file(fresh).write_text(text)
    fresh.refuses(fresh.request("stage", "spectral", 1), "policy-refused", "cannot be read any more")


def test_a_plan_for_other_sites_is_refused_by_the_policy_though_it_was_filed(fresh):
    values = {**ONE_SITE, "study": "elsewhere", "sites": {"birch": {"nominal_patients": 40}}}
    plan = parse(values, Plan, "plan")
    fresh.home.pin(plan)  # as if someone had copied the file: `sfumato-site accept` asks the policy first
    fresh.refuses(fresh.request("stage", "spectral", 1, plan_hash=plan.digest), "policy-refused", "has no site 'alder'")
