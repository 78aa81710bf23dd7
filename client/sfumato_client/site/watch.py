"""Watching one question's work: how far it is, for the site's own people, and its end when it hangs.

To the coordinator a process that hangs looks like work: its node is connected, and the thread of its heartbeats lives.
So the site itself tells the two apart. Work that takes no step and next to no processor time for a quarter of an hour
hangs, however slow or loaded the machine is; its process ends, which Flower notices, and the coordinator asks again.
What was killed so is done again under its charge (`turns`), and nothing of it had left.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sfumato_client.egress.progress import hide_step, show_step
from sfumato_client.site.home import SiteHome
from sfumato_common.files import if_room, write_json
from sfumato_common.protocol.messages import Reply, Request
from sfumato_common.study.costs import stage_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy

log = logging.getLogger(__name__)
HUNG_SECONDS = 900.0
# the watch and the heartbeats themselves take about half a second in that time
_LEAST_CPU_SECONDS = 2.0
_TICK_SECONDS, _LONGEST_TICK_SECONDS = 1.0, 5.0
HUNG_CODE = 75


@dataclass
class Quiet:
    """For how long there was no sign of work: a step, or processor time of the process, all threads together."""

    limit_s: float
    step: int = 0
    cpu: float = 0.0
    lasted: float = 0.0

    def look(self, step: int, cpu: float, elapsed_s: float) -> bool:
        """Whether the work hangs, `elapsed_s` after the last look; a machine that slept in between counts little."""
        if step != self.step or cpu - self.cpu >= _LEAST_CPU_SECONDS:
            self.step, self.cpu, self.lasted = step, cpu, 0.0
        else:
            self.lasted += min(elapsed_s, _LONGEST_TICK_SECONDS)
        return self.lasted >= self.limit_s


class Watch:
    """The watch over one question, from its coming to its answer; keeps `work.json` in the home.

    `give_up` ends the process when the work hangs.
    """

    def __init__(self, home: SiteHome, request: Request, give_up: Callable[[int], None] = os._exit) -> None:
        self._home, self._start, self._give_up = home, time.monotonic(), give_up
        self._round_steps, self._interval, self._shown = 0, 0.0, False
        self._stage = request.stage if request.kind in ("stage", "sum-values") else ""
        now = round(time.time(), 1)
        self._said: dict[str, Any] = {
            **{"kind": request.kind, "stage": self._stage, "round": request.round, "rounds": 1},
            **{"step": None, "steps": None, "plan_hash": request.plan_hash, "study": ""},
            **{"state": "working", "code": "", "reference": "", "process": os.getpid(), "machine": os.uname().nodename},
            **{"began": now, "sign": now, "ended": None},
        }
        hide_step(home.link)
        self._write()

    def accept(self, plan: Plan, policy: Policy) -> None:
        """The question is of an accepted plan, whose steps a policy may show."""
        self._said["study"] = plan.study
        stages = [stage for stage in plan.stages if stage.kind == self._stage]
        if stages:
            self._said["rounds"], self._round_steps = len(stage_events(plan, stages[0])), stages[0].steps
        self._interval, self._shown = policy.answer_interval_s, policy.progress == "shown"
        self._write()
        self._log("asked")

    def launch(self) -> None:
        """The work is a job's, which waits for its turn or is at work: its own watch looks after it."""
        self._said["state"] = "launched"
        self._write()

    def end(self, reply: Reply) -> None:
        """The answer is leaving. The step was told on until now: that the work ended is not seen before."""
        hide_step(self._home.link)
        word = {"ok": "answered", "pending": "goes on", "review": "waits for a steward"}.get(reply.status, "refused")
        self._said |= {"state": word, "code": reply.code, "reference": reply.reference, "ended": round(time.time(), 1)}
        self._write()
        self._log(word)

    @contextlib.contextmanager
    def work(self, done: Callable[[], int], steps: int = 0) -> Iterator[None]:
        """Watch the body; `done` says how many steps are: of a stage's round, or of `steps`, which the plan says."""
        self._round_steps = steps or self._round_steps
        over = threading.Event()
        thread = threading.Thread(target=self._look, args=(done, over), name="watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _look(self, done: Callable[[], int], over: threading.Event) -> None:
        """The watch's thread: about once a second, and on the grid of answers."""
        quiet, last, grid = Quiet(HUNG_SECONDS, cpu=time.process_time()), time.monotonic(), 0
        while not over.wait(self._until_next_look()):
            step = done()
            now = time.monotonic()
            hangs = quiet.look(step, time.process_time(), now - last)
            last = now
            if quiet.lasted == 0.0 or step != (self._said["step"] or 0):
                self._note(step)
            point = math.floor((now - self._start) / self._interval) if self._interval else grid + 1
            if self._shown and self._round_steps and point > grid:
                with if_room():  # a full disk is told of by the work itself
                    show_step(self._home.link, step, self._round_steps)
                grid = point
            if hangs:
                self._end_hung()
                return

    def _until_next_look(self) -> float:
        """Seconds: not beyond the next point of the grid."""
        if not self._interval:
            return _TICK_SECONDS
        gone = time.monotonic() - self._start
        return min(_TICK_SECONDS, (math.floor(gone / self._interval) + 1) * self._interval - gone + 0.001)

    def _note(self, step: int) -> None:
        told = {"step": step, "steps": self._round_steps} if self._round_steps else {}
        self._said |= {"sign": round(time.time(), 1), **told}
        self._write()

    def _end_hung(self) -> None:
        log.error("no step and no processor time for %.0f s: the work hangs, and its process ends", HUNG_SECONDS)
        self._said |= {"state": "hung", "ended": round(time.time(), 1)}
        self._write()
        hide_step(self._home.link)
        self._give_up(HUNG_CODE)

    def _log(self, word: str) -> None:
        kept = ("kind", "stage", "round", "rounds", "study", "plan_hash", "code", "reference")
        fields = {"event": word, **{name: self._said[name] for name in kept}}
        what = f"{self._stage} round {self._said['round']}" if self._stage else self._said["kind"]
        log.info("%s: %s %s", word, what, self._said["code"], extra={"fields": fields})

    def _write(self) -> None:
        with if_room():
            write_json(self._home.work_file, self._said)
