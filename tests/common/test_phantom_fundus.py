"""The drawn fundi and lateral films: two mirrored eyes with trees of their own, recognisable, disease findable."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest

from sfumato_common.dicom.pixels import display_values
from sfumato_common.errors import ConfigError
from sfumato_common.phantom import CAMERAS, DEVICES, MODALITIES, arrays, draw_eyes, draw_patient
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.phantom.retina import Retina


def _several(camera: str, seed: int = 1, most: int = 40) -> list:
    return [p for p in (draw_eyes(seed, "north", n, CAMERAS[camera]) for n in range(1, most)) if len(p.images) > 1]


def test_frontal_films_are_as_they_were() -> None:
    digest = hashlib.sha256()
    for device in sorted(DEVICES):
        for part in arrays(3, 4, 64, "north", device):
            digest.update(part.tobytes())
    assert digest.hexdigest() == "0dfcaacbd301ce10e90bde68bdd227f51257cdea99ef304b15a0b8437f38eadb"


def test_the_disc_is_nasal_and_the_eyes_are_mirrored() -> None:
    for person in _several("dawn", most=8):
        for image, eye in zip(person.images, person.views, strict=True):
            across = image.shape[1] // 2
            brightest = [
                float(np.sort(half[..., 1].ravel())[-60:].mean()) for half in (image[:, :across], image[:, across:])
            ]
            assert (brightest[1] > brightest[0]) == (eye == "R")


def test_each_eye_has_a_vessel_tree_of_its_own() -> None:
    retina = draw_eyes(1, "north", 1, CAMERAS["dawn"]).anatomy
    assert isinstance(retina, Retina)
    right, left = retina.eyes
    assert (right.laterality, left.laterality) == ("R", "L")
    assert right.vessels != left.vessels
    assert right.cup == pytest.approx(left.cup, abs=0.2)
    for eye in retina.eyes:
        # nothing grows through the fovea, and all four arcades leave the disc
        points = np.array([point for vessel in eye.vessels for point in vessel.points])
        assert np.hypot(*points.T).min() > 0.12
        trunks = [vessel for vessel in eye.vessels if np.hypot(*np.subtract(vessel.points[0], eye.disc)) < 0.1]
        assert len(trunks) >= 12
        for up in (-1, 1):
            assert any(up * vessel.points[-1][1] > 0.3 for vessel in trunks)


def test_an_eye_is_known_again_by_its_vessels() -> None:
    images, _, patients = arrays(2, 60, 48, modality="fundus", device="dawn")
    green = images[..., 1].astype(np.float64)
    blurred = (green + sum(np.roll(green, s, a) for a in (1, 2) for s in (-1, 1))) / 5
    broad = sum(np.roll(np.roll(green, a, 1), b, 2) for a in range(-4, 5) for b in range(-4, 5)) / 81
    detail = blurred - broad
    places = np.array([at for n in np.bincount(patients) for at in range(n)])
    seen_twice = np.bincount(patients)[patients] > 2 + places % 2  # pictures alternate between the eyes
    likeness = np.full((len(images), len(images)), -np.inf)
    for down, across in np.ndindex(5, 5):  # the gaze moves
        moved = np.roll(detail, (down - 2, across - 2), (1, 2))[:, 8:40, 8:40].reshape(len(images), -1)
        still = detail[:, 8:40, 8:40].reshape(len(images), -1)
        likeness = np.maximum(likeness, np.corrcoef(moved, still)[: len(images), len(images) :])
    np.fill_diagonal(likeness, -np.inf)
    found = patients[likeness.argmax(axis=1)] == patients
    assert found[seen_twice].mean() > 0.5  # by chance 0.02
    assert found[seen_twice].mean() > found[~seen_twice].mean() + 0.3  # the other eye does not tell


def test_lesions_grow_with_the_grade_and_show_in_the_picture() -> None:
    images, labels, _ = arrays(5, 120, 64, modality="fundus", device="dawn")
    green = images[..., 1].astype(np.float64)
    local = green - (np.roll(green, 2, 1) + np.roll(green, -2, 1) + np.roll(green, 2, 2) + np.roll(green, -2, 2)) / 4
    scores = np.sort(local[:, 14:50, 14:50].reshape(len(images), -1), axis=1)
    bright = scores[:, -12:-2].mean(axis=1)
    ranks = np.argsort(np.argsort(bright)) + 1
    positive, negative = int(labels.sum()), int((1 - labels).sum())
    auc = (ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative)
    assert 0.6 < auc < 0.985
    assert 0.35 < labels.mean() < 0.65


@pytest.mark.parametrize("size", [28, 64, 300])
def test_any_size_up_to_a_thousand_pixels_in_colour(size: int) -> None:
    images, labels, patients = arrays(1, 2, size, modality="fundus")
    assert images.shape[1:] == (size, size, 3)
    assert images.dtype == np.uint8
    assert len(images) == len(labels) == len(patients)
    # red before green before blue, and black outside the field
    assert images[..., 0].mean() > images[..., 1].mean() > images[..., 2].mean()
    assert images[:, 0, 0].max() < 10


@pytest.mark.parametrize("modality", sorted(MODALITIES))
def test_the_largest_matrix(modality: str) -> None:
    kind = MODALITIES[modality]
    person = kind.draw(1, "north", 1, kind.system(None, 1024))
    assert max(person.images[0].shape) == 1024
    with pytest.raises(ConfigError, match="1024"):
        kind.system(None, 1025)


def test_the_side_view_is_of_the_same_person_with_the_same_disease() -> None:
    front, side = (draw_patient(7, "north", 3, DEVICES["aurora"], view) for view in ("PA", "LL"))
    assert front.anatomy == side.anatomy
    assert front.grades == side.grades
    assert set(side.views) == {"LL"}
    rows, columns = side.images[0].shape
    lung = np.median(side.images[0][rows * 35 // 100 : rows * 45 // 100, columns * 42 // 100 : columns * 50 // 100])
    belly = np.median(side.images[0][rows * 85 // 100 :, columns * 35 // 100 : columns * 60 // 100])
    assert lung < belly - 0.2


@pytest.mark.parametrize("camera", sorted(CAMERAS))
def test_photographs_carry_their_eye_and_are_ingested(tmp_path: Path, camera: str) -> None:
    write_cohort(tmp_path, "north", 4, 1, camera, modality="fundus", size=96)
    files = [pydicom.dcmread(path) for path in sorted(tmp_path.glob("*.dcm"))]
    drawn = [draw_eyes(1, "north", n, MODALITIES["fundus"].system(camera, 96)) for n in range(1, 5)]
    assert [str(d.ImageLaterality) for d in files] == [view for person in drawn for view in person.views]
    for dataset, image in zip(files, [image for person in drawn for image in person.images], strict=True):
        assert dataset.PhotometricInterpretation == "RGB"
        assert dataset.Modality == "OP"
        tags = [int(element.tag) for element in dataset]
        assert tags == sorted(set(tags))
        np.testing.assert_allclose(display_values(dataset), image, atol=0.5 / 255 + 1e-6)
    words = {row.split(",")[1] for row in (tmp_path / "labels.csv").read_text().splitlines()[1:]}
    assert words <= {"normal", "retinopathy"}


def test_a_lateral_film_says_so(tmp_path: Path) -> None:
    write_cohort(tmp_path, "north", 1, 1, "aurora", modality="chest-lateral")
    dataset = pydicom.dcmread(next(iter(sorted(tmp_path.glob("*.dcm")))))
    assert dataset.ViewPosition == "LL"
    assert dataset.StudyDescription == "CHEST LATERAL"


def test_unknown_modality_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fundus"):
        write_cohort(tmp_path / "c", "north", 1, 1, None, modality="knee")
    with pytest.raises(ConfigError, match="dawn"):
        arrays(1, 1, 32, device="aurora", modality="fundus")
