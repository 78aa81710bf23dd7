"""Sheets of what was admitted: the first images of each part of each site's release, for the page."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_common.errors import SfumatoError
from sfumato_common.files import write_atomic
from sfumato_common.imaging import decode_png
from sfumato_common.package.package import peek_images
from sfumato_common.pictures import grid, png
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part
from sfumato_server.intake.admission import package_path
from sfumato_server.status.sheets import FOLDER

log = logging.getLogger(__name__)
_ROWS, _COLUMNS = 2, 8


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
