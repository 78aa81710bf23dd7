"""NIST SP 800-226, Guidelines for Evaluating Differential Privacy Guarantees (March 2025)."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement

NIST = Framework(
    "nist-800-226",
    "NIST SP 800-226, evaluating differential privacy guarantees",
    "Rows follow the publication's pyramid, from its top to its ground, as its abstract and summaries describe it. "
    "Section numbers were not checked and none is given.",
    (
        Requirement(
            "Epsilon", "State the parameter, and what it means against attacks.", ("terms", "ceilings"), "summary read"
        ),
        Requirement(
            "Unit of privacy", "State whose data the guarantee protects.", ("terms", "two sites"), "summary read"
        ),
        Requirement(
            "Composition",
            "Add up what all releases from the same people cost.",
            ("within plan", "all studies"),
            "clause text not checked",
        ),
        Requirement("Utility", "Say what the noise leaves of the data's use.", ("utility",), "summary read"),
        Requirement("Bias", "Say what the noise does to small groups, and other bias.", ("groups",), "summary read"),
        Requirement(
            "Correct algorithms",
            "Show that the mechanisms are right and run as stated.",
            ("recomputed", "choices"),
            "summary read",
        ),
        Requirement(
            "Implementation",
            "Guard against weak random numbers, floating-point leaks and side channels.",
            ("noise",),
            "summary read",
        ),
        Requirement(
            "Machine learning and synthetic data",
            "Say what of the training the guarantee covers, public weights too.",
            ("operations", "public starts", "uncovered"),
            "clause text not checked",
        ),
        Requirement("Trust model", "Say who sees data before the noise.", ("operations", "provenance"), "summary read"),
        Requirement("Security", "Protect the data and who may reach them.", ("environment",), "summary read"),
        Requirement("Data collection", "Say what collecting the data exposes.", ("collection",), "summary read"),
    ),
)
