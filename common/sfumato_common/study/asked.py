"""That a plan's release asks for what its stages and methods can give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sfumato_common.generators.settings import white_form
from sfumato_common.study.latents import Latent
from sfumato_common.study.release import AnyItem, DpKAverage, Grouped, Sampling

if TYPE_CHECKING:
    from sfumato_common.study.plan import Plan


def check_release(plan: Plan) -> None:
    """Raise ValueError where an item asks for what the plan, or the item's method, cannot give."""
    kinds = [stage.kind for stage in plan.stages]
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
    for item in plan.release:
        _check_item(plan, item)
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
