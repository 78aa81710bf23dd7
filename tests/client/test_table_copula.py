"""Tables by a Gaussian copula: what they cost, and what they show; and shares of ordered columns."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.test_table_marginals import MARGINALS, Replay, cells_of, published, signal_of_a_run
from tests.client.test_tabular import Place

from sfumato_client.site.home import SiteHome
from sfumato_client.tabular.coding import MISSING
from sfumato_client.tabular.copula import copula_cells, nearest_correlations, without_noise
from sfumato_client.tabular.run import run_tabular
from sfumato_client.tabular.schema import TableSchema
from sfumato_client.tabular.shares import estimate_shares, expected_shares, public_shapes
from sfumato_client.tabular.terms import cost, resolve_terms, table_events
from sfumato_common.accounting.calibration import gaussian_epsilon
from sfumato_common.accounting.events import GaussianRelease, same_mechanisms
from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.strict import parse

pytestmark = pytest.mark.filterwarnings("ignore:TestNoise")


def schema_of(**changes) -> TableSchema:
    return parse({**MARGINALS, "method": "copula", **changes}, TableSchema, "test")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**31), st.integers(1, 80), st.sampled_from(["sick", "age", "weight"]), st.sampled_from([0.3, 30.0])
)
def test_a_patient_more_moves_each_release_by_its_sensitivity_at_most(seed, count, star, epsilon):
    schema = resolve_terms(schema_of(privacy={"epsilon": epsilon}, copula={"star": star}))
    whole = cells_of(count, seed)
    first = Replay()
    copula_cells(schema, whole, published(), first)
    other = Replay(first.answers)
    copula_cells(schema, whole[1:], published(), other)
    assert len(first.exact) == len(table_events(schema)) == 2
    for one, two, sensitivity in zip(first.exact, other.exact, first.sensitivities, strict=True):
        assert one.shape == two.shape
        assert np.linalg.norm(one - two) <= sensitivity
    # histograms meet theirs, and a row's products come near theirs, whatever the row is
    moved = [np.linalg.norm(one - two) for one, two in zip(first.exact, other.exact, strict=True)]
    assert moved[0] == pytest.approx(first.sensitivities[0])
    assert moved[1] > 0.3 * first.sensitivities[1]
    assert first.executed == other.executed


def test_sums_of_products_do_not_depend_on_the_order_of_patients():
    schema, cells = resolve_terms(schema_of()), cells_of(500)
    first, other = Replay(), Replay()
    copula_cells(schema, cells, published(), first)
    other.replayed = first.answers
    copula_cells(schema, cells[::-1].copy(), published(), other)
    assert all(np.array_equal(one, two) for one, two in zip(first.exact, other.exact, strict=True))


@pytest.mark.parametrize("epsilon", [0.5, 10.0, 50.0])
def test_what_runs_is_what_is_charged_and_fills_the_budget(epsilon):
    schema = resolve_terms(schema_of(privacy={"epsilon": epsilon}))
    recorder = NoiseRecorder(TestNoise(0), "entry")
    assert copula_cells(schema, cells_of(50), published(), recorder).shape == (60, 5)
    events = table_events(schema)
    assert all(isinstance(event, GaussianRelease) for event in events)
    assert same_mechanisms(events, recorder.executed)
    assert gaussian_epsilon(math.sqrt(sum(event.noise_multiplier**-2 for event in events)), 1e-5) == pytest.approx(
        cost(schema), rel=1e-3
    )
    assert 0.98 * min(epsilon, 12.0) < cost(schema) <= epsilon
    assert schema.copula.star == "sick", "the target, unless said"
    assert resolve_terms(parse(schema.model_dump(mode="json"), TableSchema, "kept")) == schema


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_patients_are_a_table_all_the_same(count):
    schema = resolve_terms(schema_of())
    made = copula_cells(schema, cells_of(count), published(), NoiseRecorder(TestNoise(0), "entry"))
    for column, own in zip(schema.columns.values(), made.T, strict=True):
        assert own.min() >= (MISSING if column.missing else 0) and own.max() < column.cells


def test_dependences_that_stand_out_of_the_noise_are_shown():
    cells = cells_of(2000)
    schema = resolve_terms(schema_of(rows=1000, privacy={"epsilon": 10.0}, training={"nominal_patients": 2000}))
    made = copula_cells(schema, cells, published(), NoiseRecorder(TestNoise(1), "entry"))
    ages = [made[made[:, 3] == sick, 0].mean() for sick in (0, 1)]
    # two humps with nothing between them are more than a correlation says: some of the 40 years are lost
    assert 28 < ages[1] - ages[0] < 42
    assert (made[:, 4] == MISSING).mean() == pytest.approx(0.2, abs=0.03)
    real, shown = (np.corrcoef(some[some[:, 4] >= 0][:, [0, 4]].T)[0, 1] for some in (cells, made))
    assert 0.5 < shown < real


def test_a_run_is_charged_certified_and_says_what_its_rows_are(tmp_path):
    place = Place(tmp_path)
    place.policy(release={"allowed_methods": ["copula"], "largest_set": 1000})
    assert "noisy correlations" in signal_of_a_run(place, schema_of())


def test_a_site_that_allows_marginals_alone_refuses_a_copula(tmp_path):
    place = Place(tmp_path)
    place.policy(release={"allowed_methods": ["marginals"], "largest_set": 1000})
    with pytest.raises(PolicyRefusal, match="'copula'"):
        run_tabular(SiteHome(place.home), place.source, schema_of(), place.output, report=False)
    assert place.charges()[0] == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tree": {"star": "sick"}}, "no 'tree'"),
        ({"method": "marginals", "copula": {"star": "sick"}}, "no 'copula'"),
        ({"condition": "sick"}, "takes no 'condition'"),
        ({"training": {"steps": 5}}, "takes no 'training'"),
        ({"copula": {"star": "height"}}, "names no column"),
        ({"copula": {"noise_multiplier": 0.0}}, "noise_multiplier"),
    ],
)
def test_terms_of_another_method_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        schema_of(**changes)


def test_noise_is_taken_out_of_correlations():
    rng, width, deviation = np.random.default_rng(0), 30, 0.2
    loadings = rng.normal(0, 1, (width, 2))
    truth = nearest_correlations(loadings @ loadings.T / 3.0 * (1.0 - np.eye(width)))
    noise = np.triu(rng.normal(0, deviation, (width, width)), 1)
    off = truth - np.eye(width)
    found = without_noise(off + noise + noise.T, deviation)
    assert np.linalg.norm(found - off) < 0.6 * np.linalg.norm(noise + noise.T)
    assert np.abs(without_noise(noise + noise.T, deviation)).mean() < 0.25 * np.abs(noise + noise.T).mean()
    assert without_noise(off, 1e-9) == pytest.approx(off, abs=1e-6)
    eigenvalues = np.linalg.eigvalsh(nearest_correlations(found))
    assert eigenvalues.min() > 0 and eigenvalues.sum() == pytest.approx(width)


def test_expected_shares_are_the_noisy_ones_without_noise_and_a_usual_shape_where_noise_is_long():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet(np.ones(12))
    assert expected_shares(truth, 1e-6, False, None) == pytest.approx(truth, abs=1e-4)
    assert expected_shares(truth, 1e-6, True, None) == pytest.approx(truth, abs=1e-2)
    # a network's own shape counts as much as all others
    own = np.roll(public_shapes(12)[100], 5)
    near = [expected_shares(own + rng.normal(0, 0.05, 12), 0.05, False, prior) for prior in (None, own)]
    assert np.abs(near[1] - own).sum() < np.abs(near[0] - own).sum()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(6, 20), st.booleans(), st.sampled_from([1e-4, 0.02, 0.3, 10.0]))
def test_expected_shares_are_shares(seed, bins, missing, deviation):
    noisy = np.random.default_rng(seed).normal(1.0 / bins, deviation, bins + missing)
    found = expected_shares(noisy, deviation, missing, None)
    assert found.shape == noisy.shape and found.min() >= 0.0 and found.sum() == pytest.approx(1.0)


def test_a_skewed_column_is_seen_through_long_noise():
    rng = np.random.default_rng(1)
    truth = np.exp(-np.arange(20) / 2.5)
    truth /= truth.sum()
    noisy = [truth + rng.normal(0, 0.06, 20) for _ in range(20)]
    shaped = [np.abs(expected_shares(some, 0.06, False, None) - truth).sum() for some in noisy]
    smooth = [np.abs(estimate_shares(some, 0.06, np.full(20, 0.05), [True]) - truth).sum() for some in noisy]
    assert np.mean(shaped) < 0.6 * np.mean(smooth), "shapes say more than smoothness"
