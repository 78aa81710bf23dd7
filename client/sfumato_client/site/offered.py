"""What leaves a site under a plan, in sentences for the steward who is to accept it: docs/hospital.md, "The policy"."""

from __future__ import annotations

from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.words import Part, part_of

_BY = {
    "auto": "policy alone lets them go",
    "formal-auto": "a steward here lets declared ones go, formal ones pass by their proof",
    "steward": "a steward here lets them go",
}


def what_leaves(plan: Plan, policy: Policy) -> list[str]:
    """All that leaves under `plan`, which names the site, in the order in which it does: a sentence each."""
    given = given_models(plan)
    said = [_training(stage.kind, stage.rounds, plan.private) for stage in plan.stages if stage.kind not in given]
    images: dict[tuple[Part, str], int] = {}
    for item in plan.release_at(policy.site, plan.choices[0]):
        part = part_of(plan.guarantee_level(item))
        images[part, item.method] = images.get((part, item.method), 0) + item.images
    for (part, method), count in images.items():
        whose = "epsilon covers them" if part == "formal" else "declared: no epsilon covers them, or not whole"
        said.append(f"leaves: {count:,} synthetic images by '{method}' ({whose})")
    if images:
        said.append(f"images wait for the gate where they are declared; then {_BY[policy.release.review.by]}")
    if plan.utility is not None and policy.utility_figure == "noised":
        said.append("leaves: one noised figure of what the images are worth, charged to holdout patients")
    return said


def _training(kind: str, rounds: int, private: bool) -> str:
    noised = "noised" if private else "without noise"
    times = "one answer" if rounds == 1 else f"{rounds:,} updates of a model"
    return f"leaves: {times} of stage '{kind}', {noised}"
