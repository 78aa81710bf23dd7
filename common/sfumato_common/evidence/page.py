"""The dossier as one HTML file that needs nothing from outside, no script; light and dark, on a phone and on paper."""

from __future__ import annotations

from pathlib import Path

from sfumato_common.evidence.dossier import Dossier
from sfumato_common.evidence.finding import ORDER
from sfumato_common.files import write_atomic
from sfumato_common.pages import html_templates

_WHO = {"coordinator": "what the coordinator can show", "site": "what this site can show"}


def render(dossier: Dossier) -> str:
    """The page; every text is escaped. What is not shown stands first."""
    environment = html_templates("sfumato_common.evidence")
    environment.filters["place"] = _place
    checks = sorted(dossier.checks.items(), key=lambda item: ORDER.index(item[1].status))
    counted = [(status.capitalize(), f"{dossier.counts.get(status, 0)} rows") for status in ORDER]
    return environment.get_template("dossier.html.j2").render(
        dossier=dossier,
        who=_WHO[dossier.side],
        facts=[*counted, ("Made", dossier.made), ("Plan", dossier.plan_hash[:16])],
        sections=_sections(dossier),
        asked_by={name: _asked_by(name, dossier) for name in dossier.checks},
        gaps=[(name, check) for name, check in dossier.checks.items() if check.status == "not shown"],
        found=[(name, check) for name, check in checks if check.status != "not shown"],
    )


def write_dossier(dossier: Dossier, folder: Path) -> None:
    """The page and the JSON in `folder`: dossier.html and dossier.json; a site's for its owner alone."""
    mode = 0o600 if dossier.side == "site" else 0o644
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "dossier.json", dossier.encode(), mode)
    write_atomic(folder / "dossier.html", render(dossier), mode)


def _sections(dossier: Dossier) -> list[tuple[str, str]]:
    """The places of the page and their names, in order."""
    decisions = [] if dossier.decisions is None else [("decisions", "What stewards decided")]
    frameworks = [(one.key, one.title) for one in dossier.frameworks]
    return [
        ("not-shown", "Not shown"),
        ("found", "What the evidence says"),
        *decisions,
        *frameworks,
        ("evidence", "Evidence"),
    ]


def _asked_by(name: str, dossier: Dossier) -> list[str]:
    """The rows that a check speaks to."""
    return [f"{one.key} {row.clause}" for one in dossier.frameworks for row in one.rows if name in row.checks]


def _place(name: str) -> str:
    return "c-" + "".join(sign if sign.isalnum() else "-" for sign in name)
