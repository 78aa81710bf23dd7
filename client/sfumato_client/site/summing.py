"""A site's steps of a secure sum: its state on disk before each answer, its value under a mask and under a charge."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sfumato_client.site.given import given_encoders
from sfumato_client.site.home import SiteHome
from sfumato_client.site.inbound import Seen, check_form
from sfumato_client.site.work import Opened, Work
from sfumato_common.accounting.events import Cohort
from sfumato_common.crypto.identity import load_identity
from sfumato_common.crypto.signatures import is_fingerprint
from sfumato_common.errors import PolicyRefusal, VerificationError
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.files import write_atomic
from sfumato_common.generators.base import import_named
from sfumato_common.generators.summed import Phase
from sfumato_common.mechanisms.noise import NoiseSource
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.metrics.utility import classifier_schema
from sfumato_common.protocol.messages import Request
from sfumato_common.protocol.summed import (
    CONSENT,
    CONSENTS,
    HELD,
    MASKED,
    OFFER,
    OFFERS,
    SHARES,
    WHO,
    Asked,
    byte_rows,
    read_rows,
    read_values,
    read_who,
    replied,
    requested,
    sealed_bytes,
    sum_terms,
    valued,
    who_rows,
)
from sfumato_common.secure_sum.shamir import SHARE_BYTES
from sfumato_common.secure_sum.site import SiteState, SiteSum
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.summed import UTILITY, among, is_summed, phases_of, summed_events
from sfumato_common.types import AnyArray, Arrays, Schema

Summand = Callable[[Opened, NoiseRecorder, NoiseSource], Arrays]


def require_single(plan: Plan, name: str) -> None:
    """Raise PolicyRefusal where what is asked for alone leaves this site as part of a sum, and not else."""
    if is_summed(plan, name):
        raise PolicyRefusal(f"under this plan '{name}' leaves sites as a secure sum; a single site's answer does not")


def require_own_key(home: SiteHome, plan: Plan, site: str) -> None:
    """Raise PolicyRefusal where the plan pins another key for this site than it has."""
    key = plan.sites[site].key if site in plan.sites else None
    if key is not None and not is_fingerprint(key, load_identity(home.keys).signing_public):
        raise PolicyRefusal(f"the plan pins another key for '{site}' than 'sfumato-site fingerprint' prints here")


@dataclass(frozen=True)
class SummedStage:
    """A stage of `plan`, or the figure on holdout patients, of which this site gives a part."""

    home: SiteHome
    plan: Plan
    policy: Policy
    name: str

    def __post_init__(self) -> None:
        known = {stage.kind for stage in self.plan.stages} | {UTILITY}
        if self.name not in known or not is_summed(self.plan, self.name):
            raise PolicyRefusal("the request names a sum that the accepted plan does not have")
        if self.name == UTILITY and self.policy.utility_figure == "withheld":
            raise PolicyRefusal("this site's policy withholds the utility figure")

    def answer(self, request: Request) -> tuple[dict[str, AnyArray], Schema]:
        """Arrays and schema of the answer to a step that touches no patient; the state is on disk before it leaves."""
        terms, number, arrays = sum_terms(self.plan, self.name), request.round, request.arrays
        check_form(arrays, requested(terms, request.kind))
        identity = load_identity(self.home.keys)
        site = SiteSum(terms, self.policy.site, self._state())
        made: dict[str, AnyArray]
        match request.kind:
            case "sum-keys":
                made = {OFFER: _bytes(site.offer(number, identity.signing_public, identity.sign_sum))}
            case "sum-shares":
                sealed = site.share(number, read_rows(terms, arrays[WHO], arrays[OFFERS]))
                made = {SHARES: byte_rows(terms, sealed, sealed_bytes(terms))}
            case "sum-consent":
                made = {CONSENT: _bytes(site.consent(number, read_who(terms, arrays[WHO]), identity.sign_sum))}
            case _:
                rows = zip(terms.sites, arrays[CONSENTS], strict=True)
                consents = {name: row.tobytes() for name, row in rows if row.any()}
                held = site.unmask(number, read_who(terms, arrays[WHO]), consents)
                made = {HELD: who_rows(terms, held), SHARES: byte_rows(terms, held, SHARE_BYTES)}
        self._keep(site.state)
        return made, replied(terms, request.kind)

    def work(self, request: Request) -> Work:
        """This site's value in a phase, masked: charged to its cohort as a part of a summed Gaussian release.

        Raises PolicyRefusal for a phase that there is not, VerificationError for arrays that are not the plan's.
        """
        terms, phases, number = sum_terms(self.plan, self.name), phases_of(self.plan, self.name), request.round
        if not 1 <= number <= len(phases):
            raise PolicyRefusal("the request names a phase of a sum that the accepted plan does not have")
        phase, event = phases[number - 1], summed_events(self.plan, self.name)[number - 1]
        _check_exact(request.arrays, valued(terms, phases, number, self._sent()))
        asked = read_values(terms, request.arrays)
        check_form(asked.own, self._sent())
        summand = self._figure(asked) if self.name == UTILITY else self._summand(phase, asked)

        def check() -> None:
            if self.name != UTILITY:
                self._seen().check_round(self.plan.stage(self.name), 1, asked.own)
            site = SiteSum(terms, self.policy.site, self._state())
            site.receive(asked.shares)
            self._keep(site.state)

        def compute(opened: Opened, recorder: NoiseRecorder, noise: NoiseSource) -> Arrays:
            value = phase.join(summand(opened, recorder, noise))
            site = SiteSum(terms, self.policy.site, self._state())
            mask = site.mask(number, phase.size)
            # before the value can leave: from here on it is in this attempt's sum, or in none
            self._keep(site.state)
            masked = recorder.summed_gaussian(value, phase.sensitivity, event.noise_multiplier, event.among, mask)
            return {MASKED: masked.view(np.int64)}

        cohort: Cohort = "holdout" if self.name == UTILITY else "train"
        return Work(self.name, event, cohort, replied(terms, "sum-values", phase), check, compute)

    def _figure(self, asked: Asked) -> Summand:
        from sfumato_client.training.utility import score_part

        return lambda opened, recorder, noise: {"histogram": score_part(self.plan, asked.own, opened())}

    def _summand(self, phase: Phase, asked: Asked) -> Summand:
        """What makes this site's part of a phase, without noise, within the charge."""
        from sfumato_client.training import StageJob

        stage, summed = self.plan.stage(self.name), EXCHANGES[self.name].summed
        assert summed is not None, "the stage is a sum"
        # one that is missing or another is told before anything is charged
        encoders = given_encoders(self.home, self.plan, self.policy).load_all(stage.encoder_names)
        part = import_named(summed.summand)
        # what the sums before this phase are off by: the noise of all sites in them
        sigma = stage.noise_multiplier * math.sqrt(max(asked.answered, default=1) / among(self.plan))

        def make(opened: Opened, recorder: NoiseRecorder, noise: NoiseSource) -> Arrays:
            self._seen().keep_round(stage, 1, asked.own)
            job = StageJob(self.plan, self.policy.site, stage, 1, asked.own, opened(), noise, recorder, encoders)
            made: Arrays = part(job, phase, asked.sums, sigma)
            return made

        return make

    def _sent(self) -> Schema:
        return classifier_schema(self.plan) if self.name == UTILITY else EXCHANGES[self.name].sent(self.plan)

    def _seen(self) -> Seen:
        return Seen(self.home.last_received, self.plan)

    def _state(self) -> SiteState | None:
        path = self.home.sums(self.plan) / f"{self.name}.json"
        if not path.exists():
            return None
        try:
            return SiteState.model_validate_json(path.read_bytes())
        except ValueError:
            raise VerificationError("this site's keys of a sum cannot be read; it takes no part in it") from None

    def _keep(self, state: SiteState | None) -> None:
        assert state is not None, "an answer was made from it"
        text = json.dumps(state.model_dump(mode="json"), sort_keys=True)
        write_atomic(self.home.sums(self.plan) / f"{self.name}.json", text, mode=0o600)


def _check_exact(arrays: Arrays, schema: Schema) -> None:
    """Raise VerificationError unless `arrays` have exactly the schema's names, dtypes and shapes, and are finite."""
    if set(arrays) != set(schema) or not all(
        schema[name].matches(value) and schema[name].sound(value) for name, value in arrays.items()
    ):
        raise VerificationError("the request's arrays are not those of the accepted plan, or not finite")


def _bytes(data: bytes) -> AnyArray:
    return np.frombuffer(data, dtype=np.uint8).copy()
