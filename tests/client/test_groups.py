"""Grouping of patients: right for every n, k and label, by the definition of the algorithm, and frozen once made."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import stat
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_client.anonymise.contract import Job, Release
from sfumato_client.anonymise.distances import mean_of_patients
from sfumato_client.anonymise.groups import (
    Group,
    _merge_left,
    _nearest,
    apportion,
    choose_groups,
    fingerprint,
    form_groups,
    groups_of,
)
from sfumato_client.anonymise.inversion import patient_labels
from sfumato_client.dataset import Cohort
from sfumato_common.errors import DataError, PolicyRefusal
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.release import KSame
from sfumato_common.types import to_unit_range

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
SHARES = (0.6, 0.3, 0.1)


def item_of(**terms) -> KSame:
    return KSame(**{"method": "k-same", "images": 4, "k": 3, **terms})


def plan_of() -> Plan:
    dp = {"rounds": 1, "local_steps": 1, "sampling_rate": 0.2, "clipping_norm": 1.0, "noise_multiplier": 1.0}
    value = {
        "study": "small",
        "image": {"size": 16},
        "labels": ["normal", "opacity", "other"],
        "sites": {"alder": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [
            {"kind": "spectral", "bandwidth": 4, "clip_radius": 4.0, "noise_multiplier": 1.0},
            {"kind": "gan", "width": 8, "learning_rate": 0.001, **dp},
        ],
        "release": [{"model": "spectral", "images": 4}],
        "federation": {"quorum": 1},
    }
    return parse(value, Plan, "test")


PLAN = plan_of()


def cohort_of(patients: int, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    patient_index = np.sort(np.concatenate([np.arange(patients), rng.integers(0, patients, patients // 2)]))
    return Cohort(
        rng.integers(0, 256, (len(patient_index), 4, 4), dtype=np.uint8),
        rng.integers(0, 3, len(patient_index)),
        patient_index,
    )


def job_of(cohort: Cohort, *, grouping_file=None, regroup=False, seed=0, shares=SHARES, **terms) -> Job:
    models = {"spectral": {"spectral/shares": np.array(shares)}}
    recorder = NoiseRecorder(TestNoise(0), "entry")
    return Job(
        Release(PLAN, "alder", models, cohort, grouping_file=grouping_file, regroup=regroup),
        item_of(**terms),
        Streams.of(TestNoise(seed)),
        recorder,
    )


def as_sets(groups) -> set[frozenset[int]]:
    return {frozenset(np.asarray(getattr(group, "members", group)).tolist()) for group in groups}


# --- the algorithm ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.integers(0, 3), max_size=40),
    k=st.integers(2, 9),
    kind=st.sampled_from(["within-label", "l-diverse"]),
    least=st.integers(2, 5),
    remainder=st.sampled_from(["merge", "suppress"]),
    seed=st.integers(0, 2**16),
    ties=st.booleans(),
)
def test_every_group_has_k_patients_whatever_n_and_k_are(labels, k, kind, least, remainder, seed, ties):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2, (len(labels), 2)).astype(float) if ties else rng.normal(size=(len(labels), 3))
    labels = np.array(labels, dtype=np.int64)
    item = item_of(k=k, groups=kind, least_labels=least, remainder=remainder)
    groups = form_groups(codes, labels, item)
    held = [one for group in groups for one in group.tolist()]
    assert len(held) == len(set(held)), "a patient is in one group at most"
    assert all(len(set(group.tolist())) >= k for group in groups)
    size = k if kind == "within-label" else max(k, least)
    if remainder == "suppress":
        assert all(len(group) == size for group in groups)
    if kind == "within-label":
        assert all(len(set(labels[group])) == 1 for group in groups)
        for label, count in Counter(labels.tolist()).items():
            own = [group for group in groups if labels[group[0]] == label]
            assert len(own) == count // k
            wanted = 0 if count < k else count if remainder == "merge" else count - count % k
            assert sum(map(len, own)) == wanted, "only patients that cannot be k are left out"
        return
    assert all(len(set(labels[group])) >= least for group in groups)
    possible = len(labels) >= size and len(set(labels.tolist())) >= least
    assert bool(groups) == possible
    if remainder == "merge" and possible:
        assert len(held) == len(labels)
    if remainder == "suppress":
        left = np.setdiff1d(np.arange(len(labels)), held)
        assert len(left) < size or len(set(labels[left])) < least, "one more group could have been made"


def slow_greedy(codes: np.ndarray, k: int) -> list[list[int]]:
    """The definition, patient by patient."""
    left, groups = list(range(len(codes))), []
    gap = lambda a, b: float(np.linalg.norm(codes[a] - codes[b]))  # noqa: E731
    while len(left) >= k:
        first = max(left, key=lambda a: sum(gap(a, b) for b in left))
        group = sorted(left, key=lambda b: (b != first, gap(first, b)))[:k]
        groups.append(group)
        left = [one for one in left if one not in group]
    return groups


@pytest.mark.parametrize(("count", "k"), [(7, 2), (24, 5), (40, 3), (30, 11)])
def test_groups_are_those_of_the_definition(count, k):
    codes = np.random.default_rng(count).normal(size=(count, 5))
    found = form_groups(codes, np.zeros(count, dtype=np.int64), item_of(k=k, remainder="suppress"))
    assert [set(group.tolist()) for group in found] == [set(group) for group in slow_greedy(codes, k)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 4), st.integers(2, 5))
def test_a_diverse_group_is_the_nearest_one_that_is_diverse(seed, least, size):
    size = max(size, least)
    rng = np.random.default_rng(seed)
    near, labels = rng.uniform(size=9), rng.permutation(np.concatenate([np.arange(4), rng.integers(0, 2, 5)]))
    near[0] = 0.0
    found = _nearest(near, labels, size, least)
    assert len(set(found.tolist())) == size and 0 in found
    best = min(
        near[list(some)].sum()
        for some in itertools.combinations(range(9), size)
        if 0 in some and len(set(labels[list(some)])) >= least
    )
    assert len(set(labels[found])) >= least
    assert near[found].sum() == pytest.approx(best)


def test_what_is_left_joins_the_group_with_the_nearest_mean():
    codes = np.array([[0.0], [0.1], [10.0], [10.1], [4.9], [5.5]])
    found = _merge_left(codes, [np.array([0, 1]), np.array([2, 3])], np.array([4, 5]))
    # had the one at 4.9 moved its group's mean, the one at 5.5 would follow: who joins does not hang on the order
    assert as_sets(found) == {frozenset([0, 1, 4]), frozenset([2, 3, 5])}


def test_a_mixed_groups_label_is_the_commonest_and_the_lowest_on_a_tie():
    greys = np.array([0, 1, 2, 3, 90, 91, 92, 93], dtype=np.uint8)
    labels = np.array([2, 2, 1, 2, 2, 1, 2, 1])
    cohort = Cohort(np.broadcast_to(greys[:, None, None], (8, 4, 4)), labels, np.arange(8))
    found = groups_of(job_of(cohort, k=4, groups="l-diverse", distance="image"))
    assert {(frozenset(group.members.tolist()), group.label) for group in found} == {
        (frozenset([0, 1, 2, 3]), 2),
        (frozenset([4, 5, 6, 7]), 1),
    }


# --- who is near -----------------------------------------------------------------------------------------------------


def phantom_cohort(patients: int) -> Cohort:
    images, labels, patient_index = phantom_arrays(3, patients, 16)
    return Cohort(images, labels, np.unique(patient_index, return_inverse=True)[1])


def spread(points: np.ndarray, groups: list[np.ndarray]) -> float:
    """Root mean square distance of members from their group's mean."""
    away = [points[group] - points[group].mean(axis=0) for group in groups]
    return float(np.sqrt(np.concatenate([(part**2).sum(axis=1) for part in away]).mean()))


@pytest.mark.parametrize(("distance", "most"), [("image", 0.85), ("embedding", 0.95), ("random", 1.1)])
def test_a_group_is_more_alike_than_a_random_one_where_the_distance_looks(distance, most):
    cohort = phantom_cohort(90)
    pixels = mean_of_patients(cohort, lambda some: to_unit_range(some).reshape(len(some), -1).astype(float))
    own = patient_labels(cohort, 3)
    groups = [group.members for group in groups_of(job_of(cohort, k=5, distance=distance))]
    rng = np.random.default_rng(0)
    chance = [spread(pixels, form_groups(rng.normal(size=(len(own), 1)), own, item_of(k=5))) for _ in range(5)]
    ratio = spread(pixels, groups) / float(np.mean(chance))
    assert ratio < most
    if distance == "random":
        assert ratio > 0.9


@pytest.mark.parametrize("distance", ["image", "random", "embedding"])
def test_no_model_has_a_say_in_who_shares_a_group(distance):
    cohort = phantom_cohort(30)
    one = job_of(cohort, distance=distance)
    found = groups_of(dataclasses.replace(one, release=dataclasses.replace(one.release, models={}, shared={})))
    assert as_sets(found) == as_sets(groups_of(job_of(cohort, distance=distance)))


# --- frozen ----------------------------------------------------------------------------------------------------------


def test_a_cohorts_grouping_is_kept_however_the_dice_fall_later(tmp_path):
    cohort, file = cohort_of(30), tmp_path / "groups" / "groups.json"
    kept = {"grouping_file": file, "distance": "random"}
    first = groups_of(job_of(cohort, **kept))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = groups_of(job_of(cohort, **kept, seed=1))
    assert [group.members.tolist() for group in again] == [group.members.tolist() for group in first]
    assert [group.label for group in again] == [group.label for group in first]
    assert as_sets(groups_of(job_of(cohort, distance="random", seed=1))) != as_sets(first), "only what is kept is"
    # what is not used does not count as other terms, and leave to regroup is no wish to
    for job in (job_of(cohort, **kept, seed=1, least_labels=3), job_of(cohort, **kept, seed=1, regroup=True)):
        assert as_sets(groups_of(job)) == as_sets(first)


def test_items_of_a_release_share_their_groups_also_where_none_are_kept():
    job = job_of(cohort_of(30), distance="random")
    other = dataclasses.replace(job, streams=Streams.of(TestNoise(9)))
    assert groups_of(job) is groups_of(other)


@pytest.mark.parametrize("distance", [None, "random"])
def test_groups_that_were_frozen_before_there_was_a_distance_are_never_taken(tmp_path, distance):
    groups_of(job_of(cohort_of(30), grouping_file=tmp_path / "groups.json", distance="image"))
    kept = json.loads((tmp_path / "groups.json").read_text())
    assert kept["terms"][-1] == "image"
    kept["terms"] = [*kept["terms"][:-1], *([distance] if distance else [])]
    (tmp_path / "groups.json").write_text(json.dumps(kept))
    with pytest.raises(PolicyRefusal, match="grouped before"):
        groups_of(job_of(cohort_of(30), grouping_file=tmp_path / "groups.json", distance="image"))


@pytest.mark.parametrize("changed", ["cohort", "k", "groups", "remainder", "least", "distance"])
def test_other_patients_or_terms_are_refused_unless_the_policy_lets_them_regroup(tmp_path, changed):
    start = {"groups": "l-diverse"} if changed == "least" else {}
    terms = {
        "cohort": {},
        "k": {"k": 4},
        "groups": {"groups": "l-diverse"},
        "remainder": {"remainder": "suppress"},
        "least": {"groups": "l-diverse", "least_labels": 3},
        "distance": {"distance": "image"},
    }[changed]
    cohort = cohort_of(30)
    first = groups_of(job_of(cohort, grouping_file=tmp_path / "groups.json", **start))
    asked = cohort_of(30, seed=1) if changed == "cohort" else cohort
    before = (tmp_path / "groups.json").read_bytes()
    with pytest.raises(PolicyRefusal, match=r"grouped before.*release\.regroup"):
        groups_of(job_of(asked, grouping_file=tmp_path / "groups.json", **terms))
    assert (tmp_path / "groups.json").read_bytes() == before
    anew = groups_of(job_of(asked, grouping_file=tmp_path / "groups.json", regroup=True, **terms))
    assert as_sets(anew) != as_sets(first)
    assert as_sets(groups_of(job_of(asked, grouping_file=tmp_path / "groups.json", **terms))) == as_sets(anew)


@pytest.mark.parametrize("damage", ["cut", "list", "small", "twice", "nobody", "negative"])
def test_damaged_groups_are_never_used(tmp_path, damage):
    groups_of(job_of(cohort_of(30), grouping_file=tmp_path / "groups.json"))
    file = tmp_path / "groups.json"
    kept = json.loads(file.read_text())
    if damage == "small":
        kept["groups"][0] = kept["groups"][0][:2]
    elif damage == "twice":
        kept["groups"][0][0] = kept["groups"][1][0]
    elif damage in ("nobody", "negative"):
        kept["groups"][0][0] = 30 if damage == "nobody" else -1
    file.write_text("{" if damage == "cut" else json.dumps([] if damage == "list" else kept))
    with pytest.raises(DataError, match="frozen groups"):
        groups_of(job_of(cohort_of(30), grouping_file=tmp_path / "groups.json"))


def test_a_fingerprint_is_of_pixels_labels_and_owners():
    cohort = cohort_of(10)
    images, labels, patient_index = (part.copy() for part in cohort.everything())
    assert fingerprint(Cohort(images, labels, patient_index)) == fingerprint(cohort)
    brighter, relabelled, moved = images.copy(), labels.copy(), patient_index.copy()
    brighter[0, 0, 0] ^= 1
    relabelled[0] = (relabelled[0] + 1) % 3
    moved[[0, -1]] = moved[[-1, 0]]
    others = [
        Cohort(brighter, labels, patient_index),
        Cohort(images, relabelled, patient_index),
        Cohort(images, labels, moved),
    ]
    assert len({fingerprint(cohort), *map(fingerprint, others)}) == 4


# --- which groups become images --------------------------------------------------------------------------------------


def groups_with(*counts: int) -> list[Group]:
    return [
        Group(np.arange(3) + 100 * label + 3 * number, label)
        for label, count in enumerate(counts)
        for number in range(count)
    ]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 500), st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8).filter(lambda v: sum(v) > 0.01))
def test_seats_are_shared_out_whole(total, weights):
    shares = np.array(weights) / sum(weights)
    counts = apportion(total, shares)
    assert counts.sum() == total
    assert (np.abs(counts - total * shares) < 1.0).all()


def test_labels_get_their_released_shares():
    found = choose_groups(job_of(cohort_of(4), images=10), groups_with(20, 20, 20))
    assert Counter(group.label for group in found) == {0: 6, 1: 3, 2: 1}
    assert len(as_sets(found)) == 10, "no group twice"


def test_a_label_with_too_few_groups_leaves_its_images_to_those_with_more():
    found = choose_groups(job_of(cohort_of(4), images=10), groups_with(3, 9, 0))
    assert Counter(group.label for group in found) == {0: 3, 1: 7}
    assert len(choose_groups(job_of(cohort_of(4), images=12), groups_with(3, 9, 0))) == 12


def test_the_choice_and_its_order_are_random():
    groups = groups_with(20, 20, 20)
    members = lambda seed: [  # noqa: E731
        group.members.tolist() for group in choose_groups(job_of(cohort_of(4), images=10, seed=seed), groups)
    ]
    assert members(0) == members(0)
    assert sorted(members(0)) != sorted(members(1))
    labels = [group.label for group in choose_groups(job_of(cohort_of(4), images=60), groups)]
    assert labels not in (sorted(labels), sorted(labels, reverse=True))


def test_too_few_groups_are_an_error_that_counts_nobody():
    with pytest.raises(DataError, match="too few patients") as error:
        choose_groups(job_of(cohort_of(4), images=10), groups_with(3, 2, 4))
    assert set(re.findall(r"\d+", str(error.value))) == {"3"}, "k is the plan's; no count of the cohort's"
    with pytest.raises(DataError, match="too few patients"):
        choose_groups(job_of(cohort_of(4)), [])
