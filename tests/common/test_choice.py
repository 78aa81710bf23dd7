"""The choice among released models: its figures by definition, its margin against repeated noise, its veto."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.plans import dp_sgd
from tests.support.plans import small_plan

from sfumato_common.errors import ConfigError
from sfumato_common.generators.spectral.fit import fit_release
from sfumato_common.generators.spectral.layout import COUNT_WEIGHT, Layout
from sfumato_common.generators.spectral.moments import moments_distance
from sfumato_common.generators.spectral.whitening import spectral_model
from sfumato_common.mechanisms.draws import TorchDraws
from sfumato_common.mechanisms.histogram import score_counts
from sfumato_common.metrics.choice import FARTHER, classifier_of, classifiers_schema, decide, scale_log_odds, spread
from sfumato_common.metrics.utility import Classifier, auc, auc_from_histogram, classifier_schema, score
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.types import to_bytes

DP = dp_sgd()
PLAN = small_plan(
    {"kind": "gan", "width": 8, **DP},
    {"kind": "flow", "steps_per_level": 1, "hidden": 8, **DP},
    {"kind": "choice", "noise_multiplier": 2.0, "bins": 8, "images": 60},
    released="best",
    sites={"alder": 100, "birch": 300},
)
SIGMA = 2.0
NEAR = np.zeros(3)


def plan_of(**changes) -> Plan:
    return parse({**copy.deepcopy(PLAN), **changes}, Plan, "test")


def refusal(**changes) -> str:
    with pytest.raises(ConfigError) as caught:
        plan_of(**changes)
    return str(caught.value)


def counts(separation: float, patients: int, bins: int = 8, shares=(0.5, 0.5)) -> np.ndarray:
    """Expected counts [2, bins] of scores that the two classes spread over the bins, `separation` bins apart."""
    place = np.arange(bins)
    rows = []
    for sign, share in zip((-1.0, 1.0), shares, strict=True):
        weight = np.exp(-0.5 * ((place - (bins - 1) / 2 - sign * separation / 2) / 1.5) ** 2)
        rows.append(share * patients * weight / weight.sum())
    return np.stack(rows)


def releases_at(plan: Plan, site: str) -> list:
    """Every request that the release can be at `site`."""
    return [plan.release_at(site, choice) for choice in plan.choices]


def test_best_needs_a_choice_at_the_end_and_stands_alone():
    assert plan_of().candidates == ["spectral", "gan", "flow"]
    assert [[(item.model, item.images) for item in release] for release in releases_at(plan_of(), "alder")] == [
        [(kind, 4)] for kind in ("spectral", "gan", "flow")
    ]
    plain = plan_of(stages=PLAN["stages"][:3], release=[{"model": "gan", "images": 3}, {"model": "flow", "images": 2}])
    assert releases_at(plain, "alder") == [plain.release]
    assert not plain.chooses
    assert "'best' needs a 'choice' stage" in refusal(stages=PLAN["stages"][:3])
    assert "sample from it alone" in refusal(release=[{"model": "best", "images": 4}, {"model": "gan", "images": 4}])
    assert "'choice' is the last stage" in refusal(stages=[*PLAN["stages"][:2], PLAN["stages"][3], PLAN["stages"][2]])
    assert "at least one more model" in refusal(stages=[PLAN["stages"][0], PLAN["stages"][3]])
    assert "weights without privacy" in refusal(private=False)


def test_what_is_sent_is_one_classifier_a_candidate():
    plan = plan_of()
    schema = classifiers_schema(plan)
    arrays = {name: np.full(spec.shape, plan.candidates.index(name.partition(":")[0])) for name, spec in schema.items()}
    for place, kind in enumerate(plan.candidates):
        own = classifier_of(kind, arrays)
        assert own.keys() == classifier_schema(plan).keys()
        assert all((value == place).all() for value in own.values())


def test_without_noise_the_figure_is_the_auc_within_sites_weighted_by_nominal_patients():
    rng = np.random.default_rng(0)
    stacks = {site: rng.integers(20, 90, (3, 2, 8)).astype(float) for site in ("alder", "birch")}
    choice = decide(plan_of(), 1e-9, stacks, NEAR)
    for place, item in enumerate(choice.judged):
        parts = [auc_from_histogram(stacks[site][place]) for site in ("alder", "birch")]
        assert item.auc == pytest.approx(0.25 * parts[0] + 0.75 * parts[1])


def test_the_stated_deviation_is_that_of_repeated_noise_and_patients():
    rng, truth = np.random.default_rng(1), np.stack([counts(d, 900) for d in (1.0, 1.5, 2.0)])
    deviation = SIGMA * 3**0.5
    found, stated = [], []
    for _ in range(1500):
        noisy = rng.poisson(truth) + rng.normal(0.0, deviation, truth.shape)
        choice = decide(plan_of(), SIGMA, {"birch": noisy}, NEAR)
        found.append([item.auc for item in choice.judged])
        stated.append([item.deviation for item in choice.judged])
    assert np.std(found, axis=0) == pytest.approx(np.mean(stated, axis=0), rel=0.1)
    assert np.mean(found, axis=0) == pytest.approx([auc_from_histogram(item) for item in truth], abs=0.003)


def test_spread_scores_keep_their_order_in_few_bins():
    rng = np.random.default_rng(4)
    label = rng.integers(0, 2, 4000)
    odds = rng.normal(2.8 * label - 1.4, 1.4)
    confident = 1 / (1 + np.exp(-8.0 * odds))
    exact = auc(odds, label)
    figure = auc_from_histogram(score_counts(spread(1 / (1 + np.exp(-odds))), label, 16, 2))
    assert figure == pytest.approx(exact, abs=0.01)
    assert auc_from_histogram(score_counts(confident, label, 16, 2)) < exact - 0.02
    assert spread(np.array([0.0, 0.5, 1.0, np.nan])).tolist() == pytest.approx([0.0, 0.5, 1.0, 0.0])


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifiers_confidence_and_leaning_are_taken_out(classes):
    plan = plan_of(labels=["normal", "opacity", "other"][:classes])
    torch.manual_seed(0)
    model = Classifier(1, classes)
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16)).astype(np.uint8)
    images = (images * np.linspace(0.1, 1.0, 60)[:, None, None]).astype(np.uint8)
    found = []
    for factor, leaning in ((5.0, 0.0), (20.0, 3.0)):
        arrays = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        arrays["head.weight"] *= factor
        arrays["head.bias"] = arrays["head.bias"] * factor + np.eye(classes, dtype=np.float32)[0] * leaning
        sent = scale_log_odds(arrays, score(plan, arrays, images))
        assert all(classifier_schema(plan)[name].matches(value) for name, value in sent.items())
        scores = score(plan, sent, images)
        found.append(np.log(scores) - np.log1p(-scores))
    assert found[0].std() == pytest.approx(2.0, rel=0.05 if classes == 2 else 0.5)
    if classes == 2:
        assert found[0].mean() == pytest.approx(0.0, abs=0.05)
        assert found[0] == pytest.approx(found[1], abs=0.05)


def test_a_model_that_is_no_better_is_hardly_ever_chosen():
    rng, truth = np.random.default_rng(2), np.stack([counts(1.5, 900)] * 3)
    wrong = 0
    for _ in range(400):
        noisy = rng.poisson(truth) + rng.normal(0.0, SIGMA * 3**0.5, truth.shape)
        wrong += decide(plan_of(), SIGMA, {"birch": noisy}, NEAR).winner != "spectral"
    assert wrong <= 0.05 * 400 + 3 * (0.05 * 0.95 * 400) ** 0.5


def test_the_best_of_those_that_are_clearly_better_wins_unless_its_moments_are_far():
    stack = {"birch": np.stack([counts(d, 4000) for d in (1.0, 2.0, 3.0)])}
    assert decide(plan_of(), SIGMA, stack, NEAR).winner == "flow"
    far = decide(plan_of(), SIGMA, stack, np.array([0.1, 0.1, 0.1 + FARTHER + 0.01]))
    assert (far.winner, far.judged[2].verdict) == ("gan", "its moments are too far from the released ones")
    even = decide(plan_of(), SIGMA, {"birch": np.stack([counts(2.0, 4000)] * 3)}, NEAR)
    assert even.winner == "spectral"


def test_a_site_that_shows_one_class_only_does_not_count_and_without_a_figure_the_floor_stays():
    one_class = np.stack([counts(d, 900, shares=(0.0, 1.0)) for d in (0.0, 1.0, 3.0)])
    both = np.stack([counts(1.0, 900)] * 3)
    assert decide(plan_of(), SIGMA, {"alder": one_class, "birch": both}, NEAR).sites == ("birch",)
    drowned = decide(plan_of(), SIGMA, {"alder": one_class, "birch": both / 30}, NEAR)
    assert (drowned.winner, drowned.sites, drowned.judged[1].auc) == ("spectral", (), None)


@pytest.fixture(scope="module")
def released():
    plan, rng = plan_of(), np.random.default_rng(3)
    layout = Layout.of(plan)
    sums = 0.05 * rng.normal(size=(2, 1 + layout.features))
    sums[:, 0] = 200 * COUNT_WEIGHT
    spread = np.diag(rng.uniform(0.2, 1.0, layout.features) ** 4 * 0.1)
    row, column = np.triu_indices(layout.features)
    moments = np.tile(200 * spread[row, column] / layout.spread_radius**2, (2, 1))
    release = {"centre": np.zeros(1 + layout.features), "sums": sums, "moments": moments}
    fitted = fit_release(plan, {"birch": {name: value.astype(np.float32) for name, value in release.items()}})
    return {f"spectral/{name}": value for name, value in fitted.items()}


def test_moments_are_near_for_the_models_own_images_and_far_for_a_model_that_lost_its_variety(released):
    plan, components = plan_of(), np.arange(400) % 2
    # variety is compared where the release showed it: here, everywhere
    signal = released["spectral/signal"]
    released = {
        **released,
        "spectral/signal": np.broadcast_to(np.eye(signal.shape[-1], dtype=np.float32), signal.shape),
    }
    model = spectral_model(plan, released)
    y = torch.from_numpy(components)
    drawn = model.sample(y, TorchDraws(torch.Generator().manual_seed(0))).numpy()
    own = moments_distance(plan, released, to_bytes(drawn), components)
    centre = np.stack([drawn[components == k].mean(axis=0) for k in (0, 1)])[components]
    halved = moments_distance(plan, released, to_bytes(centre + 0.5 * (drawn - centre)), components)
    none = moments_distance(plan, released, to_bytes(centre), components)
    assert own < 0.1
    assert own + 0.15 < halved < own + 0.4
    assert none > own + 0.6
    assert moments_distance(plan, released, to_bytes(drawn + 0.4), components) > own + FARTHER
