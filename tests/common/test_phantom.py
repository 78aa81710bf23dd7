"""The drawn patients: deterministic, each recognisable, disease findable but not trivially."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from sfumato_common.phantom import DEVICES, arrays, draw_patient


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(scores)) + 1
    positive = int(labels.sum())
    negative = len(labels) - positive
    return float((ranks[labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


def test_same_seed_same_pixels() -> None:
    first, second = (draw_patient(7, "north", 3, DEVICES["aurora"]) for _ in range(2))
    assert first.grades == second.grades
    assert all(np.array_equal(a, b) for a, b in zip(first.images, second.images, strict=True))


@pytest.mark.parametrize("other", [(8, "north", 3), (7, "south", 3), (7, "north", 4)])
def test_seed_site_and_number_each_matter(other: tuple[int, str, int]) -> None:
    assert draw_patient(7, "north", 3, DEVICES["aurora"]).anatomy != draw_patient(*other, DEVICES["aurora"]).anatomy


def test_a_patient_does_not_depend_on_how_many_there_are() -> None:
    few, _, patient_index = arrays(1, 4, 32)
    many, _, _ = arrays(1, 9, 32)
    assert np.array_equal(few, many[: len(few)])
    assert sorted(set(patient_index.tolist())) == [0, 1, 2, 3]


def test_anatomy_and_disease_do_not_depend_on_the_device() -> None:
    drawn = [draw_patient(7, "north", 5, device) for device in DEVICES.values()]
    assert len({person.anatomy for person in drawn}) == 1
    assert len({person.grades for person in drawn}) == 1


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_images_are_display_values_with_dark_lungs_and_air(name: str) -> None:
    device = DEVICES[name]
    for number in range(1, 6):
        person = draw_patient(2, "north", number, device)
        assert 1 <= len(person.images) <= 4
        assert person.labels == tuple(int(grade > 0) for grade in person.grades)
        for image in person.images:
            assert image.shape == (device.rows, device.columns)
            assert image.dtype == np.float32
            assert 0.0 <= image.min() < 0.05
            assert 0.8 < image.max() <= 1.0
            rows, columns = image.shape
            mediastinum = image[rows * 6 // 10 : rows * 7 // 10, columns * 48 // 100 : columns * 52 // 100].mean()
            lung = np.median(image[rows * 35 // 100 : rows * 45 // 100, columns * 25 // 100 : columns * 35 // 100])
            corner = np.median(image[: rows // 20, : columns // 8])
            assert corner < lung < mediastinum - 0.15


def test_all_grades_and_visit_counts_occur() -> None:
    drawn = [draw_patient(3, "north", number, DEVICES["borealis"]) for number in range(1, 61)]
    assert {grade for person in drawn for grade in person.grades} == {0, 1, 2, 3}
    assert {len(person.images) for person in drawn} == {1, 2, 3, 4}
    # follow-up may heal a disease, but a healthy patient stays healthy
    assert any(len(set(person.labels)) == 2 for person in drawn)
    assert all(person.grades[0] == max(person.grades) for person in drawn)


def test_identity_is_recognisable_over_a_patients_images() -> None:
    images, _, patient_index = arrays(4, 150, 32)
    flat = images.reshape(len(images), -1).astype(np.float64)
    flat = (flat - flat.mean(axis=1, keepdims=True)) / flat.std(axis=1, keepdims=True)
    likeness = flat @ flat.T
    np.fill_diagonal(likeness, -np.inf)
    several = np.bincount(patient_index)[patient_index] > 1
    found = patient_index[likeness.argmax(axis=1)] == patient_index
    assert found[several].mean() > 0.4  # by chance 0.01
    # and no two images are the same picture
    assert all(not np.array_equal(images[i], images[i + 1]) for i in range(len(images) - 1))


def test_disease_is_findable_but_not_trivially() -> None:
    images, labels, patient_index = arrays(5, 700, 32)
    train = patient_index < 450
    flat = images.reshape(len(images), -1).astype(np.float64)
    middle = flat[train].mean(axis=0)
    axes = np.linalg.svd(flat[train] - middle, full_matrices=False)[2][:40]
    scores = (flat - middle) @ axes.T
    scores = np.c_[scores / scores[train].std(axis=0), np.ones(len(scores))]
    weights = np.linalg.solve(
        scores[train].T @ scores[train] + 5 * np.eye(41), scores[train].T @ (2 * labels[train] - 1)
    )
    assert 0.82 < _auc(scores[~train] @ weights, labels[~train]) < 0.985
    assert abs(_auc(flat[~train].mean(axis=1), labels[~train]) - 0.5) < 0.2  # mean brightness does not do it
    assert 0.35 < labels.mean() < 0.6


def test_drawing_needs_no_dicom_library() -> None:
    code = "import sys, sfumato_common.phantom as p; p.arrays(0, 1, 32); sys.exit('pydicom' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
