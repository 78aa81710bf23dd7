"""Both dossiers of one study in process: what the coordinator can show, and what a site adds from its own ledger."""

from __future__ import annotations

import copy
import json
import time

import pytest
from support.federations import make_federation
from support.studies import PLAN, POLICY

from sfumato_client.audit.attacks.base import AttackResult
from sfumato_client.audit.suite import Tried, Untried
from sfumato_client.audit.verdict import report_path
from sfumato_client.cli.main import app as site_app
from sfumato_client.site.dossier import site_facts
from sfumato_common.errors import ConfigError, LedgerError
from sfumato_common.evidence.dossier import make_dossier
from sfumato_server.coordinator.dossier import coordinator_facts
from sfumato_server.coordinator.publishing import publish_study
from sfumato_server.coordinator.study import run_study

RELEASE = [{"model": "spectral", "images": 6}]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(federation, published folder) of a study of one stage."""
    root = tmp_path_factory.mktemp("dossier")
    plan = {**copy.deepcopy(PLAN), "stages": PLAN["stages"][:1], "release": RELEASE, "utility": None}
    plan["publication"] = {"intended_use": "To try classifiers out.", "licence": "CC-BY-4.0"}
    federation = make_federation(root, plan, {**POLICY, "noise": "secure"})
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "completed"
    return federation, publish_study(federation.coordinator, root / "out", time.time())


def test_the_coordinators_dossier_names_every_site_and_nothing_of_the_machine(done):
    federation, folder = done
    facts = coordinator_facts(federation.coordinator, folder)
    made = make_dossier(facts)
    assert sorted(facts.stated) == sorted(federation.sites)
    assert made.checks["terms"].status == "shown"
    assert made.checks["uncovered"].status == "shown"
    assert made.checks["utility"].status == "not shown"
    assert made.checks["audit trail"].status == "not shown"
    assert "To try classifiers out." in made.checks["purpose"].says
    for site in federation.sites:
        assert str(federation.home(site).root) not in made.encode().decode()


def test_a_sites_dossier_adds_its_ledger_and_policy(done):
    federation, _ = done
    facts = site_facts(federation.home("alder"), "tiny")
    made = make_dossier(facts)
    for name in ("audit trail", "all studies", "cohort size", "automatic check"):
        assert made.checks[name].status == "partly", name
    assert made.checks["approval"].missing.startswith("No person approved")
    assert made.checks["uncovered"].status == "not shown"
    assert "0 of them by the gate" in made.checks["automatic check"].says
    assert made.checks["attacks"].status == "not shown"
    assert any(one.name.startswith("ledger, row") for one in made.evidence)


def test_attacks_that_the_gate_tried_are_told_with_their_sizes_and_those_it_could_not_try_too(done):
    home = done[0].home("alder")
    found = {0.01: (0.02, (0.0, 0.05)), 0.001: (0.0, (0.0, 0.04))}
    tried = AttackResult(
        "trace", "Is it there?", "k-same (gan)", 0.53, (0.41, 0.66), found, 40, 20, "too few to tell", 0
    )
    both = Tried((tried,), (Untried("k-same (gan)", "domias", "its images are all alike"),))
    with home.open_ledger() as ledger:
        (leaves,) = ledger.approvals(site_facts(home, "tiny").plan_hash).values()
    report = report_path(home.steward_folder, leaves[0].sets)
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"approved": True, "findings": [], **both.to_json()}))
    try:
        said = make_dossier(site_facts(home, "tiny")).checks["attacks"]
    finally:
        report.unlink()
    assert "attack trace AUC 0.53 [0.41, 0.66] of 40 training and 20 holdout patients" in said.says
    assert "underpowered: too few to tell" in said.says and "domias could not be tried, its images" in said.says


def test_a_package_that_the_ledger_does_not_carry_makes_no_dossier(done, monkeypatch):
    from sfumato_client.ledger.check import CheckReport

    def disagree(self):
        raise LedgerError("the certificate's epsilon is wrong")

    monkeypatch.setattr(CheckReport, "require", disagree)
    with pytest.raises(LedgerError, match="wrong"):
        site_facts(done[0].home("alder"), "tiny")


def test_the_sites_command_and_a_study_that_nobody_accepted(done, tmp_path):
    from typer.testing import CliRunner

    home = done[0].home("alder")
    said = CliRunner().invoke(site_app, ["dossier", "--home", str(home.root), "tiny", "--out", str(tmp_path / "d")])
    assert said.exit_code == 0, said.output
    assert "not shown" in said.output
    for name in ("dossier.html", "dossier.json"):
        assert (tmp_path / "d" / name).stat().st_mode & 0o077 == 0, "it stays at the site"
    assert "stays at the site" in (tmp_path / "d" / "dossier.html").read_text()
    with pytest.raises(ConfigError, match="no study 'other'"):
        site_facts(home, "other")
