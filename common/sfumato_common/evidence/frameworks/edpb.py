"""EDPB Opinion 28/2024 on AI models, with Guidelines 01/2025 on pseudonymisation beside it."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement

EDPB = Framework(
    "edpb",
    "EDPB Opinion 28/2024 on AI models, and Guidelines 01/2025",
    "Of the opinion its executive summary was read; paragraph numbers were not checked and none is given. "
    "Whether models "
    "or images are anonymous is for a supervisory authority to say, case by case: this dossier claims it nowhere.",
    (
        Requirement(
            "Question 1, extraction",
            "That personal data can be drawn out of the model itself must be unlikely to the point of being "
            "insignificant.",
            ("terms", "recomputed", "ceilings", "uncovered"),
            "summary read",
        ),
        Requirement(
            "Question 1, queries",
            "So must it be that personal data come out of what the model gives, meant or not.",
            ("uncovered", "attacks", "declared"),
            "summary read",
        ),
        Requirement(
            "Question 1, means",
            "Reckon with all means that somebody is reasonably likely to use.",
            ("motives", "attacks"),
            "summary read",
        ),
        Requirement(
            "Question 1, design",
            "Show how sources were chosen, data were reduced, and training protects people.",
            ("operations", "noise", "minimal", "public starts", "collection"),
            "summary read",
        ),
        Requirement(
            "Question 1, tests",
            "Show tests against the attacks of the day on people in the training data.",
            ("attacks", "automatic check"),
            "summary read",
        ),
        Requirement(
            "Question 1, documents",
            "Keep documents from which an authority can see that the measures work.",
            ("provenance", "audit trail", "officer"),
            "summary read",
        ),
        Requirement(
            "Questions 2 and 3",
            "If the basis is a legitimate interest, pass the three steps: interest, need, balance.",
            ("legal basis", "necessity", "harms"),
            "summary read",
        ),
        Requirement(
            "Question 4",
            "Ask what follows if the development was unlawful.",
            ("legal basis",),
            "summary read",
        ),
        Requirement(
            "Guidelines 01/2025",
            "State who could undo the pseudonyms, and how that is prevented.",
            ("pseudonyms",),
            "clause text not checked",
        ),
    ),
)
