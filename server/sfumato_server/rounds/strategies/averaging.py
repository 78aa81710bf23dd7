"""Checking and averaging what sites send back (FedAvg of McMahan et al. 2017, with public weights)."""

from __future__ import annotations

import numpy as np

from sfumato_common.config.plan import Plan
from sfumato_common.errors import FederationError, VerificationError
from sfumato_common.models.wire import outbound_schema
from sfumato_common.types import AnyArray, Arrays


def check_replies(plan: Plan, kind: str, replies: dict[str, dict[str, AnyArray]]) -> None:
    """Raises when there is no reply, an unknown site, or arrays that are not exactly the schema's and finite."""
    if not replies:
        raise FederationError(f"no site answered in stage '{kind}'; see the sites' own logs")
    schema = outbound_schema(plan, kind)
    for site, arrays in replies.items():
        if site not in plan.sites:
            raise VerificationError(f"a reply came from '{site}', which the plan does not name; it was dropped")
        if set(arrays) != set(schema):
            raise VerificationError(f"the reply of '{site}' has other arrays than stage '{kind}' sends")
        for name, spec in schema.items():
            if not spec.matches(arrays[name]) or not np.isfinite(arrays[name]).all():
                raise VerificationError(f"array '{name}' of '{site}' has a wrong shape or is not finite")


def weighted_average(plan: Plan, replies: dict[str, dict[str, AnyArray]]) -> dict[str, AnyArray]:
    """Mean of the sites' arrays, weighted by the plan's nominal patients of the sites that answered, float32."""
    sites = sorted(replies)
    nominal = np.array([plan.sites[site].nominal_patients for site in sites], dtype=np.float64)
    shares = nominal / nominal.sum()
    names: Arrays = replies[sites[0]]
    return {
        name: np.asarray(
            sum(share * replies[site][name].astype(np.float64) for share, site in zip(shares, sites, strict=True))
        ).astype(np.float32)
        for name in names
    }
