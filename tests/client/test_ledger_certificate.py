"""The certificate in a package: public numbers only, never less than was charged, loud about test noise."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from support.studies import POLICY

from sfumato_client.ledger import Ledger
from sfumato_common.accounting.accountant import cohort_costs, epsilon
from sfumato_common.accounting.events import GaussianRelease, SampledGaussian
from sfumato_common.errors import LedgerError
from sfumato_common.files import canonical_json
from sfumato_common.strict import parse
from sfumato_common.study.certificate import StatedDisclosure, stated_tally
from sfumato_common.study.costs import GATE_VERDICT, study_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Budget, Policy

PLAN = parse(
    {
        "study": "chest",
        "image": {"size": 16},
        "labels": ["normal", "abnormal"],
        "sites": {"north": {"nominal_patients": 100}},
        "privacy": {"epsilon": 10.0, "delta": 1e-5},
        "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0}],
        "release": [{"model": "spectral", "images": 12}],
        "utility": {"noise_multiplier": 4.0},
        "federation": {"quorum": 1},
    },
    Plan,
    "plan",
)


@pytest.fixture
def ledger(tmp_path):
    with Ledger.open(tmp_path / "ledger.sqlite", Budget(epsilon=7.77, delta=1e-4), site="north") as opened:
        yield opened


def charge(ledger, plan, purpose, event, cohort="train", round=1):
    return ledger.reserve(
        study=plan.study, plan_hash=plan.digest, purpose=purpose, round=round, cohort=cohort, event=event
    )


def test_a_certificate_states_what_the_plan_costs_at_the_plans_delta(ledger):
    other = PLAN.model_copy(update={"study": "another"})
    charge(ledger, other, "spectral", GaussianRelease(1.5))
    charge(ledger, PLAN, "spectral", GaussianRelease(2.0))
    charge(ledger, PLAN, "gate", GATE_VERDICT)
    stated = ledger.certificate(PLAN, noise="secure")
    exact = cohort_costs(study_events(PLAN, "train"), study_events(PLAN, "holdout"), 1e-5)
    for who in ("train", "holdout", "patient"):
        for name, value in asdict(getattr(exact, who)).items():
            assert value <= getattr(getattr(stated.epsilon, who), name) <= value + 1.1e-4
    assert stated.epsilon.train.add_remove == pytest.approx(epsilon([GaussianRelease(2.0)], 1e-5), abs=1.1e-4)
    assert (stated.unit, stated.adjacency, stated.delta) == ("patient", "add-remove", 1e-5)
    assert stated.mechanisms == {
        "train": [{"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": 1}],
        "holdout": [{"mechanism": "GaussianRelease", "noise_multiplier": 4.0, "times": 1}],
    }
    assert stated.declared == [StatedDisclosure(what=GATE_VERDICT.what, bits=1)]
    assert "7.77" not in canonical_json(stated.model_dump()).decode()  # the budget is the site's own business


def test_a_charge_beyond_the_plan_is_not_hidden(ledger):
    for round_number in (1, 2):
        charge(ledger, PLAN, "spectral", GaussianRelease(2.0), round=round_number)
    stated = ledger.certificate(PLAN, noise="secure")
    assert stated.mechanisms["train"][0]["times"] == 2
    assert stated.epsilon.train.add_remove >= epsilon([GaussianRelease(2.0)] * 2, 1e-5)


def test_what_other_studies_cost_leaves_only_where_policy_publishes_it(ledger):
    other = PLAN.model_copy(update={"study": "another"})
    charge(ledger, other, "spectral", GaussianRelease(1.5))
    charge(ledger, PLAN, "spectral", GaussianRelease(2.0))
    assert ledger.certificate(PLAN, noise="secure").site_total is None
    assert Policy(site="north", **POLICY).site_total == "withheld"
    total = ledger.certificate(PLAN, noise="secure", publish_total=True).site_total
    exact = epsilon([GaussianRelease(1.5), GaussianRelease(2.0)], 1e-5)
    assert exact <= total.patient.add_remove <= exact + 1.1e-4
    assert total.holdout.add_remove == pytest.approx(epsilon([GaussianRelease(4.0)], 1e-5), abs=1.1e-4)


def test_test_noise_is_said_aloud_and_other_words_are_refused(ledger):
    assert ledger.certificate(PLAN, noise="test").covers.startswith("TEST NOISE: no guarantee")
    assert "TEST NOISE" not in ledger.certificate(PLAN, noise="secure").covers
    with pytest.raises(LedgerError):
        ledger.certificate(PLAN, noise="")


def test_the_words_say_what_a_patient_of_two_sites_pays_and_what_has_no_epsilon(ledger):
    covers = ledger.certificate(PLAN, noise="secure").covers
    for word in (
        "Unit: the patient",
        "with or without one patient",
        "replace_one",
        "parallel",
        "two sites pays the SUM",
    ):
        assert word in covers
    assert "declared disclosures" in covers.split("Not covered: ")[1]


def test_a_stated_mechanism_reads_back_as_what_was_charged(ledger):
    charge(ledger, PLAN, "spectral", GaussianRelease(2.0))
    charge(ledger, PLAN, "spectral", GaussianRelease(2.0), round=2)
    charge(ledger, PLAN, "gan", SampledGaussian(1.0, 0.1, 7))
    charge(ledger, PLAN, "gan", SampledGaussian(1.0, 0.1, 7), round=2)
    lines = ledger.certificate(PLAN, noise="secure").mechanisms["train"]
    assert stated_tally(lines) == {GaussianRelease(2.0): 2, SampledGaussian(1.0, 0.1, 1): 14}


@pytest.mark.parametrize(
    "line",
    [
        {"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": 0},
        {"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": True},
        {"mechanism": "Declared", "what": "a bit", "bits": 1, "times": 1},
        {"mechanism": "Magic", "times": 1},
    ],
)
def test_an_impossible_stated_mechanism_is_refused(line):
    with pytest.raises(LedgerError):
        stated_tally([line])
