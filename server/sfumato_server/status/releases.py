"""The releases of a study by site and part, as far as each site's policy lets it be told.

Nothing is asked for it: a part is here or not, and a site says that it works, that its stewards have the release (where
its policy tells that), or that it refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shards_at
from sfumato_common.study.words import Part
from sfumato_server.intake.admission import package_path

State = Literal["to come", "being made", "with its stewards", "admitted", "refused", "not released"]
# a part that is not here when its site was asked for its last
_AFTER = ("utility", "completed", "stopped")


def releases(root: Path, plan: Plan, board: Mapping[str, Any] | None) -> dict[str, dict[Part, State]]:
    """How each part of each site's release stands."""
    return {site: {part: _state(root, plan, site, part, board) for part in plan.parts_at(site)} for site in plan.sites}


def _state(root: Path, plan: Plan, site: str, part: Part, board: Mapping[str, Any] | None) -> State:
    stage = board["stage"] if board else ""
    said, code = (board["sites"].get(site), board["codes"].get(site)) if board else ("", "")
    if all(package_path(root, site, own, shard).exists() for own, shard in shards_at(plan, site) if own == part):
        return "admitted"
    if stage not in ("make", "send", *_AFTER):
        return "to come"
    if said == "review":
        return "with its stewards"
    if said == "refused" and code == "release-refused":
        return "refused"
    if stage in _AFTER or (stage == "send" and said == "done"):
        return "not released"
    return "being made" if said == "working" else "to come"
