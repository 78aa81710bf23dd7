"""The site's composition root: what happens, in which order, when the coordinator asks for something.

Order is the guarantee: plan pinned -> policy -> ledger reservation (on disk) -> data -> noise -> guard -> reply. A
request that was answered before is answered with the same bytes: no data is touched and nothing is charged again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from safetensors.numpy import load, save

from sfumato_client.admission import check_policy
from sfumato_client.egress.guard import check_reply, log_locally, sanitise
from sfumato_client.home import SiteHome
from sfumato_common.config.plan import Plan
from sfumato_common.config.policy import Policy
from sfumato_common.errors import LedgerError, PolicyRefusal, SfumatoError, VerificationError
from sfumato_common.files import write_atomic
from sfumato_common.metrics.utility import classifier_schema
from sfumato_common.models.wire import inbound_schema, outbound_schema, released_schema
from sfumato_common.privacy.events import GATE_VERDICT, Cohort, Event, GaussianRelease, round_event, study_events
from sfumato_common.privacy.noise import NoiseSource, SecureNoise, TestNoise
from sfumato_common.records import PROTOCOL, Reply, Request
from sfumato_common.types import AnyArray, Arrays, ArraySpec, Schema

log = logging.getLogger(__name__)
LARGEST_REPLY_BYTES = 256 * 1024 * 1024
_GATE_BOOKS: dict[Cohort, str] = {"train": "gate", "holdout": "gate-control"}
Upload = Callable[[bytes, Plan], None]


class Site:
    """One hospital's side of a study; `upload` delivers a signed package and is passed in."""

    def __init__(self, home: SiteHome, upload: Upload) -> None:
        self.home = home
        self._upload = upload

    def handle(self, request: Request) -> Reply:
        """Answer one request; whatever goes wrong leaves as a code and a local reference, never as text."""
        try:
            plan = self.home.pinned(request.plan_hash)
            policy = self.home.policy()
            check_policy(plan, policy)
            arrays = self._answer(request, plan, policy)
            return Reply(PROTOCOL, "ok", "", "", arrays)
        except Exception as error:
            code, reference = sanitise(error)
            log_locally(self.home.local, reference, error)
            log.warning("request '%s' not answered: %s, local reference %s", request.kind, code, reference)
            return Reply(PROTOCOL, "refused" if isinstance(error, SfumatoError) else "failed", code, reference, {})

    def _answer(self, request: Request, plan: Plan, policy: Policy) -> dict[str, AnyArray]:
        match request.kind:
            case "hello":
                return {}  # no data is looked at: whether the cohort suffices was settled before the site joined
            case "stage":
                return self._stage(request, plan, policy)
            case "release":
                return self._release(request, plan, policy)
            case "utility":
                return self._utility(request, plan, policy)
        raise VerificationError("a request of a kind that this version does not know")

    def _stage(self, request: Request, plan: Plan, policy: Policy) -> dict[str, AnyArray]:
        from sfumato_client.training import TRAINERS, StageJob

        try:
            stage = plan.stage(request.stage)
        except KeyError:
            raise PolicyRefusal("the request names a stage that the accepted plan does not have") from None
        if not 1 <= request.round <= stage.rounds:
            raise PolicyRefusal("the request names a round beyond the accepted plan")
        _check_inbound(request.arrays, inbound_schema(plan, stage.kind))

        def compute() -> dict[str, AnyArray]:
            store = self.home.open_store()
            store.require_patients(policy)
            noise = _noise(policy, plan, request)
            job = StageJob(plan, policy.site, stage.kind, request.round, request.arrays, store.cohort("train"), noise)
            return TRAINERS[stage.kind](job)

        return self._once(
            request, plan, stage.kind, round_event(stage), "train", outbound_schema(plan, stage.kind), compute
        )

    def _utility(self, request: Request, plan: Plan, policy: Policy) -> dict[str, AnyArray]:
        if plan.utility is None or policy.utility_figure == "withheld":
            raise PolicyRefusal("this site's policy withholds the utility figure")
        from sfumato_client.utility import score_histogram

        terms = plan.utility
        _check_inbound(request.arrays, classifier_schema(plan))
        event = GaussianRelease(terms.noise_multiplier)
        schema = {"histogram": ArraySpec("float32", (len(plan.labels), terms.bins))}

        def compute() -> dict[str, AnyArray]:
            cohort = self.home.open_store().cohort("holdout")
            return {"histogram": score_histogram(plan, request.arrays, cohort, _noise(policy, plan, request))}

        return self._once(request, plan, "utility", event, "holdout", schema, compute)

    def _once(
        self,
        request: Request,
        plan: Plan,
        purpose: str,
        event: Event,
        cohort: Cohort,
        schema: Schema,
        compute: Callable[[], dict[str, AnyArray]],
    ) -> dict[str, AnyArray]:
        """Reserve, compute, guard, keep, settle; or send again what the same request was answered with before."""
        kept = (
            self.home.outbox
            / f"{plan.digest[:16]}-{purpose}-{request.round}-{_fingerprint(request.arrays)}.safetensors"
        )
        if kept.exists():
            return load(kept.read_bytes())
        with self.home.open_ledger() as ledger:
            reservation = ledger.reserve(
                study=plan.study,
                plan_hash=plan.digest,
                purpose=purpose,
                round=max(request.round, 1),
                cohort=cohort,
                event=event,
                ahead=study_events(plan, cohort),
            )
            arrays = compute()
            check_reply(arrays, schema, reservation_present=True, largest_bytes=LARGEST_REPLY_BYTES)
            write_atomic(kept, save(arrays), mode=0o600)
            ledger.settle(reservation)
        return arrays

    def _release(self, request: Request, plan: Plan, policy: Policy) -> dict[str, AnyArray]:
        kept = self.home.outbox / f"{plan.digest[:16]}-release.sfumato"
        if not kept.exists():
            write_atomic(kept, self._sealed(request, plan, policy), mode=0o600)
        self._upload(kept.read_bytes(), plan)
        return {}

    def _sealed(self, request: Request, plan: Plan, policy: Policy) -> bytes:
        from sfumato_client.anonymise import anonymise
        from sfumato_client.audit.verdict import gate
        from sfumato_client.release import seal
        from sfumato_common.crypto.identity import load_identity

        models = _models(request.arrays, plan)
        candidates = anonymise(plan, models, _noise(policy, plan, request).torch_seed())
        with self.home.open_ledger() as ledger:

            def charge() -> None:
                if ledger.events("train", plan_hash=plan.digest) == []:
                    raise LedgerError("nothing was trained here under this plan; a release makes no sense")
                # the verdict compares training images with held-out ones: both cohorts' books say so
                for cohort, purpose in _GATE_BOOKS.items():
                    reserved = ledger.reserve(
                        study=plan.study,
                        plan_hash=plan.digest,
                        purpose=purpose,
                        round=1,
                        cohort=cohort,
                        event=GATE_VERDICT,
                    )
                    ledger.settle(reserved)

            store = self.home.open_store()
            approved = gate(
                candidates, store.cohort("train"), store.cohort("holdout"), policy.release.gate, charge, self.home.local
            )
            certificate = ledger.certificate(plan, noise=policy.noise)
        identity = load_identity(self.home.identity)
        return seal(approved, plan, policy, certificate, identity.sign_package)


def _models(arrays: Arrays, plan: Plan) -> dict[str, dict[str, AnyArray]]:
    """Release arrays `kind:name` by model, each exactly as the plan's schema says."""
    models: dict[str, dict[str, AnyArray]] = {}
    for name, value in arrays.items():
        kind, _, inner = name.partition(":")
        models.setdefault(kind, {})[inner] = value
    wanted = {item.model for item in plan.release} | {"spectral"}
    if set(models) != wanted:
        raise VerificationError("the release request brings other models than the accepted plan releases")
    for kind, values in models.items():
        _check_inbound(values, released_schema(plan, kind))
    return models


def _check_inbound(arrays: Arrays, schema: Schema) -> None:
    """Inbound weights must be exactly what the plan says: names, dtypes, shapes, finite values."""
    import numpy as np

    if set(arrays) != set(schema):
        raise VerificationError("the request's arrays are not those of the accepted plan")
    for name, value in arrays.items():
        if not schema[name].matches(value) or not np.isfinite(value).all():
            raise VerificationError("a request's array has another form than in the accepted plan, or is not finite")


def _fingerprint(arrays: Arrays) -> str:
    """Hash of a request's arrays: only the very same request gets the very same answer."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + arrays[name].tobytes())
    return digest.hexdigest()[:16]


def _noise(policy: Policy, plan: Plan, request: Request) -> NoiseSource:
    """Secure noise, or the loud reproducible one where the site's own policy says `noise: test`."""
    if policy.noise == "secure":
        return SecureNoise()
    text = f"{policy.site}|{plan.digest}|{request.kind}|{request.stage}|{request.round}"
    return TestNoise(int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big"))
