"""What a person who never saw Sfumato gets wrong in the first hour, as a walk through the guides found it."""

import pytest
import yaml
from support.pacs import POLICY, speaker
from typer.main import get_command

from sfumato_client.cli.main import app
from sfumato_client.cli.panels import PANELS
from sfumato_common.crypto.identity import load_identity

PLAN = {
    "study": "practice",
    "image": {"size": 32},
    "labels": ["normal", "opacity"],
    "sites": {"alder": {"nominal_patients": 200}, "birch": {"nominal_patients": 200}},
    "privacy": {"epsilon": 10.0, "delta": 1e-5},
    "budget": {"spektral": 1.0},
    "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 1.8, "spread_radius": 0.9, "radii": "charged"}],
    "release": [{"model": "spectral", "images": 200}],
    "federation": {"quorum": 2},
}


@pytest.fixture
def say(monkeypatch, capsys):
    for name in ("SFUMATO_SITE_HOME", "SFUMATO_COORDINATOR_HOME"):
        monkeypatch.delenv(name, raising=False)
    return speaker(monkeypatch, capsys)


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    return path


def test_a_forgotten_home_is_told_with_the_whole_command(say, policy):
    code, said, _ = say("sfumato-site", "init", "--policy", policy)
    assert code == 2
    assert "Missing option '--home'" in said and "SFUMATO_SITE_HOME" in said
    assert "Example: sfumato-site init --home site --policy policy.yaml" in said


def test_a_home_that_is_not_there_is_told_with_the_folder_that_paths_count_from(say, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (("sfumato-site", "status", "--once"), ("sfumato-site", "ledger", "show"), ("sfumato-site", "run")):
        code, said, _ = say(*words, "--home", "siet")
        assert (code, f"there is no folder 'siet' (paths count from '{tmp_path}')" in said) == (2, True)
    code, said, _ = say("sfumato", "coordinator", "list", "--home", "cord")
    assert (code, "there is no folder 'cord'" in said and "'init'" in said) == (2, True)
    assert list(tmp_path.iterdir()) == []  # nothing was made by a look


def test_a_home_of_the_other_role_is_called_so(say, policy, tmp_path):
    site, coordinator = tmp_path / "site", tmp_path / "coord"
    assert say("sfumato-site", "init", "--home", site, "--policy", policy)[0] == 0
    (coordinator / "authority").mkdir(parents=True)
    for words in (("coordinator", "list"), ("coordinator", "fingerprint"), ("study", "status", "--once")):
        code, said, _ = say("sfumato", *words, "--home", site)
        assert (code, "is a site's home" in said) == (2, True)
    for words in (("run",), ("ledger", "show"), ("init", "--policy", policy)):
        code, said, _ = say("sfumato-site", *words, "--home", coordinator)
        assert (code, "is a coordinator's home" in said) == (2, True)
    assert [path.name for path in coordinator.iterdir()] == ["authority"]


def test_a_policy_may_lie_in_the_folder_that_becomes_the_home(say, policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = policy.read_bytes()
    tmp_path.chmod(0o755)
    code, said, errors = say("sfumato-site", "init", "--home", ".", "--policy", "policy.yaml")
    assert code == 0
    assert f"'{tmp_path.name}' could be entered by others" in said + str(errors)
    assert policy.read_bytes() == before
    assert load_identity(tmp_path / "identity").site == "alder"


def test_a_home_is_removed_once(say, policy, tmp_path):
    home = tmp_path / "site"
    assert say("sfumato-site", "init", "--home", home, "--policy", policy)[0] == 0
    assert say("sfumato-site", "remove", "--home", home, "--yes")[0] == 0
    code, said, _ = say("sfumato-site", "remove", "--home", home, "--yes")
    assert (code, "was removed before" in said) == (2, True)


def test_a_misspelt_command_is_asked_about_once(say):
    code, said, _ = say("sfumato", "plan", "chek", "plan.yaml")
    assert code == 2
    assert said.count("Did you mean 'check'?") == 1


def test_a_misspelt_stage_of_the_budget_is_one_fault(say, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    code, said, _ = say("sfumato", "plan", "check", path)
    assert code == 2
    assert "did you mean 'spectral'?" in said
    assert "there are auto" not in said


def test_a_name_that_cannot_be_one_is_not_told_by_lines_of_a_file_that_nobody_saw(say, tmp_path):
    code, said, _ = say("sfumato-site", "policy", "new", tmp_path / "policy.yaml", "--name", "Ärlenbach")
    assert code == 2
    assert "write 'aerlenbach'" in said and "line" not in said


def test_a_plan_in_the_grants_place_is_told_what_belongs_there(say, policy, tmp_path):
    home = tmp_path / "site"
    assert say("sfumato-site", "init", "--home", home, "--policy", policy)[0] == 0
    words = ("--coordinator", "localhost:8443", "--fingerprint", "abcd-efgh-ijkl-mnop-qrst")
    code, said, _ = say("sfumato-site", "join", "--home", home, policy, *words)
    assert (code, "'join' and 'renew' the grant" in said) == (6, True)


def test_a_source_that_cannot_be_read_is_one_thing_and_says_from_where_paths_count(say, policy, tmp_path, monkeypatch):
    home = tmp_path / "site"
    assert say("sfumato-site", "init", "--home", home, "--policy", policy)[0] == 0
    (tmp_path / "films").mkdir()
    (tmp_path / "source.yaml").write_text("kind: dicom\nfolder: films\nlabels: labels.csv\n")
    plan = {**PLAN, "stages": [{**PLAN["stages"][0], "noise_multiplier": 1.0}]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**plan, "budget": None}))
    monkeypatch.chdir(tmp_path)
    code, _, said = say(
        "sfumato-site", "check", "--home", "site", "source.yaml", "--plan", "plan.yaml", "--offline", "--json"
    )
    assert code == 2
    assert said.count("table 'labels.csv' cannot be read") == 1
    assert f"the command runs, '{tmp_path.name}'" in said
    assert "no images were read" not in said


def test_every_command_stands_under_a_heading_of_the_help_in_the_order_of_its_use():
    command = get_command(app)
    headings = {name: part.rich_help_panel for name, part in command.commands.items()}
    assert headings == {name: heading for heading, names in PANELS.items() for name in names}
    order = [name for name in headings if headings[name] == "First"]
    assert order.index("init") < order.index("join") < order.index("check") < order.index("accept") < order.index("run")
