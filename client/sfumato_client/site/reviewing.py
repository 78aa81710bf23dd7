"""Where people decide: a part that the gate let pass waits for stewards, and goes on when they have said yes.

What they say is one declared bit a part, charged to both cohorts before a release is sealed or shown: nobody decides
about what was not charged, and every certificate of the plan names it.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfumato_client.audit.consent import Consent, consent_of
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.charged import Terms, has_open_charge, is_charged, open_charge
from sfumato_client.ledger.people import decided
from sfumato_client.release.folder import ReleaseFolder
from sfumato_client.site.noise import site_noise
from sfumato_client.site.recovery import REVIEW_BOOKS
from sfumato_common.errors import LedgerError, ReleaseRefused
from sfumato_common.files import canonical_json
from sfumato_common.study.costs import REVIEW_WORDS
from sfumato_common.study.plan import Plan
from sfumato_common.study.policy import Policy
from sfumato_common.study.words import Part


class Waiting(Exception):
    """A part waits for stewards."""


class Review:
    """The review of one plan's release under the site's policy; `site_key` is the site's public key (PEM)."""

    def __init__(self, plan: Plan, policy: Policy, ledger: Ledger, folder: ReleaseFolder, site_key: bytes) -> None:
        self._plan, self._policy, self._ledger, self._folder = plan, policy, ledger, folder
        self._rules, self._key = policy.release.review, site_key

    @property
    def parts(self) -> list[Part]:
        """The parts that people are asked about."""
        return [part for part in self._plan.parts_at(self._policy.site) if self._rules.asks(part)]

    def begin(self) -> None:
        """Charge what people will say of every part that they are asked about; before any part is sealed or shown."""
        for part in self.parts:
            for terms in self._books(part):
                open_charge(self._ledger, terms, REVIEW_WORDS[part])

    def require_begun(self, part: Part) -> None:
        """Raise LedgerError unless what people say of a part is charged: before that nothing of it is shown."""
        if not all(is_charged(self._ledger, terms) for terms in self._books(part)):
            raise LedgerError("what a steward says of this release is not charged yet, so that none of it is shown")

    def waits(self, part: Part) -> bool:
        """Whether a part that the gate let pass still waits: quickly, without a look at the candidates."""
        return part in self.parts and self._folder.waiting(part) is not None and not self.is_final(part)

    def is_final(self, part: Part) -> bool:
        """Whether stewards have said all that there is to say: a no, or as many yeses as policy asks."""
        said = [each for each in decided(self._ledger, self._plan.digest, self._key) if each.decision.part == part]
        return any(each.decision.verdict == "refuse" for each in said) or len(said) >= self._rules.persons

    def consent(self, part: Part, sets: Sequence[str]) -> Consent | None:
        """The stewards' consent to candidate sets with these digests; None where policy asks nobody.

        A no that stands in the ledger holds, also where policy was changed since and asks nobody any more. Raises
        Waiting while they have not decided, ReleaseRefused where one said no; EgressRefused as `consent_of`.
        """
        said, digest = decided(self._ledger, self._plan.digest, self._key), self._plan.digest
        refused = any((each.decision.part, each.decision.verdict) == (part, "refuse") for each in said)
        if part not in self.parts and not refused:
            return None
        try:
            found = consent_of(said, digest, part, tuple(sets), self._rules.persons)
        except ReleaseRefused:
            self._close(part, False, sets)
            raise
        if found is None:
            self._folder.keep_waiting(part, sets)
            raise Waiting
        self._close(part, True, sets)
        return found

    def _close(self, part: Part, approved: bool, sets: Sequence[str]) -> None:
        """Settle what was charged for the people's word, with the word."""
        statement = canonical_json({"approved": approved, "sets": list(sets)})
        for terms in self._books(part):
            if has_open_charge(self._ledger, terms):
                noise = site_noise(self._policy, self._plan.digest, "review", part)
                with self._ledger.charged(terms, [REVIEW_WORDS[part]], noise, resume=True) as charge:
                    charge.seal(statement)

    def _books(self, part: Part) -> list[Terms]:
        books = REVIEW_BOOKS.items()
        return [Terms.of(self._plan, f"{purpose}-{part}", 1, cohort) for cohort, purpose in books]
