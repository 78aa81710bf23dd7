"""Every attack of the table finds planted leaks and says nothing of releases that depend on nobody."""

from __future__ import annotations

import typing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.stats import betabinom, binom
from support.encoders import default_terms, needs_default, tiny_encoder
from support.planted_factors import aimed_at, of_others, planted

from sfumato_client.audit.attacks import ATTACKS, Known, People, base, intervals, measure
from sfumato_client.audit.attacks.pairs import discriminant, halves
from sfumato_common.encoders.encoder import Encoders
from sfumato_common.encoders.settings import EncoderTerms
from sfumato_common.errors import DataError
from sfumato_common.metrics.nearest import nearest_distances
from sfumato_common.phantom import arrays
from sfumato_common.study.gate_rules import AttackName

QUICK = ("nearest-copy", "thumbnail", "domias", "trace", "attribute")
SIZE, MEMBERS, HOLDOUT, FRESH = 64, 100, 50, 120


@pytest.fixture(scope="module")
def pool():
    """Images [N, 64, 64], classes [N] and whose they are [N], of 400 people who do not exist."""
    images, grades, patients = arrays(0, 400, SIZE)
    return images, (grades > 0).astype(np.int64), patients


class World:
    """A split of the pool: members, holdout patients, and as many images of others as candidates."""

    def __init__(self, pool, seed):
        patients = pool[2]
        self.rng = np.random.default_rng(seed)
        order = self.rng.permutation(int(patients.max()) + 1)
        ends = np.cumsum([MEMBERS, HOLDOUT, FRESH])
        self.members, self.holdout, others = (
            self._people(pool, ids) for ids in (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] : ends[2]])
        )
        first = np.unique(others.patient_index, return_index=True)[1]
        self.images, self.labels = others.images[first].copy(), others.labels[first].copy()

    @staticmethod
    def _people(pool, ids):
        images, labels, patients = pool
        mine = np.isin(patients, ids)
        return People(images[mine], np.unique(patients[mine], return_inverse=True)[1], labels[mine])

    def copies(self, share):
        """So many candidates are images of members."""
        count = max(1, round(share * len(self.images)))
        who = self.rng.choice(len(self.members.images), count, replace=count > len(self.members.images))
        self.images[:count], self.labels[:count] = self.members.images[who], self.members.labels[who]
        return self

    def memorised(self):
        """A generator that knows its cohort by heart, and mixes some of another member and grain into each image."""
        count = len(self.members.images)
        who, beside = self.rng.integers(0, count, (2, len(self.images)))
        mixed = 0.7 * self.members.images[who] + 0.3 * self.members.images[beside]
        self.images = clip(mixed + self.rng.normal(0, 8, mixed.shape))
        self.labels = self.members.labels[who]
        return self

    def averages(self, k=5):
        """Averages of groups of k members; who is behind each."""
        first = np.unique(self.members.patient_index, return_index=True)[1]
        groups = self.rng.permutation(len(first)).reshape(-1, k)
        self.images = clip(np.stack([self.members.images[first[group]].mean(axis=0) for group in groups]))
        self.labels = np.array([np.bincount(self.members.labels[first[group]]).argmax() for group in groups])
        return Known(self.images, self.labels, behind=list(groups))

    def averages_of_others(self, k=5):
        """Averages of as many groups of k candidates, said to be of members."""
        groups = np.arange(MEMBERS).reshape(-1, k)
        images = clip(np.stack([self.images[group].mean(axis=0) for group in groups]))
        return Known(images, self.labels[: len(groups)], behind=list(groups))

    def found(self, name, known=None):
        known = Known(self.images, self.labels) if known is None else known
        return measure(ATTACKS[name], "set (model)", self.members, self.holdout, known)


def clip(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def told(result):
    """Whether an attack says that something leaks."""
    return result.auc_interval[0] > 0.5 or result.stand_out > 0


def test_the_policy_names_the_attacks_of_the_table_and_no_others():
    assert typing.get_args(AttackName) == tuple(ATTACKS)


@pytest.mark.parametrize("name", ["nearest-copy", "thumbnail", "domias"])
def test_a_single_copy_among_a_hundred_candidates_stands_out(pool, name):
    results = [World(pool, seed).copies(0.01).found(name) for seed in range(5)]
    assert [result.stand_out for result in results] == [1] * 5


@pytest.mark.parametrize("name", ["nearest-copy", "thumbnail", "domias"])
def test_copies_in_twenty_stand_out_one_by_one(pool, name):
    assert [World(pool, seed).copies(0.05).found(name).stand_out for seed in range(3)] == [6] * 3


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("leak", ["copies", "memorised"])
def test_a_set_of_copies_and_a_memorising_generator_are_found_each_time(pool, name, leak):
    """Power 5 of 5, 4 of 5 by classes alone: those who are told nearly all, since not every member is copied."""
    results = []
    for seed in range(5):
        world = World(pool, seed)
        results.append((world.copies(1.0) if leak == "copies" else world.memorised()).found(name))
    assert sum(result.auc_interval[0] > 0.5 for result in results) >= (4 if name == "attribute" else 5)
    assert name == "attribute" or min(result.auc for result in results) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_false_alarms_are_as_rare_as_is_said(pool, name):
    """Members and holdout patients of 16 splits, and images of others: an AUC's interval is above 0.5 in 2.5 % of all.

    More than an exact binomial test at one in a thousand allows would be no interval; nobody stands out.
    """
    results = [World(pool, 100 + seed).found(name) for seed in range(16)]
    alarms = sum(result.auc_interval[0] > 0.5 for result in results)
    assert alarms <= binom.ppf(0.999, 16, 0.025)
    assert sum(result.stand_out > 0 for result in results) <= binom.ppf(0.999, 16, 0.01)


def test_averages_of_five_are_traced_and_pairs_are_learnt(pool):
    for seed in range(3):
        world = World(pool, seed)
        known = world.averages()
        traced, learnt = world.found("trace", known), world.found("learned-pairs", known)
        assert traced.auc_interval[0] > 0.6
        assert learnt.auc_interval[0] > 0.75, "who knows half of the groups knows the others"
        assert learnt.members == MEMBERS // 2, "those whom it learnt on are not judged"


def test_pairs_learn_nothing_where_nobody_is_behind_an_image(pool):
    results = []
    for seed in range(12):
        world = World(pool, 50 + seed)
        results.append(world.found("learned-pairs", world.averages_of_others()))
    assert sum(map(told, results)) <= binom.ppf(0.999, 12, 0.035)


FACTORS = ("nearest-copy", "thumbnail", "domias", "trace", "learned-pairs")


def test_a_patient_whom_hostile_factors_carry_in_plain_sight_is_found_by_every_attack_on_images():
    """Asked of the patients whose label the coordinator aimed at; of everybody, of whom they are a sixth, by two."""
    everybody = planted("plain", 0)
    for name in FACTORS:
        assert measure(ATTACKS[name], "", *aimed_at(*everybody)).auc_interval[0] > 0.5, name
    for name in ("trace", "learned-pairs"):
        assert measure(ATTACKS[name], "", *everybody).auc_interval[0] > 0.5, name


def test_a_record_that_hostile_factors_scramble_is_seen_by_no_attack_without_the_key():
    """What is measured is a blind spot: `influence.py` is what refuses such an image, and a site such factors."""
    split = aimed_at(*planted("scrambled", 0))
    assert not any(told(measure(ATTACKS[name], "", *split)) for name in FACTORS)


@pytest.mark.slow
def test_hostile_factors_tell_nothing_of_people_who_are_not_behind_the_images():
    split = aimed_at(*of_others(0))
    alarms = sum(told(measure(ATTACKS[name], "", *split)) for name in FACTORS)
    assert alarms <= binom.ppf(0.999, len(FACTORS), 0.035)


WALK = [np.array([2 * number, 2 * number + 1]) for number in range(16)]  # groups of two


def test_halves_of_walks_share_no_patient_and_leave_few_images_out():
    """Images of a walk have two groups, each the end of two walks: half of the images at random would know all."""
    ring = [np.concatenate([WALK[at], WALK[(at + 1) % 16]]) for at in range(16) for _ in range(3)]
    learnt, judged = halves(ring)
    known, asked = (set(np.concatenate([ring[row] for row in rows]).tolist()) for rows in (learnt, judged))
    assert not known & asked
    assert len(learnt) + len(judged) >= len(ring) - 2 * 3
    assert min(len(learnt), len(judged)) >= 18
    alone, others = halves([*WALK, np.zeros(0, np.int64)])
    assert sorted([*alone, *others]) == list(range(16)), "an image that nobody is behind is in no half"


def test_groups_that_all_share_one_image_are_no_two_halves(pool):
    known = World(pool, 0).averages()
    everyone = [np.arange(MEMBERS)] * len(known.behind)
    with pytest.raises(DataError, match="half of them of others"):
        World(pool, 0).found("learned-pairs", Known(known.candidates, known.labels, behind=everyone))


def test_an_attack_that_cannot_be_tried_says_why(pool):
    world = World(pool, 0)
    with pytest.raises(DataError, match="who is behind which image"):
        world.found("learned-pairs")
    with pytest.raises(DataError, match=r"release\.gate\.encoder"):
        world.found("embedding-copy")
    with pytest.raises(DataError, match="one class alone"):
        world.found("attribute", Known(world.images, np.zeros_like(world.labels)))


def test_a_score_knows_no_side(pool):
    """The same people score the same whichever side they are said to be on: else chance would be no chance."""
    world = World(pool, 3).copies(0.05)
    for name in ("nearest-copy", "thumbnail", "domias", "trace"):
        one = world.found(name)
        world.members, world.holdout = world.holdout, world.members
        other = world.found(name)
        world.members, world.holdout = world.holdout, world.members
        assert np.allclose(one.member_scores, other.holdout_scores, atol=1e-4), name


def by_encoder(world, encoder):
    return world.found("embedding-copy", Known(world.images, world.labels, encoder=encoder))


def test_a_given_encoder_finds_copies_and_leaves_strangers_alone(pool):
    """By a network of random weights, which finds a set of copies."""
    encoder = tiny_encoder(32)
    assert all(by_encoder(World(pool, seed).copies(1.0), encoder).auc > 0.75 for seed in range(3))
    assert sum(told(by_encoder(World(pool, 20 + seed), encoder)) for seed in range(8)) <= binom.ppf(0.999, 8, 0.035)


@pytest.mark.slow
@needs_default
def test_the_default_encoder_finds_a_single_copy(pool):
    terms = EncoderTerms(**default_terms(64))
    encoder = Encoders(Path(), {"own": terms}).load("own")
    assert [by_encoder(World(pool, seed).copies(0.01), encoder).stand_out for seed in range(3)] == [1] * 3
    assert not told(by_encoder(World(pool, 0), encoder))


def softened(images, radius):
    blur = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(image).filter(blur)) for image in images]).astype(np.float64)


@pytest.mark.parametrize(("size", "people"), [(128, 39), pytest.param(256, 39, marks=pytest.mark.slow)])
def test_a_vessel_tree_of_a_training_patient_is_seen_that_thumbnails_are_blind_to(size, people):
    """Fundi of strangers with the fine structure of members: by thumbnails they are as far from members as others'."""
    images, _, patients = arrays(0, people, size, modality="fundus")
    images = images[np.unique(patients, return_index=True)[1]]
    third = people // 3
    members, holdout, others = images[:third], images[third : 2 * third], images[2 * third :]
    radius = size / 40
    leaking = clip(softened(others, radius) + members - softened(members, radius))
    index = np.arange(third)
    sides = [People(side, index, index % 2) for side in (members, holdout)]
    known, honest = Known(leaking, index % 2), Known(others, index % 2)
    fine, thumbnail = (measure(ATTACKS[name], "", *sides, known) for name in ("nearest-copy", "thumbnail"))
    assert fine.auc == 1.0
    assert fine.auc_interval[0] > 0.75
    assert fine.stand_out == third, "though nearly half of all people stand out"
    assert not told(thumbnail)
    # and the gate's distance, whose rules refuse what is half as far as holdout images are
    usual = np.quantile(nearest_distances(holdout, members), 0.05)
    assert nearest_distances(leaking, members).min() > 0.5 * usual
    one = others.copy()
    one[0] = leaking[0]
    assert measure(ATTACKS["nearest-copy"], "", *sides, Known(one, index % 2)).stand_out == 1
    assert not told(measure(ATTACKS["nearest-copy"], "", *sides, honest))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_siamese_verifier_finds_copies_and_leaves_strangers_alone(pool):
    results = [World(pool, seed).found("re-identification") for seed in range(4)]
    assert sum(map(told, results)) <= 1
    assert World(pool, 0).copies(0.01).found("re-identification").stand_out == 1
    everybody = World(pool, 0).copies(1.0).found("re-identification")
    assert everybody.auc > 0.75, "members are told who have a copy, which are not all"
    assert everybody.stand_out > MEMBERS // 2
    assert World(pool, 0).memorised().found("re-identification").auc_interval[0] > 0.5


@pytest.mark.parametrize("name", QUICK)
def test_memory_changes_no_score_but_in_its_last_bits(pool, name, monkeypatch):
    world = World(pool, 5).copies(0.05)
    plenty = world.found(name)
    monkeypatch.setenv("SFUMATO_MEMORY", "1M")
    little = world.found(name)
    assert np.allclose(plenty.member_scores, little.member_scores, atol=1e-4)


def test_intervals_cover_what_they_say():
    """Patients of normal scores, a deviation apart or not at all: 95 % intervals of an AUC miss in 5 % at most."""
    rng = np.random.default_rng(0)
    for above, below in ((8, 5), (40, 20)):
        for apart, true in ((0.0, 0.5), (1.0, 0.7602)):
            missed = 0
            for _ in range(60):
                low, high = intervals.area_interval(rng.normal(apart, 1, above), rng.normal(0, 1, below), rng)
                missed += not low <= true <= high
            assert missed <= binom.ppf(0.999, 60, 0.05)


def test_nobody_stands_out_of_a_tail_that_goes_on():
    rng = np.random.default_rng(1)
    for draw in (rng.standard_exponential, rng.standard_normal):
        for above, below in ((6, 4), (60, 12), (200, 60)):
            false = sum(intervals.beyond_tail(draw(above), draw(below)) > 0 for _ in range(1000))
            assert false <= binom.ppf(0.999, 1000, 0.01)
    scores = np.append(rng.standard_normal(99), 20.0)
    assert intervals.beyond_tail(scores, rng.standard_normal(50)) == 1
    assert intervals.beyond_tail(scores, np.append(rng.standard_normal(50), 21.0)) == 0, "a stranger scores higher"


def test_power_is_what_sizes_give():
    assert base.underpowered(1000, 400) == ""
    said = base.underpowered(40, 10)
    assert "40 training and 10 holdout patients" in said
    assert "0.091" in said
    # an AUC that is said to be found is found in 8 of 10 cases
    least, rng = intervals.least_area(60, 40), np.random.default_rng(2)
    apart = np.sqrt(2) * 1.0 * _normal_quantile(least)
    found = sum(
        intervals.newcombe(intervals.area(rng.normal(apart, 1, 60), rng.normal(0, 1, 40)), 60, 40)[0] > 0.5
        for _ in range(300)
    )
    assert 0.68 < found / 300 < 0.92


def _normal_quantile(value):
    from statistics import NormalDist

    return NormalDist().inv_cdf(value)


def test_hits_by_chance_count_the_chance_in_the_threshold():
    assert intervals.hits_by_chance(0.01, 200, 9, 0.95) == betabinom(200, 1, 9).ppf(0.95)


def test_a_record_holds_no_score_of_anyone(pool):
    result = World(pool, 0).found("domias")
    assert set(result.to_json()) == {
        *("name", "question", "of", "auc", "auc_interval", "found_at", "members", "holdout", "underpowered"),
        "stand_out",
    }
    assert (result.members, result.holdout) == (MEMBERS, HOLDOUT)
    assert len(result.member_scores) == MEMBERS


def test_rates_that_few_strangers_cannot_show_begin_at_nothing(pool):
    result = World(pool, 0).copies(1.0).found("nearest-copy")
    share, (low, high) = result.found_at[0.001]
    assert share > 0.5
    assert low == 0.0
    assert high > share


def test_a_discriminant_of_what_never_varies_is_finite():
    rows = np.zeros((40, 3), np.float32)
    rows[:, 0] = np.arange(40)
    assert np.isfinite(discriminant(rows, np.arange(40) > 20)).all()
