"""Which answers of a site the coordinator holds, as one short text that every request carries.

An answer is named as the ledger names its charge: purpose and round. `gan:1-12,14 spectral:1` are fourteen; a part of a
release (`formal`, `declared`) has round 1. A site whose ledger does not know one of them was restored from a backup.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from itertools import pairwise

from sfumato_common.errors import VerificationError

Answer = tuple[str, int]
LARGEST_TEXT = 64 * 1024
_MOST = 50_000  # of ten letters could come ten thousand: a text within its length would fill a machine's memory
_RANGE = r"[0-9]{1,4}(?:-[0-9]{1,4})?"
_TEXT = re.compile(rf"(?:[a-z][a-z0-9-]{{0,31}}:{_RANGE}(?:,{_RANGE})*(?: |$))*(?<! )")


def write_answers(answers: Collection[Answer]) -> str:
    """The one text of a set of answers: purposes and rounds in order, neighbours as a range."""
    words, known = [], dict[str, set[int]]()
    for purpose, number in answers:
        known.setdefault(purpose, set()).add(number)
    for purpose, numbers in sorted(known.items()):
        rounds = sorted(numbers)
        breaks = [at for at, (one, other) in enumerate(pairwise(rounds), 1) if other != one + 1]
        runs = [rounds[start:end] for start, end in zip([0, *breaks], [*breaks, len(rounds)], strict=True)]
        words.append(f"{purpose}:{','.join(str(run[0]) + (f'-{run[-1]}' if len(run) > 1 else '') for run in runs)}")
    return " ".join(words)


def read_answers(text: object) -> frozenset[Answer]:
    """Inverse of `write_answers`. Raises VerificationError for anything else, another spelling included."""
    if type(text) is not str or len(text) > LARGEST_TEXT or _TEXT.fullmatch(text) is None:
        raise VerificationError("a request's list of answers is malformed")
    found: set[Answer] = set()
    for word in text.split():
        purpose, _, ranges = word.partition(":")
        for part in ranges.split(","):
            first, _, last = part.partition("-")
            if len(found) > _MOST:
                raise VerificationError("a request's list of answers is malformed")
            found |= {(purpose, number) for number in range(int(first), int(last or first) + 1)}
    if write_answers(found) != text:
        raise VerificationError("a request's list of answers is malformed")
    return frozenset(found)
