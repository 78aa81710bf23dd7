"""One image a patient enters a group, of one laterality and view: how it is known, chosen, grouped and walked."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from support.averages import SIZE, honest, plan_of, site_cohort
from support.reading import read_dicom, read_pngs

from sfumato_client.anonymise import anonymise
from sfumato_client.anonymise.contract import Job, Release
from sfumato_client.anonymise.entering import entering_cohort
from sfumato_client.anonymise.groups import groups_of, most_images
from sfumato_client.anonymise.influence import averages_without
from sfumato_client.anonymise.linear_walk import layout, walks_of
from sfumato_client.anonymise.patients import patients_of
from sfumato_client.dataset.cohort import Cohort
from sfumato_client.dataset.store import SiteStore
from sfumato_client.ingest.records import SiteImage, Skipped, view_name
from sfumato_common.errors import PolicyRefusal
from sfumato_common.generators.starts import initial_model
from sfumato_common.generators.weights import to_arrays
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.mechanisms.streams import SecretStream, Streams
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.study.release import KSame
from sfumato_common.study.terms import ImageForm
from sfumato_common.types import to_unit_range

WALK = {"k": 3, "points": 4, "images": 10, "groups": "within-label", "remainder": "merge"}


def item_of(**terms) -> KSame:
    return KSame(**{"method": "k-same", "images": 4, "k": 3, **terms})


def cohort_of(*patients, seed=0):
    """A cohort of patients, each a list of (view, label); pixels are noise."""
    images = [entry for patient in patients for entry in patient]
    index = np.repeat(np.arange(len(patients)), [len(patient) for patient in patients])
    pixels = np.random.default_rng(seed).integers(0, 255, (len(images), SIZE, SIZE)).astype(np.uint8)
    views = np.array([view for view, _ in images], dtype="U16")
    return Cohort(pixels, np.array([label for _, label in images]), index, views=views)


def eyes_of(base: Cohort, seed=4) -> Cohort:
    """Every patient of `base` with two eyes: the first image is the right one, its mirror image the left one."""
    images, labels, index = base.everything()
    first = np.searchsorted(index, np.arange(base.patients))
    both = np.concatenate([images[first], images[first, :, ::-1]])
    views = np.repeat(["R", "L"], base.patients)
    order = np.random.default_rng(seed).permutation(len(both))
    people = np.tile(np.arange(base.patients), 2)[order]
    return Cohort(both[order], np.tile(labels[first], 2)[order], people, views=views[order])


def job_of(cohort: Cohort, seed=1, **item) -> Job:
    plan = plan_of("linear-walk", **{**WALK, **item})
    generator = to_arrays("generator", initial_model("generator", plan))
    release = Release(plan, "alder", {"spectral": honest(), "gan": {**honest(), **generator}}, cohort)
    return Job(release, plan.release[0], Streams.of(TestNoise(seed)), NoiseRecorder(TestNoise(0), "entry"))


def few() -> Cohort:
    """The first forty patients of the phantom."""
    images, labels, index = site_cohort().everything()
    return Cohort(images[index < 40], labels[index < 40], index[index < 40])


@pytest.mark.parametrize(
    ("laterality", "view", "name"),
    [("R", "", "R"), ("left", "mlo", "L MLO"), ("", "PA", "PA"), ("B", "", ""), ("U", "LL", "LL"), ("", "L", "")],
)
def test_a_view_is_a_word_of_each_or_not_known(laterality, view, name):
    assert view_name(laterality, view) == name
    assert view_name("R", "NAME^GIVEN 1970") == "R"


def test_the_phantoms_eyes_and_films_are_known_by_their_headers(tmp_path):
    for modality, views in (("fundus", {"R", "L"}), ("chest", {"PA"}), ("chest-lateral", {"LL"})):
        folder = tmp_path / modality
        write_cohort(folder, "north", 3, 1, None, modality=modality, size=128)
        site = folder / "labels.csv"
        labels = sorted({row["label"] for row in csv.DictReader(site.open(newline=""))})
        form = ImageForm(size=16, channels=3 if modality == "fundus" else 1)
        found = [entry for entry in read_dicom(site.parent, site, form, labels) if isinstance(entry, SiteImage)]
        assert found and {entry.view for entry in found} == views


def test_a_table_may_say_it_and_what_it_says_wrongly_is_skipped(tmp_path):
    rows = [("R", ""), ("left", "cc"), ("", ""), ("X", ""), ("", "from the side")]
    lines = ["file,patient_id,label,laterality,view"]
    for number, (laterality, view) in enumerate(rows):
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,p{number},normal,{laterality},{view}")
    (tmp_path / "index.csv").write_text("\n".join(lines) + "\n")
    found = list(read_pngs(tmp_path, tmp_path / "index.csv", ImageForm(size=16), ["normal"]))
    assert [entry.view for entry in found if isinstance(entry, SiteImage)] == ["R", "L CC", ""]
    assert [entry.reason for entry in found if isinstance(entry, Skipped)] == [
        "its laterality is none of L, R",
        "its view is no word of two to eight letters",
    ]


def test_the_store_keeps_views(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 16, 16)).astype(np.uint8)
    entries = [SiteImage(one, 0, f"p{n // 2}", "train", "LR"[n % 2]) for n, one in enumerate(pixels)]
    report = SiteStore.create(tmp_path / "store", entries, ImageForm(size=16), ["normal"], bytes(32), bytes(32))
    assert report.images_by_view == {"L": 3, "R": 3}
    assert json.loads((tmp_path / "ingest-report.json").read_text())["images_by_view"] == {"L": 3, "R": 3}
    assert SiteStore.open(tmp_path / "store", bytes(32)).cohort("train").views.tolist() == ["L", "R"] * 3


def test_a_patient_brings_one_image_of_the_view_that_most_have():
    cohort = cohort_of(
        [("L", 1), ("R", 0), ("R", 2)],  # the first right one
        [("L", 1)],  # has no other
        [("", 0), ("R", 1)],  # what is known comes first
        [("", 2), ("", 0)],
        [("R", 0)],
    )
    found = entering_cohort(cohort, item_of(views="apart"))
    assert found.views.tolist() == ["R", "L", "R", "", "R"]
    assert found.labels.tolist() == [0, 1, 1, 2, 0]
    assert found.patient_index.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(found.images, cohort.images[[1, 3, 5, 6, 8]])
    assert entering_cohort(cohort, item_of()) is cohort
    stored = dataclasses.replace(cohort, images=cohort.images[::-1], rows=np.arange(9)[::-1].copy())
    assert np.array_equal(entering_cohort(stored, item_of(views="apart")).images, found.images)


def test_left_images_may_be_mirrored_and_then_are_right_ones():
    cohort = cohort_of([("L", 0)], [("R", 0)], [("L MLO", 0)], [("LL", 0)], [("", 0)])
    found = entering_cohort(cohort, item_of(views="mirrored"))
    assert found.views.tolist() == ["R", "R", "R MLO", "LL", ""]
    for row, left in enumerate([True, False, True, False, False]):
        assert np.array_equal(found.images[row], cohort.images[row, :, ::-1] if left else cohort.images[row])


@pytest.mark.parametrize("groups", ["within-label", "l-diverse"])
def test_groups_are_of_one_view_and_no_patient_is_in_two(groups):
    rng = np.random.default_rng(2)
    kinds = [[("R", 0), ("L", 0)], [("L", 1)], [("", 1)], [("R", 1)], [("L", 0)], [("", 0)], [("R", 0)]]
    cohort = cohort_of(*(kinds[number] for number in rng.integers(0, 7, 80)))
    job = job_of(cohort, views="apart", groups=groups)
    found = groups_of(job)
    members = np.concatenate([group.members for group in found])
    assert len(np.unique(members)) == len(members)
    entering = job.cohort
    assert len(entering.images) == cohort.patients
    for group in found:
        assert len(group.members) >= job.item.k
        assert set(entering.views[group.members]) == {group.view}
    assert {group.view for group in found} == {"R", "L", ""}
    mean = groups_of(job_of(cohort, groups=groups))
    assert any(len({tuple(kinds_of(cohort, patient)) for patient in group.members}) > 1 for group in mean)
    assert most_images(cohort, job.item.model_copy(update={"method": "k-same"}), 2) >= 1


def kinds_of(cohort, patient):
    return sorted(set(cohort.views[cohort.patient_index == patient].tolist()))


def test_two_eyes_are_averaged_by_mean_and_by_nothing_else():
    """Of a patient's two eyes, one the other's mirror image, the mean is symmetric; what enters is one of them."""
    cohort, members = eyes_of(few()), np.arange(3)

    def asymmetry(images):
        return float(np.square(images - images[..., ::-1]).mean())

    mean, apart = job_of(cohort), job_of(cohort, views="apart")
    assert asymmetry(averages_without(mean.cohort, members)) < 1e-12
    assert asymmetry(averages_without(apart.cohort, members)) > 1e-3
    assert asymmetry(to_unit_range(patients_of(apart).images)) > 1e-3
    mirrored = job_of(cohort, views="mirrored")
    right = cohort.images[cohort.views == "R"][np.argsort(cohort.patient_index[cohort.views == "R"])]
    assert np.array_equal(mirrored.cohort.images, right), "whichever eye comes, it is drawn as a right one"
    assert not np.array_equal(anonymise(mean).images, anonymise(apart).images)


def test_walks_join_groups_of_one_view():
    labels, views = np.zeros(9, dtype=np.int64), ["R"] * 5 + ["L"] * 3 + [""]
    pairs, _, released = layout(labels, np.ones(1), 40, 2, SecretStream(TestNoise(1)), views)
    assert int(released.sum()) == 40
    joined = [{views[end] for end in pair} for pair in pairs.tolist()]
    assert all(len(seen) == 1 for seen in joined) and {view for seen in joined for view in seen} == {"R", "L"}
    alone = layout(labels, np.ones(1), 40, 2, SecretStream(TestNoise(1)))
    assert all(bool((one == other).all()) for one, other in zip(alone, alone, strict=True))
    job = job_of(cohort_of(*([[("R", 0)], [("L", 0)]] * 12)), views="apart")
    walks = walks_of(job)
    for first, last in walks.behind:
        assert len(set(job.cohort.views[np.concatenate([first, last])])) == 1


def test_a_plan_that_says_nothing_keeps_its_digest_and_its_frozen_groups(tmp_path):
    before, said, other = plan_of("k-same"), plan_of("k-same", views="mean"), plan_of("k-same", views="apart")
    assert before.digest == said.digest != other.digest
    assert len(before.release[0].grouping) == 5
    cohort = eyes_of(few())

    def frozen(**terms):
        job = job_of(cohort, **terms)
        return groups_of(dataclasses.replace(job, release=dataclasses.replace(job.release, **kept)))

    kept = {"grouping_file": tmp_path / "groups.json"}
    first = [group.members.tolist() for group in frozen()]
    assert [group.members.tolist() for group in frozen()] == first
    with pytest.raises(PolicyRefusal, match="grouped before"):
        frozen(views="apart")
    plain = job_of(cohort)
    assert plain.cohort is plain.release.cohort
