"""Who a study's identity covers: all of its sites, or with `joining: later` one site and nothing of the others.

A site that others may join checks, accepts and is charged under the plan as `at_site` gives it, which has its own entry
of `sites` alone: what it does and pays depends on no other. docs/guarantee.md says why, clause by clause.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

from sfumato_common.files import canonical_json
from sfumato_common.strict import Strict
from sfumato_common.types import PlanHash

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan
    from sfumato_common.study.terms import SiteTerms


class Identified(Strict):
    """What a plan is known by."""

    if TYPE_CHECKING:  # fields of the plan

        @property
        def sites(self) -> dict[str, SiteTerms]:
            """What was agreed about each."""
            ...

        @property
        def joining(self) -> str | None:
            """Whether sites may join later."""
            ...

    @property
    def digest(self) -> PlanHash:
        """The identity of the plan as it stands here: lower-case hexadecimal sha256 over all of it."""
        return _digest_of(_values(self))

    @property
    def study_digest(self) -> PlanHash:
        """What all parties share, whoever joins: public draws begin at it, and the coordinator files under it.

        It is `digest`, but that `sites` are left out of it where they may join later.
        """
        values = _values(self)
        return _digest_of({**values, "sites": {}} if self.joining else values)

    def at_site(self, site: str) -> Self:
        """The plan as `site` accepts it: where others may join, without their entries; an unknown site has no other."""
        if not self.joining or site not in self.sites:
            return self
        return self.model_copy(update={"sites": {site: self.sites[site]}})

    def digest_at(self, site: str) -> PlanHash:
        """The identity under which `site` accepted the plan and is charged."""
        return self.at_site(site).digest


def check_joining(plan: Plan) -> None:
    """Raise ValueError where what one site does, or is held to, would depend on which others take part."""
    if not plan.joining:
        return
    what = "'joining: later' does not go with"
    if plan.secure_sum is not None:
        raise ValueError(f"{what} 'secure_sum': a sum's noise, and who may be in it, refer to the sites of the plan")
    if plan.by_site:
        raise ValueError(f"{what} 'by_site': models would have parts of every site, and change with each that joins")
    for item in plan.release:
        if item.images_at or getattr(item, "filled_at", None):
            raise ValueError(
                f"{what} 'images_at' or 'filled_at' of '{item.method}': they name sites, and what one accepted would "
                "change with the next; state the same numbers for all"
            )


def _values(plan: Identified) -> dict[str, Any]:
    """All of a plan but the earlier plans in its lineage, which that pins by their digests."""
    values = plan.model_dump(mode="json")
    if "lineage" in values:
        values["lineage"].pop("plans")
    return values


def _digest_of(values: Any) -> PlanHash:
    return PlanHash(hashlib.sha256(canonical_json(values)).hexdigest())
