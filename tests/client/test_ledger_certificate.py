"""The certificate in a package: public numbers only, never less than was charged, loud about test noise."""

from __future__ import annotations

import pytest

from sfumato_client.ledger import Ledger
from sfumato_common.config.loader import parse
from sfumato_common.config.plan import Plan
from sfumato_common.config.policy import Budget
from sfumato_common.errors import LedgerError
from sfumato_common.files import canonical_json
from sfumato_common.privacy.accountant import epsilon
from sfumato_common.privacy.events import GATE_VERDICT, GaussianRelease, study_events

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
    assert stated["epsilon_train"] == pytest.approx(epsilon([GaussianRelease(2.0)], 1e-5), abs=1.1e-4)
    assert stated["epsilon_train"] >= epsilon([GaussianRelease(2.0)], 1e-5)
    assert stated["epsilon_holdout"] == pytest.approx(epsilon(study_events(PLAN, "holdout"), 1e-5), abs=1.1e-4)
    assert stated["epsilon_patient"] == max(stated["epsilon_train"], stated["epsilon_holdout"])
    assert (stated["unit"], stated["adjacency"], stated["delta"]) == ("patient", "add-remove", 1e-5)
    assert stated["mechanisms"] == {
        "train": [{"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": 1}],
        "holdout": [{"mechanism": "GaussianRelease", "noise_multiplier": 4.0, "times": 1}],
    }
    assert stated["declared"] == [{"what": GATE_VERDICT.what, "bits": 1}]
    assert "7.77" not in canonical_json(stated).decode()  # the budget is the site's own business


def test_a_charge_beyond_the_plan_is_not_hidden(ledger):
    for round_number in (1, 2):
        charge(ledger, PLAN, "spectral", GaussianRelease(2.0), round=round_number)
    stated = ledger.certificate(PLAN, noise="secure")
    assert stated["mechanisms"]["train"][0]["times"] == 2
    assert stated["epsilon_train"] >= epsilon([GaussianRelease(2.0)] * 2, 1e-5)


def test_test_noise_is_said_aloud_and_other_words_are_refused(ledger):
    assert "NO privacy guarantee" in ledger.certificate(PLAN, noise="test")["covers"]
    assert "NO privacy" not in ledger.certificate(PLAN, noise="secure")["covers"]
    with pytest.raises(LedgerError):
        ledger.certificate(PLAN, noise="")
