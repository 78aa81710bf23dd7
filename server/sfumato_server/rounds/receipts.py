"""What each site has answered, on the coordinator's disk as soon as it came: told to the site with every question.

A site that was restored from a backup learns by it that its ledger is behind, before it charges or sends anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from sfumato_common.files import write_json
from sfumato_common.protocol.answers import write_answers
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shards_at
from sfumato_common.study.words import Part
from sfumato_server.enrol.answered import read_receipts, read_studies


class Receipts:
    """Answers of `plan`'s sites in a file; `packages` names the shards of its release that a site has delivered."""

    def __init__(self, path: Path, plan: Plan, packages: Callable[[str], Collection[tuple[Part, int]]]) -> None:
        self._path, self._plan, self._packages = path, plan, packages
        self._found = read_receipts(path, plan)

    def follow(self, plan: Plan) -> None:
        """Sites were admitted: `plan` has them."""
        self._plan = plan

    def note(self, site: str, purpose: str, number: int) -> None:
        """An answer of `site` came; durable when this returns."""
        answers = self._found.setdefault(site, set())
        if (purpose, number) not in answers:
            answers.add((purpose, number))
            told = {name: write_answers(found) for name, found in self._found.items()}
            write_json(self._path, {**read_studies(self._path), self._plan.study_digest: told})

    def told(self, site: str) -> str:
        """What `site` is told of its own answers."""
        # a part of which anything is here has left the site
        parts = {(part, 1) for part, _ in self._packages(site)}
        return write_answers(self._found.get(site, set()) | parts)

    def delivered(self) -> set[str]:
        """The sites that delivered every part of their release."""
        return {site for site in self._plan.sites if set(self._packages(site)) >= set(shards_at(self._plan, site))}
