"""TEHDAS2's guideline on data minimisation, pseudonymisation, anonymisation and synthetic data, for the EHDS."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement

TEHDAS2 = Framework(
    "tehdas2",
    "TEHDAS2 guideline on data minimisation, pseudonymisation, anonymisation and synthetic data",
    "Of the guideline (doi 10.5281/zenodo.20269109) only the abstract and the project's own summary were "
    "read. Rows are "
    "themes and not clauses.",
    (
        Requirement(
            "Minimisation",
            "Process no more than the purpose needs, by who, what, when, where and how.",
            ("minimal", "necessity", "purpose"),
            "summary read",
        ),
        Requirement(
            "Pseudonymisation",
            "Treat pseudonymised data as personal data, and guard what would undo it.",
            ("pseudonyms",),
            "summary read",
        ),
        Requirement(
            "Anonymisation",
            "Before results are shared widely, show that nobody can be identified.",
            ("terms", "ceilings", "attacks", "uncovered"),
            "summary read",
        ),
        Requirement(
            "Synthetic data",
            "Assess what synthetic data tell of the people that they were made from.",
            ("recomputed", "ceilings", "attacks", "declared", "inference"),
            "summary read",
        ),
        Requirement(
            "Use", "Choose the safeguard by the intended use.", ("purpose", "utility", "recipients"), "summary read"
        ),
        Requirement(
            "Export of results",
            "Control what leaves the secure environment, up to the export.",
            ("automatic check", "approval", "provenance"),
            "summary read",
        ),
    ),
)
