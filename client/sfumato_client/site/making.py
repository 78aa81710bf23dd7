"""Making a release at the site, item by item: charged, made, kept; then, part by part, judged, sealed and approved.

Every step leaves a file in the release folder or a row in the ledger. A step that is there is never done again, so a
release that was killed goes on where it stood. Nothing leaves from here: sending is its own job (`sending.py`).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import cached_property

from sfumato_client.anonymise import CandidateSet, Job, Release, anonymise
from sfumato_client.anonymise.style_net import read_style_net
from sfumato_client.audit.verdict import Approved, gate, let_go, private_gate, recall_verdict
from sfumato_client.dataset import Cohort as PatientCohort
from sfumato_client.egress.guard import log_locally
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.approvals import Approver, approval
from sfumato_client.ledger.charged import Terms, sealed_digest
from sfumato_client.release import seal
from sfumato_client.release.folder import ReleaseFolder, release_folder
from sfumato_client.site.behind import Made, keep_behind, read_behind
from sfumato_client.site.candidates import item_terms, read_finished
from sfumato_client.site.given import gate_encoder, given_encoders, text_reader
from sfumato_client.site.home import SiteHome
from sfumato_client.site.noise import site_noise
from sfumato_client.site.recovery import GATE_BOOKS
from sfumato_client.site.reviewing import Review, Waiting
from sfumato_common.accounting.events import Cohort
from sfumato_common.crypto.identity import load_identity
from sfumato_common.encoders.encoder import Encoder
from sfumato_common.encoders.settings import names_of
from sfumato_common.errors import DataError, ReleaseRefused
from sfumato_common.files import write_atomic
from sfumato_common.mechanisms.sealed import Sealed
from sfumato_common.mechanisms.streams import Streams
from sfumato_common.study.costs import GATE_VERDICT, formal_gate_events, release_events
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.release import AnyItem
from sfumato_common.study.shards import shard_sizes
from sfumato_common.study.words import Part
from sfumato_common.types import Arrays

log = logging.getLogger(__name__)


class Maker:
    """One release under way; `choice` and `models` are what the coordinator asked with, and have been checked."""

    def __init__(
        self, home: SiteHome, plan: Plan, policy: Policy, choice: str, models: Mapping[str, Arrays], ledger: Ledger
    ) -> None:
        self._home, self._plan, self._policy, self._choice = home, plan, policy, choice
        self._models, self._ledger = models, ledger
        # images of the plan's items that are made, or of parts that are done with, however they ended
        self.made = 0
        encrypts = policy.release.review.by != "auto"
        self.folder: ReleaseFolder = release_folder(home.releases, plan, home.store_key(), encrypts)
        self._identity, self._keys = load_identity(home.identity), load_identity(home.keys)
        self._review = Review(plan, policy, ledger, self.folder, self._identity.signing_public)

    def work(self, until: float) -> bool:
        """Do what is left, until nothing is, or `until` by the monotonic clock has passed between two steps.

        True when every part is decided: approved, or refused for good, which is kept with the code of its reason. A
        part that waits for people holds no other one back.
        """
        self._review.begin()
        done = 0
        for part in self._plan.parts_at(self._policy.site):
            done += sum(item.images for item in self._plan.part_at(self._policy.site, self._choice, part))
            try:
                if not self._decide(part, until):
                    return False
            except Waiting:
                pass
            except (DataError, ReleaseRefused) as error:
                # this part will not be sent; what is apart from it goes on
                reference = secrets.token_hex(8)
                log_locally(self._home.steward_folder, reference, error)
                log.warning("the %s part of the release is refused, local reference %s", part, reference)
                self.folder.keep_refusal(part, type(error).wire_code)
            if part == "declared":
                self.folder.erase_behind()  # the gate has judged, or never will
            self.made = done  # the same for a part that was approved, refused, or waits for people
        return self.decided

    @property
    def decided(self) -> bool:
        """Whether nothing is left to do: every part is approved, or refused for good."""
        approved = self._ledger.approvals(self._plan.digest)
        parts = self._plan.parts_at(self._policy.site)
        return all(part in approved or self.folder.refusal(part) is not None for part in parts)

    @property
    def waits_for_people(self) -> bool:
        """Whether people are all that is waited for."""
        approved = self._ledger.approvals(self._plan.digest)
        parts = self._plan.parts_at(self._policy.site)
        left = [part for part in parts if part not in approved and self.folder.refusal(part) is None]
        return bool(left) and all(map(self._review.waits, left))

    def _decide(self, part: Part, until: float) -> bool:
        if self.folder.refusal(part) is not None or part in self._ledger.approvals(self._plan.digest):
            return True
        if self._review.waits(part):
            raise Waiting
        items = self._plan.part_at(self._policy.site, self._choice, part)
        sets = list[Made]()
        for item in items:
            found = read_finished(self._ledger, self.folder, self._plan, item)
            if found is None:
                if time.monotonic() > until:
                    return False
                found = self._make(item)
            sets.append((item, found))
            self.made += item.images
        self._approve(part, sets)
        return True

    def _make(self, item: AnyItem) -> Sealed[CandidateSet]:
        """The item's candidates, every event of it charged to the training patients before their records are read."""
        encoders = self._encoders  # one that is missing or another is told before anything is charged
        noise = site_noise(self._policy, self._plan.digest, "make", item.method, item.model)
        events = release_events(self._plan, item)
        with self._ledger.charged(item_terms(self._plan, item), events, noise, resume=True) as charge:
            job = Job(self._release, item, Streams.of(noise), charge.recorder, encoders)
            # kept before it is settled: what was settled is not made again
            sealed = charge.seal(anonymise(job))
            keep_behind(self.folder, job, sealed, self._policy.release.gate)
            self.folder.keep_item(item, sealed.result)
        return sealed

    def _approve(self, part: Part, made: Sequence[Made]) -> None:
        """Judge the part, ask people where policy does, seal its shards, and let exactly those go."""
        sets = [sealed for _, sealed in made]
        approved = self._judge_formal(sets) if part == "formal" else self._judge_declared(made)
        by: Approver = "gate" if part == "declared" or self._plan.formal_gate else "no-gate"
        consent = self._review.consent(part, [item.digest for item in sets])
        by, decided = ("steward", consent.rows) if consent is not None else (by, ())
        identity, total = self._identity, self._policy.site_total == "published"
        certificate = self._ledger.certificate(self._plan, noise=self._policy.noise, publish_total=total)
        digests, shards = [item.digest for item in sets], len(shard_sizes(self._plan, self._policy.site, part))
        leaves = []
        for shard, package in enumerate(
            seal(approved, self._plan, self._policy, certificate, self._keys.sign_package, consent), start=1
        ):
            write_atomic(self.folder.package(part, shard), package, mode=0o600)
            signed, counted = identity.sign_approval, {"shard": shard, "shards": shards}
            leaves.append(approval(self._plan.digest, part, by, package, digests, signed, **counted, decided=decided))
        # all of a part or none: names are drawn anew by whoever seals again, and shards of two seals do not fit
        self._ledger.approve(*leaves)

    def _judge_formal(self, sets: list[Sealed[CandidateSet]]) -> Approved:
        """By the plan's private gate, where it has one: what an epsilon covers whole needs no other leave."""
        asked = self._plan.formal_gate
        if asked is None:
            return let_go(sets)
        terms = self._charge_terms("gate-formal")
        if (settled := sealed_digest(self._ledger, terms)) is not None:
            return recall_verdict(sets, settled)
        noise = site_noise(self._policy, self._plan.digest, "gate", "formal")
        charge = self._ledger.charged(terms, formal_gate_events(self._plan), noise, resume=True)
        rules, folder = self._policy.release.gate, self._home.steward_folder
        return private_gate(sets, lambda: self._cohorts("train")[0], rules, asked.noise_multiplier, charge, folder)

    def _judge_declared(self, made: Sequence[Made]) -> Approved:
        sets = [sealed for _, sealed in made]
        books = [Terms.of(self._plan, f"{purpose}-declared", 1, cohort) for cohort, purpose in GATE_BOOKS.items()]
        settled = [sealed_digest(self._ledger, terms) for terms in books]
        if None not in settled:
            return recall_verdict(sets, str(settled[0]))
        noise = site_noise(self._policy, self._plan.digest, "gate", "declared")
        charges = [
            self._ledger.charged(terms, [GATE_VERDICT], noise, resume=True)
            for terms, found in zip(books, settled, strict=True)
            if found is None
        ]
        rules, folder = self._policy.release.gate, self._home.steward_folder
        encoder = None if rules.encoder is None else gate_encoder(self._home, rules.encoder, self._policy)
        train, holdout = self._cohorts("train", "holdout")
        behind = read_behind(self.folder, made, train, rules)
        return gate(sets, train, holdout, rules, charges, folder, encoder, text_reader(rules), behind)

    def _charge_terms(self, purpose: str) -> Terms:
        return Terms.of(self._plan, purpose, 1, "train")

    def _cohorts(self, *names: Cohort) -> list[PatientCohort]:
        return self._home.charged_cohorts(self._plan, self._ledger, *names)

    @cached_property
    def _encoders(self) -> dict[str, Encoder]:
        return given_encoders(self._home, self._plan, self._policy).load_all(names_of(self._plan.release))

    @cached_property
    def _release(self) -> Release:
        """What the items share; the store is first opened here, which is inside a charge."""
        home, policy, style_net = self._home, self._policy, self._home.style_net
        return Release(
            plan=self._plan,
            site=policy.site,
            models=self._models,
            cohort=self._cohorts("train")[0],
            steward_folder=home.steward_folder,
            grouping_file=home.grouping_file,
            regroup=policy.release.regroup == "allowed",
            style_net=read_style_net(style_net.read_bytes(), self._plan.image) if style_net.exists() else None,
        )
