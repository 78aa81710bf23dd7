"""NIfTI volumes: slices as a radiologist sees them, and reasons for what is no volume of numbers."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
from support.burned_in import draw_text

from sfumato_client.ingest import SiteImage, Skipped, load_source, read_source
from sfumato_client.ingest.burned_in import REASON
from sfumato_client.ingest.sources import NiftiSource
from sfumato_common.errors import ConfigError
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=32), ["normal", "opacity"]


def body(shape: tuple[int, int, int] = (32, 32, 32)) -> np.ndarray:
    """A volume [X, Y, Z] to the right, front and top: bright at the right, at the front, and a little at the top."""
    x, y, z = np.meshgrid(*(np.linspace(0, 1, side) for side in shape), indexing="ij")
    return np.rint(1000 * (0.5 * x + 0.35 * y + 0.15 * z)).astype(np.int16)


def read(tmp_path: Path, image: object, name: str = "a.nii", **terms: object) -> list[SiteImage | Skipped]:
    folder = tmp_path / "v"
    folder.mkdir(exist_ok=True)
    if isinstance(image, bytes):
        (folder / name).write_bytes(image)
    else:
        nibabel.save(image, folder / name)
    (tmp_path / "labels.csv").write_text(f"file,patient_id,label\n{name},p1,opacity\n")
    source = NiftiSource(kind="nifti", folder=folder, labels=tmp_path / "labels.csv", **terms)
    return list(read_source(source, FORM, LABELS))


def one(found: list[SiteImage | Skipped]) -> SiteImage:
    (image,) = found
    assert isinstance(image, SiteImage), image
    return image


TURNS = {"RAS": np.diag([1, 1, 1, 1]), "LPS": np.diag([-1, -1, 1, 1]), "LAS": np.diag([-1, 1, 1, 1])}


def stored_as(turn: str, volume: np.ndarray) -> nibabel.Nifti1Image:
    """The same body, stored along other axes."""
    affine = TURNS[turn].astype(float)
    for axis in range(3):
        if affine[axis, axis] < 0:
            volume = np.flip(volume, axis)
            affine[axis, 3] = volume.shape[axis] - 1
    return nibabel.Nifti1Image(np.ascontiguousarray(volume), affine)


@pytest.mark.parametrize("turn", TURNS)
def test_slices_are_shown_as_a_radiologist_sees_them(tmp_path: Path, turn: str) -> None:
    image = stored_as(turn, body())
    axial, coronal, sagittal = (
        one(read(tmp_path, image, axis=axis)).pixels.astype(float) for axis in ("axial", "coronal", "sagittal")
    )
    for shown in (axial, coronal):
        assert shown[:, :8].mean() > shown[:, -8:].mean() + 60, "the patient's right is at the left"
    assert axial[:8].mean() > axial[-8:].mean() + 40, "the front is on top"
    assert coronal[:8].mean() > coronal[-8:].mean() + 10, "what is superior is on top"
    assert sagittal[:, :8].mean() > sagittal[:, -8:].mean() + 40, "the front is at the left"
    assert sagittal[:8].mean() > sagittal[-8:].mean() + 10


def test_other_orders_of_axes_are_turned(tmp_path: Path) -> None:
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[0, 1] = affine[1, 2] = affine[3, 3] = 1.0  # stored as top, right, front
    turned = nibabel.Nifti1Image(np.ascontiguousarray(body().transpose(2, 0, 1)), affine)
    plain = one(read(tmp_path, stored_as("RAS", body())))
    assert np.array_equal(one(read(tmp_path, turned)).pixels, plain.pixels)


def test_voxels_that_are_not_cubes_keep_their_shape(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(body((32, 32, 16)), np.diag([1.0, 1.0, 4.0, 1.0]))
    shown = one(read(tmp_path, image, axis="coronal")).pixels
    assert (shown.sum(axis=0) > 0).sum() == 16, "64 mm high and 32 mm wide"
    assert (shown.sum(axis=1) > 0).sum() >= 30


@pytest.mark.parametrize(("slices", "count"), [("middle", 1), ("all", 32), (10, 4)])
def test_which_slices_are_taken(tmp_path: Path, slices: object, count: int) -> None:
    found = read(tmp_path, stored_as("RAS", body()), slices=slices)
    assert len(found) == count
    assert all(isinstance(image, SiteImage) and image.label == 1 and image.patient_id == "p1" for image in found)
    names = [image.facts.reference for image in found if isinstance(image, SiteImage)]
    assert len(set(names)) == count


def test_a_window_says_what_is_black_and_white_and_scaling_counts(tmp_path: Path) -> None:
    image = stored_as("RAS", body())
    image.header.set_slope_inter(2.0, -1024.0)
    shown = one(read(tmp_path, image, window={"centre": 0.0, "width": 800.0})).pixels
    values = 2.0 * body()[::-1, ::-1, 16].T - 1024.0
    expected = np.clip((values + 400.0) / 800.0, 0, 1) * 255
    assert np.abs(shown - expected).max() <= 1.0


def test_without_a_window_few_extreme_voxels_change_nothing(tmp_path: Path) -> None:
    volume = body()
    volume[0, 0, 0] = 32000
    shown, plain = (one(read(tmp_path, stored_as("RAS", one_of))).pixels for one_of in (volume, body()))
    assert np.abs(shown.astype(float) - plain).max() <= 2


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_packed_files_numbers_of_either_kind_and_both_versions(tmp_path: Path, name: str) -> None:
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        for dtype in (np.uint8, np.int16, np.float32, np.float64):
            image = kind((body() // 5).astype(dtype), np.eye(4))
            assert one(read(tmp_path, image, name)).pixels.std() > 10


def test_voxels_that_are_no_number_are_black(tmp_path: Path) -> None:
    volume = body().astype(np.float32)
    volume[:16] = np.nan
    shown = one(read(tmp_path, stored_as("RAS", volume))).pixels
    assert shown[:, 17:].max() == 0
    assert shown[:, :15].std() > 10


def test_without_orientation_it_is_noted(tmp_path: Path) -> None:
    image = stored_as("RAS", body())
    data = bytearray(image.to_bytes())
    data[252:256] = bytes(4)
    assert any("no orientation" in note for note in one(read(tmp_path, bytes(data))).notes)


def refused() -> dict[str, tuple[object, str]]:
    four = nibabel.Nifti1Image(np.zeros((8, 8, 8, 3), np.int16), np.eye(4))
    colour = np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    whole = bytes(stored_as("RAS", body()).to_bytes())
    half = bytearray(whole)
    half[344:348] = b"ni1\0"
    huge = bytearray(whole)
    huge[42:48] = np.array([32000, 32000, 32000], "<i2").tobytes()
    return {
        "4-D": (four, "4 dimensions"),
        "colour": (nibabel.Nifti1Image(colour, np.eye(4)), "colours or complex"),
        "blank": (nibabel.Nifti1Image(np.ones((8, 8, 8), np.int16), np.eye(4)), "blank"),
        "cut off": (whole[:2000], "damaged or cut off"),
        "no NIfTI": (b"\x89PNG" + bytes(600), "not a NIfTI file"),
        "half of a pair": (bytes(half), "half of a pair"),
        "bomb": (bytes(huge), "larger than"),
        "packed bomb": (gzip.compress(bytes(huge) + bytes(2**22)), "larger than"),
        "packed garbage": (b"\x1f\x8b" + bytes(400), "damaged or cut off"),
    }


@pytest.mark.parametrize("what", list(refused()))
def test_what_is_no_volume_of_numbers_is_refused_with_its_reason(tmp_path: Path, what: str) -> None:
    image, reason = refused()[what]
    (found,) = read(tmp_path, image)
    assert isinstance(found, Skipped)
    assert reason in found.reason


def test_text_in_a_slice_is_refused(tmp_path: Path) -> None:
    flat = draw_text(np.full((256, 256), 0.3, np.float32), ("MORLU^XOYA",), "plain", "light", "top left", 12)[0]
    volume = np.repeat((flat[::-1, ::-1].T * 1000).astype(np.int16)[:, :, None], 3, axis=2)
    (found,) = read(tmp_path, stored_as("RAS", volume))
    assert isinstance(found, Skipped)
    assert found.reason.startswith(REASON)


def test_many_slices_may_take_longer_than_one_file_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice has the limit of a file: a look for text at all of them takes more than it."""
    from sfumato_client.ingest import pool
    from sfumato_client.ingest.pool import Pool
    from sfumato_client.ingest.sources import read_rows

    monkeypatch.setattr(pool, "_PROCESSOR_SECONDS", 1.0)
    rng = np.random.default_rng(0)
    volume = (body((400, 400, 24)) + rng.integers(0, 300, (400, 400, 24))).astype(np.int16)
    read(tmp_path, stored_as("RAS", volume), text="allow")
    terms = {"folder": tmp_path / "v", "labels": tmp_path / "labels.csv", "slices": "all"}
    source = NiftiSource(kind="nifti", **terms)
    with Pool(source, FORM, LABELS, 1) as readers:
        (results,) = read_rows(source, FORM, LABELS, readers.run)
    assert len(results) == 24
    assert all(isinstance(found, SiteImage) for found in results)


def test_keys_are_strict(tmp_path: Path) -> None:
    path = tmp_path / "source.yaml"
    for line in ("slices: first", "axis: transverse", "window: {centre: 40}", "window: {centre: 40, width: 0}"):
        path.write_text(f"kind: nifti\nfolder: v\nlabels: l.csv\n{line}\n")
        with pytest.raises(ConfigError, match=line.partition(":")[0]):
            load_source(path)
