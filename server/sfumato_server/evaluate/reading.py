"""How a researcher's real images are read: where they lie, what their words mean, and by how many processes."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sfumato_common.errors import ConfigError, DataError
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row
from sfumato_common.types import ByteImages, pixel_dtype
from sfumato_server.evaluate.pictures import Pictures
from sfumato_server.workers import ALONE, Answer, Task, Where, run_tasks

Note = Callable[[str], None]
_FUNCTION = f"{__name__}:read_part"
_PART = 64  # images a task
_NAMED = 5  # images that an error names
_LINE_SECONDS = 30.0


@dataclass(frozen=True)
class Reading:
    """Options of reading an index.

    `folder` is where its files stand, else beside it. `ignored` are columns that nothing is to read. `meaning` has the
    set's label of a word of the index, or None to leave such images out. `allowed` are DICOM objects that have to be
    allowed by name (`sfumato_common.dicom.objects`). `holdout` is the share of patients who test where the index has no
    split; 0 where it has.
    """

    folder: Path | None = None
    ignored: Collection[str] = ()
    meaning: Mapping[str, str | None] = field(default_factory=dict)
    allowed: Collection[str] = ()
    holdout: float = 0.0
    where: Where = ALONE

    def check(self, labels: Sequence[str]) -> None:
        """Raise ConfigError where a word is to mean what is no label of the set."""
        for word, label in self.meaning.items():
            if label is not None and label not in labels:
                raise ConfigError(f"--map '{word}={label}': the set's labels are {', '.join(labels)}")


def meaning_of(pairs: Iterable[str]) -> dict[str, str | None]:
    """`WORD=LABEL` for each pair, `WORD=` to leave its images out. Raises ConfigError for any other form."""
    found: dict[str, str | None] = {}
    for pair in pairs:
        word, equals, label = (part.strip() for part in pair.partition("="))
        if not equals or not word:
            raise ConfigError(f"--map '{pair}': write WORD=LABEL, or WORD= to leave such images out")
        if found.setdefault(word.casefold(), label or None) != (label or None):
            raise ConfigError(f"--map gives '{word}' two meanings; keep one")
    return found


def read_pictures(
    rows: Sequence[Row], at: Sequence[str], folder: Path, form: ImageForm, reading: Reading, note: Note
) -> tuple[ByteImages, list[Row]]:
    """Images [N, S, S] or [N, S, S, 3] of rows, and what their files say of the patient.

    `at` is how an error calls each row. All are read before anything that is wrong is said: raises DataError that names
    the first few.
    """
    images = np.zeros((len(rows), *form.shape), pixel_dtype(form.bits))
    said, wrong, last = list[Row](), list[str](), time.monotonic()
    for task, answer in run_tasks(_FUNCTION, _tasks(rows, folder, form, reading), reading.where):
        for number, (pixels, header, reason) in enumerate(answer["images"], start=int(task["first"])):
            said.append(header)
            if reason:
                wrong.append(f"{at[number]}: {reason}")
            else:
                images[number] = np.frombuffer(base64.b64decode(pixels), images.dtype).reshape(form.shape)
        if time.monotonic() - last > _LINE_SECONDS:
            last = time.monotonic()
            note(f"reading the real images: {len(said):,} of {len(rows):,}")
    if wrong:
        more = f"; and {len(wrong) - _NAMED:,} others" if len(wrong) > _NAMED else ""
        count = f"{len(wrong):,} of {len(rows):,} images cannot be read: " if len(wrong) > 1 else ""
        raise DataError(f"{count}{'; '.join(wrong[:_NAMED])}{more}")
    return images, said


def _tasks(rows: Sequence[Row], folder: Path, form: ImageForm, reading: Reading) -> Iterator[Task]:
    common = {"folder": str(folder), "form": form.model_dump(), "allowed": [word.upper() for word in reading.allowed]}
    for first in range(0, len(rows), _PART):
        yield {**common, "first": first, "rows": [dict(row) for row in rows[first : first + _PART]]}


def read_part(task: Task) -> Answer:
    """The images of some rows: pixels in base64, what the file says, and empty or the reason why there is none."""
    pictures = Pictures(Path(task["folder"]), ImageForm.model_validate(task["form"]), task["allowed"])
    found = list[tuple[str, Row, str]]()
    for row in task["rows"]:
        try:
            pixels, said = pictures.of(row)
        except DataError as reason:
            found.append(("", {}, str(reason)))
        else:
            found.append((base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode(), said, ""))
    return {"images": found}
