"""Tables of the methods bench: means over releases with their interval, verdicts a claim, and what was not run."""

from __future__ import annotations

from pathlib import Path

import methods_make
import numpy as np
import pytest
from methods_claims import beats, claims
from methods_models import given, shape_of
from methods_report import by_cohort, cell, claim_table, line, markdown, means_of, merged, releases_of
from methods_rows import ROWS, row_of
from methods_work import Schedule, Step, run

from sfumato_client.dataset.cohort import Cohort

SCORES = {"auc": 0.8, "bal. acc.": 0.7, "FD random": 40.0, "FD trained": 30.0, "nearest": 0.8, "member auc": 0.5}
RISKS = {"re-identified": 0.05, "group top 5": 0.1, "group chance": 0.1, "linked": 0.02, "linked chance": 0.02}
NEAR = {"FD random": 20.0, "FD trained": 20.0}


def result(row, release, **scores):
    word = "formal" if row.startswith("dp") else "syntactic"
    shared = {"cohort": "sites", "release": release, "row": row, "word": word, "images": 40, "epsilon": 9.99}
    return {**shared, "scores": {**SCORES, **RISKS, **scores}}


def run_of(*results, **more):
    made = {"command": "python tests/bench/methods.py", "delta": 1e-5, "seconds": 60, "missing": []}
    return {**made, "runs": list(results), **more}


def found_in(found, claim, space):
    rows = by_cohort(found)["sites"]
    return next(
        verdict
        for text, where, verdict in claims(releases_of(rows), means_of(rows))
        if text.startswith(claim) and where == space
    )


def test_a_cell_is_a_mean_with_the_interval_of_a_mean_over_releases():
    scores = [{"auc": value, "by": 0.1} for value in (0.8, 0.82, 0.84)]
    assert cell(scores, "auc", 3) == ".820 ± .050"  # t(2 degrees) = 4.303, times 0.02 / sqrt(3)
    assert cell(scores[:1], "auc", 3, "by") == ".800 (.100)"
    assert cell(scores, "recall", 2) == "-"


def test_a_release_that_failed_is_said_and_counts_in_no_mean():
    failed = {"cohort": "sites", "release": 1, "row": "centroid", "failed": "ConfigError"}
    rows = by_cohort(run_of(result("centroid", 0), failed))["sites"]
    columns = ["set", "word", "releases", "images", "AUC"]
    assert line("centroid", rows["centroid"], columns) == ["centroid", "syntactic", "1, 1 failed", "40", ".800"]
    assert line("centroid", [failed], columns)[1] == "failed"


def test_strangers_come_from_the_sites_as_members_do(monkeypatch):
    def part(patients):
        return Cohort(np.zeros((patients, 4, 4), np.uint8), np.zeros(patients, np.int64), np.arange(patients))

    aside = {"large": part(200), "small": part(10)}
    monkeypatch.setattr(methods_make, "split", lambda name: (None, aside))
    assert {site: own.patients for site, own in methods_make.strangers("so limited", 100).items()} == {
        "large": 25,  # a fifth set aside, four fifths kept
        "small": 10,
    }
    assert methods_make.strangers("not limited", 10_000)["large"].patients == 200


def test_runs_are_merged_and_a_row_that_was_made_later_is_no_longer_missing():
    failed = {"cohort": "sites", "release": 0, "row": "k-SALSA", "failed": "no memory"}
    first = run_of(
        result("centroid", 0), failed, missing=["sites, centroid (codec): no model", "sites, release 1, PLAN: no time"]
    )
    both = merged([first, run_of(result("k-SALSA", 0), result("centroid (codec)", 0), command="again")])
    assert {one["row"] for one in both["runs"] if "scores" in one} == {"centroid", "k-SALSA", "centroid (codec)"}
    assert both["missing"] == ["sites, release 1, PLAN: no time"] and both["command"].endswith("and again")


def test_a_claim_is_judged_by_means_and_in_each_release():
    releases = [result("centroid", n) for n in range(3)]
    releases += [result("k-SALSA", 0, **NEAR), result("k-SALSA", 1, **NEAR), result("k-SALSA", 2)]
    found = run_of(*releases)
    assert found_in(found, "k-SALSA is nearer", "gan") == "found 2/3"
    assert found_in(found, "k-SALSA serves better", "gan") == "not told apart 3/3"
    assert found_in(found, "k-SALSA is no easier", "gan") == "found 3/3"
    assert found_in(found, "k-SALSA is nearer", "codec") == "-"
    worse = run_of(result("centroid", 0), result("k-SALSA", 0, **{"FD random": 20.0, "FD trained": 60.0}))
    assert found_in(worse, "k-SALSA is nearer", "gan") == "not found 1/1"
    assert [lines[0] for lines in claim_table(found)[1]].count(
        "k-SALSA is nearer to real images than the centroid (both FD)"
    ) == 1


def test_what_beats_dp_sampling_serves_clearly_better_and_shows_no_more():
    rows = [result("dp sampling", n) for n in range(2)] + [
        result("centroid", n, auc=0.85, linked=0.3) for n in range(2)
    ]
    found = run_of(*rows)
    assert found_in(found, "nothing serves clearly better than", "gan") == "not found: centroid 2/2"
    assert found_in(found, "nothing serves clearly better at no more risk", "gan") == "found 2/2"
    means = means_of(by_cohort(run_of(*rows, result("PLAN", 0, auc=0.81)))["sites"])
    assert beats("centroid", means, safe=False) and not beats("centroid", means, safe=True)
    assert not beats("PLAN", means, safe=False), "a hundredth is chance"


def test_the_best_sampling_is_that_of_a_private_model():
    rows = {"dp sampling": SCORES, "dp sampling (stylegan2)": {**SCORES, "auc": 0.9}}
    assert beats("dp sampling (stylegan2)", rows, safe=False), "without privacy it is a rival"


def test_the_tables_are_markdown_and_say_what_was_not_run():
    text = markdown(run_of(result("real", 0), result("dp sampling", 0), missing=["sites, k-SALSA (codec): no model"]))
    assert "### sites: private models at epsilon 9.99, delta 1e-05" in text
    assert "| dp sampling | formal | 1 | 40 | .800 |" in text
    assert text.endswith("Not run: sites, k-SALSA (codec): no model.\n")


def test_every_space_has_its_averages_and_no_formal_one_without_privacy():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert row_of("PLAN (codec)").item["model"] == "codec" and row_of("cadp 10").source == "cinn"
    assert "dp k-average (stylegan2)" not in {row.name for row in ROWS}


def test_given_models_are_found_by_cohort_and_release(tmp_path: Path):
    (tmp_path / "sites" / "codec").mkdir(parents=True)
    (tmp_path / "sites" / "codec" / "config.json").write_text("{}")
    (tmp_path / "sites" / "stylegan2.safetensors").touch()
    (tmp_path / "sites" / "stylegan2-1.safetensors").touch()
    assert given(tmp_path, "sites", "stylegan2", 0) == tmp_path / "sites" / "stylegan2.safetensors"
    assert given(tmp_path, "sites", "stylegan2", 1) == tmp_path / "sites" / "stylegan2-1.safetensors"
    assert given(tmp_path, "sites", "codec", 2) == tmp_path / "sites" / "codec"
    assert given(tmp_path, "phantom", "codec", 0) is None and given(None, "sites", "codec", 0) is None


def test_the_size_of_a_network_is_read_off_its_weights():
    weights = {f"synthesis.b{2**n}.conv1.bias": np.zeros(min(64, 512 // 2**n)) for n in range(2, 7)}
    assert shape_of({**weights, "mapping.fc0.weight": np.zeros(1), "mapping.fc1.weight": np.zeros(1)}, 64) == (
        512,
        64,
        2,
    )


def work(number):
    if number < 0:
        raise ValueError("a row below zero")
    return [{"row": number}]


class Steps:
    """As much of a `Schedule` as `run` asks for: a source that fails and one that does not, with a row each."""

    def __init__(self, seconds):
        self.options = type("Options", (), {"workers": 1, "seconds": seconds})()
        self.missing = ["sites, centroid (codec): no model"]
        steps = [
            Step(("source", "sites", 0, "gan"), (0,), work, (-1,)),
            Step(("row", "sites", 0, "centroid"), (1,), work, (1,), [("source", "sites", 0, "gan")]),
            Step(("source", "sites", 0, "appearance"), (0,), work, (2,)),
            Step(("row", "sites", 0, "PLAN"), (1,), work, (3,), [("source", "sites", 0, "appearance")]),
        ]
        self.steps = {step.key: step for step in steps}


@pytest.mark.parametrize("seconds", [300.0, 0.0])
def test_what_fails_ends_what_waits_for_it_alone_and_time_ends_all(seconds):
    told = []
    missing = run(Steps(seconds), told.append)
    if seconds:
        failed = {"cohort": "sites", "release": 0, "row": "centroid", "failed": "ValueError: a row below zero"}
        assert failed in told and {"row": 3} in told and missing == ["sites, centroid (codec): no model"]
    else:
        assert told == [] and "sites, release 0, PLAN: no time" in missing


def test_rows_without_a_model_are_left_out_and_said(tmp_path: Path):
    terms = {"cohort": ["fundi-64"], "rows": ["centroid", "centroid (codec)"], "space": None, "models": None}
    terms |= {"epsilon": 10.0, "patients": 20, "images": 4, "slow_images": 2, "distance": "random", "releases": 2}
    made = Schedule(type("Options", (), {**terms, "judges": [], "sheets": False})(), tmp_path)
    assert made.missing == ["fundi-64, centroid (codec): no model"] * 2
    assert [key for key in made.steps if key[0] == "row"] == [("row", "fundi-64", n, "centroid") for n in (0, 1)]
    assert len([key for key in made.steps if key[0] == "draw"]) == 9
    assert made.steps["source", "fundi-64", 0, "gan"].order < made.steps["row", "fundi-64", 0, "centroid"].order
