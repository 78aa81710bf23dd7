"""The stewards' desk: every part of every release here, how it stands, what it holds, and where a decision is taken.

Read by any process of the site's own user. Sets are shown, and decided on, only as the ledger knows them, and only when
what a person will say of them is charged.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.ledger import Ledger
from sfumato_client.ledger.decisions import Decided, Decision, Verdict, signed
from sfumato_client.ledger.head import has_begun
from sfumato_client.ledger.people import decide, decided
from sfumato_client.ledger.storage import now
from sfumato_client.release.folder import ReleaseFolder, release_folder
from sfumato_client.site.candidates import read_finished
from sfumato_client.site.home import SiteHome
from sfumato_client.site.names import name_in
from sfumato_client.site.reviewing import Review
from sfumato_client.site.stewards import decision_signer
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError, PolicyRefusal
from sfumato_common.mechanisms.sealed import Sealed
from sfumato_common.study.lineage import version_of
from sfumato_common.study.plan import Plan
from sfumato_common.study.words import Part

State = Literal["to come", "being made", "later", "waits", "decided", "approved", "refused"]


@dataclass(frozen=True)
class Entry:
    """A part of a release: `waits` for a steward, is `decided` and sealed or dropped when next asked for, and so on.

    A declared part is for `later` while the formal one waits.
    `sets` are the digests of what waits; `code` says why it was refused; `persons` must say yes in all.
    """

    home: SiteHome
    plan: Plan
    part: Part
    state: State
    said: tuple[Decided, ...] = ()
    sets: tuple[str, ...] = ()
    since: float | None = None
    code: str = ""
    persons: int = 1

    @property
    def name(self) -> str:
        """What people and commands call it: 'thorax/declared', 'thorax@2/formal'."""
        return release_name(self.plan, self.part)

    @property
    def words(self) -> str:
        """How it stands, for people."""
        yes = [each.decision.steward for each in self.said if each.decision.verdict == "approve"]
        match self.state:
            case "later":
                return "is looked at after the formal part"
            case "waits" if yes:
                return f"waits for a second steward: {yes[0]} approved"
            case "waits":
                return "waits for two stewards" if self.persons == 2 else "waits for a steward"
            case "decided" if self.refused:
                return "refused by a steward; the coordinator is told when it next asks"
            case "decided":
                return f"approved by {' and '.join(yes)}; sealed when the coordinator next asks"
            case "approved":
                return f"approved by {' and '.join(yes)}" if yes else "approved by policy"
            case "refused":
                return "refused by a steward" if self.refused else f"refused ({self.code})"
        return self.state

    @property
    def refused(self) -> bool:
        """Whether a steward said no."""
        return any(each.decision.verdict == "refuse" for each in self.said)


def release_name(plan: Plan, part: Part) -> str:
    """What a part of a plan's release is called."""
    version = version_of(plan)
    return f"{plan.study}{f'@{version}' if version > 1 else ''}/{part}"


def queue(root: Path) -> list[Entry]:
    """Every part of every accepted release of the home, those that wait first."""
    home = SiteHome(root)
    if not has_begun(home.ledger_file):  # a look begins no ledger
        return [
            Entry(link, plan, part, "to come")
            for link in home.links
            for plan in link.readable_plans()
            for part in plan.parts_at(name_in(link, plan))
        ]
    key = load_identity(home.identity).signing_public
    with home.open_ledger() as ledger:
        found = [
            _entry(link, plan, part, ledger, key)
            for link in home.links
            for plan in link.readable_plans()
            for part in plan.parts_at(name_in(link, plan))
        ]
    return sorted(map(partial(_in_order, found), found), key=lambda entry: entry.state != "waits")


def _in_order(entries: Sequence[Entry], entry: Entry) -> Entry:
    """A declared part is told nothing of while a person is to decide about the formal one: not even what the gate said.

    Who decides about a formal part is to know its images alone.
    """
    formal = [each for each in entries if each.plan.digest == entry.plan.digest and each.part == "formal"]
    asked = entry.part == "declared" and entry.home.policy().release.review.asks("formal")
    if asked and any(each.state in ("to come", "being made", "waits") for each in formal):
        return replace(entry, state="later", said=(), sets=(), since=None, code="")
    return entry


def _entry(home: SiteHome, plan: Plan, part: Part, ledger: Ledger, key: bytes) -> Entry:
    folder, rules = release_folder(home.releases, plan), home.policy().release.review
    said = tuple(each for each in decided(ledger, plan.digest, key) if each.decision.part == part)
    review = Review(plan, home.policy(), ledger, folder, key)
    code = folder.refusal(part)
    state: State = "to come"
    if part in ledger.approvals(plan.digest):
        state = "approved"
    elif code is not None:
        state = "refused"
    elif review.waits(part):
        state = "waits"
    elif said:
        state = "decided"
    elif folder.begun:
        state = "being made"
    sets = tuple(folder.waiting(part) or ())
    return Entry(home, plan, part, state, said, sets, folder.waiting_since(part), code or "", rules.persons)


def find(root: Path, name: str) -> Entry:
    """The entry of that name; a study's name alone will do while one of its parts waits. Raises ConfigError."""
    entries = queue(root)
    exact = [entry for entry in entries if entry.name == name]
    short = [entry for entry in entries if entry.state == "waits" and entry.name.partition("/")[0] == name]
    if len(exact) == 1 or (not exact and len(short) == 1):
        return (exact or short)[0]
    names = [entry.name for entry in entries]
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(names) or 'none'}"
    raise ConfigError(f"no release is called '{name}' here, or several are{hint}")


def candidate_sets(entry: Entry, ledger: Ledger) -> list[Sealed[CandidateSet]]:
    """The sets of a part that waits or waited, held against the ledger. What is said of them is charged, or it raises.

    Raises LedgerError, EgressRefused for sets that are not as they were sealed, or ConfigError where they are not made.
    """
    home, plan = entry.home, entry.plan
    folder = keyed_folder(entry)
    Review(plan, home.policy(), ledger, folder, load_identity(home.identity).signing_public).require_begun(entry.part)
    found = []
    for item in plan.part_at(home.policy().site, folder.choice(), entry.part):
        sealed = read_finished(ledger, folder, plan, item)
        if sealed is None:
            raise ConfigError(f"of '{entry.name}' no candidates are here: to be made yet, or erased at a withdrawal")
        found.append(sealed)
    return found


def keyed_folder(entry: Entry) -> ReleaseFolder:
    """The folder of an entry's release, with the key that opens what waits in it."""
    return release_folder(entry.home.releases, entry.plan, entry.home.store_key())


def take_decision(
    root: Path,
    name: str,
    verdict: Verdict,
    steward: str,
    passphrase: bytes,
    reason: str,
    ground: str = "",
    shown: Sequence[str] | None = None,
) -> Entry:
    """Enter what `steward` says of the release `name`, and how it stands after that.

    `shown` are the digests of the sets that the person looked at. Raises PolicyRefusal where nothing waits, or other
    sets than `shown`; ConfigError for a wrong passphrase; and what `candidate_sets` raises.
    """
    entry = find(root, name)
    if entry.state != "waits":
        raise PolicyRefusal(f"'{entry.name}' does not wait for a steward: {entry.words}")
    identity = load_identity(entry.home.identity)
    with entry.home.open_ledger() as ledger:
        sets = tuple(sealed.digest for sealed in candidate_sets(entry, ledger))
        if sets != entry.sets or (shown is not None and sets != tuple(shown)):
            raise PolicyRefusal("these are other candidates than those that were shown: look at the page again")
        site, digest = entry.home.policy().site, entry.plan.digest
        said = Decision(site, digest, entry.part, sets, verdict, ground, reason.strip(), steward, now())
        taken = signed(said, decision_signer(entry.home, steward, passphrase), identity.sign_stewardship)
        decide(ledger, taken, identity.signing_public, entry.persons)
    return find(root, entry.name)
