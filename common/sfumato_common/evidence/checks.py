"""The table of checks: what a row of a framework may ask for, by name. A row that nothing here can show names why."""

from __future__ import annotations

from collections.abc import Mapping

from sfumato_common.evidence import privacy_checks as privacy
from sfumato_common.evidence import record_checks as record
from sfumato_common.evidence.finding import Check, absent

CHECKS: Mapping[str, Check] = {
    "terms": privacy.terms,
    "recomputed": privacy.recomputed,
    "within plan": privacy.within_plan,
    "all studies": privacy.all_studies,
    "two sites": privacy.two_sites,
    "ceilings": privacy.ceilings,
    "uncovered": privacy.uncovered,
    "declared": privacy.declared,
    "provenance": record.provenance,
    "audit trail": record.audit_trail,
    "approval": record.approval,
    "automatic check": record.automatic_check,
    "attacks": record.attacks,
    "noise": record.noise,
    "operations": record.operations,
    "purpose": record.purpose,
    "recipients": record.recipients,
    "contact": record.contact,
    "cohort size": record.cohort_size,
    "minimal": record.minimal,
    "utility": record.utility,
    "public starts": record.public_starts,
    "choices": record.choices,
    "withdrawal": record.withdrawal,
    "legal basis": absent("The legal basis of the processing is for the controller to state; no file here does."),
    "necessity": absent(
        "Why this processing, and no milder one, is needed is for the controller to argue; no file here does."
    ),
    "officer": absent("No advice of a data-protection officer is recorded here."),
    "patients' views": absent("No views of patients or of those who speak for them are recorded here."),
    "review": absent("No date of review and no duty to watch the set after its release is recorded here."),
    "incident": absent("No procedure for an incident is recorded here."),
    "roles": absent("Who checks outputs, who answers for what, and who may decide is recorded nowhere here."),
    "process": absent("No written process of disclosure control by the organisation is among the files."),
    "environment": absent(
        "The security of the machines, rooms and people at the sites and at recipients is recorded nowhere here."
    ),
    "collection": absent("How the sites collected, store and protect their patients' data is recorded nowhere here."),
    "harms": absent("What harm a disclosure would do to a patient of these cohorts is assessed nowhere here."),
    "groups": absent("How the set serves or wrongs groups of patients was measured in no file here."),
    "data": absent(
        "What the images show of patients beside their labels, such as faces, implants and burned-in text, "
        "is described nowhere here."
    ),
    "motives": absent("Who might attack the set, with what means and knowledge, is assessed nowhere here."),
    "pseudonyms": absent(
        "How sites pseudonymise their own records is recorded nowhere here; no record and no pseudonym is in "
        "the set's form."
    ),
    "inference": absent(
        "What may be inferred of a person from facts about the population is bounded by no epsilon, and was "
        "measured nowhere here."
    ),
    "unread": absent("The clause's text was not read, so that nothing is claimed for it."),
}
