"""What quality to expect: the nearest size of the coordinator's simulated studies (`sfumato plan advise`)."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from typing import Annotated

from pydantic import ConfigDict, Field

from sfumato_client.site.checks.finding import Finding, Subject
from sfumato_common.count_text import count_text
from sfumato_common.errors import ConfigError
from sfumato_common.strict import Strict, parse


class Size(Strict):
    """One size that was simulated: `auc` by repeat, `real` of as many real images."""

    model_config = ConfigDict(extra="ignore")

    sites: int
    patients: int
    auc: list[float]
    real: list[float]


class Advice(Strict):
    """What of `advice.json` a site reads; the rest is the coordinator's."""

    model_config = ConfigDict(extra="ignore")

    format: Annotated[str, Field(pattern="^sfumato-advice/1$")]
    plan_hash: str
    guess_limit: float
    sizes: list[Size]
    caution: str


def quality(subject: Subject) -> Iterator[Finding]:
    """The figure of the simulated study whose sites are nearest to this one's number of patients."""
    if subject.advice is None:
        yield Finding("skipped", "what quality to expect: ask the coordinator for its 'advice.json', and pass --advice")
        return
    try:
        advice = parse(json.loads(subject.advice.read_text()), Advice, subject.advice.name)
    except (OSError, ValueError):
        raise ConfigError(f"'{subject.advice.name}' is no 'advice.json' of 'sfumato plan advise'") from None
    plan = subject.plan
    if plan is not None and advice.plan_hash != plan.digest:
        yield Finding("wrong", "the advice is of another plan: ask the coordinator for the one of this plan")
        return
    ran = [size for size in advice.sizes if size.auc]
    if not ran or plan is None or subject.store is None:
        yield Finding("skipped", "what quality to expect: no images, no plan, or no simulated study that ran")
        return
    own = subject.store.cohort("train").patients
    near = min(ran, key=lambda size: (abs(size.patients - own), size.sites))  # of as many sites as can be, the fewest
    middle, least, most = statistics.median(near.auc), min(near.auc), max(near.auc)
    real = f", by as many real images {statistics.median(near.real):.3f}" if near.real else ""
    size = f"{count_text(near.sites, 'site')} with {count_text(near.patients, 'patient')}"
    said = (
        f"simulated studies of {size} each: AUC {middle:.3f} [{least:.3f}, "
        f"{most:.3f}] of a classifier that saw published images alone{real}. {advice.caution}"
    )
    if middle <= advice.guess_limit:
        yield Finding("note", f"{said} That is no better than a guess: ask for more patients, sites or epsilon")
    else:
        yield Finding("good", said)
