"""A folder of NIfTI-1 and NIfTI-2 volumes (.nii, .nii.gz) with a table (`file,patient_id,label[,split]`) -> slices.

Slices are shown as a radiologist sees them: the patient's right at the left of axial and coronal ones, anterior on top
of axial and at the left of sagittal ones, superior on top. The volume is turned by its affine to the nearest axes, and
pixels are those of its zooms. Values are shown by the source's window, or else from the 0.5th to the 99.5th percentile
of the file's own volume: never by another patient's.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel import orientations
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from sfumato_client.ingest.burned_in import cleared
from sfumato_client.ingest.folders import content
from sfumato_client.ingest.jobs import Job, Results
from sfumato_client.ingest.records import Facts, SiteImage, Skipped, TextPolicy, to_form, view_of_row
from sfumato_client.ingest.table import Labels, patient_of, split_name
from sfumato_client.ingest.terms import Axis, Slices, Window
from sfumato_common.dicom.elements import Note
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import AnyArray

_turns: Any = orientations  # without types
_GZIP = b"\x1f\x8b"
_LARGEST = 2**28  # bytes of a volume's stored values
_QUANTILES, _SAMPLES = (0.005, 0.995), 2**20
_NORMAL = {"sagittal": 0, "coronal": 1, "axial": 2}  # the axis of a volume turned to right, anterior, superior


@dataclass(frozen=True)
class Taking:
    """What of a folder is taken and how."""

    form: ImageForm
    labels: Labels
    slices: Slices = "middle"
    axis: Axis = "axial"
    window: Window | None = None
    text: TextPolicy = "reject"


@dataclass(frozen=True)
class Volume:
    """Stored values [X, Y, Z] to the right, front and top; sides of a voxel; value = stored * slope + intercept."""

    stored: AnyArray
    zooms: tuple[float, float, float]
    slope: float
    intercept: float

    def values(self, stored: AnyArray) -> npt.NDArray[np.float32]:
        """Some stored values in the file's units; what is no number becomes the lowest that is shown."""
        found: npt.NDArray[np.float32] = (stored * self.slope + self.intercept).astype(np.float32)
        return np.nan_to_num(found, nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def read_nifti(job: Job, taking: Taking) -> Results:
    """The slices of one file. Raises UnreadableError with the reason why there are none."""
    row, notes = job.row, list[str]()
    patient, label = patient_of(row["patient_id"]), taking.labels.index(row["label"])
    split = split_name(row["split"]) if job.splits else None
    view = view_of_row(row)
    try:
        volume = open_volume(content(job.path), notes.append)
    except (UnreadableError, MemoryError):
        raise
    except Exception:  # nibabel raises what struct, zlib and numpy raise on broken data
        raise UnreadableError("the file is damaged or cut off: it cannot be read as NIfTI") from None
    low, high = shown_range(volume, taking.window)
    results, numbers = Results(), slice_numbers(volume.stored.shape[_NORMAL[taking.axis]], taking.slices)
    for number in numbers:
        name = f"{row['file']}[{number}]" if len(numbers) > 1 else row["file"]
        own = list(notes)
        try:
            flat, pixel = slice_of(volume, taking.axis, number)
            display = np.clip((volume.values(flat) - low) / (high - low), 0.0, 1.0)
            pixels = to_form(cleared(display, taking.text, own.append), taking.form, pixel)
        except UnreadableError as reason:
            results.append(Skipped(name, str(reason)))
        else:
            results.append(SiteImage(pixels, label, patient, split, view, tuple(own), Facts(name)))
        if len(numbers) > 1:
            job.step()
    return results


def open_volume(data: bytes, note: Note) -> Volume:
    """The volume of a file's bytes, packed or not. Raises UnreadableError; nibabel raises what it likes."""
    if data.startswith(_GZIP):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            data = packed.read(_LARGEST + 2**20)
    kind = next((kind for mark, kind in _KINDS.items() if mark in (data[4:8], data[344:348])), None)
    if kind is None:
        if data[344:348] == b"ni1\0":
            raise UnreadableError("half of a pair of files (.hdr and .img); write it as one .nii")
        raise UnreadableError("not a NIfTI file")
    image: Any = kind.from_stream(io.BytesIO(data))
    shape = tuple(image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    dtype = image.get_data_dtype()
    if len(shape) != 3:
        raise UnreadableError(f"it has {len(shape)} dimensions; only volumes of three are taken: write each as a file")
    if dtype.kind not in "iuf":
        raise UnreadableError("it holds colours or complex numbers; only volumes of single numbers are taken")
    if min(shape) < 1 or int(np.prod(shape, dtype=object)) * dtype.itemsize > _LARGEST:
        raise UnreadableError(f"its volume is empty, or larger than {_LARGEST >> 20} MiB")
    if not int(image.header["sform_code"]) and not int(image.header["qform_code"]):
        note("its header says no orientation (qform and sform codes are 0): its first axis is taken to run to the left")
    turn = _turns.io_orientation(image.affine)
    if np.isnan(turn).any():
        raise UnreadableError("its affine turns two axes into one: nobody can tell how it lies")
    stored = _turns.apply_orientation(np.asarray(image.dataobj.get_unscaled()).reshape(shape), turn)
    lengths = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    zooms = [float(lengths[int(np.flatnonzero(turn[:, 0] == axis)[0])]) for axis in range(3)]
    slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
    if not np.isfinite([slope, intercept, *zooms]).all() or slope == 0 or min(zooms) <= 0:
        raise UnreadableError("its scaling or the size of its voxels is not a number above 0")
    return Volume(stored, (zooms[0], zooms[1], zooms[2]), slope, intercept)


_KINDS = {b"n+1\0": Nifti1Image, b"n+2\0": Nifti2Image}


def shown_range(volume: Volume, window: Window | None) -> tuple[float, float]:
    """The values that are black and white. Raises UnreadableError for a volume without any contrast."""
    if window is not None:
        return window.centre - window.width / 2, window.centre + window.width / 2
    flat = volume.stored.reshape(-1)
    some = volume.values(flat[:: max(1, flat.size // _SAMPLES)])
    some = some[np.isfinite(some)]
    if not some.size:
        raise UnreadableError("it holds no numbers")
    low, high = (float(value) for value in np.quantile(some, _QUANTILES))
    if not low < high:
        low, high = float(some.min()), float(some.max())
    if not low < high:
        raise UnreadableError("the volume is blank: all voxels are equal")
    return low, high


def slice_numbers(count: int, slices: Slices) -> range:
    """Numbers of the slices that are taken, of `count`; the middle one of an even number is the later."""
    if slices == "middle":
        return range(count // 2, count // 2 + 1)
    return range(0, count, 1 if slices == "all" else slices)


def slice_of(volume: Volume, axis: Axis, number: int) -> tuple[AnyArray, tuple[float, float]]:
    """A slice as it is shown, [H, W] of stored values, and the height and width of its pixels."""
    right, anterior, superior = volume.zooms
    if axis == "axial":
        return volume.stored[::-1, ::-1, number].T, (anterior, right)
    if axis == "coronal":
        return volume.stored[::-1, number, ::-1].T, (superior, right)
    return volume.stored[number, ::-1, ::-1].T, (superior, anterior)
