"""One patient's part of an image: measured on final bytes, never more than twice an average's, wherever it hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_client.anonymise.influence import (
    KEPT,
    LARGEST_INFLUENCE,
    allowed_moves,
    averages_without,
    by_ring,
    restrain,
    with_each_left_out,
)
from sfumato_client.dataset import Cohort
from sfumato_common.errors import ReleaseRefused
from sfumato_common.generators.spectral.dct import dct_matrix, public_scale
from sfumato_common.types import to_bytes, to_unit_range

SIZE, GRAIN = 16, 2.0 / 255


def cohort_of(members: int, seed: int, alike: float = 0.7) -> Cohort:
    """One natural image a patient, around a common one."""
    rng, matrix = np.random.default_rng(seed), dct_matrix(SIZE)
    away = rng.normal(size=(members, 1, SIZE, SIZE)) * public_scale(SIZE) * alike
    return Cohort(to_bytes(matrix.T @ away @ matrix), np.zeros(members, np.int64), np.arange(members))


def averages(cohort: Cohort) -> np.ndarray:
    """The mean image, and the mean without each patient, [1 + M, 1, S, S]."""
    pixels = to_unit_range(cohort.images)
    rows = with_each_left_out(np.arange(cohort.patients))
    return np.stack([pixels[row.numpy()].mean(axis=0) for row in rows])


def allowed_of(cohort: Cohort) -> np.ndarray:
    return allowed_moves(cohort, np.arange(cohort.patients))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**16), st.floats(0.05, 1.0))
def test_a_plain_average_is_never_held_back(members, seed, alike):
    cohort = cohort_of(members, seed, alike)
    plain = averages(cohort)
    assert np.array_equal(restrain(plain, plain, allowed_of(cohort), 8), to_bytes(plain)[0])


def test_each_is_left_out_once():
    rows = with_each_left_out(np.array([7, 2, 9]))
    assert [row.tolist() for row in rows] == [[7, 2, 9], [2, 9], [7, 9], [7, 2]]


def test_rings_hold_all_of_an_images_power():
    images = np.random.default_rng(0).normal(size=(3, 3, 40, 40))
    frequency = np.hypot(*np.mgrid[0:40, 0:40])
    sizes = np.bincount(np.digitize(frequency, (1.5, 3, 5, 7, 9, 12, 16, 20, 24, 32, 48)).ravel())
    total = (by_ring(images) ** 2 * sizes).sum(axis=1)
    assert total == pytest.approx((images**2).mean(axis=1).sum(axis=(1, 2)))


@settings(max_examples=60, deadline=None)
@given(
    members=st.integers(4, 10),
    seed=st.integers(0, 2**16),
    loudness=st.sampled_from([0.01, 0.03, 0.1, 0.5, 2.0]),
    write=st.sampled_from(["as it is", "fine", "scrambled", "clamped", "others hidden"]),
)
def test_a_record_that_is_written_into_an_image_is_taken_out_again(members, seed, loudness, write):
    cohort, rng = cohort_of(members, seed), np.random.default_rng(seed)
    plain, matrix = averages(cohort), dct_matrix(SIZE)
    target = to_unit_range(cohort.images)[0, 0] - plain[0, 0]
    match write:
        case "fine":
            turned = np.zeros((SIZE, SIZE))
            turned[8:, 8:] = (matrix @ target @ matrix.T)[:8, :8]
            target = matrix.T @ turned @ matrix
        case "scrambled":
            target = target.ravel()[rng.permutation(SIZE**2)].reshape(SIZE, SIZE)
        case "clamped":
            target = np.sign(target) * 0.3
    made = plain.copy()
    for row in range(len(made)):
        if row != 1:  # the image without the patient
            made[row, 0] += loudness * target
    if write == "others hidden":
        made = np.where(np.arange(len(made))[:, None, None, None] == 1, plain, 2.0 * target)
    allowed = allowed_of(cohort)
    found = restrain(plain, made.astype(np.float32), allowed, 8)
    kept = next(s for s in KEPT if np.array_equal(to_bytes((plain + s * (made - plain)).astype(np.float32))[0], found))
    seen = to_unit_range(to_bytes(plain + kept * (made - plain)))
    assert (by_ring(seen[1:] - seen[:1]) <= allowed + GRAIN).all()
    if loudness >= 0.5 and write in ("fine", "scrambled"):
        assert kept < 1.0


def test_a_quiet_record_in_frequencies_that_the_group_does_not_have_is_found():
    """Root mean square of pixels would not notice it: six grey levels of texture, which say everything."""
    cohort = cohort_of(6, 1)
    smooth = dct_matrix(SIZE)
    low = np.zeros((SIZE, SIZE))
    low[:5, :5] = 1.0
    pixels = to_bytes(smooth.T @ ((smooth @ to_unit_range(cohort.images) @ smooth.T) * low) @ smooth)
    cohort = Cohort(pixels, cohort.labels, cohort.patient_index)
    plain = averages(cohort)
    hidden = np.random.default_rng(0).choice([-0.05, 0.05], size=(SIZE, SIZE))
    made = plain + hidden * (np.arange(7) != 3)[:, None, None, None]
    far = np.abs(hidden).mean()
    members = to_unit_range(pixels) - plain[0]
    assert far < LARGEST_INFLUENCE * np.sqrt((members**2).mean()) / 5, "less than an average's move, by pixels"
    assert np.array_equal(restrain(plain, made.astype(np.float32), allowed_of(cohort), 8), to_bytes(plain)[0])


@pytest.mark.parametrize("members", [2, 3, 4, 6, 10])
def test_two_kths_of_a_record_pass_and_no_more(members):
    """A plain average shows 1 / k of a record; of two patients all of one may be shown, of three two thirds."""
    cohort = cohort_of(members, members, alike=0.3)
    pixels = to_unit_range(cohort.images)
    loudest = int(np.square(pixels - pixels.mean(axis=0)).mean(axis=(1, 2, 3)).argmax())
    others = averages(cohort)[1 + loudest]
    plain, allowed = averages(cohort), allowed_of(cohort)
    for share, passes in ((0.98 * 2.0 / members, True), (2.0 / members + 0.25, False)):
        made = np.repeat((others + share * (pixels[loudest] - others))[None], 1 + members, axis=0)
        made[1 + loudest] = others
        found = restrain(plain, made.astype(np.float32), allowed, 8)
        assert np.array_equal(found, to_bytes(made.astype(np.float32))[0]) == passes


def test_an_image_that_is_no_average_to_begin_with_is_refused():
    cohort = cohort_of(5, 0)
    record = to_unit_range(cohort.images)[:1]
    plain = np.where(np.arange(6)[:, None, None, None] == 1, averages(cohort), record)
    with pytest.raises(ReleaseRefused, match="hangs on one of its patients") as caught:
        restrain(plain, plain, allowed_of(cohort), 8)
    assert not any(character.isdigit() for character in str(caught.value))


@pytest.mark.parametrize("bits", [8, 16])
def test_rounding_is_no_influence(bits):
    flat = Cohort(np.full((5, SIZE, SIZE), 128, np.uint8), np.zeros(5, np.int64), np.arange(5))
    plain = np.full((6, 1, SIZE, SIZE), 0.5 / ((1 << bits) - 1), np.float32)
    plain[1:] += 0.99 / ((1 << bits) - 1)
    assert restrain(plain, plain, allowed_of(flat), bits).shape == (SIZE, SIZE)


def test_patients_with_several_images_count_as_their_mean():
    images = cohort_of(8, 3).images
    cohort = Cohort(images, np.zeros(8, np.int64), np.array([0, 0, 1, 2, 3, 3, 3, 4]))
    means = [to_unit_range(cohort.images_of(patient)[0]).mean(axis=0) for patient in range(5)]
    alone = Cohort(to_bytes(np.stack(means)), np.zeros(5, np.int64), np.arange(5))
    assert allowed_moves(cohort, np.arange(5)) == pytest.approx(allowed_of(alone), abs=2 * GRAIN)
    assert torch.equal(with_each_left_out(np.arange(2))[0], torch.arange(2))


def rings_of(images: torch.Tensor) -> torch.Tensor:
    """`by_ring` of images [N, 1, S, S], with gradients."""
    matrix = torch.from_numpy(dct_matrix(SIZE))
    power = (matrix @ images @ matrix.T).square().mean(dim=1).flatten(1)
    frequency = np.arange(SIZE)
    edges = (1.5, 3.0, 5.0, 7.0, 9.0, 12.0, 16.0, 20.0)
    ring = torch.from_numpy(np.digitize(np.hypot(frequency[:, None], frequency[None, :]), edges).ravel())
    one_hot = torch.nn.functional.one_hot(ring).double()
    return (power @ one_hot / one_hot.sum(dim=0)).clamp_min(1e-12).sqrt()


@pytest.mark.parametrize("seed", [0, 1])
def test_an_optimiser_with_a_free_hand_shows_no_more_of_a_patient_than_the_stated_multiple(seed):
    """Whatever factors, encoders or style weights a coordinator finds end in what a method made: here any image is.

    Adam moves the image, and what it would be without each patient, to show one patient and still pass the check.
    """
    members, target = 6, 2
    cohort = cohort_of(members, seed)
    plain, allowed = averages(cohort).astype(np.float32), allowed_of(cohort)
    fixed, bound = torch.from_numpy(plain).double(), torch.from_numpy(allowed)
    away = torch.from_numpy(to_unit_range(cohort.images)[target]).double() - fixed[target + 1]
    free = torch.zeros_like(fixed, requires_grad=True)
    without = torch.ones(members + 1, 1, 1, 1, dtype=torch.float64)
    without[target + 1] = 0.0  # without the patient nobody has anything of it to show
    optimiser = torch.optim.Adam([free], lr=0.01)
    for _ in range(300):
        made = fixed + free * without
        share = ((made[0] - fixed[target + 1]) * away).sum() / away.square().sum()
        over = (rings_of(made[1:] - made[:1]) - bound).clamp_min(0.0)
        (30.0 * over.sum() - share).backward()
        optimiser.step()
        optimiser.zero_grad()
    made = (fixed + free.detach() * without).float().numpy()
    found = to_unit_range(restrain(plain, made, allowed, 8)[None])[0]
    own = float(((torch.from_numpy(found).double() - fixed[target + 1]) * away).sum() / away.square().sum())
    average = 1.0 / members
    assert own > 1.2 * average, "the optimiser does better than an average"
    assert own < LARGEST_INFLUENCE * 1.25 / (members - 1), "and no better than the check lets it"
    loud = to_unit_range(to_bytes(fixed.numpy() + (3.0 * away * without).numpy()))
    assert np.array_equal(restrain(plain, loud.astype(np.float32), allowed, 8), to_bytes(plain)[0]), "more is taken out"


def test_averages_are_of_everybody_and_then_of_all_but_each():
    rng = np.random.default_rng(0)
    patient_index = np.array([0, 1, 1, 2, 3])
    cohort = Cohort(rng.integers(0, 256, (5, 8, 8), dtype=np.uint8), np.zeros(5, dtype=np.int64), patient_index)
    members = np.array([3, 1, 0])
    found = averages_without(cohort, members)
    assert (found.shape, found.dtype) == ((4, 1, 8, 8), np.float32)
    mean = lambda patient: to_unit_range(cohort.images_of(patient)[0]).mean(axis=0)  # noqa: E731
    for row, kept in enumerate(([3, 1, 0], [1, 0], [3, 0], [3, 1])):
        assert np.allclose(found[row], np.mean([mean(patient) for patient in kept], axis=0), atol=1e-5)


def test_a_record_that_is_scrambled_into_one_grey_level_passes_and_is_read_by_who_knows_how():
    """What the comparison does not claim: it bounds how loud a patient is, not how much is said softly."""
    cohort, rng = cohort_of(5, 0), np.random.default_rng(0)
    plain, order = averages(cohort).astype(np.float32), rng.permutation(SIZE**2)
    record = to_unit_range(cohort.images)[0, 0] - plain[1, 0]
    written = record.ravel()[order].reshape(SIZE, SIZE) * (0.8 * GRAIN / record.std())
    made = plain + written.astype(np.float32) * (np.arange(6) != 1)[:, None, None, None]
    found = restrain(plain, made, allowed_of(cohort), 8)
    assert np.array_equal(found, to_bytes(made)[0]), "nothing was taken back"
    read = np.empty(SIZE**2)
    read[order] = (to_unit_range(found[None])[0, 0] - plain[0, 0]).ravel()
    assert np.corrcoef(read, record.ravel())[0, 1] > 0.9
