"""What stewards decided of a plan's release, one by one, as a site's dossier has it; verified against its ledger first.

A person is named by the fingerprint of the key that signed, as it stands in the ledger; the person's name and own words
are left out, and stay in the ledger.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sfumato_common.accounting.events import Cohort
from sfumato_common.package.manifest import Hash
from sfumato_common.strict import Strict
from sfumato_common.study.plan import Name
from sfumato_common.study.words import Part

FORMAT: Literal["sfumato-decisions/1"] = "sfumato-decisions/1"
Words = Annotated[str, Field(min_length=1, max_length=200)]


class ReviewCharge(Strict):
    """What was charged for the stewards' word on a part: the ledger's entry, whose patients paid, and the event."""

    entry: Annotated[int, Field(ge=0)]
    cohort: Cohort
    what: Words


class StatedDecision(Strict):
    """A steward's yes or no to candidate sets with these digests. `ground` is '' where the steward approved.

    `steward` is the fingerprint of the key; `row` is the hash of the ledger's row.
    """

    at: Annotated[str, Field(pattern=r"\A\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\+00:00\z")]
    release: Words
    part: Part
    verdict: Literal["approve", "refuse"]
    ground: Annotated[str, Field(max_length=40)]
    steward: Annotated[str, Field(pattern=r"\A[a-z2-7]{4}(-[a-z2-7]{4}){4}\z")]
    sets: Annotated[list[Hash], Field(min_length=1)]
    charged: list[ReviewCharge]
    row: Hash


class StewardDecisions(Strict):
    """All decisions about a plan's release in the ledger of `site`, in order, up to the row with hash `head`."""

    format: Literal["sfumato-decisions/1"] = FORMAT
    site: Name
    study: Name
    plan_hash: Hash
    head: Hash
    decisions: list[StatedDecision]
