"""What a release package says about its price: the plan's events at this site, their epsilon, and what that covers.

Only public, data-independent numbers: mechanisms and their parameters come from the plan, epsilon from the accountant.
The site's own budget and what it spent on other studies stay in the site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sfumato_client.ledger.admission import spelled
from sfumato_common.config.plan import Plan
from sfumato_common.errors import LedgerError
from sfumato_common.privacy.accountant import epsilon, grouped
from sfumato_common.privacy.events import (
    Declared,
    Event,
    GaussianRelease,
    SampledGaussian,
    event_to_json,
    study_events,
)

_COVERS = (
    "Everything that left this site under this plan: adding or removing one patient, with all of the patient's images, "
    "changes its distribution by at most (epsilon, delta). Train and holdout patients are different people, so a "
    "patient pays the larger of the two epsilons. Charges still to come under the plan are included. Not covered: the "
    "declared disclosures, and other studies of this site."
)
_TEST_NOISE = "Made with TEST noise, which can be predicted: there is NO privacy guarantee. "


def certificate(plan: Plan, train: Sequence[Event], holdout: Sequence[Event], noise: str) -> dict[str, Any]:
    """JSON value for the manifest, from the events charged to each cohort under `plan`; at the plan's delta.

    `noise` is 'secure' or 'test'. Raises LedgerError for any other word.
    """
    if noise not in ("secure", "test"):
        raise LedgerError("a certificate says 'secure' or 'test' about its noise, nothing else")
    charged = {"train": train, "holdout": holdout}
    # what was charged, and what the plan has not charged yet: a figure computed after the release is covered too
    whole = {
        "train": grouped(train) | grouped(study_events(plan, "train")),
        "holdout": grouped(holdout) | grouped(study_events(plan, "holdout")),
    }
    costs = {cohort: _rounded_up(epsilon(spelled(tally), plan.privacy.delta)) for cohort, tally in whole.items()}
    declared = dict.fromkeys(event for events in charged.values() for event in events if isinstance(event, Declared))
    return {
        "unit": plan.privacy.unit,
        "adjacency": plan.privacy.adjacency,
        "delta": plan.privacy.delta,
        "epsilon_train": costs["train"],
        "epsilon_holdout": costs["holdout"],
        "epsilon_patient": max(costs.values()),
        "mechanisms": {
            cohort: [_line(event, times) for event, times in tally.items()] for cohort, tally in whole.items()
        },
        "declared": [{"what": event.what, "bits": event.bits} for event in declared],
        "noise": noise,
        "covers": (_TEST_NOISE if noise == "test" else "") + _COVERS,
    }


def _line(event: GaussianRelease | SampledGaussian, times: int) -> dict[str, Any]:
    """One mechanism with how often it ran: `times` releases, or `steps` of DP-SGD."""
    value = event_to_json(event)
    value["steps" if isinstance(event, SampledGaussian) else "times"] = times
    return value


def _rounded_up(value: float) -> float:
    """To four decimals, upwards: a printed guarantee never promises more than was proved."""
    return math.ceil(value * 1e4) / 1e4
