"""Public images that a codec learns from: the phantom, an npz archive, an index of either kind, or a folder.

Nobody can prove from pixels that images are public: whoever trains a codec says so, with their licence. A study's
patients never come here; a site has no command that trains a codec.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sfumato_common.codec.form import Source
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.imaging import fit_square
from sfumato_common.phantom import MODALITIES
from sfumato_common.phantom import arrays as phantom
from sfumato_common.types import AnyArray, ByteImages

PHANTOM = "phantom"
_SUFFIXES = {".png", ".jpg", ".jpeg"}
Rows = list[tuple[AnyArray, str]]  # pixels [H, W(, 3)], patient


@dataclass(frozen=True, eq=False)
class PublicImages:
    """uint8 images [N, S, S(, 3)] and patient_index [N] of all sources together."""

    images: ByteImages
    patient_index: npt.NDArray[np.int64]
    sources: list[Source]

    def halves(self, seed: int, share: float = 0.1) -> tuple[ByteImages, ByteImages]:
        """Images to train on, and those of about `share` of the patients, to be scored. Raises DataError."""
        patients = int(self.patient_index.max()) + 1
        if patients < 2:
            raise DataError("all images are of one patient: some must be kept apart to be scored; bring more")
        apart = np.random.default_rng(seed).permutation(patients)[: max(1, round(share * patients))]
        held = np.isin(self.patient_index, apart)
        return self.images[~held], self.images[held]


def read_public(
    names: Sequence[str], size: int, channels: int, *, patients: int, seed: int, sites: Sequence[str] = ()
) -> PublicImages:
    """All images of `names`, each `phantom`, an .npz, an index .csv or a folder; of an index, those of `sites` only.

    Images are brought to `size` as at a site: longer side scaled, black around. Raises ConfigError and DataError.
    """
    images, index, sources, first = [], [], [], 0
    for name in names:
        found, own = _phantom(size, channels, patients, seed) if name == PHANTOM else _read(name, size, channels, sites)
        images.append(found)
        index.append(own + first)
        first += int(own.max()) + 1
        sources.append(Source(name=Path(name).name, images=len(found), patients=int(own.max()) + 1))
    if not sources:
        raise ConfigError(f"say what the codec learns from: --on {PHANTOM}, an .npz, an index .csv or a folder")
    return PublicImages(np.concatenate(images), np.concatenate(index), sources)


def _phantom(size: int, channels: int, patients: int, seed: int) -> tuple[ByteImages, npt.NDArray[np.int64]]:
    """So many fictional patients, shared among all devices of the kind: radiographs, or fundi in colour."""
    kind = "fundus" if channels == 3 else "chest"
    systems, images, index, first = sorted(MODALITIES[kind].systems), [], [], 0
    for number, device in enumerate(systems):
        count = len(range(number, patients, len(systems)))
        if count:
            found, _, own = phantom(seed, count, size, f"codec-{number}", device, modality=kind)
            images.append(found)
            index.append(own + first)
            first += count
    return np.concatenate(images), np.concatenate(index)


def _read(name: str, size: int, channels: int, sites: Sequence[str]) -> tuple[ByteImages, npt.NDArray[np.int64]]:
    path = Path(name)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
        rows: Rows = [(_picture(file), str(number)) for number, file in enumerate(files)]
    elif path.suffix == ".npz":
        rows = _archive(path)
    elif path.suffix == ".csv":
        rows = _index(path, sites)
    else:
        raise ConfigError(f"'{path.name}' is neither '{PHANTOM}', an .npz, a .csv nor a folder; check the path")
    if not rows:
        raise DataError(f"'{path.name}' has no image to learn from; folders hold PNG or JPEG files")
    pixels = np.stack([_fitted(image, size, channels, path.name) for image, _ in rows])
    return pixels, np.unique([patient for _, patient in rows], return_inverse=True)[1].astype(np.int64)


def _fitted(image: AnyArray, size: int, channels: int, name: str) -> ByteImages:
    if image.ndim != (3 if channels == 3 else 2):
        raise DataError(f"'{name}' has images in {'grey' if channels == 3 else 'colour'}; set --channels to suit them")
    if image.shape[:2] == (size, size) and image.dtype == np.uint8:
        exact: ByteImages = image
        return exact
    shown = fit_square(image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max), size)
    pixels: ByteImages = np.rint(shown * 255.0).astype(np.uint8)
    return pixels


def _picture(path: Path) -> AnyArray:
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            if image.mode.startswith("I"):
                return np.asarray(image).astype(np.uint16)
            return np.asarray(image.convert("L" if image.mode in {"1", "L", "LA"} else "RGB"))
    except Exception as error:  # whatever a decoder raises
        raise DataError(f"'{path.name}' cannot be decoded ({type(error).__name__}); take it out") from None


def _archive(path: Path) -> Rows:
    """Images of an archive; without `patient_id` each counts as a patient."""
    images, patients = load_archive(path)
    return list(zip(images, patients, strict=True))


def load_archive(path: Path) -> tuple[AnyArray, list[str]]:
    """`images` [N, H, W(, 3)] and `patient_id`, where there is one, of an archive, read without pickle."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            images = archive["images"]
            patients = archive["patient_id"] if "patient_id" in archive else np.arange(len(images))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"'{path.name}' cannot be read ({type(error).__name__}); it holds 'images'") from None
    if images.dtype not in (np.uint8, np.uint16) or not (images.ndim == 3 or images.shape[3:] == (3,)):
        raise DataError(f"'{path.name}': 'images' must be uint8 or uint16, [N, H, W] or [N, H, W, 3]")
    return images, [str(patient) for patient in patients]


def _index(path: Path, sites: Sequence[str]) -> Rows:
    """Rows `set,row[,site,patient_id]` of archives, or `file[,site,patient_id]` of pictures, beside the index."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            listed = [row for row in csv.DictReader(stream) if not sites or row.get("site") in sites]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"'{path.name}' cannot be read ({type(error).__name__}); check the path") from None
    if not listed:
        raise DataError(f"'{path.name}' has no row{' of these sites' if sites else ''}")
    if "file" in listed[0]:
        return [(_picture(_beside(path, row["file"])), _patient(row, row["file"])) for row in listed]
    if not {"set", "row"} <= set(listed[0]):
        raise DataError(f"'{path.name}' needs the columns 'set' and 'row', or 'file'")
    archives = {name: load_archive(_beside(path, f"{name}.npz"))[0] for name in {row["set"] for row in listed}}
    return [_row(archives, row, path.name) for row in listed]


def _row(archives: dict[str, AnyArray], row: dict[str, str], name: str) -> tuple[AnyArray, str]:
    images = archives[row["set"]]
    if not row["row"].isdecimal() or int(row["row"]) >= len(images):
        raise DataError(f"'{name}' names a row that its archive does not have")
    return images[int(row["row"])], _patient(row, f"{row['set']}-{row['row']}")


def _patient(row: dict[str, str], otherwise: str) -> str:
    """Who a row is of: ids of two sites may be alike."""
    return f"{row.get('site', '')}/{row['patient_id']}" if row.get("patient_id") else otherwise


def _beside(index: Path, name: str) -> Path:
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"'{index.name}' names a file that is not beside it")
    return index.parent / name
