"""What each of the stewards' pages shows, as plain values for its template."""

from __future__ import annotations

import base64
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_client.anonymise.candidates import CandidateSet
from sfumato_client.dataset import StoreFacts
from sfumato_client.ledger.decisions import GROUNDS, GROUNDS_OF
from sfumato_client.ledger.people import stewards
from sfumato_client.review.facts import LEVELS, consequences, costs, disclosures, judged, paragraph
from sfumato_client.review.neighbours import Neighbours
from sfumato_client.site.desk import Entry, candidate_sets, queue
from sfumato_client.site.home import SiteHome
from sfumato_common.command_line import duration_text
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError
from sfumato_common.imaging import encode_png
from sfumato_common.types import AnyArray, to_eight_bits

PER_PAGE = 48
# how often small images are enlarged at first, by their largest side
_ZOOMS = ((4, 32), (2, 64))
_FRESH_S = 1.0


class Pages:
    """The pages of one home. What of candidates and patients was looked at stays in memory until the page ends."""

    def __init__(self, root: Path) -> None:
        self._root, self._lock = root, threading.RLock()
        self._read_at, self._entries = -_FRESH_S, list[Entry]()
        self._sets: dict[tuple[str, ...], list[CandidateSet]] = {}
        self._near: tuple[StoreFacts, Neighbours] | None = None

    def queue(self) -> dict[str, Any]:
        """Every part of every release, those that wait first."""
        rows = [
            {"entry": entry, "plan": entry.plan.digest[:16], "since": _since(entry), "open": entry.state == "waits"}
            for entry in self._queue()
        ]
        return {"site": SiteHome(self._root).own_policy().site, "rows": rows, "people": self._people()}

    def name(self, plan: str, part: str) -> str:
        """What the release at an address is called."""
        return self._entry(plan, part).name

    def release(self, plan: str, part: str, number: int) -> dict[str, Any]:
        """All that is to be known of a part, a page of its images, and the form of a decision."""
        entry = self._entry(plan, part)
        sets = self._candidates(entry)
        tiles = [(at, i) for at, item in enumerate(sets) for i in range(len(item.images))]
        pages = max(1, -(-len(tiles) // PER_PAGE))
        number = min(max(1, number), pages)
        with entry.home.open_ledger() as ledger:
            paid, delta = costs(entry, ledger), ledger.budget.delta
            budget = ledger.budget.epsilon
        rules, attacks, untried = judged(entry, entry.sets)
        review = entry.home.policy().release.review
        asked = [known for known in entry.plan.parts_at(entry.home.policy().site) if review.asks(known)]
        return {
            "entry": entry, "plan": plan, "site": entry.home.policy().site,
            "paragraph": paragraph(entry, sets), "levels": _levels(sets), "costs": paid, "delta": delta,
            "budget": budget, "test_noise": entry.home.policy().noise == "test", "private": entry.plan.private,
            "disclosures": disclosures(entry, asked), "rules": rules, "attacks": attacks, "untried": untried,
            "consequences": consequences(entry), "persons": review.persons, "since": _since(entry),
            "tiles": [_tile(entry, sets, *tile) for tile in tiles[(number - 1) * PER_PAGE : number * PER_PAGE]],
            "zoom": next((times for times, most in _ZOOMS if entry.plan.image.size <= most), 1),
            "images": len(tiles), "page": number, "pages": pages, "size": entry.plan.image.size,
            "people": self._people(), "grounds": {word: GROUNDS[word] for word in GROUNDS_OF[entry.part]},
        }  # fmt: skip

    def candidate(self, plan: str, part: str, which: int, number: int) -> dict[str, Any]:
        """One candidate; of a declared part beside the training patients nearest to it."""
        entry = self._entry(plan, part)
        sets = self._candidates(entry)
        image = self._image(sets, which, number)
        order = [(at, i) for at, item in enumerate(sets) for i in range(len(item.images))]
        here = order.index((which, number))
        near = [] if entry.part == "formal" else self._neighbours(entry).nearest(image)
        beside = [
            {"uri": _uri(each.image), "label": entry.plan.labels[each.label], "distance": f"{each.distance:.3f}"}
            for each in near
        ]
        return {
            "entry": entry, "plan": plan, "tile": _tile(entry, sets, which, number), "beside": beside,
            "number": here + 1, "images": len(order), "size": entry.plan.image.size,
            "before": order[here - 1] if here else None, "after": order[here + 1] if here + 1 < len(order) else None,
            "sheet": here // PER_PAGE + 1,
        }  # fmt: skip

    def image(self, plan: str, part: str, which: int, number: int) -> bytes:
        """A candidate as PNG of 8 bits. Raises ConfigError where there is none."""
        entry = self._entry(plan, part)
        return encode_png(to_eight_bits(self._image(self._candidates(entry), which, number)))

    def forget(self) -> None:
        """Read the queue anew at the next look: somebody decided."""
        with self._lock:
            self._read_at = -_FRESH_S

    def _queue(self) -> list[Entry]:
        """The queue, a second old at most: a page asks for it once for each of its images."""
        with self._lock:
            if time.monotonic() - self._read_at >= _FRESH_S:
                self._entries, self._read_at = queue(self._root), time.monotonic()
            return self._entries

    def _entry(self, plan: str, part: str) -> Entry:
        found = [each for each in self._queue() if (each.plan.digest[:16], each.part) == (plan, part)]
        if not found:
            raise ConfigError("there is no such release here; go back to the queue")
        return found[0]

    def _candidates(self, entry: Entry) -> list[CandidateSet]:
        """The sets of an entry, read once as long as they are the same."""
        if entry.state == "refused" or not entry.sets:
            raise ConfigError(f"'{entry.name}' has nothing to look at: {entry.words}")
        key = (entry.plan.digest, entry.part, *entry.sets)
        with self._lock:
            if key not in self._sets:
                with entry.home.open_ledger() as ledger:
                    found = candidate_sets(entry, ledger)
                if tuple(sealed.digest for sealed in found) != entry.sets:
                    raise ConfigError("the candidates are not those that the gate judged: restore 'releases'")
                self._sets[key] = [sealed.result for sealed in found]
            return self._sets[key]

    def _neighbours(self, entry: Entry) -> Neighbours:
        """The training patients, once what is said of the part is charged (`candidate_sets` held that).

        They are those of the store as it is now: who withdrew is shown to nobody any more.
        """
        with self._lock:
            facts = StoreFacts.read(entry.home.store, entry.home.store_key())
            if self._near is None or self._near[0] != facts:
                self._near = None
                with entry.home.open_ledger() as ledger:
                    candidate_sets(entry, ledger)
                    (cohort,) = entry.home.charged_cohorts(entry.plan, ledger, "train")
                self._near = facts, Neighbours(cohort)
            return self._near[1]

    def _image(self, sets: list[CandidateSet], which: int, number: int) -> AnyArray:
        if not (0 <= which < len(sets) and 0 <= number < len(sets[which].images)):
            raise ConfigError("there is no such image in this release")
        return np.asarray(sets[which].images[number])

    def _people(self) -> list[dict[str, str]]:
        home = SiteHome(self._root)
        with home.open_ledger() as ledger:
            found = stewards(ledger, load_identity(home.identity).signing_public)
        return [{"name": each.name, "key": each.fingerprint} for each in found.values()]


def _since(entry: Entry) -> str:
    return duration_text(time.time() - entry.since) if entry.since else ""


def _levels(sets: list[CandidateSet]) -> list[dict[str, Any]]:
    return [
        {"name": item.name, "images": len(item.images), "level": item.guarantee, "means": LEVELS[item.guarantee],
         "patients": item.patients}
        for item in sets
    ]  # fmt: skip


def _tile(entry: Entry, sets: list[CandidateSet], which: int, number: int) -> dict[str, Any]:
    item = sets[which]
    label = entry.plan.labels[int(item.labels[number])]
    return {"set": which, "number": number, "name": item.name, "label": label, "level": item.guarantee}


def _uri(image: AnyArray) -> str:
    return "data:image/png;base64," + base64.b64encode(encode_png(to_eight_bits(image))).decode("ascii")
