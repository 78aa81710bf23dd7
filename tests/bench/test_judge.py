"""Judges of the benches: a set that teaches is told from one that does not, at each site, and a release's interval."""

from __future__ import annotations

from dataclasses import replace

import judge
import judge_scores
import numpy as np
import pytest
from cohorts import BenchCohort
from judge_report import interval_text, judge_columns, judge_rows, release_interval
from judge_scores import judged, nearness
from utility_targets import REAL, targets_of

from sfumato_client.dataset.cohort import Cohort
from sfumato_common.metrics import judges as judges_module
from sfumato_server.evaluate.report import Report
from sfumato_server.evaluate.rows import Row

NAMES = ("normal", "abnormal")
SITES = ("alder", "birch")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setitem(judges_module.JUDGES, "cnn", replace(judges_module.JUDGES["cnn"], steps=20))


def bars(count: int, seed: int, upside_down: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images of 32 px whose label is where a bright bar lies: above (0) or below (1), or the other way round."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=count)
    images = rng.normal(100.0, 15.0, (count, 32, 32))
    for image, label in zip(images, labels, strict=True):
        at = 22 if bool(label) != upside_down else 6
        image[at : at + 4] += 90.0
    return np.clip(images, 0, 255).astype(np.uint8), labels


@pytest.fixture
def cohort():
    """Two sites whose images are bars, of train and val patients."""
    images, labels = bars(240, 0)
    parts = {}
    for part, rows in (("train", np.arange(120)), ("val", np.arange(120, 240))):
        own = {site: rows[number::2] for number, site in enumerate(SITES)}
        parts[part] = {site: Cohort(images[at], labels[at], np.arange(len(at))) for site, at in own.items()}
    return BenchCohort("bars", 32, 1, NAMES, dict.fromkeys(SITES, 0), parts, ("val",))


def test_folders_stand_side_by_side_with_real_images_and_a_figure_that_one_lacks_is_empty():
    line = Row("tstr", "cnn: AUC", 0.8, 0.7, 0.9, 0.95, 0.9, 0.99, "ratio", 0.84, 0.8, 0.9)
    reports = {
        "first": Report({}, (line,), ()),
        "second": Report({}, (line, Row("own", "sites", note="no figure")), ()),
    }
    shown = [list(column.cells) for column in judge.show(reports).columns]
    assert shown == [
        ["tstr: cnn: AUC", "own: sites"],
        ["0.800 [0.700, 0.900]", ""],
        ["0.800 [0.700, 0.900]", "no figure"],
        ["0.950 [0.900, 0.990]", ""],
    ]


def test_a_site_whose_part_has_one_class_has_no_figure_of_its_own(cohort):
    images, labels = bars(60, 3)
    homes = np.where(labels == 1, "alder", "birch")
    assert not any(" own " in name for name in judged(cohort, images, labels, homes, 0, ("cnn",)))


def test_no_network_is_trained_for_a_site_whose_patients_have_one_class(cohort, monkeypatch):
    alder = cohort.parts["val"]["alder"]
    rows = np.flatnonzero(alder.labels == 1)
    one_class = Cohort(alder.images[rows], alder.labels[rows], np.arange(len(rows)))
    parts = {**cohort.parts, "val": {**cohort.parts["val"], "alder": one_class}}
    asked = []

    def counted(name, images, *rest):
        asked.append(len(images))
        return lambda shown: np.full((len(shown), 2), 0.5)

    monkeypatch.setattr(judge_scores, "fit", counted)
    images, labels = bars(60, 3)
    found = judged(replace(cohort, parts=parts), images, labels, np.repeat(SITES, [25, 35]), 0, ("cnn",))
    assert asked == [60, 35] and "cnn val own alder" not in found and found["cnn val own birch"] == 0.5


def test_copies_of_training_patients_are_nearer_than_strangers():
    train, strangers, made = (bars(40, seed)[0] for seed in (0, 1, 2))
    assert nearness(train, train, strangers)["nearest"] < 0.01
    assert nearness(made, train, strangers)["nearest"] == pytest.approx(1.0, abs=0.1)
    few = np.concatenate([train[:2], made])
    copied = nearness(few, train, strangers)
    assert copied["nearest 1 %"] < 0.01 and copied["nearest"] > 0.9


def test_a_releases_interval_holds_the_next_release_and_one_release_has_none():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        patients = rng.normal(0.0, 0.02)  # one draw of patients judges all releases
        drawn = 0.8 + patients + rng.normal(0.0, 0.03, 4)
        half = 1.96 * 0.02
        low, high = release_interval(drawn[:3], drawn[:3] - half, drawn[:3] + half)
        held += low <= 0.8 + rng.normal(0.0, 0.03) <= high
    assert held / 400 > 0.93
    assert interval_text([{"auc": 0.8, "auc low": 0.7, "auc high": 0.9}], "auc") == ""
    assert np.isnan(release_interval([0.8], [0.7], [0.9])[0])


def test_the_judges_table_and_its_bars():
    scores = {"cnn val": 0.9, "cnn val low": 0.85, "cnn val high": 0.95, "cnn val nih": 0.45, "cnn val own nih": 0.55}
    results = [{"row": "flow", "epsilon": 10.0, "scores": scores}] * 2
    cells = {("flow", 10.0): {name: (value, 0.0) for name, value in scores.items()}}
    columns, rows = judge_rows(results, cells, lambda value, digits: f"{value[0]:.{digits}f}" if value else "", "val")
    assert dict(zip(columns, rows[0], strict=True))["a release's 95 %"] == "[0.85, 0.95]"
    # each view has its own table, which holds every judge's figures by site
    results[0]["scores"] = scores | {"resnet18 val": 0.8, "resnet18 val nih": 0.5, "resnet18 test nih": 0.6}
    assert judge_columns(results, "val") == [*(name for name in scores if name[-3:] not in {"low", "igh"}),
        "resnet18 val", "resnet18 val nih"]  # fmt: skip
    assert judge_columns(results, "test") == ["resnet18 test nih"]
    cells |= {REAL: {"auc": (0.9, 0.0)}, ("only nih", None): {"cnn val own nih": (0.8, 0.0)}}
    bars_of = {target.score: target.bound for target in targets_of("sites", cells) if target.epsilon == 10.0}
    assert bars_of["cnn val"] == 0.92 and bars_of["cnn val nih"] == bars_of["cnn val own nih"] == 0.5
    cells["only nih", None] = {"cnn val own nih": (0.52, 0.0)}  # what real data cannot teach is asked of nobody
    assert "cnn val nih" not in {target.score for target in targets_of("sites", cells)}
