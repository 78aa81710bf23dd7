"""ISO/IEC 27559:2022, privacy enhancing data de-identification framework."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement

ISO27559 = Framework(
    "iso-27559",
    "ISO/IEC 27559:2022, data de-identification framework",
    "Of the standard its table of contents was read, and no clause's text. What a row asks is read off its heading.",
    (
        Requirement(
            "6.2.2",
            "Security and privacy practices of who receives the data.",
            ("recipients", "environment"),
            "heading read",
        ),
        Requirement("6.2.3", "Motives and capacity to re-identify.", ("motives",), "heading read"),
        Requirement(
            "6.3.2", "Openness about what is done, and engagement.", ("patients' views", "contact"), "heading read"
        ),
        Requirement("6.3.3", "Harm to privacy.", ("harms",), "heading read"),
        Requirement(
            "7.2", "Features of the data: people, types, attributes, set.", ("data", "cohort size"), "heading read"
        ),
        Requirement("7.3.2", "The largest or the average risk.", ("terms", "ceilings"), "heading read"),
        Requirement(
            "7.3.3", "Attacks with knowledge of a population or a sample.", ("ceilings", "attacks"), "heading read"
        ),
        Requirement("7.3.4", "Privacy models.", ("terms", "recomputed", "uncovered"), "heading read"),
        Requirement(
            "8.2.2", "Quantify how identifiable people are.", ("ceilings", "uncovered", "declared"), "heading read"
        ),
        Requirement("8.2.3", "Test as an adversary would.", ("attacks", "automatic check"), "heading read"),
        Requirement("8.3.2", "Reduce risk by the environment.", ("environment", "recipients"), "heading read"),
        Requirement("8.3.3", "Reduce risk by transforming the data.", ("noise", "within plan"), "heading read"),
        Requirement("8.3.4", "Evaluate again.", ("review",), "heading read"),
        Requirement("9.2.2", "Assign roles and duties.", ("roles", "contact"), "heading read"),
        Requirement("9.2.3", "Principles, policies and procedures.", ("process", "cohort size"), "heading read"),
        Requirement("9.2.4", "Identify and manage a disclosure of data.", ("approval", "audit trail"), "heading read"),
        Requirement("9.2.5", "Speak with those concerned.", ("patients' views", "contact"), "heading read"),
        Requirement("9.3.2", "Watch the environment of the data afterwards.", ("review",), "heading read"),
        Requirement("9.4", "Act when something has happened.", ("incident",), "heading read"),
    ),
)
