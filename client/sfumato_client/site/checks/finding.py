"""What one look at a site found, and what all of them look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sfumato_client.dataset import IngestReport, SiteStore
from sfumato_client.site.home import SiteHome
from sfumato_common.study.plan import Plan

# 'skipped' was not looked at, and says why: it is no good news
State = Literal["good", "note", "wrong", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line: how something stands and, where it is wrong, what to do."""

    state: State
    said: str


@dataclass(frozen=True)
class Subject:
    """What is looked at: a home, and, where they were given, a plan, what a source would give, and a table of advice.

    `reach` is false where the network is to be left alone; `unread` is why a source that was given could not be read.
    """

    home: SiteHome
    plan: Plan | None = None
    report: IngestReport | None = None
    store: SiteStore | None = None
    advice: Path | None = None
    reach: bool = True
    unread: str = ""


Check = Callable[[Subject], Iterator[Finding]]
