"""Tables by noisy marginals, and columns that follow noisy histograms: what they cost, and what they show."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.test_tabular import COLUMNS, SCHEMA, Place, ward_rows

from sfumato_client.site.home import SiteHome
from sfumato_client.tabular.coding import MISSING
from sfumato_client.tabular.histograms import Bins, refit, refit_levels, release_histograms
from sfumato_client.tabular.report import mean_total_variation
from sfumato_client.tabular.run import run_tabular
from sfumato_client.tabular.schema import NumericColumn, TableSchema
from sfumato_client.tabular.shares import estimate_shares
from sfumato_client.tabular.terms import cost, resolve_terms, table_events
from sfumato_client.tabular.tree import group_bins, tree_cells
from sfumato_common.accounting.calibration import gaussian_epsilon
from sfumato_common.accounting.events import GaussianRelease, LocalLaplace, RandomisedResponse, same_mechanisms
from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import PublishedStream
from sfumato_common.strict import parse

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")
MARGINALS = {
    "table": "ward",
    "rows": 60,
    "privacy": {"epsilon": 5.0},
    "rows_are_patients": True,
    "columns": {**SCHEMA["columns"], "weight": {"kind": "numeric", "low": 0.0, "high": 200.0, "missing": True}},
    "method": "marginals",
    "target": "sick",
}
ALLOWED = {"allowed_methods": ["marginals"], "largest_set": 1000}


def schema_of(**changes) -> TableSchema:
    return parse({**MARGINALS, **changes}, TableSchema, "test")


def cells_of(count, seed=0):
    """Age and weight follow sickness; some weights are empty."""
    rng = np.random.default_rng(seed)
    sick = rng.integers(0, 2, count)
    age = np.clip(rng.normal(30 + 40 * sick, 8), 0, 100).astype(np.int64)
    weight = np.where(rng.random(count) < 0.2, MISSING, np.clip(rng.normal(9000 + 4000 * sick, 900), 0, 20_000))
    pain = np.clip(sick + rng.integers(0, 2, count), 0, 2)
    return np.stack([age, pain, rng.integers(-1, 3, count), sick, weight.astype(np.int64)], axis=1)


def published(seed=0):
    return PublishedStream(TestNoise(seed))


class Replay(NoiseRecorder):
    """Keeps what was to be noised; answers with the noise of the first run, so that later steps see the same."""

    def __init__(self, answers=None):
        super().__init__(TestNoise(3), "entry")
        self.exact, self.sensitivities, self.answers, self.replayed = [], [], [], answers

    def gaussian(self, value, sensitivity, noise_multiplier):
        answer = super().gaussian(value, sensitivity, noise_multiplier)
        if self.replayed is not None:
            answer = self.replayed[len(self.answers)]
        self.exact.append(value.copy())
        self.sensitivities.append(sensitivity)
        self.answers.append(answer)
        return answer


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 80), st.sampled_from([None, "sick", "age"]), st.sampled_from([0.3, 30.0]))
def test_a_patient_more_moves_each_release_by_its_sensitivity_at_most(seed, count, star, epsilon):
    schema = resolve_terms(schema_of(privacy={"epsilon": epsilon}, tree={"star": star}))
    whole = cells_of(count, seed)
    first = Replay()
    tree_cells(schema, whole, published(), first)
    other = Replay(first.answers)
    tree_cells(schema, whole[1:], published(), other)
    assert len(first.exact) == len(table_events(schema)) == (3 if star is None else 2)
    for one, two, sensitivity in zip(first.exact, other.exact, first.sensitivities, strict=True):
        assert one.shape == two.shape
        assert np.linalg.norm(one - two) <= sensitivity * (1 + 1e-12)
    # the first and the last of them are met to the full: noise for less would be too little
    for place in (0, -1):
        assert np.linalg.norm(first.exact[place] - other.exact[place]) == pytest.approx(first.sensitivities[place])
    assert first.executed == other.executed


@pytest.mark.parametrize("star", [None, "sick"])
@pytest.mark.parametrize("epsilon", [0.5, 10.0, 50.0])
def test_what_runs_is_what_is_charged_and_fills_the_budget(star, epsilon):
    schema = resolve_terms(schema_of(privacy={"epsilon": epsilon}, tree={"star": star}))
    recorder = NoiseRecorder(TestNoise(0), "entry")
    made = tree_cells(schema, cells_of(50), published(), recorder)
    assert made.shape == (60, 5)
    events = table_events(schema)
    assert all(isinstance(event, GaussianRelease) for event in events)
    assert same_mechanisms(events, recorder.executed)
    mu = math.sqrt(sum(event.noise_multiplier**-2 for event in events))
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(cost(schema), rel=1e-3)
    # beyond some 30 the least noise that has a price costs less than the budget
    assert 0.98 * min(epsilon, 12.0) < cost(schema) <= epsilon
    # nothing is left to be resolved, and resolving again changes nothing
    assert resolve_terms(parse(schema.model_dump(mode="json"), TableSchema, "kept")) == schema


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_patients_are_a_table_all_the_same(count):
    schema = resolve_terms(schema_of(tree={"star": "sick"}))
    made = tree_cells(schema, cells_of(count), published(), NoiseRecorder(TestNoise(0), "entry"))
    for column, own in zip(schema.columns.values(), made.T, strict=True):
        assert own.min() >= (MISSING if column.missing else 0) and own.max() < column.cells


def signal_of_a_run(place: Place, schema: TableSchema) -> str:
    """Run a table of the 60 patients of `place`, hold it to its charge and its certificate, and give its signal."""
    place.rows([[*row, str(60 + i)] for i, row in enumerate(ward_rows(60))], list(MARGINALS["columns"]))
    stated = run_tabular(SiteHome(place.home), place.source, schema, place.output, report=True).certificate
    kept = parse(json.loads((place.output / "schema.json").read_text()), TableSchema, "kept")
    assert (stated.method, stated.guarantee, stated.rows) == (schema.method, "formal", 60)
    assert cost(kept) == pytest.approx(stated.epsilon.train.add_remove, abs=1e-3) and cost(kept) <= 5.0
    assert "made from no record" in stated.signal
    entries, unsettled = place.charges()
    assert [entry.event for entry in entries if entry.cohort == "train"] == table_events(kept)
    assert not unsettled
    with (place.output / "table.csv").open(newline="") as stream:
        assert len(list(csv.reader(stream))) == 61
    return stated.signal


def test_a_run_is_charged_certified_and_says_what_its_rows_are(tmp_path):
    place = Place(tmp_path)
    place.policy(release=ALLOWED)
    signal = signal_of_a_run(place, schema_of())
    assert "chosen by noisy scores" in signal and "flow can" not in signal


def test_a_site_that_allows_cadp_alone_refuses_marginals(tmp_path):
    place = Place(tmp_path)
    with pytest.raises(PolicyRefusal, match="'marginals'"):
        run_tabular(SiteHome(place.home), place.source, schema_of(), place.output, report=False)
    assert place.charges()[0] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "cadp", "tree": {"star": "sick"}}, "no 'tree'"),
        ({"condition": "sick"}, "takes no 'condition'"),
        ({"release": {"epsilon": 1.0}}, "takes no 'release'"),
        ({"training": {"steps": 5}}, "takes no 'training'"),
        ({"tree": {"star": "height"}}, "names no column"),
        ({"tree": {"star": "sick", "score_noise": 2.0}}, "not chosen"),
        ({"method": "mst"}, "method"),
    ],
)
def test_terms_of_the_other_method_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        schema_of(**changes)


def test_more_noise_than_the_budget_is_refused():
    with pytest.raises(ConfigError, match=r"more than privacy\.epsilon"):
        resolve_terms(schema_of(privacy={"epsilon": 1.0}, tree={"noise_multiplier": 0.5}))


def test_up_to_ten_the_default_spends_nothing_on_latents():
    changes = {"label_epsilon": None, "release": None, "histograms": {}, "training": {"steps": 20, "hidden": 8}}
    for epsilon, latents in ((4.0, False), (10.0, False), (11.0, True)):
        asked = parse({**SCHEMA, **changes, "privacy": {"epsilon": epsilon}}, TableSchema, "test")
        schema = resolve_terms(asked)
        kinds = {type(event) for event in table_events(schema)}
        assert ({LocalLaplace, RandomisedResponse} <= kinds) is latents
        assert (schema.release != "none") is latents
        assert schema.decode == ("same" if latents else "histogram")
        assert 0.97 * epsilon < cost(schema) <= epsilon


def test_a_dependence_that_stands_out_of_the_noise_is_shown_by_either_shape():
    cells = cells_of(2000)
    for tree in ({}, {"star": "sick"}):
        schema = resolve_terms(
            schema_of(rows=1000, privacy={"epsilon": 10.0}, tree=tree, training={"nominal_patients": 2000})
        )
        made = tree_cells(schema, cells, published(), NoiseRecorder(TestNoise(1), "entry"))
        ages = [made[made[:, 3] == sick, 0].mean() for sick in (0, 1)]
        assert ages[1] - ages[0] == pytest.approx(40, abs=6)
        assert (made[:, 4] == MISSING).mean() == pytest.approx(0.2, abs=0.03)


@settings(max_examples=60, deadline=None)
@given(COLUMNS, st.integers(0, 2**31), st.integers(1, 200))
def test_a_refitted_column_has_the_shares_and_keeps_its_order(column, seed, rows):
    rng, bins = np.random.default_rng(seed), Bins(column)
    made = rng.integers(MISSING if column.missing else 0, column.cells, (rows, 1))
    shares = rng.dirichlet(np.full(bins.count, 0.3))
    moved = refit({"x": column}, made, {"x": shares}, published(seed))
    counts = bins.counts(moved[:, 0])
    assert counts.sum() == rows and np.abs(counts - rows * shares).max() <= 2.0
    assert moved.min() >= (MISSING if column.missing else 0) and moved.max() < column.cells
    if bins.ordered:
        both = (made[:, 0] != MISSING) & (moved[:, 0] != MISSING)
        order = np.lexsort((moved[both, 0], made[both, 0]))
        assert (np.diff(moved[both, 0][order]) >= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 100))
def test_as_few_levels_as_possible_are_changed(seed, kinds, rows):
    rng = np.random.default_rng(seed)
    levels, shares = rng.integers(0, kinds, rows), rng.dirichlet(np.ones(kinds))
    found = refit_levels(levels, shares, published(seed))
    before, after = (np.bincount(some, minlength=kinds) for some in (levels, found))
    assert np.abs(after - rows * shares).max(initial=0.0) < 1.0
    assert (found != levels).sum() == np.maximum(before - after, 0).sum()


@pytest.mark.parametrize("count", [2, 19, 20, 21, 24, 100_001])
def test_cells_are_drawn_within_their_bin_and_all_of_them(count):
    bins = Bins(NumericColumn(kind="numeric", low=0, high=count - 1, digits=0, missing=True))
    inside = np.repeat(np.arange(bins.count), 200) + np.tile(np.arange(200) / 200, bins.count)
    cells = bins.cells_at(inside)
    assert np.array_equal(bins.of(cells), inside.astype(int))
    if count <= 24:
        assert set(cells) == {MISSING, *range(count)}


def test_shares_are_the_noisy_ones_without_noise_and_the_prior_where_noise_hides_all():
    rng = np.random.default_rng(0)
    truth, prior = rng.dirichlet(np.ones(12)), np.full(12, 1 / 12)
    assert estimate_shares(truth, 1e-9, prior, [False]) == pytest.approx(truth, abs=1e-6)
    assert estimate_shares(prior + rng.normal(0, 0.001, 12), 10.0, prior, [True]) == pytest.approx(prior)
    pair = rng.dirichlet(np.ones(12)).reshape(3, 4)
    margins = np.outer(pair.sum(axis=1), pair.sum(axis=0))
    assert estimate_shares(pair, 1e-9, margins, [True, False]) == pytest.approx(pair, abs=1e-6)


def test_released_shares_are_nearer_than_the_noisy_histograms_that_they_came_from():
    schema, cells = schema_of(), cells_of(400)
    gained = []
    for seed in range(6):
        found = release_histograms(schema.columns, cells, 8.0, NoiseRecorder(TestNoise(seed), "entry"))
        for (name, column), own in zip(schema.columns.items(), cells.T, strict=True):
            noisy = np.maximum(found.counts[name], 0.0)
            truth = Bins(column).counts(own) / len(own)
            gained.append(np.abs(noisy / noisy.sum() - truth).sum() - np.abs(found.shares(name, column) - truth).sum())
    assert np.mean(gained) > 0.02


def test_marginals_follow_epsilon():
    cells, variations = cells_of(400), []
    for epsilon in (0.3, 30.0):
        schema = resolve_terms(schema_of(rows=400, privacy={"epsilon": epsilon}))
        made = [tree_cells(schema, cells, published(s), NoiseRecorder(TestNoise(s), "entry")) for s in range(3)]
        variations.append(np.mean([mean_total_variation(schema, one, cells) for one in made]))
    assert variations[1] < 0.05 < variations[0] - 0.05


def test_groups_are_of_equal_share_or_the_rarest_levels_together():
    shares = np.array([0.4, 0.1, 0.1, 0.1, 0.3])
    assert group_bins(shares, 2, ordered=True).tolist() == [0, 0, 1, 1, 1]
    assert group_bins(shares, 3, ordered=False).tolist() == [0, 2, 2, 2, 1]
    assert group_bins(shares, 5, ordered=True).tolist() == [0, 1, 2, 3, 4]
