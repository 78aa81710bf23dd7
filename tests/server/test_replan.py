"""Another plan in the place of one that nobody answered: same CA, same enrolments, same name."""

from __future__ import annotations

import copy

import pytest
import yaml
from support.commands import speaker
from support.enrolment import enrol_site
from support.studies import PLAN

from sfumato_common.crypto.identity import create_identity
from sfumato_common.files import write_json
from sfumato_common.locks import exclusive
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry
from sfumato_server.simulate.home import make_coordinator

VALUES = {**copy.deepcopy(PLAN), "stages": PLAN["stages"][:1], "release": PLAN["release"][:1]}


@pytest.fixture
def home(tmp_path) -> CoordinatorHome:
    made = make_coordinator(tmp_path / "coordinator", parse(VALUES, Plan, "plan"))
    made.root.chmod(0o700)
    enrol_site(made.root, create_identity(tmp_path / "alder", "alder"))
    return made


@pytest.fixture
def replan(home, tmp_path, monkeypatch, capsys):
    say = speaker(monkeypatch, capsys)

    def run(**changes):
        path = tmp_path / "other.yaml"
        path.write_text(yaml.safe_dump({**VALUES, **changes}))
        return say("sfumato", "coordinator", "replan", path, "--home", home.root)

    return run


def test_a_corrected_plan_takes_the_place_and_nobody_enrols_again(home, replan):
    before, records = home.plan(), Registry(home.root).sites()
    code, _, said = replan(federation={"quorum": 2, "round_deadline_s": 7200})
    assert code == 0 and f"unaccept {before.study}" in said.replace("\n", " ")
    assert home.plan().federation.round_deadline_s == 7200 and home.plan().digest != before.digest
    assert parse(yaml.safe_load((home.root / "plan.yaml").read_text()), Plan, "plan") == home.plan()
    assert Registry(home.root).sites() == records


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"study": "renamed"}, "another study"),
        ({"sites": {name: PLAN["sites"][name] for name in ("birch", "cedar")}}, "not in the new plan: alder"),
        ({"privacy": {"epsilon": 0.5, "delta": 1e-5}}, "more than privacy.epsilon"),
    ],
)
def test_what_is_another_study_changes_nothing(home, replan, changes, why):
    before = home.plan()
    code, line, _ = replan(**changes)
    assert code != 0 and why in line and home.plan() == before


def test_a_plan_that_a_site_was_charged_by_stays(home, replan):
    """The attack: charge under one plan, ask the same patients again under another of the same name."""
    before = home.plan()
    with exclusive(home.root, "a run"):
        assert replan()[0] != 0
    write_json(home.receipts_file, {before.study_digest: {"alder": "spectral:1"}})
    code, line, _ = replan(federation={"quorum": 2, "round_deadline_s": 7200})
    assert code != 0 and "were charged by it" in line and "--deadline" in line and home.plan() == before
