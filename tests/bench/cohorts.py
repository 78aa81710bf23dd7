"""Cohorts of the utility bench, each split over three sites by patient: train, val, and test patients nobody trains on.

PneumoniaMNIST, the three real sites and the fundi stand in the medical test collection beside the checkout
(shared/data, with its licences); the phantom and its fundi are drawn, the latter once a machine. Nominal patients are
round public figures, as in a plan.
"""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sfumato_client.dataset.cohort import Cohort
from sfumato_common.files import write_atomic
from sfumato_common.imaging import fit_square
from sfumato_common.phantom import MODALITIES, draw_eyes
from sfumato_common.phantom import arrays as phantom_arrays
from sfumato_common.types import AnyArray, ByteImages

ROOT = Path(__file__).resolve().parents[2]
# the medical test collection: beside the checkout, inside it, or where SFUMATO_DATA says
_PLACES = (os.environ.get("SFUMATO_DATA"), ROOT / "shared" / "data", ROOT.parent / "shared" / "data")
DATA = next((Path(place) for place in _PLACES if place and Path(place).is_dir()), ROOT / "shared" / "data")
SPLITS = ("train", "val", "test")
PHANTOM_SEED, PHANTOM_PATIENTS = 7, {"train": 700, "val": 100, "test": 200}
FUNDI_PATIENTS = {"train": 250, "val": 50, "test": 100}
DRAWN = ROOT / "bench-out" / "drawn"
SPLIT_SEED = 20
DEVICES = {"alder": "aurora", "birch": "borealis", "cedar": "cirrus"}  # of the phantom's sites
FEW_JUDGES = 120  # phantoms that small cohorts are judged on, a site

Parts = dict[str, dict[str, Cohort]]


@dataclass(frozen=True, eq=False)
class BenchCohort:
    """One cohort of the bench: image form, labels, nominal patients and cohorts by site, for train, val and test."""

    name: str
    size: int
    channels: int
    labels: tuple[str, ...]
    nominal: dict[str, int]
    parts: Parts
    # the splits whose patients nobody trains on: `val`, of the collection that trained, and `test`, the official one
    views: tuple[str, ...] = ("val", "test")

    @property
    def train(self) -> dict[str, Cohort]:
        """Training cohorts by site."""
        return self.parts["train"]

    @property
    def test(self) -> dict[str, Cohort]:
        """Test cohorts by site; their patients were never trained on."""
        return self.parts["test"]


def pooled(cohorts: dict[str, Cohort]) -> tuple[ByteImages, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Images, labels and patient numbers (distinct between sites) of all sites."""
    images, labels, patient_index, first = [], [], [], 0
    for cohort in cohorts.values():
        pixels, y, mine = cohort.everything()
        images.append(pixels)
        labels.append(y)
        patient_index.append(mine + first)
        first += cohort.patients
    return np.concatenate(images), np.concatenate(labels), np.concatenate(patient_index)


def phantom() -> BenchCohort:
    """Procedural radiographs at 32 px, three devices, 700 patients a site."""
    parts: Parts = {}
    first = 1
    for split, patients in PHANTOM_PATIENTS.items():
        parts[split] = {
            site: Cohort(*phantom_arrays(PHANTOM_SEED, patients, 32, site, device, first=first))
            for site, device in DEVICES.items()
        }
        first += patients
    return BenchCohort(
        "phantom", 32, 1, ("normal", "opacity"), dict.fromkeys(DEVICES, PHANTOM_PATIENTS["train"]), parts
    )


def pneumonia() -> BenchCohort:
    """PneumoniaMNIST at 28 px, train patients drawn at random into three sites; the official test set is pooled."""
    with np.load(DATA / "pneumoniamnist_28.npz") as file:
        images, labels, split = file["images"], file["labels"].astype(np.int64), file["split_disjoint"]
        patients = file["patient_id"].copy()
    # an image that its source could not be linked to a patient for counts as a patient of its own
    patients[patients == ""] = [f"unlinked-{row}" for row in np.flatnonzero(patients == "")]
    names = np.unique(patients[split == "train"])
    home = dict(zip(names, np.random.default_rng(SPLIT_SEED).permutation(len(names)) % 3, strict=True))
    sites = ("north", "middle", "south")
    parts: Parts = {}
    train = np.flatnonzero(split == "train")
    places = np.array([home[name] for name in patients[train]])
    parts: Parts = {
        "train": {
            site: _cohort(images, labels, patients, train[places == number]) for number, site in enumerate(sites)
        },
        # one hospital's test set: it is not split
        "val": {"official": _cohort(images, labels, patients, np.flatnonzero(split == "val"))},
        "test": {"official": _cohort(images, labels, patients, np.flatnonzero(split == "test"))},
    }
    return BenchCohort("pneumonia", 28, 1, ("normal", "pneumonia"), dict.fromkeys(sites, 1100), parts)


def sites(size: int = 64) -> BenchCohort:
    """Three real chest X-ray sites at 64 or 128 px (children, adults, COVID-19 only): other classes, other exposure."""
    nominal = {"guangzhou": 3000, "nih": 400, "hannover": 40}
    parts: Parts = {split: site_parts(DATA / f"cxr_sites_{size}.csv", tuple(nominal), split) for split in SPLITS}
    return BenchCohort("sites", size, 1, ("normal", "abnormal"), nominal, parts)


def site_parts(index: Path, sites: tuple[str, ...], split: str) -> dict[str, Cohort]:
    """The images of one split by site, of an index (set,row,site,patient_id,split,abnormal) beside its npz files."""
    with index.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == split]
    images = {}
    for name in sorted({row["set"] for row in rows}):
        with np.load(index.parent / f"{name}.npz") as file:
            images[name] = file["images"]
    parts = {}
    for site in sites:
        if mine := [row for row in rows if row["site"] == site]:
            patient_index = np.unique([row["patient_id"] for row in mine], return_inverse=True)[1]
            pixels = np.stack([images[row["set"]][int(row["row"])] for row in mine])
            parts[site] = Cohort(pixels, np.array([int(row["abnormal"]) for row in mine]), patient_index)
    return parts


def fundus() -> BenchCohort:
    """Sixty colour fundi of three sites at 64 px: for form only, far too few for a figure; train holds val too."""
    with np.load(DATA / "fundus_open_64.npz") as file:
        images, labels, split = file["images"], file["labels"].astype(np.int64), file["split"]
        patients, homes = file["patient_id"], file["site"]
    parts: Parts = {"train": {}, "val": {}, "test": {}}
    for site in np.unique(homes):
        for part, chosen in {"train": ("train", "val"), "val": ("val",), "test": ("test",)}.items():
            rows = np.flatnonzero((homes == site) & np.isin(split, chosen))
            if len(rows):
                parts[part][str(site)] = _cohort(images, labels, patients, rows)
    names = ("none", "retinopathy", "glaucoma")
    return BenchCohort("fundus", 64, 3, names, dict.fromkeys(parts["train"], 20), parts, ("test",))


def fundi(size: int) -> BenchCohort:
    """Drawn colour fundi, two eyes of most patients, three cameras, 250 patients a site: enough for figures."""
    homes = {"garnet": "dawn", "opal": "ember", "pearl": "flint"}
    parts = {split: {site: drawn_fundi(size, site, homes[site], split) for site in homes} for split in SPLITS}
    nominal = dict.fromkeys(homes, FUNDI_PATIENTS["train"])
    return BenchCohort("fundi", size, 3, ("normal", "retinopathy"), nominal, parts)


def drawn_fundi(size: int, site: str, camera: str, split: str) -> Cohort:
    """One split of one site with its eyes, R or L: a tenth of a second a patient, so kept in `DRAWN` and read there."""
    first = 1 + sum(FUNDI_PATIENTS[name] for name in SPLITS[: SPLITS.index(split)])
    path = DRAWN / f"fundi-{PHANTOM_SEED}-{size}-{site}-{camera}-{first}-{FUNDI_PATIENTS[split]}.npz"
    if not path.exists():
        system = MODALITIES["fundus"].system(camera, 2 * size)
        people = [draw_eyes(PHANTOM_SEED, site, first + n, system) for n in range(FUNDI_PATIENTS[split])]
        shown = [fit_square(image, size) for person in people for image in person.images]
        own = {
            "images": np.stack([np.rint(image * 255.0).astype(np.uint8) for image in shown]),
            "labels": np.array([label for person in people for label in person.labels], dtype=np.int64),
            "patient_index": np.repeat(np.arange(len(people)), [len(person.images) for person in people]),
            "views": np.array([view for person in people for view in person.views]),
        }
        stream = io.BytesIO()
        np.savez(stream, **own)
        write_atomic(path, stream.getvalue())
    with np.load(path) as file:
        return Cohort(file["images"], file["labels"], file["patient_index"], views=file["views"])


def _cohort(images: AnyArray, labels: AnyArray, patients: AnyArray, rows: npt.NDArray[np.int64]) -> Cohort:
    return Cohort(images[rows], labels[rows], np.unique(patients[rows], return_inverse=True)[1])


def few_of(whole: BenchCohort, patients: int) -> BenchCohort:
    """The cohort with so many training patients a site at most, and val in the place of test."""
    train = {site: some_patients(part, patients) for site, part in whole.train.items()}
    return _judged_on_val(whole, train, whole.parts["val"])


def few_phantoms(size: int, patients: int) -> BenchCohort:
    """So many phantoms a site, one device each, and others to judge on."""
    train, val = (
        {
            site: Cohort(*phantom_arrays(PHANTOM_SEED, count, size, site, device, first=first))
            for site, device in DEVICES.items()
        }
        for first, count in ((1, patients), (1 + patients, FEW_JUDGES))
    )
    return _judged_on_val(BenchCohort("phantom", size, 1, ("normal", "opacity"), {}, {}), train, val)


def _judged_on_val(whole: BenchCohort, train: dict[str, Cohort], val: dict[str, Cohort]) -> BenchCohort:
    """The cohort of these patients; as many are nominal as there are."""
    nominal = {site: part.patients for site, part in train.items()}
    return replace(whole, nominal=nominal, parts={"train": train, "val": val, "test": val})


def some_patients(cohort: Cohort, patients: int) -> Cohort:
    """The cohort with so many patients at most, whoever chance picks."""
    # patients are numbered by name, and names follow classes
    rank = np.random.default_rng(0).permutation(cohort.patients)
    images, labels, owner = cohort.everything()
    kept = rank[owner] < patients
    return Cohort(images[kept], labels[kept], rank[owner[kept]])


COHORTS = {
    "pneumonia": pneumonia,
    "sites": sites,
    "sites-128": partial(sites, 128),
    "fundus": fundus,
    "fundi-64": partial(fundi, 64),
    "fundi-128": partial(fundi, 128),
    "phantom": phantom,
}
USUAL = ("pneumonia", "sites", "fundus", "phantom")


@lru_cache(maxsize=2)
def load(name: str) -> BenchCohort:
    """The cohort of that name."""
    return COHORTS[name]()
