"""The site's store: patient-disjoint splits that nobody else moves, whole or not there, no names inside."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_client.dataset import Cohort, SiteStore, require_patients
from sfumato_client.dataset.splits import NOT_GIVEN, SPLITS, assign_splits, keyed_split
from sfumato_client.ingest import SiteImage, Skipped, Split
from sfumato_common.errors import DataError
from sfumato_common.study.policy import Budget, Policy, ReleaseRules
from sfumato_common.study.terms import ImageForm

FORM = ImageForm(size=16)
LABELS = ["normal", "opacity"]
KEY = b"0123456789abcdef0123456789abcdef"
STORE_KEY = bytes(range(32))
DRAW = partial(keyed_split, KEY)


def image(patient: str, label: int = 0, split: Split | None = None, seed: int = 0) -> SiteImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16)).astype(np.uint8)
    return SiteImage(pixels, label, patient, split)


def many(count: int) -> list[SiteImage]:
    return [image(f"patient-{n // 2}", n % 2, seed=n) for n in range(count)]


def test_store_survives_reopening(tmp_path: Path) -> None:
    entries = many(120)
    report = SiteStore.create(tmp_path / "store", [*entries, Skipped("x.dcm", "torn")], FORM, LABELS, KEY, STORE_KEY)
    store = SiteStore.open(tmp_path / "store", STORE_KEY)
    assert (report.kept, report.patients, store.patients) == (120, 60, 60)
    assert list(report.skipped) == [Skipped("x.dcm", "torn")]
    seen = []
    for split in SPLITS:
        cohort = store.cohort(split)
        assert cohort.patients == report.patients_by_split[split]
        images, labels, patient_index = cohort.everything()
        assert len(images) == len(labels) == len(patient_index) == 2 * cohort.patients
        for patient in range(cohort.patients):
            mine, mine_labels = cohort.images_of(patient)
            assert np.array_equal(mine, images[patient_index == patient])
            assert np.array_equal(mine_labels, labels[patient_index == patient])
            assert mine_labels.tolist() == [0, 1]
        seen += [pixels.tobytes() for pixels in images]
    assert sorted(seen) == sorted(entry.pixels.tobytes() for entry in entries)


def test_images_of_one_patient_stay_together(tmp_path: Path) -> None:
    entries = many(80)
    SiteStore.create(tmp_path / "store", entries, FORM, LABELS, KEY, STORE_KEY)
    store = SiteStore.open(tmp_path / "store", STORE_KEY)
    owner_of = {entry.pixels.tobytes(): entry.patient_id for entry in entries}
    found: dict[str, set[str]] = {}
    for split in SPLITS:
        cohort = store.cohort(split)
        for patient in range(cohort.patients):
            names = {owner_of[pixels.tobytes()] for pixels in cohort.images_of(patient)[0]}
            assert len(names) == 1
            found.setdefault(names.pop(), set()).add(split)
    assert all(len(splits) == 1 for splits in found.values())
    assert all(found[name] == {keyed_split(KEY, name)} for name in found)


@pytest.mark.parametrize("form", [ImageForm(size=16, channels=3), ImageForm(size=16, bits=16)])
def test_colour_and_deep_images(tmp_path: Path, form: ImageForm) -> None:
    dtype = np.dtype(f"uint{form.bits}")
    pixels = np.random.default_rng(0).integers(0, 2**form.bits, (4, *form.shape)).astype(dtype)
    entries = [SiteImage(p, 0, str(n), "train") for n, p in enumerate(pixels)]
    SiteStore.create(tmp_path / "s", entries, form, LABELS, KEY, STORE_KEY)
    images, _, _ = SiteStore.open(tmp_path / "s", STORE_KEY).cohort("train").everything()
    assert images.dtype == dtype
    assert np.array_equal(images, pixels)


def test_no_name_is_in_the_store_and_files_are_private(tmp_path: Path) -> None:
    SiteStore.create(
        tmp_path / "store", [image("DOE-4711", seed=1), image("ROE-0815", seed=2)], FORM, LABELS, KEY, STORE_KEY
    )
    for path in (tmp_path / "store").iterdir():
        data = path.read_bytes()
        for name in ("DOE", "4711", "ROE", "0815"):
            assert name.encode() not in data
            assert name.encode("utf-32-le") not in data
    assert (tmp_path / "store").stat().st_mode & 0o077 == 0
    assert (tmp_path / "ingest-report.json").stat().st_mode & 0o077 == 0


def test_report_lists_the_skipped_beside_the_store(tmp_path: Path) -> None:
    SiteStore.create(tmp_path / "store", [image("a"), Skipped("b.dcm", "no pixel data")], FORM, LABELS, KEY, STORE_KEY)
    report = json.loads((tmp_path / "ingest-report.json").read_text())
    assert report["skipped"] == [{"reference": "b.dcm", "reason": "no pixel data"}]
    assert report["kept"] == 1


def test_nothing_readable_leaves_the_report_and_no_store(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ingest-report\.json"):
        SiteStore.create(tmp_path / "store", [Skipped("b.dcm", "torn")], FORM, LABELS, KEY, STORE_KEY)
    assert [path.name for path in tmp_path.iterdir()] == ["ingest-report.json"]


def test_an_interrupted_ingest_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> Iterator[SiteImage]:
        yield image("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SiteStore.create(tmp_path / "store", interrupted(), FORM, LABELS, KEY, STORE_KEY)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError):
        SiteStore.open(tmp_path / "store", STORE_KEY)


def test_remains_of_a_killed_ingest_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / ".store.partial").mkdir()
    (tmp_path / ".store.partial" / "pixels").write_bytes(b"half")
    SiteStore.create(tmp_path / "store", many(4), FORM, LABELS, KEY, STORE_KEY)
    assert SiteStore.open(tmp_path / "store", STORE_KEY).patients == 2
    assert not (tmp_path / ".store.partial").exists()


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    def full() -> Iterator[SiteImage]:
        yield image("a")
        raise OSError(28, "No space left on device", str(tmp_path))

    with pytest.raises(DataError, match="No space left") as caught:
        SiteStore.create(tmp_path / "store", full(), FORM, LABELS, KEY, STORE_KEY)
    assert str(tmp_path) not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["pixels-*", "index-*", "store.json"])
@pytest.mark.parametrize("how", ["missing", "cut", "garbage", "other"])
def test_half_written_store_never_opens(tmp_path: Path, name: str, how: str) -> None:
    SiteStore.create(tmp_path / "store", many(8), FORM, LABELS, KEY, STORE_KEY)
    SiteStore.create(tmp_path / "second", many(12), FORM, LABELS, KEY, STORE_KEY)
    (path,) = (tmp_path / "store").glob(name)
    (other,) = (tmp_path / "second").glob(name)
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-40], "garbage": b"\0" * 90, "other": other.read_bytes()}[how])
    with pytest.raises(DataError, match="ingest again"):
        SiteStore.open(tmp_path / "store", STORE_KEY)


def test_a_store_is_never_overwritten(tmp_path: Path) -> None:
    SiteStore.create(tmp_path / "store", many(8), FORM, LABELS, KEY, STORE_KEY)
    with pytest.raises(DataError, match="already"):
        SiteStore.create(tmp_path / "store", many(12), FORM, LABELS, KEY, STORE_KEY)
    assert SiteStore.open(tmp_path / "store", STORE_KEY).patients == 4


def split_of_each(images: Iterable[tuple[str, Split | None]], draw: Callable[[str], Split]) -> dict[str, Split]:
    """Every patient's split, by name."""
    listed = list(images)
    names = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in listed))}
    owner = np.array([names[name] for name, _ in listed], np.uint32)
    given = np.array([NOT_GIVEN if split is None else SPLITS.index(split) for _, split in listed], np.uint8)
    drawn = np.array([SPLITS.index(draw(name)) for name in names], np.uint8)
    return {name: SPLITS[assign_splits(owner, given, drawn)[number]] for name, number in names.items()}


def test_given_splits_are_kept_and_a_torn_patient_goes_to_train() -> None:
    images: list[tuple[str, Split | None]] = [
        ("a", "train"), ("b", "holdout"), ("b", "holdout"), ("c", "train"),
        ("d", "train"), ("d", "holdout"), ("e", "train"), ("e", "holdout"),
    ]  # fmt: skip
    expected = {"a": "train", "b": "holdout", "c": "train", "d": "train", "e": "train"}
    assert split_of_each(images, DRAW) == expected
    assert split_of_each(reversed(images), DRAW) == expected


def test_a_mixture_of_given_and_missing_splits_is_refused() -> None:
    with pytest.raises(DataError, match="split"):
        split_of_each([("a", "train"), ("b", None)], DRAW)


names = st.text(min_size=1, max_size=20)


@settings(deadline=None, max_examples=200)
@given(st.lists(names, unique=True, max_size=30), names, st.binary(min_size=16, max_size=32))
def test_adding_a_patient_never_moves_another(patients: list[str], newcomer: str, key: bytes) -> None:
    draw = partial(keyed_split, key)
    before = split_of_each([(name, None) for name in patients], draw)
    after = split_of_each([(newcomer, None), *((name, None) for name in reversed(patients))], draw)
    assert all(after[name] == split for name, split in before.items())


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(names, st.lists(st.sampled_from(SPLITS), min_size=1, max_size=4)), names, st.sampled_from(SPLITS)
)
def test_adding_a_patient_with_a_given_split_never_moves_another(
    given_splits: dict[str, list[Split]], newcomer: str, split: Split
) -> None:
    images = [(name, each) for name, splits in given_splits.items() for each in splits]
    before = split_of_each(images, DRAW)
    after = split_of_each([*images, (newcomer, split)], DRAW)
    assert all(after[name] == before[name] for name in before if name != newcomer)


def test_keyed_split_has_the_shares_and_needs_the_key() -> None:
    splits = [keyed_split(KEY, str(n)) for n in range(4000)]
    shares = [splits.count(split) / 4000 for split in SPLITS]
    np.testing.assert_allclose(shares, [0.80, 0.20], atol=0.03)
    other = [keyed_split(KEY[::-1], str(n)) for n in range(4000)]
    agreement = np.mean([a == b for a, b in zip(splits, other, strict=True)])
    assert agreement == pytest.approx(0.64 + 0.04, abs=0.04)


def test_cohort_in_memory() -> None:
    images = np.arange(5 * 4).reshape(5, 2, 2).astype(np.uint8)
    cohort = Cohort(images, np.array([0, 1, 0, 1, 1]), np.array([2, 0, 2, 1, 0]))
    assert cohort.patients == 3
    mine, labels = cohort.images_of(2)
    assert np.array_equal(mine, images[[0, 2]])
    assert labels.tolist() == [0, 0]
    assert labels.dtype == np.int64
    with pytest.raises(IndexError):
        cohort.images_of(3)
    assert Cohort(images[:0], np.zeros(0), np.zeros(0)).patients == 0


@pytest.mark.parametrize("patient_index", [[0, 0, 2], [1, 1, 1], [0, 1]])
def test_cohort_refuses_gaps_and_wrong_lengths(patient_index: list[int]) -> None:
    with pytest.raises(AssertionError):
        Cohort(np.zeros((3, 2, 2), dtype=np.uint8), np.zeros(3), np.array(patient_index))


def test_an_empty_split_is_an_empty_cohort(tmp_path: Path) -> None:
    SiteStore.create(tmp_path / "store", [image("a", split="train")], FORM, LABELS, KEY, STORE_KEY)
    assert SiteStore.open(tmp_path / "store", STORE_KEY).cohort("holdout").patients == 0


def test_too_few_patients_without_saying_how_many() -> None:
    policy = Policy(
        site="north",
        budget=Budget(epsilon=1.0, delta=1e-5),
        allowed_stages=["spectral"],
        minimum_patients=250,
        release=ReleaseRules(allowed_methods=["dp-sampling"], largest_set=10),
    )
    require_patients(250, policy)
    with pytest.raises(DataError) as caught:
        require_patients(137, policy)
    assert not any(character.isdigit() for character in str(caught.value))
