"""The releases of a study by site and part, as far as each site's policy lets it be told; and sheets of what came.

Nothing is asked for it: a part is here or not, and a site says that it works, that its stewards have the release (where
its policy tells that), or that it refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sfumato_common.errors import SfumatoError
from sfumato_common.files import write_atomic
from sfumato_common.imaging import decode_png
from sfumato_common.package.package import peek_images
from sfumato_common.study.plan import Plan
from sfumato_common.study.shards import shards_at
from sfumato_common.study.words import Part
from sfumato_server.intake.admission import package_path
from sfumato_server.pictures import grid, png
from sfumato_server.status.sheets import FOLDER

log = logging.getLogger(__name__)
State = Literal["to come", "being made", "with its stewards", "admitted", "refused", "not released"]
_ROWS, _COLUMNS = 2, 8
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


def admitted_sheets(root: Path, plan: Plan) -> list[dict[str, Any]]:
    """A small sheet of every part that was admitted: its file, which is drawn once, its site and part."""
    found = []
    for site in plan.sites:
        for part in plan.parts_at(site):
            package = package_path(root, site, part)
            if package.exists() and (file := _sheet(root, site, part, package)):
                found.append({"site": site, "part": part, "file": file})
    return found


def _sheet(root: Path, site: str, part: Part, package: Path) -> str:
    """The sheet's file; '' where it cannot be drawn, which is logged: it is for the eye."""
    file = f"admitted-{site}-{part}.png"
    target = root / FOLDER / file
    try:
        if not target.exists() or target.stat().st_mtime < package.stat().st_mtime:
            images = [decode_png(image) for image in islice(peek_images(package), _ROWS * _COLUMNS)]
            blank = np.zeros_like(images[0])
            images += [blank] * (-len(images) % _COLUMNS)
            write_atomic(target, png(grid(np.stack(images), _COLUMNS)))
    except (SfumatoError, OSError, ValueError, IndexError):
        log.exception("no sheet of the %s part of %s; the study goes on", part, site)
        return ""
    return file
