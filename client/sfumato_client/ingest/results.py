"""Results of a job as bytes between a reader's process and the site's: JSON and plain pixels, nothing executable.

The reader has decoded whatever the file held, and may be in anybody's hands: what it says is checked like input.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np

from sfumato_client.ingest.jobs import Results
from sfumato_client.ingest.records import Facts, SiteImage, Skipped

_LENGTH = 8  # bytes that say how long what follows is, of the words and of the pixels
HEAD = 2 * _LENGTH
# instead of lengths, and longer than any: one image of several is done, and the next is begun
STEP = b"an image is done"
LARGEST = 2**31
_DTYPES = {"uint8": np.uint8, "uint16": np.uint16}


def to_bytes(results: Results) -> bytes:
    """Two lengths, the words as JSON, then all pixels."""
    words, pixels = list[dict[str, Any]](), list[bytes]()
    for one in results:
        if isinstance(one, Skipped):
            words.append({"skipped": [one.reference, one.reason]})
            continue
        data = np.ascontiguousarray(one.pixels)
        said = {name: getattr(one, name) for name in ("label", "patient_id", "split", "view", "notes")}
        words.append({**said, "facts": asdict(one.facts), "shape": data.shape, "dtype": str(data.dtype)})
        pixels.append(data.tobytes())
    text, body = json.dumps(words).encode(), b"".join(pixels)
    return len(text).to_bytes(_LENGTH, "big") + len(body).to_bytes(_LENGTH, "big") + text + body


def lengths(head: bytes) -> tuple[int, int]:
    """How many bytes of words and of pixels follow. Raises ValueError for more than any job gives."""
    found = int.from_bytes(head[:_LENGTH], "big"), int.from_bytes(head[_LENGTH:], "big")
    if sum(found) > LARGEST:
        raise ValueError("longer than any results")
    return found


def from_bytes(text: bytes, body: bytes, shape: tuple[int, ...], labels: int) -> Results:
    """Results again. Raises ValueError, KeyError or TypeError for what `to_bytes` of such images does not give."""
    results, place = Results(), 0
    for words in json.loads(text):
        if "skipped" in words:
            reference, reason = words["skipped"]
            results.append(Skipped(str(reference), str(reason)))
            continue
        dtype = np.dtype(_DTYPES[words["dtype"]])
        size = int(np.prod(shape)) * dtype.itemsize
        if tuple(words["shape"]) != shape or not 0 <= words["label"] < labels or place + size > len(body):
            raise ValueError("an image of another form than the study's")
        pixels = np.frombuffer(body, dtype, int(np.prod(shape)), place).reshape(shape)
        place += size
        if words["split"] not in (None, "train", "holdout"):
            raise ValueError("no split")
        said = (int(words["label"]), str(words["patient_id"]), words["split"], str(words["view"]))
        facts = Facts(**{name: str(value) for name, value in words["facts"].items()})
        results.append(SiteImage(pixels, *said, tuple(map(str, words["notes"])), facts))
    if place != len(body):
        raise ValueError("more pixels than images")
    return results
