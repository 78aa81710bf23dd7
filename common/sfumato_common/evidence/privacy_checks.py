"""Checks of what the certificates claim: epsilons computed anew, ceilings of attacks, and what no epsilon covers."""

from __future__ import annotations

import math
from typing import get_args

from sfumato_common.accounting.accountant import Cost, cohort_costs, expand_tally
from sfumato_common.accounting.events import Cohort
from sfumato_common.count_text import count_text
from sfumato_common.evidence.facts import Facts
from sfumato_common.evidence.finding import Finding, not_shown, partly, shown
from sfumato_common.study.certificate import Certificate, StatedCost, round_up_epsilon, stated_tally
from sfumato_common.study.words import has_epsilon

_VOID = "No epsilon means anything here: {sites} stated test noise or left without differential privacy."
_ROUNDING = 1e-3
_WEAK = 0.9
RAN = (
    "That the sites' programs ran these mechanisms on their patients is the sites' signed word: no file here shows it. "
    "Each site's own ledger shows its rows, to whoever the site lets see it."
)

RAN_HERE = "That the program drew the noise it charged is a property of what is installed: no file here shows it."
OUTSIDE = "The declared disclosures are outside this ceiling: an attack on them can do better."


def void(facts: Facts) -> str:
    """Why no epsilon means anything; empty where they do."""
    if facts.formal:
        return ""
    if not facts.stated:
        return "There is no certificate here, so that no epsilon is stated."
    bad = sorted(site for site, one in facts.stated.items() if not one.certificate.formal)
    return _VOID.format(sites=", ".join(bad) or "the plan")


def terms(facts: Facts) -> Finding:
    """Epsilon with its delta, unit, adjacency and what it covers."""
    if problem := void(facts):
        return not_shown(problem)
    lines = [f"{site} {_epsilon(one.certificate)}" for site, one in sorted(facts.stated.items())]
    certificate = next(iter(facts.stated.values())).certificate
    says = (
        f"The signed certificates state epsilon at delta {certificate.delta:g} for the patient who pays most: "
        f"{', '.join(lines)}. Unit: the patient with all images. Adjacency: one patient more or less. Each "
        "says what it "
        "covers and what not."
    )
    return shown(says, *facts.signed)


def recomputed(facts: Facts) -> Finding:
    """The stated epsilons against the accountant, from the mechanisms that the certificates list."""
    if problem := void(facts):
        return not_shown(problem)
    wrong = sorted(site for site, one in facts.stated.items() if not _agrees(one.certificate))
    if wrong:
        return not_shown(f"The epsilons of {', '.join(wrong)} are not those of the mechanisms that they list.")
    says = "The epsilons were computed anew from the mechanisms listed in the certificates, and are no lower."
    if facts.ledger is not None:
        says += " A second accountant, which shares no code with the first, found them too, and the ledger's rows fit."
        return partly(says, RAN_HERE, facts.ledger.source, *facts.signed)
    return partly(says, RAN, *facts.signed)


def within_plan(facts: Facts) -> Finding:
    """The plan's own limit."""
    if problem := void(facts):
        return not_shown(problem)
    limit = facts.plan.privacy.epsilon
    over = [site for site, one in facts.stated.items() if not (_patient(one.certificate) or math.inf) <= limit + 1e-4]
    if over:
        return not_shown(f"{', '.join(sorted(over))} cost a patient more than the plan's {limit:g}.")
    says = (
        f"No site's certificate states more than the plan's limit, epsilon {limit:g} at delta "
        f"{facts.plan.privacy.delta:g}."
    )
    return shown(says, facts.plan_source, *facts.signed)


def all_studies(facts: Facts) -> Finding:
    """What patients pay over every study of a site."""
    if facts.ledger is not None:
        book, paid = facts.ledger, facts.ledger.spent.patient.add_remove
        if paid is None:
            return not_shown(
                "A study without privacy was charged here: over all studies a patient's epsilon is infinite."
            )
        says = (
            f"Over all its studies, runs and tables the site charged a patient epsilon {paid:.4g} at delta "
            f"{book.budget.delta:g} of a budget of {book.budget.epsilon:g}, in {book.charges} charges "
            f"({book.open} of them "
            "never noted as carried out, and counted)."
        )
        return partly(
            says, "Other sites' and other programs' uses of the same patients are in no ledger here.", book.source
        )
    told = {site: one.certificate.site_total for site, one in facts.stated.items() if one.certificate.site_total}
    if not told:
        return not_shown("What patients paid in a site's other studies stays with the site: its own dossier has it.")
    lines = [f"{site} {_number(total.patient.add_remove)}" for site, total in sorted(told.items())]
    rest = sorted(set(facts.stated) - set(told))
    missing = "These totals are the sites' own word, which nothing here recomputes."
    return partly(
        f"Sites that publish it state for all their studies: {', '.join(lines)}.",
        missing + (f" {', '.join(rest)} keep theirs." if rest else ""),
        *facts.signed,
    )


def two_sites(facts: Facts) -> Finding:
    """Patients whom several sites know."""
    missing = "Nobody looked for patients of several sites: to compare lists would disclose them."
    if len(facts.stated) < 2 or void(facts):
        return not_shown(missing)
    return partly("The certificates say what a patient of two sites pays, and that it is more.", missing, *facts.signed)


def ceilings(facts: Facts) -> Finding:
    """What any attack on one patient can reach, as the certificates' epsilons imply."""
    if problem := void(facts):
        return not_shown(problem)
    reached = [one.certificate.reach for one in facts.stated.values() if one.certificate.reach]
    if len(reached) < len(facts.stated):
        return not_shown("A certificate states no ceiling of attacks.")
    auc = max(one.auc for one in reached)
    low = max((at.tpr for one in reached for at in one.attack if at.fpr == 0.001), default=None)
    says = (
        "If the certificates are true, no attack on what the epsilons cover that asks whether one patient was in the "
        f"data has an area under its curve above {auc:.3f}"
        + (f", or finds more than {low:.3f} of them at one false alarm in a thousand" if low is not None else "")
        + "."
    )
    missing = RAN if facts.ledger is None else RAN_HERE
    if any(item.bits > 1 for one in facts.stated.values() for item in one.certificate.declared):
        missing = f"{OUTSIDE} {missing}"
    if auc > _WEAK:
        missing = f"A ceiling of {auc:.3f} excludes little: it is a bound, not a measurement, and a weak one. {missing}"
    return partly(says, missing, *facts.signed)


def uncovered(facts: Facts) -> Finding:
    """Released images that no epsilon covers."""
    if facts.published is None:
        return not_shown("Which images were published is in the coordinator's dossier.")
    bare = {key: count for key, count in facts.published.images.items() if not has_epsilon(key[1])}  # type: ignore[arg-type]
    if problem := void(facts):
        return not_shown(problem)
    if bare:
        parts = ", ".join(f"{count} by {method} ({level})" for (method, level), count in sorted(bare.items()))
        total = sum(facts.published.images.values())
        return not_shown(f"No epsilon covers {sum(bare.values())} of the {total} published images: {parts}.")
    says = "An epsilon covers the pixels of every published image."
    public = sum(count for (_, level), count in facts.published.images.items() if level != "formal")
    if public:
        missing = f"The labels of {public} images are their patients' own, and no epsilon covers those."
        return partly(says, missing, facts.published.source, *facts.signed)
    return shown(says, facts.published.source, *facts.signed)


def declared(facts: Facts) -> Finding:
    """Disclosures beside every epsilon, by name and bits."""
    if not facts.stated:
        return not_shown("There is no certificate here.")
    named = sorted({(item.what, item.bits) for one in facts.stated.values() for item in one.certificate.declared})
    if not named:
        return shown("The certificates declare no disclosure beside their epsilons.", *facts.signed)
    what = "; ".join(f"{what} ({count_text(bits, 'bit')})" for what, bits in named)
    says = f"Declared, and covered by no epsilon: {what}."
    return partly(says, "What these disclosures can tell of one patient is bounded by their bits alone.", *facts.signed)


def _agrees(stated: Certificate) -> bool:
    train, holdout = (expand_tally(stated_tally(stated.mechanisms.get(cohort, []))) for cohort in get_args(Cohort))
    again = cohort_costs(train, holdout, stated.delta)
    pairs = (
        (stated.epsilon.train, again.train),
        (stated.epsilon.holdout, again.holdout),
        (stated.epsilon.patient, again.patient),
    )
    return all(_covers(one, other) for one, other in pairs)


def _covers(stated: StatedCost, cost: Cost) -> bool:
    said = (stated.add_remove, stated.replace_one)
    found = (round_up_epsilon(cost.add_remove), round_up_epsilon(cost.replace_one))
    return all(
        one is not None and other is not None and one >= other - _ROUNDING
        for one, other in zip(said, found, strict=True)
    )


def _patient(certificate: Certificate) -> float | None:
    return certificate.epsilon.patient.add_remove


def _epsilon(certificate: Certificate) -> str:
    return _number(_patient(certificate))


def _number(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.4f}"
