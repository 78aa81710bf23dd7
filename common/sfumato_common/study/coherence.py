"""What the parts of a plan must be to one another: every rule that is broken is told, not the first alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sfumato_common.encoders.settings import check_encoders
from sfumato_common.generators import GENERATORS
from sfumato_common.generators.appearance import APPEARANCE
from sfumato_common.generators.codec import CODEC
from sfumato_common.generators.settings import white_form
from sfumato_common.generators.spectral import SPECTRAL
from sfumato_common.strict.rules import check_all
from sfumato_common.study.balance import check_balance
from sfumato_common.study.joining import check_joining
from sfumato_common.study.latents import Latent
from sfumato_common.study.lineage import check_lineage
from sfumato_common.study.private import check_delta, check_private
from sfumato_common.study.release import AnyItem, DpKAverage, Grouped, Sampling
from sfumato_common.study.summed import check_secure_sum

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan

# models of moments, one of which every plan begins with
BASES = (SPECTRAL.kind, APPEARANCE.kind, CODEC.kind)


def check_plan(plan: Plan) -> None:
    """Raise ValueError with what no plan may say; `Faults` where it is more than one thing."""
    kinds = [stage.kind for stage in plan.stages]
    _check_stages(plan, kinds)  # all else rests on it
    rules = (check_private, check_delta, check_joining, check_secure_sum, check_lineage, check_balance, _check_quorum)
    check_all(
        partial(_check_release, plan, kinds),
        partial(check_encoders, plan.encoders, [*plan.stages, *plan.release]),
        *(partial(stage.check, plan) for stage in plan.stages),
        *(partial(rule, plan) for rule in rules),
    )


def _check_stages(plan: Plan, kinds: Sequence[str]) -> None:
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise ValueError(f"stage '{twice[0]}' is there more than once; each kind may occur once, remove the others")
    if kinds[0] not in BASES:
        raise ValueError("the first stage must be 'spectral', 'appearance' or 'codec': the others start from it")
    models = [stage for stage in plan.stages[1:] if stage.kind in GENERATORS]
    if needy := [stage.kind for stage in models if kinds[0] not in stage.goes_on_from]:
        raise ValueError(f"'{needy[0]}' starts from the spectral model: the first stage must be 'spectral'")


def _check_quorum(plan: Plan) -> None:
    if plan.federation.quorum > len(plan.sites) > 0 and not plan.joining:
        raise ValueError(
            f"federation.quorum is {plan.federation.quorum}, and the plan has {len(plan.sites)} sites: write "
            f"{len(plan.sites)} or less"
        )
    if few := [stage for stage in plan.stages if stage.fewest_replies > plan.federation.quorum]:
        raise ValueError(
            f"'trimmed' of stage '{few[0].kind}' leaves nothing of a round of {plan.federation.quorum} sites: "
            f"federation.quorum must be at least {few[0].fewest_replies}"
        )


def _check_release(plan: Plan, kinds: Sequence[str]) -> None:
    if missing := [item.model for item in plan.release if item.model not in kinds and item.model != "best"]:
        raise ValueError(f"release asks for model '{missing[0]}', which no stage trains")
    sampled = [item.model for item in plan.release if isinstance(item, Sampling)]
    if "best" in sampled and len(sampled) > 1:
        raise ValueError("'best' is one of the models that stages make: sample from it alone, or from named ones")
    if len({(item.method, item.model) for item in plan.release}) != len(plan.release):
        raise ValueError("each model may be released once by a method; add the counts")
    if len({item.grouping for item in plan.release if isinstance(item, Grouped)}) > 1:
        raise ValueError(
            "patients are grouped once a study: give all methods on groups the same k, groups, least_labels, "
            "remainder, distance and views, or what two groupings share would tell who is in them"
        )
    check_all(*(partial(_check_item, plan, item) for item in plan.release))
    if plan.has_best and not plan.chooses:
        raise ValueError("release of 'best' needs a 'choice' stage")
    if plan.formal_gate is not None and "formal" not in plan.parts:
        raise ValueError("'formal_gate' judges formal images, and the release has none; remove it")


def _check_item(plan: Plan, item: AnyItem) -> None:
    if unknown := sorted(set(item.images_at) - set(plan.sites)):
        raise ValueError(f"'images_at' of '{item.method}' names '{unknown[0]}', which is none of the plan's sites")
    _check_filled(plan, item)
    if isinstance(item, Grouped) and item.groups == "l-diverse" and item.least_labels > len(plan.labels):
        raise ValueError(f"'least_labels' of '{item.method}' is larger than the number of labels")
    if isinstance(item, DpKAverage) and not plan.private:
        raise ValueError(f"'{item.method}' is a formal method: under 'private: false' its model has no guarantee")
    if isinstance(item, Latent):
        every = white_form(plan).numbers
        if item.coordinates is not None and item.coordinates > every:
            raise ValueError(f"'coordinates' of '{item.method}' are more than a latent's {every}")
        if over := [site for site, terms in plan.sites.items() if item.at(site) > terms.nominal_patients]:
            raise ValueError(
                f"'{item.method}' releases one image a patient at most: ask '{over[0]}' for no more than its "
                f"{plan.sites[over[0]].nominal_patients} nominal patients, by 'images_at'"
            )


def _check_filled(plan: Plan, item: AnyItem) -> None:
    if not isinstance(item, Grouped):
        return
    if unknown := sorted(set(item.filled_at) - set(plan.sites)):
        raise ValueError(f"'filled_at' of '{item.method}' names '{unknown[0]}', which is none of the plan's sites")
    if bare := [site for site in plan.sites if plan.filled(item, site) >= item.at(site)]:
        raise ValueError(
            f"'filled_at' of '{item.method}' leaves no image from a group at '{bare[0]}'; fill fewer places there"
        )
