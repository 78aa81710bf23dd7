"""Both command lines: each mistake gets one clear line, its exit code, no traceback, nothing half-written."""

import json
import socket

import pytest
import yaml
from support.commands import speaker
from support.studies import PLAN, POLICY

from sfumato_common.errors import VerificationError
from sfumato_common.phantom.dicom import write_cohort


@pytest.fixture
def say(monkeypatch, capsys):
    return speaker(monkeypatch, capsys)


@pytest.fixture
def files(tmp_path):
    """A plan, a policy and a source description, as YAML files to be changed by a test."""

    def write(name, value):
        path = tmp_path / name
        path.write_text(yaml.safe_dump(value))
        return path

    write("plan.yaml", PLAN)
    write("policy.yaml", {"site": "alder", **POLICY})
    write("source.yaml", {"kind": "dicom", "folder": str(tmp_path / "d"), "labels": str(tmp_path / "d" / "labels.csv")})
    return tmp_path, write


def site_with_data(say, files, policy=None, patients=40):
    """An initialised site with a store; of fewer patients the site's secret might hold nobody out."""
    root, write = files
    policy_file = write("own.yaml", {"site": "alder", **POLICY, **(policy or {})})
    write_cohort(root / "d", "alder", patients, 7, "aurora")
    assert say("sfumato-site", "init", "--home", root / "home", "--policy", policy_file)[0] == 0
    source, plan = root / "source.yaml", root / "plan.yaml"
    code, _, said = say("sfumato-site", "ingest", "--home", root / "home", source, "--plan", plan)
    assert (code, f"{patients} patients" in said) == (0, True)
    return root / "home"


def test_unknown_plan_key_names_the_nearest_right_one(say, files):
    root, write = files
    plan = {**PLAN, "federation": {"quorom": 2}}
    code, line, _ = say("sfumato", "plan", "check", write("wrong.yaml", plan))
    assert code == 2
    assert "did you mean 'quorum'" in line
    assert not (root / "coord").exists()


def test_a_plan_is_checked_for_scripts(say, files):
    root, write = files
    code, line, said = say("sfumato", "plan", "check", root / "plan.yaml", "--json")
    report = json.loads(said)
    assert (code, line) == (0, "")
    assert set(report) == {"study", "plan_hash", "private", "delta", "budget", "stages", "costs", "noised", "foresight"}
    assert report["budget"] == PLAN["privacy"]
    assert [stage["stage"] for stage in report["stages"]] == ["spectral", "gan", "flow"]
    assert set(report["costs"]) == {"train", "holdout", "patient"}
    bare = {"private": False, "release": [{"model": "spectral", "images": 4}], "utility": None}
    stages = [{**stage, "noise_multiplier": 0.001} for stage in PLAN["stages"]]
    code, _, said = say("sfumato", "plan", "check", write("bare.yaml", {**PLAN, **bare, "stages": stages}), "--json")
    assert code == 0
    assert json.loads(said)["costs"]["patient"]["add_remove"] is None
    dear = write("dear.yaml", {**PLAN, "privacy": {"epsilon": 1.0, "delta": 1.0e-5}})
    code, line, said = say("sfumato", "plan", "check", dear, "--json")
    assert (code, "more than privacy.epsilon" in line) == (2, True)
    assert json.loads(said)["budget"]["epsilon"] == 1.0


def test_plan_that_costs_more_than_it_says(say, files):
    _, write = files
    plan = {**PLAN, "privacy": {"epsilon": 1.0, "delta": 1.0e-5}}
    code, line, _ = say("sfumato", "plan", "check", write("dear.yaml", plan))
    assert code == 2
    assert "more than privacy.epsilon" in line


def test_a_budget_is_resolved_by_the_coordinator_and_only_then_accepted(say, files):
    home, (root, write) = site_with_data(say, files), files
    bare = [{key: v for key, v in stage.items() if key != "noise_multiplier"} for stage in PLAN["stages"][:1]]
    release = [{"model": "spectral", "images": 4}]
    own = {"stages": bare, "release": release, "budget": {"spectral": 1.0}, "privacy": {"epsilon": 5.0, "delta": 1e-5}}
    open_plan = write("open.yaml", {**PLAN, **own})
    code, line, _ = say("sfumato-site", "accept", "--home", home, open_plan, "--yes")
    assert code == 2
    assert "'budget' is not resolved" in line
    assert not (home / "plans").exists()
    code, line, said = say("sfumato", "plan", "resolve", open_plan, "-o", root / "resolved.yaml")
    assert (code, line) == (0, "")
    code, _, told = say("sfumato", "coordinator", "init", "--home", root / "coord", "--plan", open_plan)
    assert code == 0 and f"'sfumato coordinator rotate --home {root / 'coord'} --name HOST'" in told
    assert (root / "coord" / "plan.yaml").read_bytes() == (root / "resolved.yaml").read_bytes()
    assert say("sfumato-site", "accept", "--home", home, root / "resolved.yaml", "--yes")[0] == 0
    (pinned,) = (home / "plans").iterdir()
    assert pinned.stem in said.replace("\n", "")


def test_plan_above_the_policys_budget_is_not_pinned(say, files):
    home = site_with_data(say, files, {"budget": {"epsilon": 2.0, "delta": 1.0e-5}})
    code, line, _ = say("sfumato-site", "accept", "--home", home, files[0] / "plan.yaml", "--yes")
    assert code == 3
    assert "budget is 2" in line
    assert not (home / "plans").exists()


def test_plan_that_the_policy_forbids_names_everything(say, files):
    home = site_with_data(
        say, files, {"allowed_stages": ["spectral"], "release": {**POLICY["release"], "largest_set": 3}}
    )
    code, line, _ = say("sfumato-site", "accept", "--home", home, files[0] / "plan.yaml", "--yes")
    assert code == 3
    assert "stage 'gan'" in line
    assert "largest_set" in line


def test_accepting_shows_the_forecast_and_pins_the_hash(say, files):
    home = site_with_data(say, files)
    code, _, said = say("sfumato-site", "accept", "--home", home, files[0] / "plan.yaml", "--yes")
    assert code == 0
    pinned = [path.stem for path in (home / "plans").iterdir()]
    assert len(pinned) == 1
    assert pinned[0] in said
    for word in ("spectral", "gan", "flow", "add/remove", "epsilon"):
        assert word in said


@pytest.mark.parametrize(("nominal", "code_of", "warned"), [(10, 4, True), (30, 0, True), (1000, 0, False)])
def test_a_cohort_above_its_nominal_number_is_told_to_its_own_steward(say, files, nominal, code_of, warned):
    _, write = files
    # who is held out hangs on the site's secret: of 60 patients, more than 30 train whatever it is
    home = site_with_data(say, files, patients=60)
    plan = write("plan.yaml", {**PLAN, "sites": {site: {"nominal_patients": nominal} for site in PLAN["sites"]}})
    code, line, said = say("sfumato-site", "accept", "--home", home, plan, "--yes")
    assert code == code_of
    assert ("larger nominal number" in line + said) is warned
    assert ("would pay for nothing" in line) is (code_of == 4), "the coordinator takes no answer of so many"


@pytest.mark.parametrize(("images", "enough"), [(5, True), (30, False)])
def test_what_no_epsilon_covers_and_too_few_for_groups_is_told_to_the_steward(say, files, images, enough):
    _, write = files
    release = {**POLICY["release"], "allowed_methods": ["dp-sampling", "k-same"], "smallest_group": 2}
    home = site_with_data(say, files, {"release": release}, patients=40)
    plan = write("plan.yaml", {**PLAN, "release": [{"method": "k-same", "k": 2, "images": images}]})
    code, line, said = say("sfumato-site", "accept", "--home", home, plan, "--yes")
    assert code == (0 if enough else 4)
    assert ("declared, covered by no epsilon: k-same" in said) is enough
    assert ("too few training patients" in line) is not enough, "refused before anything is charged"


def test_too_few_patients(say, files):
    home = site_with_data(say, files, {"minimum_patients": 500})
    code, line, _ = say("sfumato-site", "accept", "--home", home, files[0] / "plan.yaml", "--yes")
    assert code == 4
    assert "fewer patients" in line
    assert "20" not in line


def test_unreadable_data_folder(say, files):
    root, _ = files
    say("sfumato-site", "init", "--home", root / "home", "--policy", root / "policy.yaml")
    words = ("ingest", "--home", root / "home", root / "source.yaml", "--plan", root / "plan.yaml")
    code, line, _ = say("sfumato-site", *words)
    assert code == 4
    assert "cannot be read" in line
    assert not (root / "home" / "store").exists()


def test_site_that_is_not_enrolled(say, files):
    home = site_with_data(say, files)
    code, line, _ = say("sfumato-site", "run", "--home", home)
    assert code == 2
    assert "not enrolled" in line


def coordinator_with_sites(say, files):
    root, write = files
    assert say("sfumato", "coordinator", "init", "--home", root / "coord", "--plan", root / "plan.yaml")[0] == 0
    for site in ("alder", "birch"):
        policy = write(f"{site}.yaml", {"site": site, **POLICY})
        say("sfumato-site", "init", "--home", root / site, "--policy", policy)
        request = root / site / "enrolment-request.json"
        told = say("sfumato-site", "fingerprint", "--home", root / site)[2].strip()
        words = ("coordinator", "enrol", "--home", root / "coord", request, "--grant", root / "grant")
        assert say("sfumato", *words, "--fingerprint", told)[0] == 0
    return root / "coord"


def test_port_in_use(say, files):
    home = coordinator_with_sites(say, files)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = ("--port", str(holder.getsockname()[1]))
        code, line, _ = say("sfumato", "coordinator", "run", "--home", home, "--out", files[0] / "out", *port)
        assert code == 5
        assert str(holder.getsockname()[1]) in line
    assert not (files[0] / "out").exists()


def test_second_coordinator_on_the_same_home(say, files):
    from sfumato_common.locks import exclusive

    home = coordinator_with_sites(say, files)
    with exclusive(home, "the first"):
        code, line, _ = say("sfumato", "coordinator", "run", "--home", home, "--out", files[0] / "out")
    assert code == 5
    assert "already running" in line


def test_quorum_that_cannot_be_met_is_said_at_once(say, files):
    root, _ = files
    say("sfumato", "coordinator", "init", "--home", root / "coord", "--plan", root / "plan.yaml")
    code, line, _ = say("sfumato", "coordinator", "run", "--home", root / "coord", "--out", root / "out")
    assert code == 7
    assert "not enrolled" in line


def test_altered_enrolment_request_and_grant(say, files):
    root, _ = files
    say("sfumato", "coordinator", "init", "--home", root / "coord", "--plan", root / "plan.yaml")
    say("sfumato-site", "init", "--home", root / "alder", "--policy", root / "policy.yaml")
    request = root / "alder" / "enrolment-request.json"
    value = json.loads(request.read_text())
    value["body"]["site"] = "mallory"
    request.write_text(json.dumps(value))
    words = ("coordinator", "enrol", "--home", root / "coord", request, "--grant", root / "grant")
    told = say("sfumato-site", "fingerprint", "--home", root / "alder")[2].strip()
    code, line, _ = say("sfumato", *words, "--fingerprint", told)
    assert code == 6
    assert line
    assert not (root / "grant").exists()


def test_ledger_commands(say, files):
    home = site_with_data(say, files)
    assert say("sfumato-site", "ledger", "show", "--home", home)[0] == 0
    assert say("sfumato-site", "ledger", "verify", "--home", home)[0] == 0
    (home / "ledger.sqlite").unlink()
    code, line, _ = say("sfumato-site", "ledger", "verify", "--home", home)
    assert code == 8
    assert "ledger is gone" in line


def test_usage_errors_are_one_line(say):
    code, line, _ = say("sfumato", "dataset", "verfy")
    assert code == 2
    assert "No such command" in line
    code, line, _ = say("sfumato", "demo", "--data", "nowhere.csv", "--out", "unused-out", "--configs", "configs")
    assert code == 4
    assert "nowhere.csv" in line


def test_an_embedding_is_fitted_kept_and_dropped(say, files):
    home, (root, write) = site_with_data(say, files), files
    weights, plan = root / "public.safetensors", ("--plan", root / "plan.yaml")
    code, line, said = say(
        "sfumato-site", "style-net", "fit", root / "source.yaml", *plan, "--out", weights, "--steps", 2
    )
    assert (code, line) == (0, "")
    assert "fitted to" in said
    assert say("sfumato-site", "style-net", "use", "--home", home, weights, *plan)[0] == 0
    kept = home / "style-net.safetensors"
    assert kept.read_bytes() == weights.read_bytes()
    larger = write("larger.yaml", {**PLAN, "image": {"size": 2 * PLAN["image"]["size"]}})
    code, line, _ = say("sfumato-site", "style-net", "use", "--home", home, weights, "--plan", larger)
    assert code == VerificationError.exit_code
    assert "fit one for this plan" in line
    assert kept.read_bytes() == weights.read_bytes()
    assert "dropped" in say("sfumato-site", "style-net", "drop", "--home", home)[2]
    assert not kept.exists()
    assert "there was none" in say("sfumato-site", "style-net", "drop", "--home", home)[2]
