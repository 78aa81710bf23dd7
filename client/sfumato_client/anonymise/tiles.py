"""Contact sheets of what a method started from and what it made, for the steward: never part of a package."""

from __future__ import annotations

from collections.abc import Sequence

from sfumato_client.anonymise.contract import Job
from sfumato_common.files import write_atomic
from sfumato_common.pictures import Tile, mosaic, png
from sfumato_common.study.release import AnyItem

MOST_ROWS = 8  # groups or walks on a sheet


def write_sheet(job: Job[AnyItem], rows: Sequence[Sequence[Tile]]) -> None:
    """Rows of images [S, S(, 3)] as <method>-<model>.png in the steward's folder, readable by its owner alone."""
    assert job.steward_folder is not None, "a sheet is made only where it may be left"
    picture = mosaic(rows, columns=max(map(len, rows)), least_width=0)
    write_atomic(job.steward_folder / f"{job.item.method}-{job.item.model}.png", png(picture), mode=0o600)
