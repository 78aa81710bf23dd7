"""One look at a whole set before anything of it is stored: who is one patient, what stands twice, what was lost.

A question that the source does not answer stops the ingest; all of them are asked at once. What is not a question is
noted. Everything here stays in the site.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sfumato_client.ingest.alike import IdKind, Unions, groups_by, placeholders, prefixed, shared
from sfumato_client.ingest.answers import Answers
from sfumato_client.ingest.depth import DEPTH_NOTE
from sfumato_client.ingest.records import LISTED_TWICE, NO_FACTS, SAME_AGAIN, UNLISTED, WITHDRAWN, Facts, Skipped, Split
from sfumato_common.count_text import count_text

_SHOWN = 20  # groups of a question that the report lists


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one image of the set, in the order of the store.

    `digest` is of its pixels. `patient_id`, and what in `facts` names a patient, are tokens: equal where values are.
    `alike` is that of the identifier without what does not count, as in `facts.others`, `bare` of its number behind
    letters, `kind` what could be seen of it, `drawn` the split that the site's key draws for it.
    """

    patient_id: str
    label: int
    split: Split | None
    view: str
    digest: bytes
    facts: Facts = NO_FACTS
    notes: tuple[str, ...] = ()
    alike: str = ""
    kind: IdKind = ""
    drawn: Split = "train"
    bare: str = ""


@dataclass(frozen=True)
class Question:
    """One thing that a person has to say: how the source is to answer it, and what it is about."""

    key: str
    text: str
    choices: tuple[str, ...]
    about: tuple[str, ...]

    def __str__(self) -> str:
        choices = " or ".join(f"'{self.key}: {choice}'" for choice in self.choices)
        return f"{self.text}; write {choices} under 'answers' of the source"


@dataclass(frozen=True)
class Past:
    """`patients` of the store before, by token; who has withdrawn, each with the token of all identifiers that are
    alike, and by that of name and birth date; the patients of images of it that nobody lists any more, one an image.
    """

    patients: Collection[str] = ()
    withdrawn: Mapping[str, str] = field(default_factory=dict)
    persons: Mapping[str, str] = field(default_factory=dict)
    gone: Sequence[str] = ()


@dataclass
class Examined:
    """The set as it may be stored: who is one patient, which entries go and why; or what to ask first."""

    unions: Unions
    dropped: dict[int, str] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def patient(self, entry: Entry) -> str:
        """What the patient of an entry is called."""
        return self.unions.of(entry.patient_id)


def examine(
    entries: Sequence[Entry], skipped: Sequence[Skipped], answers: Answers, past: Past | None = None
) -> Examined:
    """Hold a whole set against itself, with a hospital's answers, and against what was."""
    past = past or Past()
    examined = Examined(Unions(past.patients))
    _one_patient(entries, answers, past, examined)
    _withdrawn(entries, {examined.unions.of(name) for name in past.withdrawn}, examined)
    _gone(past, answers, examined)
    _placeholders(entries, answers, examined)
    _same_images(entries, answers, examined)
    _note(entries, examined)
    _lost(len(entries) - len(examined.dropped), (entry.reason for entry in skipped), answers, examined)
    return examined


def _one_patient(entries: Sequence[Entry], answers: Answers, past: Past, examined: Examined) -> None:
    """Identifiers that may be of one patient: joined, kept apart, or asked about."""
    nobody, unions = _nobody(entries), examined.unions

    def known() -> Iterator[Entry]:
        return (entry for entry in entries if entry.patient_id not in nobody)

    def say(key: str, text: str, answer: str | None, groups: list[list[str]]) -> None:
        # what is one patient already is no question
        groups = [group for group in groups if len({unions.of(name) for name in group}) > 1]
        if groups and answer is None:
            examined.questions.append(Question(key, f"{len(groups)} {text}", ("merge", "separate"), _listed(groups)))
        elif answer == "merge":
            for group in groups:
                unions.join(group)

    def persons() -> Iterator[tuple[str, str]]:
        return ((entry.facts.person, entry.patient_id) for entry in known())

    # a patient who withdrew is told by the identifier in another writing, too, and by name and birth date
    told = set(past.withdrawn.values())
    there = {entry.alike for entry in known() if entry.alike in told}
    withdrawn = [(alike, name) for name, alike in past.withdrawn.items() if alike in there]
    say(
        "alike_ids",
        "groups of patient ids differ in case, blanks, zeros or unseen signs alone",
        answers.alike_ids,
        groups_by(lambda: itertools.chain(((entry.alike, entry.patient_id) for entry in known()), withdrawn)),
    )
    say(
        "prefixed_ids",
        "groups of patient ids are a number, and that number with letters before it",
        answers.prefixed_ids,
        prefixed(lambda: ((entry.alike, entry.bare, entry.patient_id) for entry in known())),
    )
    say(
        "same_person",
        "groups of different patient ids share name and birth date, Study Instance UID or Other Patient IDs",
        answers.same_person,
        groups_by(
            lambda: ((("person", who), name) for who, name in itertools.chain(persons(), past.persons.items()) if who),
            lambda: ((("study", entry.facts.study), entry.patient_id) for entry in known() if entry.facts.study),
            lambda: _by_other_ids(known),
        ),
    )
    say(
        "image_of_two_patients",
        "groups of patient ids share an image (the same file, SOP Instance UID or pixels)",
        answers.image_of_two_patients,
        groups_by(
            lambda: ((("pixels", entry.digest), entry.patient_id) for entry in entries),
            lambda: ((("instance", it.facts.instance), it.patient_id) for it in entries if it.facts.instance),
        ),
    )


def _by_other_ids(known: Callable[[], Iterator[Entry]]) -> Iterator[tuple[Hashable, str]]:
    """Patients by identifiers that stand in someone's header as another one of theirs; such headers are few."""
    told = {other for entry in known() for other in entry.facts.others.split()}
    for entry in known() if told else ():
        for one in {entry.alike, *entry.facts.others.split()} & told:
            yield ("other", one), entry.patient_id


def _withdrawn(entries: Sequence[Entry], patients: set[str], examined: Examined) -> None:
    there = set[str]()
    for at, entry in enumerate(entries if patients else ()):
        if (patient := examined.patient(entry)) in patients:
            examined.dropped[at] = WITHDRAWN
            there.add(patient)
    if strangers := len(patients - there):
        examined.notes.append(f"{strangers} of the identifiers under 'withdrawn' have no image here")


def _gone(past: Past, answers: Answers, examined: Examined) -> None:
    """Images of the store before whose rows are gone: nobody takes them out, or leaves them in, without a word."""
    if past.gone and answers.gone is None:
        who = tuple(dict.fromkeys(past.gone))
        text = f"{count_text(len(past.gone), 'image')} of {count_text(len(who), 'patient')}: no row or file is left"
        examined.questions.append(Question("gone", text, ("remove", "keep"), who[:_SHOWN]))


def _nobody(entries: Sequence[Entry]) -> dict[str, IdKind]:
    """The identifiers that may stand for many people, with what could be seen of them."""
    kinds = {entry.patient_id: entry.kind for entry in entries if entry.kind}
    return {name: kinds[name] for name in placeholders(kinds)}


def _keys(entry: Entry) -> Iterable[tuple[str, object]]:
    yield "pixels", entry.digest
    if entry.facts.instance:
        yield "instance", entry.facts.instance


def _placeholders(entries: Sequence[Entry], answers: Answers, examined: Examined) -> None:
    found = sorted(kinds := _nobody(entries))
    if not found or answers.placeholder_ids == "allow":
        return
    if answers.placeholder_ids == "drop":
        for at, entry in enumerate(entries):
            if entry.patient_id in kinds:
                examined.dropped[at] = "its patient id is a placeholder: nobody knows whose it is"
        return
    excel = ", and Excel lost digits of some" if any(kinds[name] == "excel" for name in found) else ""
    text = f"{len(found)} patient ids may stand for many people{excel}"
    examined.questions.append(Question("placeholder_ids", text, ("drop", "allow"), tuple(found[:_SHOWN])))


def _same_images(entries: Sequence[Entry], answers: Answers, examined: Examined) -> None:
    """One image of one patient is kept once; under two labels it is a question."""
    unclear = list[list[str]]()
    for places in _alike(entries, examined):
        left = [at for at in places if at not in examined.dropped]
        if len(left) < 2:
            continue
        first, two = entries[left[0]].facts.reference, len({entries[at].label for at in left}) > 1
        if two and answers.image_of_two_labels is None:
            unclear.append([entries[at].facts.reference for at in left])
            continue
        for at in left if two and answers.image_of_two_labels == "drop" else left[1:]:
            what = "the same image under another label" if two else SAME_AGAIN
            examined.dropped[at] = f"{what} (as {first})"
    if unclear:
        text = f"{count_text(len(unclear), 'image')} under more than one label"
        examined.questions.append(Question("image_of_two_labels", text, ("drop", "first"), _listed(unclear)))


def _alike(entries: Sequence[Entry], examined: Examined) -> list[list[int]]:
    """Numbers of the images of one patient that share a key, where more than one does; of all others hashes alone."""

    def said() -> Iterator[tuple[int, Hashable]]:
        for at, entry in enumerate(entries):
            if at not in examined.dropped:
                patient = examined.patient(entry)
                yield from ((at, (patient, key)) for key in _keys(entry))

    hashes = np.fromiter((hash(key) for _, key in said()), np.int64)
    hashes.sort()
    likely = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    del hashes
    more: dict[Hashable, list[int]] = defaultdict(list)
    for at, key in said() if likely else ():
        if hash(key) in likely:
            more[key].append(at)
    return sorted((places for places in more.values() if len(places) > 1), key=lambda places: places[0])


def _note(entries: Sequence[Entry], examined: Examined) -> None:
    """What a person should know and need not answer."""

    def kept() -> Iterator[Entry]:
        return (entry for at, entry in enumerate(entries) if at not in examined.dropped)

    if torn := len(shared(lambda: ((examined.patient(entry), entry.split) for entry in kept()))):
        examined.notes.append(f"{count_text(torn, 'patient')} in two splits of the table: all of theirs trains")
    if {entry.split for entry in kept()} == {"train"}:
        examined.notes.append("the table holds nobody out: no figure can be measured on patients who did not train")
    depths = Counter(note for entry in entries for note in entry.notes if note.startswith(DEPTH_NOTE))
    if depths and (len(depths) > 1 or sum(depths.values()) < len(entries)):
        examined.notes.append(
            "16-bit files hold different depths, so that their brightness may differ: write 'bits' in the source"
        )


def _lost(kept: int, reasons: Iterable[str], answers: Answers, examined: Examined) -> None:
    """Rows that were dropped, by reason; a question where they are more than the stated share."""
    everything = Counter(itertools.chain(reasons, examined.dropped.values()))
    no_loss = (UNLISTED, WITHDRAWN, LISTED_TWICE, SAME_AGAIN)
    lost = sum(count for reason, count in everything.items() if not reason.startswith(no_loss))
    if kept and lost > answers.most_dropped * (kept + lost):
        share = f"{lost} of {kept + lost} rows were dropped"
        text = f"{share}, more than 'most_dropped' {answers.most_dropped:g} allows"
        most = tuple(f"{count} x {reason}" for reason, count in everything.most_common(_SHOWN))
        examined.questions.append(Question("most_dropped", text, ("1.0",), most))


def _listed(groups: list[list[str]]) -> tuple[str, ...]:
    return tuple(" = ".join(group) for group in groups[:_SHOWN])
