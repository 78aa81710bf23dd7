"""What a site's policy and store must allow before a plan is accepted, and nothing afterwards hangs on a patient."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from support.plans import dp_sgd

from sfumato_client.dataset import Cohort
from sfumato_client.site.admission import check_cohorts, check_policy, release_notes
from sfumato_client.site.offered import what_leaves
from sfumato_common.errors import DataError, PolicyRefusal
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

PLAN = {
    "study": "chest",
    "image": {"size": 16},
    "labels": ["normal", "abnormal"],
    "sites": {"north": {"nominal_patients": 60}},
    "privacy": {"epsilon": 10.0, "delta": 1e-5},
    "stages": [
        {"kind": "spectral", "bandwidth": 4, "clip_radius": 3.0, "noise_multiplier": 1.0},
        {"kind": "gan", "width": 8, **dp_sgd()},
        {"kind": "flow", "levels": 2, "steps_per_level": 1, "hidden": 8, **dp_sgd()},
    ],
    "release": [{"model": "gan", "images": 4}],
    "federation": {"quorum": 1},
}
POLICY = {
    "site": "north",
    "budget": {"epsilon": 20.0, "delta": 1e-5},
    "allowed_stages": ["spectral", "gan", "flow"],
    "minimum_patients": 10,
    "release": {
        "allowed_methods": ["dp-sampling", "dp-glow", "cadp", "k-same"],
        "largest_set": 1000,
        "smallest_group": 2,
        "gate": {"declare_verdict": True},
    },
}
GLOW = {"method": "dp-glow", "images": 10, "radius": 1.0, "epsilon": 2.0}
CADP = {"method": "cadp", "images": 10, "radius": 1.0, "epsilon": 2.0, "label": "public"}
K_SAME = {"method": "k-same", "images": 4, "k": 5}


def plan_of(*release, **changes) -> Plan:
    return parse({**copy.deepcopy(PLAN), "release": list(release) or PLAN["release"], **changes}, Plan, "plan")


def policy_of(gate=None, **changes) -> Policy:
    value = {**copy.deepcopy(POLICY), **changes}
    value["release"]["gate"] |= gate or {}
    return parse(value, Policy, "policy")


class Store:
    """So many patients of each label in both cohorts, an image each."""

    def __init__(self, train=(30, 30), holdout=6, flat=False):
        self._sizes = {"train": train, "holdout": (holdout, 0)}
        self._flat = flat
        self.patients = sum(train) + holdout

    def cohort(self, split):
        labels = np.repeat([0, 1], self._sizes[split])
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16)).astype(np.uint8)
        return Cohort(images * (not self._flat), labels, np.arange(len(labels)))


@pytest.mark.parametrize("item", [{**GLOW, "label": "public"}, CADP])
def test_labels_of_records_need_the_sites_own_word(item):
    plan = plan_of(item)
    with pytest.raises(PolicyRefusal, match="'labels' must allow it"):
        check_policy(plan, policy_of())
    check_policy(plan, policy_of(labels="public"))
    check_policy(plan_of(GLOW), policy_of())
    assert any("taken as public" in line for line in release_notes(plan)) and release_notes(plan_of(GLOW)) == []


def test_a_policy_may_insist_on_a_private_gate():
    strict = policy_of({"formal": "private"})
    with pytest.raises(PolicyRefusal, match="no 'formal_gate'"):
        check_policy(plan_of(), strict)
    check_policy(plan_of(formal_gate={"noise_multiplier": 4.0}), strict)
    check_policy(plan_of(K_SAME), strict)  # nothing formal there


def test_only_a_release_that_declares_something_needs_the_verdict_declared():
    closed = policy_of({"declare_verdict": False})
    check_policy(plan_of(), closed)
    with pytest.raises(PolicyRefusal, match="declare_verdict"):
        check_policy(plan_of({"model": "gan", "images": 4}, K_SAME), closed)


def test_what_release_gate_and_figure_need_is_asked_for_before_the_first_charge():
    both = plan_of({"model": "gan", "images": 4}, {**K_SAME, "images": 12})
    check_cohorts(both, policy_of(), Store())
    with pytest.raises(DataError, match="too few training patients for 12 groups of 5"):
        check_cohorts(both, policy_of(), Store(train=(34, 29)))  # six groups and five
    with pytest.raises(DataError, match="at least 5 holdout images"):
        check_cohorts(both, policy_of(), Store(holdout=4))
    with pytest.raises(DataError, match="at least 5 holdout images"):
        check_cohorts(both, policy_of(), Store(flat=True))
    check_cohorts(plan_of(), policy_of(), Store(holdout=0))  # formal images need no control
    figured = plan_of(utility={"noise_multiplier": 1.0})
    with pytest.raises(DataError, match="utility figure"):
        check_cohorts(figured, policy_of(utility_figure="noised"), Store(holdout=0))
    check_cohorts(figured, policy_of(), Store(holdout=0))  # withheld


def test_l_diverse_groups_are_counted_over_all_labels():
    item = {**K_SAME, "images": 12, "groups": "l-diverse"}
    check_cohorts(plan_of(item), policy_of(), Store(train=(34, 29)))
    with pytest.raises(DataError, match="too few training patients"):
        check_cohorts(plan_of({**item, "images": 13}), policy_of(), Store(train=(34, 29)))


def test_places_that_the_plan_fills_need_no_group():
    item = {**K_SAME, "images": 12}
    short = Store(train=(34, 29))  # eleven groups
    with pytest.raises(DataError, match="'filled_at'"):
        check_cohorts(plan_of(item), policy_of(), short)
    filled = plan_of({**item, "filled_at": {"north": 1}})
    check_cohorts(filled, policy_of(), short)
    with pytest.raises(DataError, match="for 11 groups"):
        check_cohorts(filled, policy_of(), Store(train=(34, 19)))


def test_what_fills_places_is_dp_sampling_to_a_policy():
    filled = plan_of({**K_SAME, "filled_at": {"north": 1}})
    check_policy(filled, policy_of())
    only = policy_of()
    rules = only.release.model_copy(update={"allowed_methods": ["k-same"]})
    with pytest.raises(PolicyRefusal, match="method 'dp-sampling' is not"):
        check_policy(filled, only.model_copy(update={"release": rules}))


def test_walks_need_two_groups_of_one_label_for_any_number_of_images():
    walk = {"method": "linear-walk", "images": 50, "k": 5}
    check_cohorts(plan_of(walk), policy_of(), Store(train=(10, 0)))
    with pytest.raises(DataError, match="too few training patients"):
        check_cohorts(plan_of(walk), policy_of(), Store(train=(9, 9)))


def test_a_site_whose_answers_the_coordinator_would_not_take_is_refused_before_it_pays():
    plan = plan_of(sites={"north": {"nominal_patients": 30}, "south": {"nominal_patients": 30}})
    check_cohorts(plan, policy_of(), Store(train=(30, 30)))  # twice as many are taken
    with pytest.raises(DataError, match=r"61 training patients.* 30.*larger nominal number"):
        check_cohorts(plan, policy_of(), Store(train=(31, 30)))


def test_the_steward_is_told_all_that_leaves():
    plan = plan_of({"model": "gan", "images": 1200}, {**K_SAME, "images": 12}, utility={"noise_multiplier": 2.0})
    said = "\n".join(what_leaves(plan, policy_of(utility_figure="noised")))
    for stage in plan.stages:
        assert f"of stage '{stage.kind}', noised" in said
    assert "1,200 synthetic images by 'dp-sampling' (epsilon covers them)" in said
    assert "12 synthetic images by 'k-same' (declared: no epsilon covers them" in said
    assert "policy alone lets them go" in said and "one noised figure" in said
    assert "figure" not in "\n".join(what_leaves(plan, policy_of()))  # withheld
