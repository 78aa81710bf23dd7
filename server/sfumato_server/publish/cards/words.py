"""Sentences that several cards share: what covers an image, what the splits are worth, what nobody may conclude."""

from __future__ import annotations

import math

from sfumato_common.count_text import count_text
from sfumato_common.study.words import way_of
from sfumato_server.publish.cards.facts import SetFacts

NOT_STATED = "Not stated."
LEVELS = {
    "formal": "a proved (epsilon, delta) for the image and its label",
    "formal, labels public": "a proved (epsilon, delta) for the pixels; none covers the label, a patient's own",
    "syntactic": "made from at least k patients of one site (k-anonymity of one step); no epsilon covers it",
    "heuristic": "only measured by attacks; no epsilon covers it",
    "none": "a site's noise was a test's, so that no guarantee holds",
}
SPLIT = (
    "`test` is one in ten of the images that were drawn from a released model, by a hash of their random names. "
    "Images that are made from patients' codes, of one patient or of a group, may share patients with each other, so "
    "all of them are `train`."
)
NOT_SPLIT = (
    "The test split says how a model does on other synthetic images. It says nothing of real patients: both splits "
    "were drawn from models that the same patients trained. For a figure about patients test on real images."
)
NO_MEDICINE = (
    "These are not pictures of patients. Do not diagnose by them, do not teach by them what a disease looks like, and "
    "do not try to find out who was in the training data."
)
LIMITS = (
    "Declared disclosures: they depend on real data, and no epsilon bounds them. The report lists them.",
    "Other studies of the same sites: a patient's costs add up, and each site's own ledger adds them.",
    "Everything in the plan is public: that a site took part, and its nominal number of patients.",
    "Whether a site told the truth: a certificate and a signature say who stated this, not that it is so.",
    "Facts about the population: what is true of most patients can be learned from these images, and is meant to be.",
    NO_MEDICINE,
)
_LEFT_OUT = "If it took part in the training, the plan bounds what its patients pay, and no certificate of it is here."


def covering(facts: SetFacts) -> str:
    """What the epsilon covers, in two sentences."""
    cover = facts.cover
    if not facts.plan.private or any(not own.private for own in facts.certificates.values()):
        return (
            "Weights left the sites without differential privacy, and every epsilon is infinite. Handle these images "
            "as you would the real ones."
        )
    if cover is None:
        return "A site's certificate states test noise, which can be predicted. No guarantee holds for this set."
    return (
        f"Epsilon {cover.epsilon:.4f} at delta {cover.delta:g} (unit: {cover.unit}, adjacency: add/remove) bounds how "
        "much all that left the sites under this plan, models and images together, tells of any one patient of one "
        f"site; it is the worst site's figure. {_beyond(facts)}"
    )


def _beyond(facts: SetFacts) -> str:
    """What the figure does not bound: patients known to two sites, and images that no epsilon covers."""
    levels = facts.by("method", "guarantee")
    bare = ", ".join(f"{number} by {method}" for (method, level), number in levels if not level.startswith("formal"))
    two = [cost for cost in facts.pooled[1:] if math.isfinite(cost.add_remove)]
    pays = "".join(
        f"a patient who is known to two sites pays {own.add_remove:.4f} at delta {own.delta:g}" for own in two
    )
    not_covered = f"the images that were made from patients' codes without one ({bare}) are not covered" if bare else ""
    said = ", and ".join(filter(None, (pays, not_covered))) or "it covers every image of the set"
    return f"{said[0].upper()}{said[1:]}."


def left_out(facts: SetFacts) -> list[str]:
    """A sentence for every site of the plan of which something is missing."""
    return [f"{site}: {reason}. {_LEFT_OUT}" for site, reason in sorted(facts.left_out.items())]


def left_out_images(facts: SetFacts) -> list[str]:
    """A line for each reason for which single images of sites are not in the set."""
    every = (
        (facts.duplicates, "images whose pixels are in the set already"),
        (facts.near, "near-duplicates: images that nearly equal one of the set, by a public measure of images alone"),
        (facts.withdrawn, "images that nearly equal one that an earlier version withdrew"),
    )
    return [f"{count} {what}" for count, what in every if count]


def redundancies(facts: SetFacts) -> str:
    """Whether images of the set may nearly equal each other."""
    if facts.plan.near_duplicates == "stay":
        return "Equal pixels were removed; near-duplicates may be there, as the plan lets them stay."
    return "Equal pixels were removed, and near-duplicates by a public measure of images alone."


def how_made(facts: SetFacts) -> list[str]:
    """A sentence for every method of the set."""
    found = []
    for (method, model, level), number in facts.by("method", "model", "guarantee"):
        drawn = way_of(method) == "dp-sampling"
        how = f"drawn from the model `{model}`" if drawn else f"made by `{method}` in the space of the model `{model}`"
        found.append(f"{count_text(number, 'image was', 'images were')} {how}; guarantee: {level} ({LEVELS[level]}).")
    return found


def use(facts: SetFacts) -> str:
    """The measured figure of use in one sentence, with its interval; that there is none is said."""
    utility = facts.run.get("utility") or {}
    pooled = utility.get("pooled") or {}
    if pooled.get("auc") is None:
        return "No figure of use is known to this card."
    low, high = (pooled.get(name) for name in ("low", "high"))
    known = low is not None and high is not None
    interval = f"95 % interval {low:.3f} to {high:.3f}" if known else "interval unknown"
    what = utility.get("what") or "a classifier trained on these images, tested on holdout real patients (TSTR)"
    return f"AUC {pooled['auc']:.3f} ({interval}): {what}."
