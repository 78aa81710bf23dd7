"""Tables of the utility bench: what failed is said, what was measured is written down at once and read back alike."""

from __future__ import annotations

import math
import sys

import pytest
import utility
from utility_report import markdown, print_tables, summary, tables_of

SCORES = {"auc": 0.9, "FD trained": 20.0, "recall": 0.8}


def result(row, epsilon, seed, order, **changes):
    shared = {"cohort": "pneumonia", "row": row, "epsilon": epsilon, "seed": seed, "order": order, "count": 10}
    return {**shared, "model": row, "seconds": 1.0, "scores": SCORES, **changes}


def failed(row, epsilon, seed, order):
    return result(row, epsilon, seed, order, scores={}, failed="ConfigError: no noise is enough")


def run_of(*runs):
    made = {"command": "python tests/bench/utility.py --seeds 2", "delta": 1e-5, "images": 10, "seeds": 2}
    return {**made, "jobs": len(runs), "jobs_of": {"pneumonia": len(runs)}, "seconds": 60, "runs": list(runs)}


RUN = run_of(
    result("real", None, 0, 0, scores={**SCORES, "auc": 0.95}),
    failed("flow", 10.0, 0, 4),
    failed("flow", 10.0, 1, 5),
    result("spectral", 10.0, 0, 1),
    result("spectral", 10.0, 1, 2, scores={**SCORES, "auc": 0.8}),
    failed("spectral", 10.0, 2, 3),
    result("best", math.inf, 0, 6, model="flow"),
)


def test_a_cell_is_the_mean_of_what_ran_and_says_what_failed():
    scores, targets = tables_of(RUN["runs"])
    rows = {row[0]: row[1:] for row in scores.rows}
    assert rows["real"][:2] == ["-", "0.950"]
    assert rows["spectral (1 of 3 failed)"][:2] == ["10", "0.850 ± 0.071"]
    assert set(rows["flow (2 of 2 failed)"]) == {"10", "failed"}
    assert scores.below == "what 'best' chose, by epsilon: inf: flow"
    auc = next(row for row in targets.rows if row[0].startswith("auc at least 0.950 at epsilon 10"))
    assert dict(zip(targets.columns, auc, strict=True)) | {"target": ""} == {
        "target": "", "spectral": "missed -0.100", "flow": "failed", "best": "",
    }  # fmt: skip


def test_a_run_whose_every_job_failed_still_has_its_table(capsys):
    sheets = tables_of([failed("real", None, 0, 0), failed("flow", 10.0, 0, 1)])
    print_tables(sheets)
    assert "flow (1 of 1 failed)" in capsys.readouterr().out


def test_markdown_stands_below_its_command_and_every_line_has_all_columns():
    text = markdown(tables_of(RUN["runs"]), RUN)
    assert text.startswith("`python tests/bench/utility.py --seeds 2`: 7 jobs, 3 failed, in 1.0 minutes")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for lines in tables:
        assert set(lines[1]) <= set("|- ")
        assert len({line.count("|") for line in lines}) == 1


def test_results_are_read_back_as_they_were_and_an_unfinished_run_says_so(tmp_path):
    utility.write_run(tmp_path, {**RUN, "jobs": 9}, ["pneumonia", "sites"])
    found = utility.read_run(tmp_path / utility.RESULTS)
    assert found["runs"] == RUN["runs"]
    assert "7 of 9 jobs (not finished)" in summary(found)
    assert utility.read_run(tmp_path / "utility-pneumonia.json")["runs"] == RUN["runs"]
    assert not (tmp_path / "utility-sites.json").exists()


def test_tables_of_a_run_are_printed_without_running_it_and_a_failure_is_the_exit_code(tmp_path, monkeypatch, capsys):
    utility.write_run(tmp_path, RUN, ["pneumonia"])
    monkeypatch.setattr(sys, "argv", ["utility.py", "--table", "--out", str(tmp_path)])
    monkeypatch.setattr(utility, "run_all", lambda *_: pytest.fail("nothing is to run"))
    assert utility.main() == 1
    assert "spectral (1 of 3 failed)" in capsys.readouterr().out
    assert "spectral (1 of 3 failed)" in (tmp_path / "utility.md").read_text()


def test_a_job_that_fails_ends_no_other_and_its_traceback_is_told(capsys):
    jobs = [utility.Job("nowhere", "real", None, seed, 10, order=seed) for seed in range(2)]
    found = sorted(utility.run_all(jobs, 1), key=lambda one: one["order"])
    assert [one["failed"] for one in found] == ["KeyError: 'nowhere'"] * 2
    assert capsys.readouterr().err.count("Traceback") >= 2
