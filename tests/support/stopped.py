"""Studies that stop where a test wants it: before the release, or at a write as if the power were cut there."""

import os

import pytest

from sfumato_common import files
from sfumato_server.coordinator.study import run_study


class PowerCut(BaseException):
    """Nothing after it is done."""


def run_until(federation, kind, number=0):
    """Run the study until it asks a question of that kind and round, which nobody hears."""
    exchange = federation.exchange

    def until(requests, *rest):
        asked = next(iter(requests.values()))
        if asked.kind == kind and asked.round == number:
            raise PowerCut
        return exchange(requests, *rest)

    federation.exchange = until
    with pytest.raises(PowerCut):
        run_study(federation.coordinator, federation, classifier_steps=5)
    federation.exchange = exchange


def stop_before_release(federation):
    """Run a federation's study until it would ask for the release; the requests for it, by site."""
    exchange, asked = federation.exchange, {}

    def until_the_release(requests, *rest):
        asked.update(requests)
        if next(iter(requests.values())).kind == "make":
            raise RuntimeError("power cut")
        return exchange(requests, *rest)

    federation.exchange = until_the_release
    assert run_study(federation.coordinator, federation, seed=1, classifier_steps=5) == "stopped"
    federation.exchange = exchange
    return asked


def die_at_write(steps):
    """End this process, a test's fork, with code 9 before the write of number `steps`."""
    left, replace = [steps], os.replace

    def dying(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
        return replace(*args, **kwargs)

    files.os.replace = dying
