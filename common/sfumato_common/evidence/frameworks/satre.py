"""SATRE, the Standard Architecture for Trusted Research Environments: capability 3.3, output management."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement

SATRE = Framework(
    "satre",
    "SATRE, output management (3.3)",
    "Numbers are written as version 2.0 writes them (3.3.07). The statements were read in version 1.0, which "
    "has eight of "
    "them (3.3.1 to 3.3.8); the text of 2.0 was not checked, and a ninth was not found. SATRE is about an "
    "environment and "
    "the people who run it: a release can show little of it.",
    (
        Requirement(
            "3.3.01", "Help to class outputs by how sensitive they are.", ("terms", "uncovered"), "read in version 1.0"
        ),
        Requirement(
            "3.3.02", "Settle at the start which outputs a project means to have.", ("operations", "purpose"), "read"
        ),
        Requirement(
            "3.3.03",
            "Have a written process of disclosure control for every output.",
            ("process",),
            "read in version 1.0",
        ),
        Requirement(
            "3.3.04", "Give named people the duty to check outputs.", ("roles", "approval"), "read in version 1.0"
        ),
        Requirement(
            "3.3.05",
            "Have a written rule for outputs that no person can check by eye, as models and large files are.",
            ("process",),
            "read in version 1.0",
        ),
        Requirement(
            "3.3.06",
            "Give the checker of outputs a statistical ground for the decision.",
            ("ceilings", "recomputed", "attacks"),
            "read in version 1.0",
        ),
        Requirement(
            "3.3.07",
            "Checks of common outputs may be automated in part; people are to stay in the decision.",
            ("automatic check", "approval"),
            "read in version 1.0",
        ),
        Requirement(
            "3.3.08", "Let no more out than sharing the results needs.", ("minimal", "necessity"), "read in version 1.0"
        ),
        Requirement(
            "3.3.09", "A statement of version 2.0 whose text was not found.", ("unread",), "clause text not checked"
        ),
    ),
)
