"""`sfumato-site check`: each thing that can be wrong is told with what to do, beside all others, and in one go."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import yaml
from PIL import Image
from support.commands import speaker
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.site.checks import CHECKS, Subject, look, machine
from sfumato_client.site.home import ADDRESS_FILE, SiteHome
from sfumato_common.errors import NoRoomError
from sfumato_common.files import write_json
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    return parse(PLAN, Plan, "plan")


@pytest.fixture(scope="module")
def made(tmp_path_factory, plan: Plan) -> SiteHome:
    return make_home(tmp_path_factory.mktemp("homes") / "alder", "alder", plan, POLICY, 40)


@pytest.fixture
def home(made: SiteHome, tmp_path) -> SiteHome:
    """One that a test may spoil."""
    shutil.copytree(made.root, tmp_path / "alder")
    return SiteHome(tmp_path / "alder")


def found(home: SiteHome, plan: Plan | None = None, **more) -> dict[str, list[tuple[str, str]]]:
    """(state, sentence) of each finding by the name of its check."""
    store = more.pop("store") if "store" in more else home.open_store() if home.store.exists() else None
    said: dict[str, list[tuple[str, str]]] = {}
    for name, finding in look(Subject(home, plan, store=store, reach=False, **more)):
        said.setdefault(name, []).append((finding.state, finding.said))
    return said


def wrong(said: dict[str, list[tuple[str, str]]]) -> dict[str, str]:
    return {name: text for name, findings in said.items() for state, text in findings if state == "wrong"}


def test_every_check_says_something_of_every_home(home, plan, tmp_path):
    assert list(found(home, plan)) == list(CHECKS)
    assert list(found(home)) == list(CHECKS)
    empty = SiteHome(tmp_path / "empty")
    empty.root.mkdir()
    shutil.copyfile(home.root / "policy.yaml", empty.root / "policy.yaml")
    assert list(found(empty, plan)) == list(CHECKS)
    assert "images" in wrong(found(empty, plan))


def test_only_the_noise_of_tests_is_wrong_with_a_home_of_tests(home, plan):
    assert wrong(found(home, plan)) == {"policy": "the policy says 'noise: test', which protects nobody: take it out"}


def test_faults_of_several_kinds_are_told_at_once(home, plan):
    (home.identity / "tls.key").chmod(0o644)
    (home.store / "store.json").write_text("{}")
    policy = yaml.safe_load((home.root / "policy.yaml").read_text())
    policy["budget"]["epsilon"] = 0.5
    policy["release"]["largest_set"] = 1
    (home.root / "policy.yaml").write_text(yaml.safe_dump(policy))
    os.utime(home.root / "policy.yaml", (time.time() + 4000,) * 2)
    said = wrong(found(home, plan, store=None))
    assert {"policy", "keys", "certificate", "store", "plan", "clock", "images"} <= set(said)
    assert "chmod 600" in said["keys"]
    assert "ingest again" in said["store"]
    assert "set the clock" in said["clock"]


def test_both_reasons_of_a_plan_are_told(home, plan):
    policy = yaml.safe_load((home.root / "policy.yaml").read_text())
    policy["budget"]["epsilon"], policy["release"]["largest_set"] = 0.5, 1
    (home.root / "policy.yaml").write_text(yaml.safe_dump(policy))
    told = [text for state, text in found(home, plan)["plan"] if state == "wrong"]
    assert len(told) == 2
    assert "release.largest_set" in told[0]
    assert "budget is 0.5" in told[1]


def test_a_ledger_that_was_altered(home, plan):
    path = home.ledger_file
    data = path.read_bytes()
    path.write_bytes(data.replace(b"genesis", b"gemesis"))
    assert "ledger" in wrong(found(home, plan))


@pytest.mark.parametrize("fault", ["memory", "disk", "files", "write", "locks", "ports"])
def test_a_machine_that_does_not_suffice(home, plan, monkeypatch, fault):
    @contextmanager
    def nothing(*_: object) -> Iterator[None]:
        yield

    def full(*_: object) -> None:
        raise NoRoomError("full")

    def denied() -> int:
        raise OSError("no")

    few = os.statvfs_result((4096, 4096, 10**9, 10**9, 10**9, 10**9, 12, 12, 0, 255))
    usage = shutil.disk_usage(home.root)._replace(free=2**20)
    faults = {
        "memory": (machine, "free_bytes", lambda: 2**28, "need"),
        "disk": (shutil, "disk_usage", lambda path: usage, "make room"),
        "files": (os, "statvfs", lambda path: few, "12 more files"),
        "write": (machine, "set_aside", full, "nothing can be written"),
        "locks": (machine, "exclusive", nothing, "locks do not hold"),
        "ports": (machine, "free_port", denied, "allow it"),
    }
    where, name, instead, told = faults[fault]
    monkeypatch.setattr(where, name, instead)
    said = wrong(found(home, plan))
    assert told in said["disk" if fault in ("files", "write") else fault]


def test_readers_that_can_reach_a_network_are_named(home, plan, monkeypatch):
    assert found(home, plan)["readers"][0][0] == "good"
    monkeypatch.setattr(machine, "can_leave_network", lambda: False)
    ((state, said),) = found(home, plan)["readers"]
    assert state == "note"
    assert said.startswith("readers can reach the network on this machine: ")


def test_all_that_gate_and_training_lack_is_told(tmp_path):
    groups = {"method": "k-same", "model": "gan", "images": 12, "k": 5}
    plan = parse({**PLAN, "release": [*PLAN["release"], groups]}, Plan, "plan")
    few = make_home(tmp_path / "birch", "birch", plan, POLICY, 6)
    told = [text for state, text in found(few, plan)["cohorts"] if state == "wrong"]
    assert len(told) == 3
    assert any("holdout images" in text for text in told)
    assert any("minimum_patients" in text for text in told)
    assert any("too few training patients" in text for text in told)


def test_what_the_coordinator_s_simulated_studies_say(home, plan, tmp_path):
    advice = {
        "format": "sfumato-advice/1", "plan_hash": plan.digest, "guess_limit": 0.6, "caution": "The phantom flatters.",
        "more": "ignored",
        "sizes": [
            {"sites": 3, "patients": 40, "auc": [0.71, 0.74, 0.7], "real": [0.9], "noiseless": None},
            {"sites": 3, "patients": 400, "auc": [0.8], "real": [0.95]},
        ],
    }  # fmt: skip
    path = tmp_path / "advice.json"

    def told(**changes):
        write_json(path, {**advice, **changes})
        return found(home, plan, advice=path)["quality"][0]

    state, text = told()
    assert state == "good"
    assert "40 patients each: AUC 0.710 [0.700, 0.740]" in text
    assert "The phantom flatters." in text
    assert told(guess_limit=0.75)[0] == "note"
    assert told(plan_hash="0" * 64) == (
        "wrong", "the advice is of another plan: ask the coordinator for the one of this plan"
    )  # fmt: skip
    assert told(format="other")[0] == "wrong"
    path.write_text("not json")
    assert "no 'advice.json'" in found(home, plan, advice=path)["quality"][0][1]


@pytest.fixture
def say(monkeypatch, capsys):
    return speaker(monkeypatch, capsys)


def test_the_command_reads_a_source_and_tells_what_has_to_be_answered(home, plan, tmp_path, say):
    home.store.rename(tmp_path / "old")
    folder = tmp_path / "films"
    folder.mkdir()
    rng = np.random.default_rng(4)
    rows = []
    for number in range(12):
        pixels = rng.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        rows.append(f"{number}.png,p{number},{plan.labels[number % 2]}")
    rows += [f"none.png,p1,{plan.labels[0]}", f"3.png,P4,{plan.labels[1]}"]
    (tmp_path / "labels.csv").write_text("file,patient_id,label\n" + "\n".join(rows) + "\n")
    source = tmp_path / "source.yaml"
    source.write_text(f"kind: png\nfolder: {folder}\nlabels: {tmp_path / 'labels.csv'}\n")
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    words = ("check", source, "--home", home.root, "--plan", tmp_path / "plan.yaml", "--offline", "--workers", 1)
    code, line, said = say("sfumato-site", *words)
    assert code == 2
    assert "wrong; each line" in line
    assert "to be answered in the source's 'answers'" in said
    assert "1 x file not found" in said
    assert "would cost a patient here" in said
    code, _, told = say("sfumato-site", *words, "--json")
    assert code == 2
    report = json.loads(told)
    assert {finding["check"] for finding in report["findings"]} == set(CHECKS)
    assert report["forecast"] is not None
    (tmp_path / "labels.csv").unlink()
    code, _, said = say("sfumato-site", *words)
    assert code == 2
    assert "labels.csv" in said
    assert "  wrong  images" in said


def test_images_without_a_plan_and_a_home_without_a_policy(home, tmp_path, say):
    (tmp_path / "source.yaml").write_text("kind: png\nfolder: f\nlabels: l.csv\n")
    code, _, said = say("sfumato-site", "check", tmp_path / "source.yaml", "--home", home.root, "--offline")
    assert code == 2
    assert "pass --plan" in said
    (home.root / "policy.yaml").unlink()
    code, line, _ = say("sfumato-site", "check", "--home", home.root, "--offline")
    assert code == 2
    assert "policy.yaml" in line


def test_a_site_that_is_not_enrolled_is_no_fault_and_one_with_a_broken_grant_is(home, plan):
    state, text = found(home, plan)["certificate"][0]
    assert state == "note"
    assert "join" in text
    write_json(home.root / ADDRESS_FILE, {"coordinator": "c:1"})
    for name in ("site.crt", "ca.crt", "coordinator.pem"):
        (home.identity / name).write_bytes(b"-----BEGIN nothing")
    assert "certificate" in wrong(found(home, plan))
