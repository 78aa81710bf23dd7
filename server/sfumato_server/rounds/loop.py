"""The round loop of a study: join, stages, release, utility; every exchange with a quorum and a deadline.

It never waits without end and never redoes a finished round: after a restart it goes on from the last checkpoint. A
site that refuses, is silent, or answers what its patients cannot have led to is left out of that exchange, and is asked
the next; below the quorum the study stops and says why.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from sfumato_common.errors import BusyError, FederationError, LedgerError, NoRoomError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.settings import StageSettings
from sfumato_common.metrics.choice import Choice
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request, RequestKind
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan
from sfumato_common.study.summed import is_summed
from sfumato_common.types import AnyArray, Arrays, Schema
from sfumato_server.rounds.absorbing import absorb_replies, round_draws
from sfumato_server.rounds.answers import Answers, Check, Keep
from sfumato_server.rounds.channel import Channel, lost
from sfumato_server.rounds.checkpoint import Checkpoints
from sfumato_server.rounds.deadlines import Deadlines
from sfumato_server.rounds.outgoing import Holdings, Outgoing, release_arrays, stage_arrays
from sfumato_server.rounds.patience import Losses, Patience, final_replies
from sfumato_server.rounds.progress import Progress
from sfumato_server.rounds.quorum import log_exchange, require_quorum
from sfumato_server.rounds.receipts import Receipts
from sfumato_server.rounds.strategies import Choosing, Strategy, Summing, made_again, strategy_of
from sfumato_server.rounds.summing import checked_release, sum_over_sites
from sfumato_server.rounds.waiting import ReleaseClock

log = logging.getLogger(__name__)
# how often a site may be away before it began its release
_ABSENCES = 2
_FULL = NoRoomError.wire_code  # somebody has to see to that first: waited for until the deadline
# refusals that a person at the site can end while the study runs
_PASSING = {_FULL, BusyError.wire_code, LedgerError.wire_code}
# questions whose answers are charged before they leave
_CHARGED = ("stage", "utility", "sum-values")
NOTHING: Schema = {}
Released = dict[str, dict[str, AnyArray]]


@dataclass
class StudyRun:
    """One study under way: the plan, the channel to the sites, its checkpoints and who watches."""

    plan: Plan
    channel: Channel
    checkpoints: Checkpoints
    progress: Progress
    seed: int
    deadlines: Deadlines
    receipts: Receipts
    sleep: Callable[[float], None] = time.sleep
    current: Callable[[], Plan] | None = None  # the plan as it stands: sites may be admitted while the study runs
    accepted: set[str] = field(default_factory=set)
    released: Released = field(default_factory=dict)
    choice: Choice | None = None
    patience: Patience = field(default_factory=Patience)
    holdings: Holdings = field(default_factory=Holdings)

    def join(self) -> None:
        """Wait for the sites (all, or the quorum at the deadline) and ask each whether it accepted this plan.

        One that refuses is asked nothing more; one that comes later, or did not answer, is asked the next thing.
        """
        terms = self.plan.federation
        for stage in self.plan.stages:
            if done := self.checkpoints.finished(stage.kind, stage.rounds):
                self.progress.resume(stage.kind, done)
        end = time.monotonic() + terms.join_deadline_s
        while time.monotonic() < end:
            online = self.channel.online()
            for site in online:
                self.progress.site(site, "online")
            if online >= set(self.plan.sites):
                break
            self.sleep(0.5)
        if len(self.channel.online()) < terms.quorum:
            raise FederationError(
                f"only {len(self.channel.online())} of the {terms.quorum} sites of the quorum joined within "
                f"{terms.join_deadline_s} s; start the missing sites or lower federation.quorum"
            )
        replies = self.ask("hello", {}, self.channel.online())
        refused = {site for site, reply in replies.items() if reply.reference and reply.code not in _PASSING}
        self.accepted = set(self.plan.sites) - refused

    def train(self) -> None:
        """Run every stage of the plan, each from the released models of the earlier ones."""
        for stage in self.plan.stages:
            self._follow()
            if stage.kind in given_models(self.plan):
                # sites are asked nothing for it, and pay nothing: an earlier plan did
                self.progress.model(stage.kind, stage.rounds, self.released[stage.kind])
                continue
            strategy = strategy_of(self.plan, stage, self.released)
            done, state = self.checkpoints.latest(stage.kind, stage.rounds)
            if done:
                strategy.restore(state)
            for number in range(done + 1, stage.rounds + 1):
                if self._follow():
                    strategy = made_again(self.plan, stage, self.released, strategy.state() if number > 1 else None)
                strategy = self._run_round(stage, strategy, number)
                released = strategy.released()
                self.checkpoints.save(stage.kind, number, strategy.state(), released)
                self.progress.model(stage.kind, number, released)
            self.released[stage.kind] = dict(strategy.released())
            if isinstance(strategy, Choosing):
                self.choice = strategy.choice()
                self.progress.choose(self.choice.winner)
            self.checkpoints.finish(stage.kind, self.released[stage.kind])

    def _follow(self) -> bool:
        """Take over the plan as it stands now; whether sites were admitted, which are asked from here on."""
        plan = self.current() if self.current else self.plan
        if not (new := plan.sites.keys() - self.plan.sites.keys()):
            return False
        log.info("%s joined the study", ", ".join(sorted(new)))
        self.plan, self.accepted = plan, self.accepted | new
        self.progress.follow(plan)
        self.receipts.follow(plan)
        return True

    def _run_round(self, stage: StageSettings, strategy: Strategy, number: int) -> Strategy:
        """One round: the strategy after it. Raises FederationError when fewer replies than the quorum are of use."""
        if is_summed(self.plan, stage.kind):
            return self._run_sum(stage, strategy)
        record = EXCHANGES[stage.kind]
        with self.checkpoints.spool() as spool:
            replies = self.ask(
                "stage",
                stage_arrays(self.plan, record.sent(self.plan), partial(strategy.outbound, number)),
                stage=stage.kind,
                number=number,
                schema=record.returned(self.plan),
                check=partial(record.check_reply, self.plan),
                keep=spool.keep,
            )
            good = {site for site, reply in replies.items() if reply.status == "ok"}
            earlier = [value for model in self.released.values() for value in model.values()]
            # the same in every run of this home: done again, a round leads to the next question that sites answered
            draws = round_draws(self.seed, stage.kind, number)
            strategy, broken = absorb_replies(strategy, number, good, spool, draws, earlier)
        for site in sorted(broken):
            self._note(site, lost("bad-reply"))
        if len(good) - len(broken) < self.plan.federation.quorum:
            raise FederationError(
                f"'{stage.kind}' round {number}: the replies of {', '.join(sorted(broken))} cannot be used, and the "
                "others are fewer than the quorum"
            )
        return strategy

    def _run_sum(self, stage: StageSettings, strategy: Strategy) -> Strategy:
        """A stage that leaves sites as a sum alone: the strategy after it. Raises FederationError as a round does."""
        assert isinstance(strategy, Summing), "a stage that is summed has a strategy that takes a sum"
        own, willing = strategy.outbound(1, ""), self.accepted & self.channel.online()
        pooled = sum_over_sites(self, stage.kind, self.checkpoints.sums, own, willing)
        release = checked_release(self.plan, stage.kind, pooled)
        strategy.absorb_sum(release, pooled, round_draws(self.seed, stage.kind, 1))
        return strategy

    def release(self) -> set[str]:
        """Let every site make its release from the final models, then collect what is ready; the sites that sent.

        A site that is still at work says so and is asked again, and so is one that the question did not reach, or whose
        package did not arrive, after a longer pause the longer nothing changes. One that says nothing is not waited
        for, one whose answers are broken not for ever, one that went away only where it has begun, until the deadline,
        and one that says that its stewards have the release for days. Raises FederationError when fewer sites than the
        quorum sent anything.
        """
        chosen = self.choice.winner if self.choice and self.plan.has_best else ""
        models = {chosen if item.model == "best" else item.model for item in self.plan.release} | {self.plan.base}
        arrays = release_arrays(self.plan, {kind: self.released[kind] for kind in sorted(models)})
        begun, sent, refused, tries = set[str](), self.receipts.delivered(), dict[str, Reply](), Counter[str]()
        clock = ReleaseClock(self.deadlines)
        waiting, absences, gone = self.accepted - sent, Counter[str](), dict[str, float]()
        losses = Losses(self.deadlines.away_s)
        while (waiting := waiting - clock.over(waiting)) - self.patience.silent:
            now = time.monotonic()
            gone = {site: gone.get(site, now) for site in waiting - self.channel.online()}
            absences.update(gone.keys())
            late = {site for site, since in gone.items() if now - since >= self.deadlines.away_s}
            waiting -= late | {site for site in gone if absences[site] >= _ABSENCES and site not in begun}
            if new := (waiting - begun) & self.channel.online():
                clock.note(replies := self.ask("make", arrays, new, choice=chosen, quorum=0))
                begun |= {site for site, reply in replies.items() if reply.status in ("ok", "pending", "review")}
                refused |= final_replies(replies, tries) | losses.beyond(replies, begun)
            if ready := (waiting & begun) & self.channel.online():
                clock.note(replies := self.ask("send", {}, ready, quorum=0))
                sent |= {site for site, reply in replies.items() if reply.status == "ok"}
                refused |= final_replies(replies, tries) | losses.beyond(replies, begun)
            waiting -= sent | set(refused)
            if waiting:
                self.sleep(clock.pause())
        if len(sent) < self.plan.federation.quorum:
            reasons = ", ".join(f"{site}: {reply.code}" for site, reply in sorted(refused.items()))
            raise FederationError(
                f"'release': {len(sent)} of the {self.plan.federation.quorum} sites of the quorum sent a package "
                f"({reasons or 'the others were silent'}); the sites' own logs say why"
            )
        return sent

    def ask(
        self,
        kind: RequestKind,
        arrays: Arrays | Callable[[str], Arrays],
        sites: Iterable[str] | None = None,
        *,
        stage: str = "",
        choice: str = "",
        number: int = 0,
        quorum: int | None = None,
        rounds: int = 0,
        schema: Schema = NOTHING,
        check: Check = lambda site, arrays: None,
        keep: Keep = lambda site, arrays: arrays,
    ) -> dict[str, Reply]:
        """One exchange with every accepted site that is online; `arrays` for all, or a function of the site's name.

        It is exchange `number` of `rounds` (0: of the rounds of its stage).

        A reply that does not fit `schema`, or fails `check`, is a lost one; the arrays of one that does go to `keep` as
        they come. Raises FederationError below the quorum.
        """
        what = stage or kind
        quorum = self.plan.federation.quorum if quorum is None else quorum
        targets = set(sites) if sites is not None else self.accepted & self.channel.online()
        rounds = rounds or (self.plan.stage(stage).rounds if stage else 1)
        self.progress.begin(what, max(number, 1), rounds)
        for site in self.plan.sites:
            self.progress.site(site, *(("working",) if site in targets else ("lost", "not-asked")))
        bare = Request(PROTOCOL, self.plan.study_digest, kind, stage or choice, number, {})
        outgoing = Outgoing(
            sorted(targets),
            lambda site: replace(bare, plan_hash=self.plan.digest_at(site), answered=self.receipts.told(site)),
            arrays if callable(arrays) else lambda site: arrays,
            self.holdings,
        )
        answers = Answers(outgoing, schema, check, keep, self._note)
        waited_for = self.patience.waited_for(targets, quorum)

        def came(site: str, reply: Reply) -> bool:
            if reply.status == "ok" and kind in _CHARGED:
                self.receipts.note(site, what, max(number, 1))
            return answers.take(site, reply)

        self.channel.exchange(outgoing, self.deadlines.away_s, came, waited_for)
        replies = answers.replies
        self.patience.note(targets, set(replies))
        for site in sorted(targets - set(replies)):
            replies[site] = lost("silent")
            self._note(site, replies[site])
        replies = dict(sorted(replies.items()))
        log_exchange(what, max(number, 1), replies)
        self.progress.end(
            {
                "sites": {site: f"{reply.status} {reply.code}".strip() for site, reply in replies.items()},
                "bytes_down": outgoing.bytes_down,
                "bytes_up": answers.bytes_up,
            }
        )
        require_quorum(what, max(number, 1), replies, quorum)
        return replies

    def _note(self, site: str, reply: Reply) -> None:
        word = {"ok": "done", "pending": "working", "review": "review", "refused": "refused"}.get(reply.status, "lost")
        if word in ("refused", "lost"):
            told = {"event": word, "site": site, "code": reply.code, "reference": reply.reference}
            said = "site %s: %s (%s) reference %s"
            log.warning(said, site, word, reply.code, reply.reference or "-", extra={"fields": told})
        self.progress.site(site, word, reply.code)
