"""Checks of the record: signatures, approvals, what plan and policy say, and the figure of use."""

from __future__ import annotations

from sfumato_common.evidence.facts import Facts
from sfumato_common.evidence.finding import Finding, not_shown, partly, shown
from sfumato_common.study.lineage import given_models

_AUTOMATIC = {"gate", "no-gate"}
_PICTURES = "The pictures were not compared with their entries here, as 'sfumato dataset verify' does."


def provenance(facts: Facts) -> Finding:
    """Whether every byte of the set goes back to a signature."""
    if facts.published is None:
        return not_shown("The published set and its signatures are in the coordinator's dossier.")
    says = (
        "Every statement of the set was verified back to the coordinator's signature, and each image's "
        "entry to its site's."
    )
    if not facts.published.trusted:
        missing = f"{_PICTURES} The coordinator's key was compared with none from elsewhere."
        return partly(says, missing, facts.published.source)
    missing = (
        f"{_PICTURES} That a site's key is that hospital's is what people compared at enrolment; no file here shows it."
    )
    return partly(says, missing, facts.published.source, *facts.signed)


def audit_trail(facts: Facts) -> Finding:
    """A record of what was done with patients' data that shows alteration."""
    if facts.ledger is None:
        return not_shown("The ledgers stay at the sites: their own dossiers have them.")
    says = (
        f"The site's ledger is a chain of hashes that holds: {facts.ledger.charges} charges, of which "
        f"{facts.ledger.open} were never noted as carried out."
    )
    missing = (
        "That every charge stood before its data was read is a property of the installed program. A chain shows "
        "alteration, and not that somebody rewrote all of the site's files, its head with them."
    )
    return partly(says, missing, facts.ledger.source)


def approval(facts: Facts) -> Finding:
    """A person who let the release go."""
    if facts.ledger is None:
        return not_shown("Whether a person let the release go is in the site's ledger, and in its own dossier.")
    people = [by for by in facts.ledger.approvers if by not in _AUTOMATIC]
    if people:
        count = len(facts.ledger.approvers)
        says = (
            f"{len(people)} of the ledger's {count} signed approvals are by people ({', '.join(sorted(set(people)))})."
        )
        if facts.ledger.decisions is not None:
            told = len(facts.ledger.decisions.decisions)
            says += f" Decisions of stewards, whose signatures hold, are listed one by one: {told}."
        missing = "That a person, and which, held the key is shown by nothing here."
        if len(people) < count:
            missing = f"The others were made by the program. {missing}"
        return partly(says, missing, facts.ledger.source)
    if not facts.ledger.approvers:
        return not_shown("The ledger holds no approval of this plan's release.")
    return not_shown("No person approved this release: every approval in the ledger was made by the program.")


def automatic_check(facts: Facts) -> Finding:
    """The program's own check of what would leave."""
    if facts.gate:
        passed, rules = sum(one.approved for one in facts.gate), sum(len(one.figures) for one in facts.gate)
        says = f"The gate put {len(facts.gate)} of the release's parts to {rules} rules; {passed} passed."
        missing = (
            "Parts without a report were let go by their proof alone. The reports are files that nobody signed; what "
            "the gate's rules miss, this record misses."
        )
        return partly(says, missing, *(report.source for report in facts.gate))
    if facts.ledger is not None and facts.ledger.approvers:
        count, gated = len(facts.ledger.approvers), sum(by == "gate" for by in facts.ledger.approvers)
        says = f"The ledger holds {count} signed approvals, {gated} of them by the gate."
        return partly(says, "No report of the gate is among the site's files.", facts.ledger.source)
    if facts.side == "coordinator" and facts.published is not None:
        judged = sorted(
            site for site, one in facts.stated.items() if any("gate" in item.what for item in one.certificate.declared)
        )
        if judged:
            says = f"The certificates of {', '.join(judged)} declare a verdict of the gate on their declared images."
            missing = "Formal images were let go by their proof alone, unless the plan has a private gate; "
            return partly(says, missing + "rules, figures and sample sizes stay with the sites.", *facts.signed)
    return not_shown("No check of the outputs is recorded here.")


def attacks(facts: Facts) -> Finding:
    """Attacks that were measured on this release."""
    if facts.gate:
        measured = "; ".join(line for report in facts.gate for line in report.figures)
        says = f"The gate compared the candidates with training and holdout images: {measured}."
        missing = (
            "The reports are local files that nobody signed, about the parts that the gate was put to alone. "
            "Attacks on "
            "the trained models, and by somebody who knows more, are in no report here."
        )
        return partly(says, missing, *(report.source for report in facts.gate))
    return not_shown(
        "No attack on this release was measured in any file here; figures of the gate stay with the sites."
    )


def noise(facts: Facts) -> Finding:
    """Where the noise came from."""
    bad = sorted(site for site, one in facts.stated.items() if one.certificate.noise != "secure")
    if bad:
        return not_shown(f"{', '.join(bad)} stated test noise, which can be predicted.")
    if not facts.stated:
        return not_shown("There is no certificate here.")
    says = "Every certificate states noise from a cryptographic source (ChaCha20 with a key of the operating system)."
    missing = (
        "That is the sites' signed word. Side channels and timing are in no file here, and no third party's review of "
        "the program is."
    )
    return partly(says, missing, *facts.signed)


def operations(facts: Facts) -> Finding:
    """What the plan lets leave a site."""
    stages = ", ".join(stage.kind for stage in facts.plan.stages)
    parts = sorted({item.method for item in facts.plan.release})
    says = (
        f"The plan, whose hash every site signs under, has the stages {stages} and releases images by "
        f"{', '.join(parts)}."
    )
    if facts.published is not None and facts.published.left_out:
        says += f" Left out of the set: {', '.join(sorted(facts.published.left_out))}."
    missing = "That nothing else left is a property of the installed program: no file of this study measured it."
    return partly(says, missing, facts.plan_source)


def purpose(facts: Facts) -> Finding:
    """What the set is for, as the plan says."""
    terms = facts.plan.publication
    if terms is None or terms.intended_use is None:
        return not_shown("The plan states no intended use of what is released (publication.intended_use).")
    missing = "That this purpose is lawful, and that patients' data may serve it, a person has to say."
    return partly(f"The plan states the intended use: {terms.intended_use}", missing, facts.plan_source)


def recipients(facts: Facts) -> Finding:
    """Who may have the set, and under which terms."""
    terms = facts.plan.publication
    if terms is None or terms.licence is None:
        return not_shown(
            "Neither recipients nor a licence are stated in the plan; what recipients know is assessed nowhere."
        )
    missing = (
        "Who receives the set, what they know besides, and how they are held to the terms is assessed nowhere here."
    )
    return partly(f"The plan states the licence {terms.licence}.", missing, facts.plan_source)


def contact(facts: Facts) -> Finding:
    """Whom to ask."""
    terms = facts.plan.publication
    if terms is None or terms.contact is None:
        return not_shown(
            "The plan names no contact (publication.contact), and no file names who is responsible for what."
        )
    return partly(
        f"The plan names a contact: {terms.contact}.",
        "Who is responsible for what is stated nowhere.",
        facts.plan_source,
    )


def cohort_size(facts: Facts) -> Finding:
    """How few patients a site may train on."""
    if facts.policy is None:
        return not_shown("The least number of patients is in each site's policy, which stays there.")
    policy, source = facts.policy
    says = (
        f"The site's policy asks for at least {policy.minimum_patients} patients and budget epsilon "
        f"{policy.budget.epsilon:g}."
    )
    return partly(says, "The policy file is the site's own and nobody signed it.", source)


def minimal(facts: Facts) -> Finding:
    """How much may leave."""
    asked = sum(item.most for item in facts.plan.release)
    says = f"The plan fixes what leaves before it is made: {asked} images a site at most, and arrays of fixed shapes."
    missing = "That so much is needed for the purpose is argued nowhere here."
    return partly(says, missing, facts.plan_source)


def utility(facts: Facts) -> Finding:
    """What the set is worth on real patients."""
    if facts.published is None or facts.published.utility is None:
        return not_shown("No figure of use on real patients is among the files.")
    auc, low, high, source = facts.published.utility
    span = f" (95 % interval {low:.3f} to {high:.3f})" if low is not None and high is not None else " (no interval)"
    says = f"A classifier trained on the set has AUC {auc:.3f}{span} on holdout patients, noised."
    missing = "Nothing is shown for groups of patients, for rare findings, or for other uses than this classifier's."
    return partly(says, missing, source)


def public_starts(facts: Facts) -> Finding:
    """Weights and networks that came from elsewhere."""
    names = sorted({*facts.plan.public_starts, *facts.plan.encoders})
    if given := sorted(given_models(facts.plan)):
        missing = "What their training cost is in that study's certificates, and in no epsilon of these."
        return partly(f"An earlier study's models were given: {', '.join(given)}.", missing, facts.plan_source)
    if not names:
        return shown("The plan begins with no weights from elsewhere.", facts.plan_source)
    missing = "That no patient of these sites is in what those weights were trained on is shown nowhere."
    return partly(f"The plan pins public weights by hash: {', '.join(names)}.", missing, facts.plan_source)


def choices(facts: Facts) -> Finding:
    """Whether settings were chosen by looking at patients."""
    says = "The numbers of the plan are fixed by its hash" + (
        ", and the choice among its models is a charged mechanism." if facts.plan.chooses else "."
    )
    missing = "Whether somebody looked at these patients before the plan was written is shown nowhere."
    return partly(says, missing, facts.plan_source)


def withdrawal(facts: Facts) -> Finding:
    """What becomes of a patient who withdraws."""
    return not_shown(
        "No file here records a request of a patient. What was released stays released: a withdrawal ends "
        "what is read from then on."
    )
