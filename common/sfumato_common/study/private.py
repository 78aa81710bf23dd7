"""That a plan's privacy terms mean something, and that one without privacy does not read as if it had some."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan

NOISELESS = 0.001  # the largest noise multiplier that a plan without privacy may state


def check_delta(plan: Plan) -> None:
    """Raise ValueError at a delta of 1 / N or more, at which publishing one of N records whole would be private."""
    if not plan.sites:
        return  # a later version that asks nobody
    site, terms = max(plan.sites.items(), key=lambda item: item[1].nominal_patients)
    if plan.private and plan.privacy.delta * terms.nominal_patients >= 1.0:
        raise ValueError(
            f"privacy.delta is not below 1 / {terms.nominal_patients}, the nominal patients of '{site}'; state less"
        )


def check_private(plan: Plan) -> None:
    """Raise ValueError where a plan without privacy states a budget, or noise to speak of."""
    if plan.private:
        return
    if plan.budget is not None:
        raise ValueError("a plan that says 'private: false' has no privacy budget to share out")
    stated = [
        *(stage.noise_multiplier for stage in plan.stages),
        plan.utility.noise_multiplier if plan.utility else None,
    ]
    if any(sigma is not None and sigma > NOISELESS for sigma in stated):
        raise ValueError(
            f"under 'private: false' no noise is added: state noise multipliers of at most {NOISELESS:g}, which "
            "only tell the coordinator's fits how exact the sums are"
        )
