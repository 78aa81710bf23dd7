"""A store without some patients: a new one in its place, in one step, without a look at the source.

Everything else stays as it is: images to the bit, who is one patient, splits, and what the next update compares with. A
row that gave an image of a patient who is gone is read again by it, and then held against who has withdrawn.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sfumato_client.dataset.arrays import hexes, read_arrays, write_arrays
from sfumato_client.dataset.facts import StoreFacts
from sfumato_client.dataset.filling import INDEX
from sfumato_client.dataset.pixel_file import EncryptedPixels, PixelFacts, PixelFile
from sfumato_client.dataset.register import BY_ROW, BY_SOME, REGISTER
from sfumato_client.dataset.store import Hold, partial_of, put_in_place, remove_others
from sfumato_common.errors import DataError
from sfumato_common.files import make_private_folder
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray

Mask = npt.NDArray[np.bool_]


def owners_of(folder: Path, store_key: bytes, patients: Collection[str]) -> dict[str, int]:
    """The store's number of each of these pseudonyms that has images, under whichever identifier of the patient."""
    facts = StoreFacts.read(folder, store_key)
    index, names = read_arrays(folder, INDEX, facts.index, store_key), set(patients)
    others = zip(index["alias_owner"].tolist(), hexes(index["aliases"]), strict=True)
    named = [*enumerate(hexes(index["patients"])), *others]
    return {name: int(owner) for owner, name in named if name in names}


@dataclass(frozen=True)
class Identifier:
    """One identifier of a patient: the token of all that are alike, and what the patient is called in the store.

    `persons` are tokens of name and birth date, at the identifier that the patient is called by alone.
    """

    alike: str
    patient: str
    persons: tuple[str, ...] = ()


def identifiers_of(folder: Path, store_key: bytes, owners: Collection[int]) -> dict[str, Identifier]:
    """All identifiers of patients of the store, by pseudonym. Of one whose images were not kept nothing is alike."""
    facts, found = StoreFacts.read(folder, store_key), dict[str, Identifier]()
    index = read_arrays(folder, INDEX, facts.index, store_key)
    tokens = read_arrays(folder, REGISTER, facts.register, store_key)["tokens"]
    for owner in set(owners):
        (patient,), theirs = hexes(index["patients"][owner : owner + 1]), tokens[index["owner"] == owner]
        written = dict(zip(hexes(theirs[:, 0]), hexes(theirs[:, 1]), strict=True))
        persons = tuple(sorted(person for person in set(hexes(theirs[:, 2])) if person.strip("0")))
        for name in hexes(index["aliases"][index["alias_owner"] == owner]):
            found[name] = Identifier(written.get(name, name), patient)
        found[patient] = Identifier(written.get(patient, patient), patient, persons)
    return found


def clear(folder: Path, store_key: bytes) -> None:
    """Erase what an ingest under way had read, and files of an earlier store that a kill left beside the store's."""
    shutil.rmtree(partial_of(folder), ignore_errors=True)
    if folder.exists():
        remove_others(folder, StoreFacts.read(folder, store_key))


def has_alike(folder: Path, store_key: bytes, alike: Collection[str]) -> bool:
    """Whether an image's patient has an identifier of these tokens, of identifiers that are written alike."""
    register = read_arrays(folder, REGISTER, StoreFacts.read(folder, store_key).register, store_key)
    return bool(set(hexes(register["tokens"][:, 1])) & set(alike)) if len(register["tokens"]) else False


def without(folder: Path, store_key: bytes, owners: Collection[int], hold: Hold, tell: Callable[[], None]) -> int:
    """Put a store without these patients in the place of the one at `folder`; how many images went.

    `hold` lets nothing be charged meanwhile, and refuses by raising; within it, `tell` is called before the new store
    counts. Raises DataError where nobody would be left.
    """
    facts, partial = StoreFacts.read(folder, store_key), partial_of(folder)
    clear(folder, store_key)
    index = read_arrays(folder, INDEX, facts.index, store_key)
    left: Mask = ~np.isin(index["owner"], np.fromiter(owners, np.int64, len(owners)))
    if not left.any():
        raise DataError("nobody would be left in the store: 'sfumato-site erase-store' erases it whole")
    try:
        make_private_folder(partial)
        register = read_arrays(folder, REGISTER, facts.register, store_key)
        pixels = _copy(folder, partial, facts, left, store_key)
        said = (facts.labels, pixels.shape, pixels.dtype, facts.key, pixels.file_id.hex())
        index_id = write_arrays(partial, INDEX, _index(index, left), store_key)
        made = StoreFacts(*said, index_id, write_arrays(partial, REGISTER, _register(register, left), store_key))
        put_in_place(folder, made, facts, store_key, hold, tell)
    except OSError as error:
        raise DataError(f"store '{folder.name}' cannot be written ({error.strerror}); it is as it was") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    remove_others(folder, made)
    return int((~left).sum())


def _copy(folder: Path, partial: Path, facts: StoreFacts, left: Mask, store_key: bytes) -> PixelFacts:
    whole = EncryptedPixels(folder, facts.of_pixels, store_key)
    form = ImageForm(
        size=facts.shape[1], channels=3 if len(facts.shape) == 4 else 1, bits=16 if whole.dtype.itemsize == 2 else 8
    )
    kept = PixelFile(partial, form, store_key)
    for number in np.flatnonzero(left):
        kept.append(whole[int(number)])
    return kept.close()


def _index(index: dict[str, AnyArray], left: Mask) -> dict[str, AnyArray]:
    owners, owner = np.unique(index["owner"][left], return_inverse=True)
    found = {name: index[name][left] for name in ("labels", "split", "view")}
    mine = np.isin(index["alias_owner"], owners)
    return found | {
        "owner": owner.astype(np.uint32),
        "patients": index["patients"][owners],
        "aliases": index["aliases"][mine],
        "alias_owner": np.searchsorted(owners, index["alias_owner"][mine]).astype(np.uint32),
    }


def _register(register: dict[str, AnyArray], left: Mask) -> dict[str, AnyArray]:
    """What is known of the images that are left, and of their rows; a row that lost an image is to be read again."""
    place = np.full(len(left), -1, np.int64)
    place[left] = np.arange(int(left.sum()))
    row_of, rows = register["row_of"], len(register["rows"])
    before, after = (np.bincount(part[part >= 0], minlength=rows) for part in (row_of, row_of[left]))
    stays = after > 0
    number = np.full(rows + 1, -1, np.int32)  # the last one is of images that no row has
    number[:-1][stays] = np.arange(int(stays.sum()), dtype=np.int32)
    apart = {*BY_ROW, *BY_SOME, *BY_SOME.values()}
    found = {name: array[left] for name, array in register.items() if name not in apart}
    found["row_of"] = number[row_of[left]]
    found |= {name: register[name][stays].copy() for name in BY_ROW}
    found["rows"][(after < before)[stays]] = 0
    for name, whose in BY_SOME.items():
        if name in register:  # a store of before may lack it
            mine = left[register[whose]]
            found |= {name: register[name][mine], whose: place[register[whose][mine]].astype(np.uint32)}
    return found
