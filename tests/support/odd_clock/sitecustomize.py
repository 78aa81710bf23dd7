"""Another clock for every Python process that has this folder on its PYTHONPATH: `ODD_CLOCK_S` seconds off."""

import datetime
import os
import sys
import time

_seconds, _time = float(os.environ["ODD_CLOCK_S"]), time.time


class _Datetime(datetime.datetime):
    """As the standard library's, by the other clock."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls):
        return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)


def _odd_time():
    # gRPC's Python half hands times to its C half, which has the machine's own clock here
    caller = sys._getframe(1).f_globals.get("__name__", "")
    return _time() + (0.0 if caller.startswith("grpc.") else _seconds)


time.time = _odd_time
time.time_ns = lambda: int(time.time() * 1e9)
datetime.datetime = _Datetime
