"""What a later version's plan may say, and that it changes no plan without one."""

import copy

import pytest
from support.studies import PLAN

from sfumato_common.errors import ConfigError
from sfumato_common.strict import parse
from sfumato_common.study.budget import check_own_epsilon
from sfumato_common.study.costs import stage_events, stated_training, study_events
from sfumato_common.study.lineage import package_sites, plan_of_site, require_whole, version_of, without_plans
from sfumato_common.study.load import plan_text
from sfumato_common.study.plan import Plan

FIRST = parse(PLAN, Plan, "plan")
MODELS = {"spectral": "a" * 64, "gan": "b" * 64, "flow": "c" * 64}
STONE = {"site": "cedar", "what": "site-withdrew", "since": "2026-01-02", "images": "removed"}


def lineage(**changes):
    return {
        "version": 2,
        "previous": "d" * 64,
        "trained": FIRST.study_digest,
        "models": MODELS,
        "keep": {"birch": FIRST.digest},
        "tombstones": [STONE],
        "plans": {FIRST.digest: FIRST.model_dump(mode="json")},
        **changes,
    }


def later(changes=None, **values):
    told = {"sites": {"alder": {"nominal_patients": 40}}, "federation": {**PLAN["federation"], "quorum": 1}}
    return parse({**copy.deepcopy(PLAN), **told, "lineage": lineage(**(changes or {})), **values}, Plan, "plan")


def test_a_plan_without_lineage_has_the_digest_it_had():
    assert FIRST.digest == "628ce9561260edf1224b13e4fb42b361ad26028b1b55d578dd18ce02e8b15d89"
    assert "lineage" not in FIRST.model_dump(mode="json")
    assert (version_of(FIRST), FIRST.drawn_from) == (1, FIRST.study_digest)


def test_given_models_cost_nothing_now_and_their_training_is_told():
    plan = later()
    require_whole(plan)
    assert [stage_events(plan, stage) for stage in plan.stages] == [[], [], []]
    assert study_events(plan, "train") == []
    assert study_events(plan, "holdout") == study_events(FIRST, "holdout")
    check_own_epsilon(plan)
    assert stated_training(plan).plan_hash == FIRST.study_digest
    assert stated_training(plan).epsilon.patient.add_remove > 5
    assert plan.drawn_from == FIRST.study_digest, "public draws are those that the models were trained under"


def test_earlier_plans_are_pinned_and_no_part_of_the_digest():
    plan = later()
    assert package_sites(plan) == ["alder", "birch"]
    assert plan_of_site(plan, "birch") == FIRST
    assert plan_of_site(plan, "alder") is plan
    bare = without_plans(plan)
    assert bare.digest == plan.digest
    with pytest.raises(ConfigError, match="lacks the earlier plan"):
        require_whole(bare)
    other = parse({**PLAN, "privacy": {"epsilon": 41.0, "delta": 1e-5}}, Plan, "plan").model_dump(mode="json")
    with pytest.raises(ConfigError, match="another plan under"):
        require_whole(later({"plans": {FIRST.digest: other}}))
    assert later({"tombstones": []}).digest != plan.digest
    assert "lineage" in plan_text(plan)


@pytest.mark.parametrize(
    ("changes", "values", "words"),
    [
        ({"version": 1}, {}, "version"),
        ({"keep": {"alder": "e" * 64}}, {}, "'alder' is a site that is asked as well"),
        ({"keep": {}}, {"sites": {}}, "needs sites that are asked"),
        ({"models": {"spectral": "a" * 64}}, {}, "every model of the plan's stages, or none"),
        ({"trained": None}, {}, "go together"),
        ({}, {"budget": {"spectral": 0.4, "gan": 0.3, "flow": 0.3}}, "'budget'"),
        ({}, {"stages": [{**PLAN["stages"][0], "by_site": True}, *PLAN["stages"][1:]]}, "'by_site'"),
        ({"tombstones": [{**STONE, "images": "stay"}]}, {}, "says images: removed"),
        ({"tombstones": [{**STONE, "site": "birch"}]}, {}, "what its place in 'sites' and 'keep' does not"),
        ({"tombstones": [{**STONE, "what": "patient-withdrew", "images": "regenerated"}]}, {}, "does not ask it"),
        ({"tombstones": [{**STONE, "why": "moved to Bern, bed 4"}]}, {}, "why"),
        ({"tombstones": [{**STONE, "patients": 3}]}, {}, "patients"),
        ({"tombstone": []}, {}, "tombstones"),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_words(changes, values, words):
    with pytest.raises(ConfigError, match=words):
        later(changes, **values)


def test_a_plan_without_sites_is_none_but_in_a_version_that_keeps_packages():
    with pytest.raises(ConfigError, match="needs at least one"):
        parse({**PLAN, "sites": {}}, Plan, "plan")
    assert later(sites={}).sites == {}


def test_another_stage_than_trained_the_models_is_found():
    stages = [{**PLAN["stages"][0], "clip_radius": 2.5}, *PLAN["stages"][1:]]
    with pytest.raises(ConfigError, match="'spectral' is not as the plan has it"):
        require_whole(later(stages=stages))
    with pytest.raises(ConfigError, match="form of images"):
        require_whole(later(image={"size": 32, "channels": 1}))
