"""When answers leave: only at whole multiples of an interval after the question came.

How long a job took depends on how much data there is (a timing channel; Kocher 1996). The grid leaves of it what the
number of intervals tells; the interval is the site's own choice (`answer_interval_s` in its policy).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class Pace:
    """Started when a question comes; `hold` before anything leaves."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._start = clock()

    def hold(self, interval_s: float) -> None:
        """Wait until the next whole multiple of `interval_s` seconds since the start; 0 does not wait."""
        if interval_s <= 0:
            return
        elapsed = self._clock() - self._start
        self._sleep(max(1, math.ceil(elapsed / interval_s)) * interval_s - elapsed)
