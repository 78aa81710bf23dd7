"""A data-protection impact assessment: Regulation (EU) 2016/679 (GDPR), Article 35."""

from __future__ import annotations

from sfumato_common.evidence.frameworks.base import Framework, Requirement

DPIA = Framework(
    "dpia",
    "Data-protection impact assessment (GDPR, Article 35)",
    "This fills what files can fill. The assessment itself is the controller's: what is not shown here, people write.",
    (
        Requirement("Art. 35(7)(a), operations", "Describe the processing operations.", ("operations",), "read"),
        Requirement("Art. 35(7)(a), purposes", "Describe what the processing is for.", ("purpose",), "read"),
        Requirement(
            "Art. 35(7)(b)",
            "Assess whether the operations are needed for the purposes, and in proportion to them.",
            ("necessity",),
            "read",
        ),
        Requirement(
            "Art. 35(7)(c), disclosure",
            "Assess the risk that what is released tells of a patient.",
            ("terms", "recomputed", "ceilings", "uncovered", "declared", "attacks", "two sites", "all studies"),
            "read",
        ),
        Requirement(
            "Art. 35(7)(c), other harm",
            "Assess other risks to the rights and freedoms of patients.",
            ("harms", "groups", "inference"),
            "read",
        ),
        Requirement(
            "Art. 35(7)(d), safeguards",
            "Name the safeguards against these risks, and how it is shown that they work.",
            ("noise", "within plan", "automatic check", "approval", "provenance", "audit trail"),
            "read",
        ),
        Requirement("Art. 35(7)(d), security", "Name the measures of security.", ("environment", "incident"), "read"),
        Requirement(
            "Art. 35(2)", "Take the advice of the data-protection officer.", ("officer",), "clause text not checked"
        ),
        Requirement(
            "Art. 35(9)",
            "Where fitting, ask patients or those who speak for them.",
            ("patients' views",),
            "summary read",
        ),
        Requirement("Art. 35(11)", "Look again when the risk changes.", ("review",), "summary read"),
        Requirement(
            "Art. 6 and 9", "Have a legal basis, for health data too.", ("legal basis",), "clause text not checked"
        ),
        Requirement("Art. 15 to 22", "Let patients use their rights.", ("withdrawal",), "clause text not checked"),
    ),
)
