"""The ledger under kill -9 at chosen system calls: always readable, never a touched patient without a charge.

A child opens the ledger and goes round: reserve, touch the data (a durable mark), settle. It is traced (ptrace(2)) and
killed as it enters or leaves its n-th system call, so the points lie on every write, flush and rename of SQLite and of
the head, not only where a clock happens to strike. All kills hit one ledger: what one broke, the next would see.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sfumato_client.ledger import Ledger, Terms
from sfumato_common.accounting.events import Declared
from sfumato_common.files import write_atomic
from sfumato_common.mechanisms.noise import SecureNoise
from sfumato_common.study.policy import Budget

BIT, NOISE = Declared("a bit", 1), SecureNoise()
BUDGET = Budget(epsilon=10.0, delta=1e-5)
PLAN_HASH, ROUNDS_A_RUN = "ab" * 32, 10_000
STUDY = "s" * 3_000  # so that each entry changes several of SQLite's pages, and a kill can come between two
_TRACEME, _SYSCALL, _SETOPTIONS, _EXITKILL = 0, 24, 0x4200, 0x100000
fork = multiprocessing.get_context("fork")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="traces a child as Linux does")


def open_ledger(path):
    return Ledger.open(path, BUDGET, site="north")


def reserve(ledger, number):
    return ledger.reserve(study=STUDY, plan_hash=PLAN_HASH, purpose="gan", round=number, cohort="train", event=BIT)


def touch(marks, number):
    """The moment from which on the patients have paid, on disk."""
    write_atomic(marks / str(number), b"data touched")


def charge_then_touch(path, marks, first, rounds=ROUNDS_A_RUN):
    with open_ledger(path) as ledger:
        for number in range(first, first + rounds):
            with ledger.charged(Terms(STUDY, PLAN_HASH, "gan", number, "train", BUDGET), [BIT], NOISE) as charge:
                touch(marks, number)
                charge.seal(b"released")


def touch_then_charge(path, marks, first, rounds=ROUNDS_A_RUN):
    """The mistake that the ledger must not make."""
    with open_ledger(path) as ledger:
        for number in range(first, first + rounds):
            touch(marks, number)
            ledger.settle(reserve(ledger, number), "0" * 64)


def _ptrace(request, pid, data=0):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, pid, None, data) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


def traced(work, *, killed_at=None):
    """Run `work` in a child and kill it at that stop, each system call being two stops: entered, left.

    Returns the number of stops, up to the kill or to the end of `work`.
    """
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            work()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        pytest.skip("this machine lets nobody trace a child")
    _ptrace(_SETOPTIONS, child, _EXITKILL)
    for stop in itertools.count(1):
        _ptrace(_SYSCALL, child)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return stop - 1
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTRAP
        if stop == killed_at:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return stop
    raise AssertionError


@dataclass
class Site:
    """A ledger, the marks of touched data, and what has to hold after every crash."""

    root: Path
    runs: int = 0
    charged: set[int] = field(default_factory=set)

    def __post_init__(self):
        self.path, self.marks = self.root / "ledger.sqlite", self.root / "marks"
        self.marks.mkdir(parents=True)

    def work(self, loop, **more):
        self.runs += 1
        first = self.runs * ROUNDS_A_RUN
        return lambda: loop(self.path, self.marks, first, **more)

    def touched(self):
        return {int(mark.name) for mark in self.marks.iterdir() if not mark.name.startswith(".")}

    def check(self):
        """Readable, whole, nothing lost, nothing touched without a charge, at most one charge too many; and usable."""
        with open_ledger(self.path) as ledger:
            ledger.verify()
            charged = {entry.round for entry in ledger.entries()}
            assert charged >= self.charged, "a charge was lost"
            assert charged >= self.touched(), "data was touched and nobody paid"
            assert len(charged - self.charged - self.touched()) <= 1
            number = (self.runs + 1) * ROUNDS_A_RUN - 1
            ledger.settle(reserve(ledger, number), "0" * 64)
        self.charged = charged | {number}


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path / "site")


def spread(span, count):
    """`count` different points from 1 to `span`, evenly."""
    assert span >= count
    return [1 + index * span // count for index in range(count)]


def kill_at_system_calls(site, loop, count):
    # an opening and three rounds, whose length in system calls is counted first
    span = traced(site.work(loop, rounds=3))
    site.check()
    for point in spread(span, count):
        assert traced(site.work(loop), killed_at=point) == point
        site.check()


def kill_at_moments(site, count, chance):
    for _ in range(count):
        child = fork.Process(target=site.work(charge_then_touch))
        child.start()
        # at a random round and a random moment within it
        wanted, deadline = len(site.touched()) + chance.randrange(5), time.monotonic() + 20
        while len(site.touched()) < wanted and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.01))
        os.kill(child.pid, signal.SIGKILL)
        child.join(5)
        assert child.exitcode == -signal.SIGKILL
        site.check()


@linux
def test_killed_at_20_system_calls_the_ledger_counts_everything(site):
    kill_at_system_calls(site, charge_then_touch, 20)
    assert len(site.touched()) > 10  # the kills reached into the rounds, not only into the opening


def test_killed_at_any_moment_the_ledger_counts_everything(site):
    kill_at_moments(site, 6, random.Random(5))


@pytest.mark.slow
@pytest.mark.timeout(600)
@linux
def test_killed_at_200_system_calls_and_50_moments_the_ledger_counts_everything(site):
    kill_at_system_calls(site, charge_then_touch, 200)
    kill_at_moments(site, 50, random.Random(6))
    assert len(site.charged) > 250


@linux
def test_killed_while_it_is_first_made_the_ledger_can_be_made_again(tmp_path):
    span = traced(Site(tmp_path / "whole").work(charge_then_touch, rounds=0))
    for point in spread(span, 20):
        site = Site(tmp_path / str(point))
        traced(site.work(charge_then_touch), killed_at=point)
        site.check()


@linux
def test_the_wrong_order_is_caught(site):
    with pytest.raises(AssertionError, match="nobody paid"):
        kill_at_system_calls(site, touch_then_charge, 40)
