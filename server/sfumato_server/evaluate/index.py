"""The index of a researcher's real images: a CSV with a row an image, read strictly before anything is trained.

Columns: `file` (or `path`), with `frame` of a multi-frame DICOM file, or `set` (or `npz`) and `row` of an archive
beside the index; `label` (or `abnormal`); `patient` (or `patient_id`); `split`; and, where known, `site`, `sex` and
`age`. Of a DICOM file what the index leaves open of its patient is the header's. The index of `sfumato demo --data` is
one, and so is the table of a site's folder.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm
from sfumato_common.tables import Row, read_table
from sfumato_server.evaluate.images import Images, Labels, Words
from sfumato_server.evaluate.reading import Note, Reading, read_pictures
from sfumato_server.evaluate.settings import GROUPS, Split

ALIASES = {
    "file": ("file", "path"),
    "set": ("set", "npz"),
    "row": ("row",),
    "frame": ("frame",),
    "label": ("label", "abnormal"),
    "patient": ("patient", "patient_id"),
    "split": ("split",),
    "site": ("site",),
    "sex": ("sex",),
    "age": ("age",),
    # of a site's table; no figure needs them
    "laterality": ("laterality",),
    "view": ("view",),
}
_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "development", "tune", "tuning"),
    "test": ("test", "testing", "holdout", "heldout"),
}
SPLIT_OF = {word: split for split, words in _SPLITS.items() for word in words}
_SEXES = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male", "o": "other", "other": "other"}
_AGES = ((18, "0 to 17"), (40, "18 to 39"), (65, "40 to 64"), (150, "65 and older"))


@dataclass(frozen=True, eq=False)
class Real:
    """Real images: those that train, those of the tested split, and `seen`, all that a study of them may train on.

    A study of an index trains on its validation patients too: they are among `seen` unless they are the tested split.
    """

    train: Images
    test: Images
    seen: Images


def read_real(
    path: Path,
    labels: Sequence[str],
    form: ImageForm,
    split: Split,
    reading: Reading = Reading(),  # noqa: B008, frozen
    note: Note = lambda line: None,
) -> Real:
    """Read an index and its images into `form`. Raises DataError that names the column, image or patient."""
    rows, at = _taken(path, labels, reading)
    known = all(row.get("patient") for row in rows)
    if known:  # what is wrong with the index is said before thousands of files are read
        _cohort(path, rows, at, labels, split, reading)
    pixels, said = read_pictures(rows, at, reading.folder or path.parent, form, reading, note)
    # what the index says of a patient counts, and what it leaves open the file's own header
    rows = [
        row | {name: word for name, word in header.items() if not row.get(name)}
        for row, header in zip(rows, said, strict=True)
    ]
    splits, targets, patients = _cohort(path, rows, at, labels, split, reading)
    groups = {"site": np.array([row.get("site", "") for row in rows])}
    groups["sex"] = np.array([_sex(row, place) for row, place in zip(rows, at, strict=True)])
    groups["age"] = np.array([_age(row, place) for row, place in zip(rows, at, strict=True)])
    whole = Images(pixels, targets, patients, {kind: words for kind, words in groups.items() if words.any()})
    seen = splits == "train" if split == "val" else splits != "test"
    return Real(whole.part(splits == "train"), whole.part(splits == split), whole.part(seen))


def _taken(path: Path, labels: Sequence[str], reading: Reading) -> tuple[list[Row], list[str]]:
    """The rows that are not left out by their label's meaning, and how errors call each."""
    reading.check(labels)
    rows = _rows(path, reading)
    at = [f"'{path.name}', image {number}" for number in range(1, len(rows) + 1)]
    kept = [
        (row, place)
        for row, place in zip(rows, at, strict=True)
        if reading.meaning.get(row["label"].casefold(), "") is not None
    ]
    if not kept:
        raise DataError(f"index '{path.name}': --map leaves no image")
    return [row for row, _ in kept], [place for _, place in kept]


def _cohort(
    path: Path, rows: Sequence[Row], at: Sequence[str], labels: Sequence[str], split: Split, reading: Reading
) -> tuple[Words, Labels, Labels]:
    """Split, label and number of patient of each row [N]. Raises DataError for what no classifier could train on."""
    targets = np.array(
        [_label(row, labels, reading.meaning, place) for row, place in zip(rows, at, strict=True)], dtype=np.int64
    )
    names = [_patient(row, place) for row, place in zip(rows, at, strict=True)]
    patients = np.unique(names, return_inverse=True)[1].astype(np.int64)
    if reading.holdout:
        splits = _dealt(names, split, reading.holdout)
    else:
        splits = np.array([_split(row, place) for row, place in zip(rows, at, strict=True)])
    _check_patients(path, patients, splits, split)
    _check_labels(path, targets, patients, splits, split, labels)
    return splits, targets, patients


def _dealt(names: Sequence[str], split: Split, share: float) -> Words:
    """`split` for a share of the patients, those of the smallest hashes of their names; `train` for all others."""
    people = sorted(set(names), key=lambda name: hashlib.sha256(name.encode()).digest())
    tested = set(people[: round(share * len(people))])
    return np.array([split if name in tested else "train" for name in names])


def _rows(path: Path, reading: Reading) -> list[Row]:
    """Rows by our names. Raises DataError for columns that are missing, double, or read by nothing."""
    rows = read_table(path, ())
    dropped = {name.strip().lower() for name in reading.ignored}
    have = [title for title in rows[0] if title and title not in dropped]
    ours: dict[str, str] = {}
    for title in have:
        name = next((name for name, words in ALIASES.items() if title in words), None)
        if name is None:
            near = difflib.get_close_matches(title, [word for words in ALIASES.values() for word in words], 1, 0.6)
            hint = f"is '{near[0]}' meant? " if near else ""
            raise DataError(
                f"index '{path.name}' has a column '{title}' that nothing reads; {hint}Rename it, or pass "
                f"--ignore '{title}'"
            )
        if name in ours:
            raise DataError(
                f"index '{path.name}' says one thing in two columns, '{ours[name]}' and '{title}'; --ignore one"
            )
        ours[name] = title
    _check_columns(path, ours, reading)
    return [{name: row[title] for name, title in ours.items()} for row in rows]


def _check_columns(path: Path, ours: Collection[str], reading: Reading) -> None:
    """Raise DataError where a column is missing that the index needs."""
    # of files, a patient may stand in a DICOM header
    needed = ["label", *([] if "file" in ours else ["patient"]), *([] if reading.holdout else ["split"])]
    for name in needed:
        if name not in ours:
            hint = ". Or pass --holdout 0.5: half of the patients test" if name == "split" else ""
            raise DataError(
                f"index '{path.name}' has no column '{name}'; it needs file (or set and row), label, patient and "
                f"split{hint}"
            )
    if reading.holdout and "split" in ours:
        raise DataError(f"index '{path.name}' has a column 'split'; leave out --holdout, or --ignore split")
    if (
        ("file" in ours) == ("set" in ours)
        or ("set" in ours) != ("row" in ours)
        or ("frame" in ours) > ("file" in ours)
    ):
        raise DataError(
            f"index '{path.name}' has to name images by a column 'file' (and 'frame' of DICOM), or by 'set' and 'row' "
            "of npz archives"
        )


def _split(row: Row, where: str) -> str:
    found = SPLIT_OF.get(row["split"].casefold())
    if found is None:
        raise DataError(f"{where}: its split '{row['split']}' is none of train, val, test")
    return found


def _label(row: Row, labels: Sequence[str], meaning: Mapping[str, str | None], where: str) -> int:
    """The place in the plan's list of what a label means: by `meaning`, its name, or that place as a number."""
    names = {name.casefold(): at for at, name in enumerate(labels)}
    numbers = {text: at for at in range(len(labels)) for text in (str(at), f"{at}.0")}
    word = meaning.get(row["label"].casefold()) or row["label"]
    found = names.get(word.casefold(), numbers.get(word))
    if found is None:
        shown = f"{', '.join(labels)}, or 0 to {len(labels) - 1}"
        raise DataError(
            f"{where}: its label '{row['label']}' is none of the set's: {shown}; say what it means by --map "
            f"'{row['label']}=LABEL', or leave such images out by --map '{row['label']}='"
        )
    return found


def _patient(row: Row, where: str) -> str:
    if not row.get("patient"):
        raise DataError(
            f"{where}: it has no patient, in a column 'patient' or in a DICOM header; intervals are over patients, and "
            "none may train and test"
        )
    return f"{row.get('site', '')}\0{row['patient']}"


def _sex(row: Row, where: str) -> str:
    word = row.get("sex", "").casefold()
    if word and word not in _SEXES:
        raise DataError(f"{where}: its sex '{row['sex']}' is none of F, M, other; leave it empty where it is not known")
    return _SEXES.get(word, "")


def _age(row: Row, where: str) -> str:
    """A group of ages, of years as a number (DICOM's `045Y` too)."""
    text = row.get("age", "")
    if not text:
        return ""
    try:
        years = float(text.upper().removesuffix("Y"))
        return next(name for end, name in _AGES if 0 <= years < end)
    except (ValueError, StopIteration):
        raise DataError(f"{where}: its age '{text}' is no number of years from 0 to 149") from None


def _check_patients(path: Path, patients: np.ndarray, splits: np.ndarray, split: Split) -> None:
    """Raise DataError where a patient of the tested split has images in another one too."""
    both = np.intersect1d(patients[splits == split], patients[splits != split])
    if len(both):
        raise DataError(
            f"index '{path.name}': {len(both)} patients have images in '{split}' and in another split; none may train "
            "and test"
        )


def _check_labels(
    path: Path, targets: np.ndarray, patients: np.ndarray, splits: np.ndarray, split: Split, labels: Sequence[str]
) -> None:
    """Raise DataError where a split has too few patients, or a label no image in it."""
    for part in ("train", split):
        own = targets[splits == part]
        if not len(own):
            raise DataError(f"index '{path.name}' has no images of the split '{part}'")
        if (people := len(np.unique(patients[splits == part]))) < GROUPS:
            raise DataError(f"index '{path.name}': {people} patients in the split '{part}', and {GROUPS} are needed")
        if missing := set(range(len(labels))) - set(own.tolist()):
            raise DataError(
                f"index '{path.name}': no image of the split '{part}' has the label '{labels[min(missing)]}'"
            )
