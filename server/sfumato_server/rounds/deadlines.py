"""How long a coordinator waits: operations, not the study, so that neither plan hash nor acceptance says them.

The plan states the least (`federation.round_deadline_s`); each `coordinator run` may wait longer. A site that is away
is waited for until the deadline, one that works until the limit of work.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfumato_common.errors import ConfigError
from sfumato_common.study.plan import Plan

WORK_HOURS, REVIEW_HOURS = 6.0, 168.0
GO_ON = "run again to go on: finished rounds and answers are kept, and nothing that was paid is charged again"


@dataclass(frozen=True)
class Deadlines:
    """Seconds from a question: `away_s` for sites that are not connected, `work_s` for those that work on it.

    `review_s` is for a release that people of a site have before them, where the site tells that.
    """

    away_s: float
    work_s: float
    review_s: float = 3600.0 * REVIEW_HOURS

    @classmethod
    def of(
        cls,
        plan: Plan,
        away_s: float | None = None,
        work_hours: float = WORK_HOURS,
        review_hours: float = REVIEW_HOURS,
    ) -> Deadlines:
        """The deadlines of one run. Raises ConfigError when `away_s` is less than the plan states."""
        least = plan.federation.round_deadline_s
        if away_s is not None and away_s < least:
            raise ConfigError(f"the deadline is less than the plan's least, {least} s; give --deadline {least} or more")
        away_s = float(least if away_s is None else away_s)
        work_s = max(away_s, 3600.0 * work_hours)
        return cls(away_s, work_s, max(work_s, 3600.0 * review_hours))
