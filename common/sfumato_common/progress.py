"""How far long work is, for whoever started it: a bar on a terminal, and elsewhere a line now and then.

Off a terminal nothing is said of work that ends within half a minute, so that the output of short commands is what it
was. Lines go to standard error: standard output is for results.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from sfumato_common.command_line import complaints, console, duration_text, say
from sfumato_common.logs import log_form

LINE_SECONDS = 30.0
_LONGEST_BEAT_S = 900.0
_TICK_SECONDS, _LAST_LOOK_S = 0.5, 10.0


class Tell(Protocol):
    """Told of what is done, of how much there is to do, and what to call it where that is more than at first."""

    def __call__(self, done: int, total: int, said: str = "") -> None:
        """So much is done."""
        ...


@contextmanager
def shown(what: str, quiet: bool = False) -> Iterator[Tell]:
    """Show how far `what` is while the body runs; yields what is told of what is done. `quiet` shows nothing."""
    if quiet or not console.is_terminal:
        yield _lines(what, quiet or log_form() == "json")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total, said="": progress.update(task, completed=done, total=total, description=said or what)


@contextmanager
def images_shown(what: str, total: int, visible: bool) -> Iterator[Callable[[int], None]]:
    """As `shown`, of `total` images; what it yields is told of images as they are done."""
    with shown(what, quiet=not visible) as tell:
        done = 0

        def more(images: int) -> None:
            nonlocal done
            done += images
            tell(done, total)

        tell(0, total)
        yield more


@contextmanager
def busy(what: str, quiet: bool = False) -> Iterator[None]:
    """Show, on a terminal, that `what` goes on and for how long: of work that cannot say how far it is."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as progress:
        progress.add_task(what, total=None)
        yield


def _lines(what: str, quiet: bool, clock: Callable[[], float] = time.monotonic) -> Tell:
    begun = last = clock()

    def tell(done: int, total: int, said: str = "") -> None:
        nonlocal last
        now = clock()
        if quiet or now - last < LINE_SECONDS:
            return
        last = now
        left = f", about {duration_text((now - begun) * (total - done) / done)} left" if done else ""
        complaints.print(f"{said or what}: {done} of {total}{left}", markup=False, soft_wrap=True)

    return tell


@contextmanager
def ticking(look: Callable[[], None], name: str) -> Iterator[None]:
    """Call `look` twice a second from a thread while the body runs, and once when it has ended.

    `look` is for the eye, and raises nothing. Where it still waits, 10 s after the end, for what another process holds,
    it is not called again.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_TICK_SECONDS):
            look()

    thread = threading.Thread(target=watch, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_LOOK_S)
        if not thread.is_alive():
            look()


def say_dated(line: str, log: logging.Logger) -> None:
    """One line on stdout, with the time; in a log of JSON one of its lines."""
    if log_form() == "json":
        log.info(line, extra={"fields": {"event": "console"}})
    else:
        say(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}")


class Lines:
    """Says what changed, line by line: of facts by key, and a sign of life, more seldom the longer nothing changes."""

    def __init__(self, say: Callable[[str], None], beat_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._beat_s, self._clock = say, beat_s, clock
        self._known: dict[str, str] = {}
        self._spoke, self._beats = clock(), 0

    def tell(self, facts: dict[str, str], beat: Callable[[], str], beat_s: float | None = None) -> None:
        """Say the facts that are new; where none is, and nothing was said for `beat_s`, what `beat` gives.

        A fact that differs by its durations alone is no news.
        """
        fresh = [line for key, line in facts.items() if _without_clock(line) not in self._said(key)]
        self._known = {key: _without_clock(line) for key, line in facts.items()}
        usual = self._beat_s if beat_s is None else beat_s
        self._beats = 0 if fresh else self._beats
        if not fresh and self._clock() - self._spoke >= min(usual * 2**self._beats, max(usual, _LONGEST_BEAT_S)):
            fresh, self._beats = [beat()], self._beats + 1
        for line in fresh:
            self._say(line)
            self._spoke = self._clock()

    def _said(self, key: str) -> set[str]:
        """What would repeat: the same fact, or for sentences in a list any of the list."""
        whole = key.rstrip("0123456789")
        return {line for other, line in self._known.items() if other.rstrip("0123456789") == whole}


def _without_clock(line: str) -> str:
    return re.sub(r"\b\d+ (s|min|h|days)( \d+ (min|h))?\b", "#", line)
