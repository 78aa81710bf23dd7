"""`sfumato study dossier`: from a verified set and its home alone, refused where anything of it does not hold."""

from __future__ import annotations

import json
import sys

import pytest
from support.published import SITES, plan_of, published_set

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.evidence.dossier import make_dossier
from sfumato_common.files import write_json
from sfumato_server.cli import main as cli
from sfumato_server.coordinator.dossier import coordinator_facts
from sfumato_server.coordinator.home import CoordinatorHome


@pytest.fixture
def study(tmp_path):
    """(home, published folder) of a small study that is done."""
    folder = published_set(tmp_path)
    home = CoordinatorHome(tmp_path / "coordinator")
    write_json(home.plan_file, plan_of(6, {"size": 16}).model_dump(mode="json"))
    return home, folder


def test_every_site_is_there_with_its_signed_head(study):
    home, folder = study
    facts = coordinator_facts(home, folder)
    assert sorted(facts.stated) == sorted(SITES)
    assert facts.published.images == {("dp-sampling", "formal"): 12}
    made = make_dossier(facts)
    assert made.checks["uncovered"].status == "shown"
    assert made.checks["provenance"].status == "partly"
    assert made.checks["utility"].status == "not shown"
    behind = " ".join(one.behind for one in made.evidence)
    assert all(f"site {site}, key " in behind for site in SITES)


def test_a_set_that_was_altered_makes_no_dossier(study):
    home, folder = study
    (folder / "labels.csv").write_bytes((folder / "labels.csv").read_bytes().replace(b"formal", b"formed"))
    with pytest.raises(VerificationError, match=r"labels\.csv was altered"):
        coordinator_facts(home, folder)


def test_a_set_of_another_plan_makes_no_dossier(study):
    home, folder = study
    write_json(home.plan_file, plan_of(7, {"size": 16}).model_dump(mode="json"))
    with pytest.raises(ConfigError, match="another plan"):
        coordinator_facts(home, folder)


def test_the_command_writes_both_files_and_says_how_much_is_shown(study, tmp_path, monkeypatch, capsys):
    home, folder = study
    words = ["sfumato", "study", "dossier", "--home", home.root, "--set", folder, "--out", tmp_path / "dossier"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    said = json.loads((tmp_path / "dossier" / "dossier.json").read_text())
    assert f"{said['counts']['not shown']} not shown" in capsys.readouterr().out
    assert (tmp_path / "dossier" / "dossier.html").read_text().startswith("<!doctype html>")
