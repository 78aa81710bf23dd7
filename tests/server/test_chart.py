"""The report's first picture says of every method what it promises and how well it serves, and invents nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from support.carded import published_set

from sfumato_server.publish import open_folder
from sfumato_server.publish.cards import SetFacts
from sfumato_server.publish.cards.again import facts_of
from sfumato_server.publish.cards.facts import Group
from sfumato_server.publish.chart import LEFT, RIGHT, Chart, draw, place


@pytest.fixture(scope="module")
def facts(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> SetFacts:
    return facts_of(open_folder(published_set(founded, tmp_path_factory.mktemp("chart"), 12)))


def drawn(facts: SetFacts, **run: Any) -> Chart:
    found = draw(replace(facts, run={**facts.run, **run}))
    assert found is not None
    return found


def rows(chart: Chart) -> dict[str, list[str]]:
    return {band.title: [f"{row.name}: {row.label}" for row in band.rows] for band in chart.bands}


def test_the_set_stands_in_the_band_of_its_weakest_image(facts: SetFacts) -> None:
    formal = "Formal: epsilon 1.698"
    assert rows(drawn(facts))[formal][0] == "the whole set: 0.910 (0.870 to 0.940)"
    mixed = replace(facts, tally={**facts.tally, Group("east", "normal", "gan", "k-salsa", "syntactic", "train"): 1})
    found = rows(drawn(mixed))
    assert list(found) == [formal, "Syntactic: groups of k patients, no epsilon"]
    assert found["Syntactic: groups of k patients, no epsilon"] == [
        "the whole set: 0.910 (0.870 to 0.940)",
        "k-salsa (gan): not measured alone",
    ]


def test_every_method_has_a_row_and_real_images_are_the_mark(facts: SetFacts) -> None:
    figure = {"auc": 0.8, "low": 0.7, "high": 0.9}
    utility = {**facts.run["utility"], "methods": {"dp-sampling": figure}, "real": {**figure, "auc": 0.97}}
    chart = drawn(facts, utility=utility)
    assert "dp-sampling (spectral): 0.800 (0.700 to 0.900)" in rows(chart)["Formal: epsilon 1.698"]
    assert chart.real is not None and chart.real.auc == 0.97
    assert "Trained on real images: 0.970" in chart.description
    assert drawn(facts).real is None and "not measured" in drawn(facts).description


def test_models_that_were_looked_at_say_on_whom(facts: SetFacts) -> None:
    choice = {
        "candidates": [{"model": "spectral", "auc": 0.881, "low": 0.84, "high": 0.92}, {"model": "gan", "auc": None}]
    }
    (band,) = drawn(facts, choice=choice).bands
    assert [row.tested for row in band.rows] == ["holdout", "training", "training"]
    assert "model spectral 0.881 (0.840 to 0.920) on training patients" in drawn(facts, choice=choice).description


def test_test_noise_takes_every_band_of_a_formal_level(facts: SetFacts, founded: Any) -> None:
    void = {
        group._replace(guarantee="none"): number for group, number in facts.tally.items()
    }  # as `gather` counts then
    tested = replace(facts, tally=void, certificates={**facts.certificates, "east": founded.certificate(noise="test")})
    choice = {"candidates": [{"model": "spectral", "auc": 0.881}]}
    assert list(rows(drawn(tested, choice=choice))) == ["No guarantee"]


def test_rows_stand_apart_and_figures_on_the_axis(facts: SetFacts) -> None:
    many = {
        Group("east", "normal", "appearance", f"dp-sampling-for-{name}", "formal", "train"): 1
        for name in ("k-salsa", "linear-walk")
    }
    chart = drawn(replace(facts, tally={**facts.tally, **many}))
    placed = [row for band in chart.bands for row in band.rows]
    for above, below in pairwise(placed):
        assert above.bar_y + 4.5 < below.y + 2
    # a long name keeps its line to itself
    assert all(row.label_y > row.y + 12 for row in placed if len(row.name) > 24)
    assert placed[-1].bar_y < chart.height
    assert [place(value) for value in (0.4, 0.7, 1.0, 0.1)] == [LEFT, (LEFT + RIGHT) / 2, RIGHT, LEFT]


def test_without_figures_there_is_no_picture(facts: SetFacts) -> None:
    assert draw(replace(facts, run={})) is None
