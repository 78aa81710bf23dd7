"""Whose record is behind which image of DP-GLOW and CADP: a site tells nobody, and attacks in benches ask."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import numpy.typing as npt

from sfumato_client.anonymise import CandidateSet, Job, anonymise
from sfumato_client.anonymise.latents import Places, drawn_places


def anonymise_and_tell(job: Job) -> tuple[CandidateSet, npt.NDArray[np.int64] | None]:
    """The item's set, and the patient of every image [M], -1 where it is nobody's; None for methods without places."""
    found: list[Places] = []

    def note(own: Job) -> Places:
        found.append(drawn_places(own))
        return found[-1]

    # by name: the package's own `cadp` and `dp_glow` are the methods
    where = "sfumato_client.anonymise.{}.drawn_places"
    with patch(where.format("cadp"), note), patch(where.format("dp_glow"), note):
        made = anonymise(job)
    return made, found[0].patients if found else None
