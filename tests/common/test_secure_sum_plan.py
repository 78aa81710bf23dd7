"""Plans that sum securely: what they must say, what they cost, and that phases are the one release they stand for."""

import copy
import math

import numpy as np
import pytest
from support.plans import small_plan

from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease, SummedGaussian, normal_form
from sfumato_common.errors import ConfigError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.spectral.layout import NORMS, WEIGHTS, Layout, above_band, features_of
from sfumato_common.generators.spectral.phases import moments_summand, read_moments
from sfumato_common.generators.spectral.release import noised_release
from sfumato_common.generators.spectral.sums import patient_weights
from sfumato_common.phantom import arrays
from sfumato_common.strict import parse
from sfumato_common.study.costs import stage_events, study_events
from sfumato_common.study.forecast import forecast
from sfumato_common.study.plan import Plan
from sfumato_common.study.summed import phases_of, summed_events

KEYS = [f"{letter * 4}-aaaa-bbbb-cccc-dddd" for letter in "abcde"]
NAMES = ["alder", "birch", "cedar", "dogwood", "elm"]


def values(sites=3, quorum=3, colluding=1, *later, **spectral):
    made = small_plan(*later, released="spectral", sites=dict.fromkeys(NAMES[:sites], 100), epsilon=40.0, noise=0.7)
    made["stages"][0] |= spectral
    for name, key in zip(NAMES[:sites], KEYS, strict=False):
        made["sites"][name]["key"] = key
    return {**made, "secure_sum": {"colluding": colluding}, "federation": {"quorum": quorum}}


def plan(*given, **spectral):
    return parse(values(*given, **spectral), Plan, "plan")


def without(made, site):
    del made["sites"][site]["key"]


def bare(made):
    made["private"] = False
    made["stages"][0]["noise_multiplier"] = 0.0005


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda made: made.update(secure_sum=None), "'key' of site 'alder' serves 'secure_sum'"),
        (lambda made: without(made, "birch"), "sites.birch.key"),
        (lambda made: made["sites"]["birch"].update(key=KEYS[0]), "two sites have one 'key'"),
        (lambda made: made["sites"]["birch"].update(key="no-key"), "key"),
        (lambda made: made["federation"].update(quorum=2), "federation.quorum of at least 3"),
        (lambda made: made["sites"].pop("cedar"), "at least 3 sites"),
        (lambda made: made["secure_sum"].update(colluding=2), "at least 4 sites"),
        (lambda made: made["secure_sum"].update(colluding=0), "colluding"),
        (lambda made: made["secure_sum"].update(coluding=1), "colluding"),
        (lambda made: made["stages"][0].update(by_site=True), "'by_site' fits each site apart"),
        (lambda made: bare(made), "'private: false' adds none"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_in_words(change, says):
    made = copy.deepcopy(values())
    change(made)
    with pytest.raises(ConfigError, match=says):
        parse(made, Plan, "plan")


def test_five_sites_need_four_and_say_so():
    with pytest.raises(ConfigError, match="at least 4"):
        plan(5, 3)
    assert plan(5, 4).secure_sum.colluding == 1


def test_plans_without_it_keep_their_digests_and_keys_are_part_of_others():
    bare = small_plan(released="spectral", sites={"alder": 100})

    assert "secure_sum" not in parse(bare, Plan, "plan").model_dump(mode="json")
    assert "key" not in parse(bare, Plan, "plan").model_dump(mode="json")["sites"]["alder"]
    other = copy.deepcopy(values())
    other["sites"]["alder"]["key"] = KEYS[3]
    assert parse(other, Plan, "plan").digest != plan().digest


@pytest.mark.parametrize("radii", ["fixed", "charged"])
def test_all_phases_of_a_stage_together_are_one_release_of_its_noise(radii):
    summing = plan(5, 4, 1, radii=radii)
    events = stage_events(summing, summing.stages[0])
    assert events == summed_events(summing, "spectral")
    assert len(events) == (3 if radii == "fixed" else 5)
    (whole,) = normal_form(events)
    assert whole == SummedGaussian(pytest.approx(0.7, rel=1e-12), 3)
    assert epsilon(study_events(summing, "train"), 1e-5) == pytest.approx(
        epsilon([GaussianRelease(0.7)], 1e-5), abs=2e-3
    )
    assert [phase.noise_multiplier for phase in phases_of(summing, "spectral")] == [e.noise_multiplier for e in events]


def test_what_every_kind_says_of_its_phases_is_what_it_is_charged():
    """Noise multipliers stand in two places: what is charged needs no layout, what is computed does."""
    shares = math.fsum(weight**2 for weight in (WEIGHTS.centre_sensitivity, WEIGHTS.sums_sensitivity, WEIGHTS.moment))
    assert shares == pytest.approx(1.0, rel=1e-12)
    assert NORMS == 3
    kinds = {kind for kind, record in EXCHANGES.items() if record.summed is not None}
    assert kinds == {"spectral", "appearance", "codec", "embedding", "features", "choice"}


@pytest.mark.parametrize("radii", ["fixed", "charged"])
def test_the_phases_of_one_site_without_noise_are_its_release_without_noise(radii):
    summing = plan(radii=radii)
    layout, sigma = Layout.of(summing), summing.stages[0].noise_multiplier
    images, labels, owners = arrays(3, 30, 16)
    weights, features = patient_weights(owners), features_of(layout, images)
    above = above_band(layout, images) if radii == "charged" else None
    whole = noised_release(layout, sigma, images, labels, weights, lambda part, sensitivity, noise: part)
    sums = {}
    for phase in phases_of(summing, "spectral"):
        sums |= phase.split(phase.join(moments_summand(layout, phase, sigma, features, labels, weights, sums, above)))
    found = read_moments(sums)
    assert set(found) == set(whole)
    for name, value in whole.items():
        assert np.allclose(found[name], value, rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("radii", ["fixed", "charged"])
@pytest.mark.parametrize("lie", [0.0, 3.0, -1e3, 1e11])
def test_a_patient_moves_a_phase_by_its_sensitivity_at_most_whatever_the_coordinator_says_of_the_sums(radii, lie):
    summing = plan(radii=radii)
    layout, sigma = Layout.of(summing), summing.stages[0].noise_multiplier
    images, labels, owners = arrays(4, 12, 16)
    sums = {name: np.full(s, lie) for phase in phases_of(summing, "spectral") for name, s in phase.shapes.items()}

    def value(phase, kept):
        x, y, own = images[kept], labels[kept], np.unique(owners[kept], return_inverse=True)[1]
        above = above_band(layout, x) if radii == "charged" else None
        parts = moments_summand(layout, phase, sigma, features_of(layout, x), y, patient_weights(own), sums, above)
        return phase.join(parts)

    everybody = np.ones(len(owners), dtype=bool)
    for phase in phases_of(summing, "spectral"):
        for patient in np.unique(owners):
            moved = np.linalg.norm(value(phase, everybody) - value(phase, owners != patient))
            assert moved <= phase.sensitivity * (1 + 1e-9)


def test_the_forecast_says_the_three_figures_and_whom_they_are_against():
    lines = forecast(plan(), 1e-5).noised
    assert len(lines) == 3
    figures = [float(line.split("epsilon ")[1].split()[0]) for line in lines]
    assert figures == sorted(figures)
    assert "against the coordinator alone" in lines[0]
    assert "with 1 of the other sites, which is what is charged" in lines[1]
    assert all("delta 1e-05, unit patient, add/remove" in line for line in lines)
