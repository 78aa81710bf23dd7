"""What the coordinator's receipts say that a site has answered, against what its certificate says was paid for it.

Where sites join later a certificate tells of fewer rounds than the plan has. Were they fewer than it answered, its
patients would have paid more than the published set says.
"""

from __future__ import annotations

import json
from pathlib import Path

from sfumato_common.accounting.accountant import count_mechanisms
from sfumato_common.errors import VerificationError
from sfumato_common.protocol.answers import Answer, read_answers
from sfumato_common.study.certificate import Certificate, stated_tally
from sfumato_common.study.costs import release_total, stage_events
from sfumato_common.study.plan import Plan

FILE = "receipts.json"


def read_studies(path: Path) -> dict[str, dict[str, str]]:
    """The receipts file: answers by site, by the digest that parties of a study share; empty where there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def read_receipts(path: Path, plan: Plan) -> dict[str, set[Answer]]:
    """Answers of `plan`'s sites, by site."""
    return {site: set(read_answers(text)) for site, text in read_studies(path).get(plan.study_digest, {}).items()}


def check_answered(stated: Certificate, plan: Plan, site: str, home: Path) -> None:
    """Raise VerificationError where the certificate counts less than the answers of `site` that came to `home` cost."""
    stages = {stage.kind: stage for stage in plan.stages}
    answers = read_receipts(home / FILE, plan).get(site, set())
    trained = [stage_events(plan, stages[purpose])[number - 1] for purpose, number in answers if purpose in stages]
    if not count_mechanisms([*trained, *release_total(plan)]) <= stated_tally(stated.mechanisms.get("train", [])):
        raise VerificationError("the certificate counts fewer rounds of training than the site answered")
