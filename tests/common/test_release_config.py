"""What a plan may ask to be released: sections by method, numbers by site, words, and what each is charged as."""

from __future__ import annotations

import copy

import pytest
from support.plans import dp_sgd

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import (
    Declared,
    GaussianRelease,
    KAverageGaussian,
    LocalGaussian,
    LocalLaplace,
    RandomisedResponse,
)
from sfumato_common.errors import ConfigError
from sfumato_common.strict import parse
from sfumato_common.study.costs import GATE_VERDICT, declared_disclosures, release_events, study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan

DP_SGD = dp_sgd(rounds=2, local_steps=5, sampling_rate=0.1)
VALUES = {
    "study": "chest",
    "image": {"size": 16, "channels": 1},
    "labels": ["normal", "abnormal"],
    "sites": {"north": {"nominal_patients": 100}, "south": {"nominal_patients": 20}},
    "privacy": {"epsilon": 10.0, "delta": 1e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0},
        {"kind": "gan", **DP_SGD},
        {"kind": "flow", "levels": 2, **DP_SGD},
        {"kind": "choice", "noise_multiplier": 3.0},
    ],
    "federation": {"quorum": 2},
}
GLOW = {"method": "dp-glow", "images": 10, "radius": 1.0, "epsilon": 2.0}
CADP = {"method": "cadp", "images": 10, "radius": 1.0, "epsilon": 2.0, "label_epsilon": 0.5}


def plan_of(*items: dict, **changes: object) -> Plan:
    return parse({**copy.deepcopy(VALUES), "release": list(items), **changes}, Plan, "plan")


def test_numbers_of_images_differ_by_site_where_the_plan_says_so():
    plan = plan_of({"model": "best", "images": 50}, {**GLOW, "images": 90, "images_at": {"south": 15}})
    assert [(item.model, item.images) for item in plan.release_at("north", "gan")] == [("gan", 50), ("flow", 90)]
    assert [(item.model, item.images) for item in plan.release_at("south", "flow")] == [("flow", 50), ("flow", 15)]
    assert len([plan.release_at("south", choice) for choice in plan.choices]) == len(plan.candidates) == 3
    assert plan.sources == [
        ("dp-sampling", "spectral"),
        ("dp-sampling", "gan"),
        ("dp-sampling", "flow"),
        ("dp-glow", "flow"),
    ]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([{"model": "gan", "images": 5, "images_at": {"east": 4}}], "none of the plan's sites"),
        ([{"model": "gan", "images": 5}, {"model": "best", "images": 5}], "sample from it alone"),
        ([{"model": "gan", "images": 5}, {"method": "dp-sampling", "model": "gan", "images": 5}], "add the counts"),
        ([{**GLOW, "images": 30}], "its 20 nominal patients"),
        ([{**GLOW, "coordinates": 257}], "more than a latent's 256"),
        ([{**GLOW, "noise_multiplier": 1.0}], "no 'noise_multiplier'"),
        ([{**GLOW, "mechanism": "gaussian"}], "no 'epsilon'"),
        ([{**GLOW, "clip": "l2"}], "goes with the gaussian"),
        ([{**CADP, "label": "public"}], "give both or neither"),
        ([{"method": "k-same", "images": 5, "k": 3}, {"method": "k-salsa", "images": 5, "k": 4}], "once a study"),
        ([{"method": "k-same", "images": 5, "groups": "l-diverse", "least_labels": 3}], "number of labels"),
        ([{"method": "k-same", "images": 5, "kk": 3}], "did you mean 'k'"),
        ([{"method": "k-sames", "images": 5}], "there is no 'k-sames'; did you mean 'k-same'\\?"),
        ([{"method": "blur", "images": 5}], "there is no 'blur'; there are dp-sampling, k-same, "),
        ([{"method": "dp-glow", "images": 5, "radius": 1.0, "epsilon": 1.0, "model": "gan"}], "flow"),
    ],
)
def test_what_cannot_be_asked_for_is_one_clear_line(items, words):
    with pytest.raises(ConfigError, match=words):
        plan_of(*items)


def test_one_grouping_serves_every_method_on_groups():
    plan = plan_of({"method": "k-same", "images": 5}, {"method": "plan-walk", "images": 5, "points": 2})
    assert [plan.guarantee_level(item) for item in plan.release] == ["syntactic", "heuristic"]


def test_each_method_is_charged_as_what_it_is():
    sums = {"model": "gan", "images": 5}
    average = {"method": "dp-k-average", "images": 5, "k": 7, "radius": 2.0, "noise_multiplier": 1.5}
    gaussian = {"mechanism": "gaussian", "clip": "l2", "noise_multiplier": 3.0, "epsilon": None}
    plan = plan_of(
        sums, average, GLOW, {**CADP, **gaussian}, {"method": "k-same", "images": 5, "images_at": {"north": 8}}
    )
    charged = [release_events(plan, item) for item in plan.release]
    assert charged[:2] == [[], [KAverageGaussian(1.5, 7)]]
    assert charged[2] == [LocalLaplace(2.0)]
    assert charged[3] == [LocalGaussian(3.0), RandomisedResponse(2, 0.5)]
    (declared,) = charged[4]
    assert isinstance(declared, Declared)
    assert declared.bits == 8 * (16 * 16 * 8 + 1)
    assert study_events(plan, "train")[-5:] == [event for events in charged for event in events]


@pytest.mark.parametrize(
    ("item", "events"),
    [
        ({**GLOW, "label": "public"}, [LocalLaplace(2.0), Declared("dp-glow: labels of records, taken as public", 10)]),
        (
            {**CADP, "label": "public", "label_epsilon": None},
            [LocalLaplace(2.0), Declared("cadp: labels of records, taken as public", 10)],
        ),
        ({**CADP, "label": "public", "label_epsilon": None, "decode": "resampled"}, [LocalLaplace(2.0)]),
    ],
)
def test_labels_of_records_are_declared_and_have_a_word_of_their_own(item, events):
    plan = plan_of(item)
    assert release_events(plan, plan.release[0]) == events
    told = len(events) == 2
    assert plan.guarantee_level(plan.release[0]) == ("formal, labels public" if told else "formal")
    assert plan.parts == (["declared"] if told else ["formal"])
    assert declared_disclosures(plan) == ([events[1], GATE_VERDICT] if told else [])


def test_a_word_belongs_to_a_method_and_a_model():
    plan = plan_of({"model": "best", "images": 5}, {**GLOW, "label": "public"}, {"method": "k-same", "images": 5})
    assert plan.guarantee_levels == {
        **{("dp-sampling", kind): "formal" for kind in ("spectral", "gan", "flow")},
        ("dp-glow", "flow"): "formal, labels public",
        ("k-same", "gan"): "syntactic",
    }
    assert plan.sources == list(plan.guarantee_levels)


def test_the_private_gate_is_a_charge_of_the_plan_like_any_other():
    gated = plan_of({"model": "gan", "images": 5}, formal_gate={"noise_multiplier": 4.0})
    assert study_events(gated, "train")[-1] == GaussianRelease(4.0)
    assert declared_disclosures(gated) == [], "formal images pass no exact test of the data"
    line = forecast(gated, 1e-5).stages[-1]
    assert (line.stage, line.epsilon_after) == ("release", pytest.approx(epsilon(study_events(gated, "train"), 1e-5)))
    assert gated.digest != plan_of({"model": "gan", "images": 5}).digest
    with pytest.raises(ConfigError, match="'formal_gate' judges formal images"):
        plan_of({"method": "k-same", "images": 5}, formal_gate={"noise_multiplier": 4.0})


def test_the_forecast_counts_what_releasing_adds():
    bare, noised = plan_of({"model": "gan", "images": 5}), plan_of({"model": "gan", "images": 5}, GLOW)
    assert [line.stage for line in forecast(bare, 1e-5).stages][-1] == "choice"
    line = forecast(noised, 1e-5).stages[-1]
    assert (line.stage, line.steps, line.noise_multiplier) == ("release", 1, None)
    assert line.epsilon_after == pytest.approx(epsilon(study_events(noised, "train"), 1e-5))
    assert line.epsilon_after > forecast(bare, 1e-5).epsilon_train


def test_places_that_lack_a_group_are_a_public_number_of_their_own_items():
    same = {"method": "k-same", "images": 6, "images_at": {"south": 4}}
    plan, before = plan_of({**same, "filled_at": {"south": 3}}), plan_of(same)
    given = lambda site: [(item.method, item.model, item.images) for item in plan.release_at(site, "")]  # noqa: E731
    assert given("north") == [("k-same", "gan", 6)]
    assert given("south") == [("k-same", "gan", 1), ("dp-sampling-for-k-same", "gan", 3)]
    assert (plan.parts_at("north"), plan.parts_at("south")) == (["declared"], ["formal", "declared"])
    assert plan.guarantee_levels == {("k-same", "gan"): "syntactic", ("dp-sampling-for-k-same", "gan"): "formal"}
    assert plan.digest != before.digest and "filled_at" not in str(before.model_dump()), "other plans keep their digest"


@pytest.mark.parametrize(
    ("filled", "said"), [({"south": 6}, "leaves no image from a group"), ({"east": 1}, "none of the plan's sites")]
)
def test_a_plan_fills_some_places_of_its_own_sites(filled, said):
    with pytest.raises(ConfigError, match=said):
        plan_of({"method": "k-same", "images": 6, "filled_at": filled})


def test_a_plan_cannot_ask_for_what_stands_in_for_groups():
    with pytest.raises(ConfigError):
        plan_of({"method": "dp-sampling-for-k-same", "model": "gan", "images": 6})


@pytest.mark.parametrize(
    ("method", "name", "last"),
    [
        ("k-same", "encoder_steps", 100_000),
        ("k-same", "refinement_steps", 1000),
        ("k-salsa", "steps", 1000),
        ("k-salsa", "content_weight", 1000.0),
        ("k-salsa", "style_weight", 1e-5),
        ("k-salsa", "embedding_steps", 100_000),
        ("plan-walk", "steps", 2000),
        ("plan-walk", "identity_weight", 100.0),
        ("plan-walk", "class_weight", 1000.0),
        ("plan-walk", "classifier_steps", 100_000),
    ],
)
def test_steps_and_weights_of_a_method_on_groups_have_ends(method, name, last):
    item = {"method": method, "images": 5, **({"points": 2} if method == "plan-walk" else {})}
    assert getattr(plan_of({**item, name: last}).release[0], name) == last
    with pytest.raises(ConfigError, match=name):
        plan_of({**item, name: last + 1 if isinstance(last, int) else 1.01 * last})
