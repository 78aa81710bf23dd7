"""The site's composition root: what happens, in which order, when the coordinator asks for something.

Order is the guarantee: plan pinned -> policy -> ledger reservation (on disk) -> data -> noise -> guard -> reply. A
request that was answered before is answered with the same bytes: no data is touched and nothing is charged again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from safetensors.numpy import load, save

from sfumato_client.dataset import Cohort as PatientCohort
from sfumato_client.egress.guard import missing_reply, noised_reply, pending_reply, plain_reply, refusal
from sfumato_client.egress.pace import Pace
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.charged import settle_kept
from sfumato_client.release.folder import release_folder
from sfumato_client.site.accepted import trained_stage
from sfumato_client.site.admission import check_policy
from sfumato_client.site.figure import figure_work
from sfumato_client.site.given import given_encoders
from sfumato_client.site.home import SiteHome
from sfumato_client.site.inbound import Seen, check_form, final_models
from sfumato_client.site.noise import noise_of
from sfumato_client.site.received import Received
from sfumato_client.site.recovery import require_known
from sfumato_client.site.sending import require_approved, require_training, send_ahead, send_release, unfinished
from sfumato_client.site.summing import SummedStage, require_single
from sfumato_client.site.turns import at_work
from sfumato_client.site.watch import Watch
from sfumato_client.site.work import Elsewhere, Opened, Work, error_of
from sfumato_common.accounting.events import Cohort
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import BusyError, LedgerError, VerificationError, WorkerLost
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.files import set_aside, write_atomic
from sfumato_common.generators.components import for_all_components, schema_at
from sfumato_common.locks import in_turn
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.study.costs import stage_events
from sfumato_common.study.lineage import given_models
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import DEFAULT_ANSWER_INTERVAL_S, Policy
from sfumato_common.study.shards import release_images
from sfumato_common.types import Arrays, fingerprint

if TYPE_CHECKING:
    from sfumato_client.site.making import Maker
    from sfumato_client.training.dp.shared import Ranks

log = logging.getLogger(__name__)
Upload = Callable[[bytes, Plan], None]
StartRanks: TypeAlias = "Callable[[], contextlib.AbstractContextManager[Ranks | None]]"
_MARGIN_BYTES = 4 * 1024**2  # beside an answer: rows of the ledger with its journal, weights that came, members


class Site:
    """One hospital's side of a study; `upload` delivers a signed package, `ranks` shares training over devices.

    With `elsewhere` it charges and computes nothing itself, and sends what the job there left. `lost` is called when a
    process that shared the work died: it ends this one, so that the question is asked again like after a kill.
    """

    def __init__(
        self,
        home: SiteHome,
        upload: Upload,
        ranks: StartRanks = contextlib.nullcontext,
        *,
        elsewhere: Elsewhere | None = None,
        pace: Callable[[], Pace] | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.home = home
        self._upload, self._ranks = upload, ranks
        self._elsewhere, self._pace, self._lost = elsewhere, pace, lost

    def handle(self, request: Request) -> Reply:
        """Answer one request; whatever goes wrong leaves as a code and a local reference, never as text."""
        pace, interval, watch = (self._pace or Pace)(), DEFAULT_ANSWER_INTERVAL_S, Watch(self.home, request)
        try:
            plan, policy = self.home.accepted_plan(request.plan_hash), self.home.policy()
            interval = policy.answer_interval_s
            watch.accept(plan, policy)
            check_policy(plan, policy)
            require_known(self.home, plan, request.answered)
            whole = self._received(plan).complete(request)
            reply = missing_reply() if whole is None else self._answer(whole, plan, policy, pace, watch)
        except Exception as error:
            if isinstance(error, WorkerLost):
                log.error("%s", error)
                self._lost()
            reply = refusal(error, self.home.steward_folder)
            log.warning("request '%s' not answered: %s, local reference %s", request.kind, reply.code, reply.reference)
        pace.hold(interval)
        watch.end(reply)
        return reply

    def _answer(self, request: Request, plan: Plan, policy: Policy, pace: Pace, watch: Watch) -> Reply:
        match request.kind:
            case "hello":
                # no data is looked at: whether the cohort suffices was settled before the site joined
                return plain_reply({}, {})
            case "stage":
                return self._stage(request, plan, policy, watch)
            case "make":
                return self._make(request, plan, policy, watch)
            case "send":
                return self._send(plan, policy, pace, watch)
            case "utility":
                return self._in_turn(request, plan, policy, figure_work(request, plan, policy), watch)
            case "sum-keys" | "sum-shares" | "sum-values" | "sum-consent" | "sum-unmask":
                return self._sum(request, plan, policy, watch)
        raise VerificationError("a request of a kind that this version does not know")

    def _stage(self, request: Request, plan: Plan, policy: Policy, watch: Watch) -> Reply:
        from sfumato_client.training import StageJob, train

        stage = trained_stage(plan, request.stage, request.round)
        require_single(plan, stage.kind)
        exchange, seen = EXCHANGES[stage.kind], self._seen(plan)
        sent = exchange.sent(plan)
        check_form(request.arrays, schema_at(plan, sent))
        self._received(plan).keep(request)
        # one that is missing or another is told before anything is charged
        encoders = given_encoders(self.home, plan, policy).load_all(stage.encoder_names)

        def check() -> None:
            seen.check_round(stage, request.round, request.arrays)

        def compute(opened: Opened, recorder: NoiseRecorder, noise: NoiseSource) -> Arrays:
            seen.keep_round(stage, request.round, request.arrays)
            cohort, inbound = opened(), for_all_components(plan, sent, request.arrays)
            with self._ranks() as ranks:
                given = (inbound, cohort, noise, recorder, encoders, ranks)
                return train(StageJob(plan, policy.site, stage, request.round, *given))

        event = stage_events(plan, stage)[request.round - 1]
        work = Work(stage.kind, event, "train", exchange.returned(plan), check, compute)
        return self._in_turn(request, plan, policy, work, watch)

    def _sum(self, request: Request, plan: Plan, policy: Policy, watch: Watch) -> Reply:
        """A step of a secure sum; the one that gives a masked value touches patients, and is charged before."""
        summed = SummedStage(self.home, plan, policy, request.stage)
        if request.kind == "sum-values":
            work = summed.work(request)
            self._received(plan).keep(request)
            return self._in_turn(request, plan, policy, work, watch)
        with in_turn(self.home.turns(plan)):
            return plain_reply(*summed.answer(request))

    def _in_turn(self, request: Request, plan: Plan, policy: Policy, work: Work, watch: Watch) -> Reply:
        """Check, charge, compute, seal, guard, keep, settle; or send again what the same request got before.

        A study's questions are worked on one at a time: a second process that has the same one waits for the first, and
        sends the same bytes. Work that was killed is done again under its charge. Room for what must be kept is set
        aside before anything is charged.
        """
        turns, question = self.home.turns(plan), fingerprint(request.arrays)
        name = f"{plan.digest[:16]}-{work.purpose}-{request.round}-{question[:16]}.safetensors"
        kept, mark = self.home.outbox / name, turns / f"{work.purpose}-{request.round}.json"
        if self._elsewhere is not None and not kept.exists():
            self._do_elsewhere(request, watch)
        with in_turn(turns):
            if kept.exists():
                arrays = load(kept.read_bytes())
                with self.home.open_ledger() as ledger:
                    settle_kept(ledger, work.terms(plan, request), arrays)
                mark.unlink(missing_ok=True)  # it leaves now: should the kept bytes be lost, they are not made again
                return plain_reply(arrays, work.schema)
            if self._elsewhere is not None:
                raise WorkerLost("the launched job left no answer; it is asked again")
            require_training(self.home, plan, policy, work.cohort)
            size = sum(spec.bytes for spec in work.schema.values()) + _MARGIN_BYTES
            with set_aside(turns, size) as give_back, at_work(mark, question) as killed:
                return self._once(request, plan, policy, work, kept, killed, watch, give_back)

    def _once(
        self,
        request: Request,
        plan: Plan,
        policy: Policy,
        work: Work,
        kept: Path,
        killed: bool,
        watch: Watch,
        give_back: Callable[[], None],
    ) -> Reply:
        self.home.require_fitting_store(plan)
        work.check()
        noise = noise_of(policy, plan, request)
        terms = work.terms(plan, request)
        with self.home.open_ledger() as ledger, ledger.charged(terms, [work.event], noise, killed) as charge:
            opened = partial(self._open_cohort, plan, ledger, work.cohort)
            with watch.work(lambda: charge.recorder.draws):
                arrays = work.compute(opened, charge.recorder, noise)
                give_back()
                sealed = charge.seal(arrays)
            reply = noised_reply(sealed, work.schema, charge.paid)
            write_atomic(kept, save(dict(reply.arrays)), mode=0o600)
        return reply

    def _do_elsewhere(self, request: Request, watch: Watch) -> None:
        assert self._elsewhere is not None
        watch.launch()
        if code := self._elsewhere(request):
            raise error_of(code)

    def _open_cohort(self, plan: Plan, ledger: Ledger, name: Cohort) -> PatientCohort:
        return self.home.charged_cohorts(plan, ledger, name)[0]

    def _make(self, request: Request, plan: Plan, policy: Policy, watch: Watch) -> Reply:
        """Make the release from the request's models, or go on with it; 'pending' while it is not whole."""
        models = final_models(self._seen(plan), plan, policy.site, request.stage, request.arrays)
        self._received(plan).keep(request)
        with self.home.open_ledger() as ledger:
            if not given_models(plan) and ledger.events("train", plan_hash=plan.digest) == []:
                raise LedgerError("nothing was trained here under this plan; a release makes no sense")
            folder = release_folder(self.home.releases, plan)
            with in_turn(self.home.turns(plan)):  # after a round under way: see `require_training`
                folder.keep_request(request.stage, request.arrays)
            _, left = self._work(request.stage, models, plan, policy, ledger, watch)
            if left:
                return left
            require_approved(folder, plan, ledger)
        return plain_reply({}, {})

    def _send(self, plan: Plan, policy: Policy, pace: Pace, watch: Watch) -> Reply:
        """Send what was approved; a release that is not whole is gone on with first, also after a power cut."""
        folder = release_folder(self.home.releases, plan)
        choice, arrays = folder.request()
        models = final_models(self._seen(plan), plan, policy.site, choice, arrays)
        with self.home.open_ledger() as ledger:
            maker, left = self._work(choice, models, plan, policy, ledger, watch)
            key = load_identity(self.home.identity).signing_public
            upload: Callable[[bytes], None] = lambda package: self._upload(package, plan)  # noqa: E731
            if left:
                send_ahead(maker, plan, ledger, key, upload, partial(pace.hold, policy.answer_interval_s))
                return left
            pace.hold(policy.answer_interval_s)
            return send_release(folder, plan, ledger, key, upload)

    def _work(
        self, choice: str, models: Mapping[str, Arrays], plan: Plan, policy: Policy, ledger: Ledger, watch: Watch
    ) -> tuple[Maker, Reply | None]:
        """Work on the release for half a round's deadline; what to say while another process does, or work is left."""
        from sfumato_client.site.making import Maker

        self.home.require_fitting_store(plan)
        until = time.monotonic() + plan.federation.round_deadline_s / 2
        maker = Maker(self.home, plan, policy, choice, models, ledger)
        if self._elsewhere is not None:
            if not (maker.decided or maker.waits_for_people):
                choice, arrays = maker.folder.request()
                self._do_elsewhere(Request(PROTOCOL, plan.digest, "make", choice, 0, arrays), watch)
            return maker, unfinished(maker, policy)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(maker.folder.held())
            except BusyError:
                return maker, pending_reply()
            with watch.work(lambda: maker.made, release_images(plan, policy.site)):
                maker.work(until)
        return maker, unfinished(maker, policy)

    def _seen(self, plan: Plan) -> Seen:
        return Seen(self.home.last_received, plan, self.home.starts)

    def _received(self, plan: Plan) -> Received:
        return Received(self.home.received, plan)
