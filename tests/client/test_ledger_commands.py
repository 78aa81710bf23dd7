"""`sfumato-site ledger`: show, forecast, export, check, each on a real ledger; every mistake is one line."""

from __future__ import annotations

import json
import math
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.optimize import brentq
from scipy.stats import norm

from sfumato_client.cli import main as cli
from sfumato_client.site.home import SiteHome
from sfumato_common.accounting.events import GaussianRelease, Unprotected
from sfumato_common.crypto.identity import create_identity
from sfumato_common.imaging import encode_png
from sfumato_common.package import PackageImage, build_package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.strict import load_yaml
from sfumato_common.study.certificate import Certificate
from sfumato_common.study.costs import GATE_VERDICT
from sfumato_common.study.plan import Plan

POLICY = {
    "site": "alder",
    "budget": {"epsilon": 6.0, "delta": 1e-5},
    "allowed_stages": ["spectral"],
    "minimum_patients": 10,
    "release": {"allowed_methods": ["dp-sampling"], "largest_set": 100, "gate": {"declare_verdict": True}},
}
PLAN = {
    "study": "chest",
    "image": {"size": 16},
    "labels": ["normal", "abnormal"],
    "sites": {"alder": {"nominal_patients": 100}},
    "privacy": {"epsilon": 10.0, "delta": 1e-5},
    "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0}],
    "release": [{"model": "spectral", "images": 12}],
    "federation": {"quorum": 1},
}


@pytest.fixture
def say(monkeypatch, capsys):
    """Run `sfumato-site` in this process; returns (exit code, last line on stderr, stdout)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["sfumato-site", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        lines = captured.err.strip().splitlines()
        assert len(lines) <= 1, "one clear line"
        return stopped.value.code or 0, lines[-1] if lines else "", captured.out

    return run


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "alder"
    folder.mkdir(mode=0o700)
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
    return folder


def plan_file(folder: Path, **changes) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump({**PLAN, **changes}))
    return path


def two_releases(sigma):
    """Exact epsilon at 1e-5 of two Gaussian mechanisms, one with sigma / sqrt(2) (Balle and Wang 2018, theorem 8)."""
    s = sigma / math.sqrt(2)
    return brentq(lambda e: norm.cdf(0.5 / s - e * s) - math.exp(e) * norm.cdf(-0.5 / s - e * s) - 1e-5, 0, 50)


def charge(home, plan, settle=True, event=None, purpose="spectral"):
    with SiteHome(home).open_ledger() as ledger:
        event = event or GaussianRelease(2.0)
        made = ledger.reserve(
            study=plan.study, plan_hash=plan.digest, purpose=purpose, round=1, cohort="train", event=event
        )
        if settle:
            ledger.settle(made, "5e" * 32)


def test_show_prints_both_adjacencies_the_check_and_what_was_never_settled(say, home, tmp_path):
    plan = load_yaml(plan_file(tmp_path), Plan)
    charge(home, plan, settle=False)
    charge(home, plan, event=GATE_VERDICT, purpose="gate")
    code, _, said = say("ledger", "show", "--home", home)
    assert code == 0
    # one Gaussian with noise 2: closed forms of both adjacencies, and 2.166 by Renyi divergences
    for figure in ("1.993", "2.166", "4.377"):
        assert figure in said
    assert "1 charges were never settled" in said
    assert "train: epsilon 1.993 of 6 at delta 1e-05" in said
    said = say("ledger", "show", "--home", home, "--entries")[2]
    assert said.count("NOT") == 1
    assert "5e5e5e" in said  # what was sealed under the one that was carried out


def test_forecast_stands_on_all_that_was_spent_and_pins_nothing(say, home, tmp_path):
    other = load_yaml(plan_file(tmp_path, study="another"), Plan)
    charge(home, other)
    code, _, said = say("ledger", "forecast", "--home", home, plan_file(tmp_path))
    assert code == 0
    both = two_releases(2.0)
    assert f"a patient has paid epsilon 1.993; with this plan {both:.3f} of 6" in said
    assert f"{6 - both:.3f} left" in said
    assert not (home / "plans").exists()
    # a plan that ran is not counted twice
    charge(home, load_yaml(plan_file(tmp_path), Plan))
    assert f"with this plan {both:.3f} of 6" in say("ledger", "forecast", "--home", home, plan_file(tmp_path))[2]


def test_a_forecast_beyond_the_budget_says_so_after_the_figures(say, home, tmp_path):
    dear = plan_file(tmp_path, stages=[{**PLAN["stages"][0], "noise_multiplier": 0.5}])
    code, line, said = say("ledger", "forecast", "--home", home, dear)
    assert code == 3
    assert "budget is 6" in line
    assert "0.000 left" in said
    assert "spectral" in said


COSTS = {who: {"add_remove", "add_remove_rdp", "replace_one"} for who in ("train", "holdout", "patient")}


def names(costs):
    return {who: set(cost) for who, cost in costs.items()}


def test_show_for_scripts_says_what_the_tables_do(say, home, tmp_path):
    plan = load_yaml(plan_file(tmp_path), Plan)
    charge(home, plan, settle=False)
    charge(home, plan, event=GATE_VERDICT, purpose="gate")
    code, _, said = say("ledger", "show", "--home", home, "--json")
    shown = json.loads(said)
    assert code == 0
    assert set(shown) == {"budget", "entries", "costs", "without_privacy", "lines", "releases", "marks"}
    assert shown["budget"] == {"epsilon": 6.0, "delta": 1e-5}
    assert names(shown["costs"]) == COSTS
    assert shown["costs"]["train"]["add_remove"] == pytest.approx(1.993, abs=1e-3)
    first, second = shown["entries"]
    assert set(first) == {"number", "hash", "study", "plan_hash", "purpose", "round", "cohort", "event", "settled"}
    assert (first["settled"], second["settled"]) == (False, True)
    assert first["event"] == {"mechanism": "GaussianRelease", "noise_multiplier": 2.0}
    assert first["plan_hash"] == plan.digest


def test_what_left_unprotected_is_null_for_scripts(say, home, tmp_path):
    policy = {**POLICY, "nonprivate_studies": ["chest"]}
    (home / "policy.yaml").write_text(yaml.safe_dump(policy))
    charge(home, load_yaml(plan_file(tmp_path), Plan), event=Unprotected("weights"))
    shown = json.loads(say("ledger", "show", "--home", home, "--json")[2])
    assert shown["costs"]["patient"]["add_remove"] is None
    assert shown["without_privacy"] == ["chest"]
    code, _, said = say("ledger", "forecast", "--home", home, plan_file(tmp_path, study="another"), "--json")
    report = json.loads(said)
    assert (code, report["spent"], report["after"], report["left"]) == (3, None, None, 0.0)


def test_forecast_for_scripts_and_its_refusal(say, home, tmp_path):
    plan = load_yaml(plan_file(tmp_path), Plan)
    code, _, said = say("ledger", "forecast", "--home", home, plan_file(tmp_path), "--json")
    report = json.loads(said)
    assert code == 0
    assert set(report) == {
        *("study", "plan_hash", "private", "delta", "stages", "costs", "noised"),
        *("budget", "spent", "after", "left"),
    }
    assert names(report["costs"]) == COSTS
    assert (report["study"], report["plan_hash"], report["spent"]) == ("chest", plan.digest, 0.0)
    assert report["left"] == pytest.approx(6 - report["after"])
    (stage,) = report["stages"]
    assert set(stage) == {"stage", "rounds", "steps", "noise_multiplier", "sampling_rate", "epsilon_after"}
    dear = plan_file(tmp_path, stages=[{**PLAN["stages"][0], "noise_multiplier": 0.5}])
    code, line, said = say("ledger", "forecast", "--home", home, dear, "--json")
    assert (code, "budget is 6" in line) == (3, True)
    assert json.loads(said)["left"] == 0.0


def test_export_and_check_go_together(say, home, tmp_path):
    identity = create_identity(home / "identity", "alder")
    plan = load_yaml(plan_file(tmp_path), Plan)
    charge(home, plan)
    with SiteHome(home).open_ledger() as ledger:
        certificate = ledger.certificate(plan, noise="secure")
    png = encode_png(np.zeros((16, 16), np.uint8))
    images = [
        PackageImage(
            ImageFacts(name="ab" * 16, label="normal", model="spectral", method="dp-sampling", guarantee="formal"), png
        )
    ]
    names = {"site": "alder", "study": plan.study, "plan_hash": plan.digest}
    out, package = tmp_path / "ledger.json", tmp_path / "release.sfumato"
    package.write_bytes(build_package(**names, certificate=certificate, images=images, sign=identity.sign_package))

    code, _, said = say("ledger", "export", "--home", home, "--out", out)
    assert code == 0
    assert "stays in the site" in said
    assert stat.S_IMODE(out.stat().st_mode) == 0o600

    code, _, said = say("ledger", "check", out, package, "--home", home)
    assert code == 0
    assert said.count("holds") == 18
    assert "the package's signature hold" in said
    assert "no approval of this package is in the export" in said
    assert "NO signature was checked" in say("ledger", "check", out, package)[2]
    report = json.loads(say("ledger", "check", out, package, "--json", "--home", home)[2])
    assert set(report) == {
        *("site", "study", "plan_hash", "delta", "noise", "private"),
        *("signature_checked", "figures", "pending", "unsettled", "approvals", "approved"),
    }
    assert report["signature_checked"]
    assert {tuple(sorted(figure)) for figure in report["figures"]} == {
        ("bound", "holds", "name", "recomputed", "slack", "stated", "who")
    }
    assert [figure["holds"] for figure in report["figures"]] == [True] * 18

    # a shard of several is checked as the whole is: its certificate is that of the release
    for number in (1, 2, 3):
        package.write_bytes(
            build_package(
                **names, certificate=certificate, images=images, sign=identity.sign_package, shard=number, shards=3
            )
        )
        code, _, said = say("ledger", "check", out, package, "--home", home)
        assert (code, said.count("holds"), "the package's signature hold" in said) == (0, 18, True)
    package.write_bytes(package.read_bytes()[:-1])
    assert say("ledger", "check", out, package, "--home", home)[0] == 6

    less = certificate.model_dump()
    less["epsilon"]["patient"]["add_remove"] = 0.5
    forged = Certificate.model_validate(less)
    package.write_bytes(build_package(**names, certificate=forged, images=images, sign=identity.sign_package))
    code, line, said = say("ledger", "check", out, package)
    assert (code, "WRONG" in said, "recomputed" in line) == (8, True, True)
    code, line, said = say("ledger", "check", out, package, "--json")
    assert (code, "recomputed" in line) == (8, True)
    assert [figure["name"] for figure in json.loads(said)["figures"] if figure["holds"] is False] == ["add/remove"]

    value = json.loads(out.read_bytes())
    value["rows"][1]["body"] = value["rows"][1]["body"].replace('"noise_multiplier":2.0', '"noise_multiplier":9.0')
    out.write_text(json.dumps(value))
    code, line, _ = say("ledger", "check", out, package)
    assert code == 8
    assert "altered at entry 1" in line
    assert say("ledger", "check", tmp_path / "none.json", package)[0] == 2
