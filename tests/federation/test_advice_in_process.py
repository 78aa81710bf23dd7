"""`sfumato plan advise`, whole: real studies of sites that do not exist, kept as they end and used again."""

import json

import pytest
import yaml
from support.commands import speaker
from support.plans import small_plan

VALUES = small_plan(released="spectral", sites={"alder": 40}, noise=0.2, epsilon=90.0)


def words(folder, *more):
    (folder / "plan.yaml").write_text(yaml.safe_dump(VALUES))
    command = ["sfumato", "plan", "advise", folder / "plan.yaml", "--out", folder / "out", "--sites", "1"]
    return [*command, "--patients", "11,12", "--repeats", "2", "--workers", "1", *more]


@pytest.fixture
def say(monkeypatch, capsys):
    return speaker(monkeypatch, capsys)


@pytest.mark.slow
def test_figures_are_computed_once_and_the_advice_follows_from_them(tmp_path, say):
    code, _, said = say(*words(tmp_path, "--json"))
    report = json.loads(said)
    assert code == 0 and report["complete"] and report["simulated"]
    assert json.loads((tmp_path / "out" / "advice.json").read_text()) == report
    refused, size = report["sizes"]
    assert "at least 12 patients" in refused["refused"] and not refused["auc"]
    assert [len(size[name]) for name in ("auc", "models", "real")] == [2, 2, 2]
    assert 0.0 <= size["noiseless"] <= 1.0
    assert "flatters" in report["caution"] and report["advice"]
    # nothing of any home is left, and of every figure what it follows from
    assert not (tmp_path / "out" / "runs").exists()
    cells = {path: json.loads(path.read_text()) for path in (tmp_path / "out" / "cells").iterdir()}
    assert sorted(found["what"] for found in cells.values()) == ["noiseless", "plan", "plan", "real", "real"]
    # of 12 patients ten train, and real images are of as many
    assert [found["patients_seen"] for found in cells.values() if found["what"] == "real"] == [10, 10]

    # one figure is lost: it alone is computed again, and is the same
    lost = next(path for path, found in cells.items() if found["what"] == "plan")
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in cells if path != lost}
    code, _, said = say(*words(tmp_path))
    assert code == 0 and "5 figures, 4 of them kept from before" in said
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert json.loads(lost.read_text())["auc"] == cells[lost]["auc"]
    for part in ("What to expect", "not run", "Rule:", "flatters"):
        assert part in said
