"""Sixteen bits at a site: readers, store, gate and candidates keep them; a store of another form is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.reading import read_dicom, read_npz, read_pngs

from sfumato_client.anonymise import CandidateSet
from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import SiteImage
from sfumato_common.errors import DataError
from sfumato_common.imaging import fit_square
from sfumato_common.metrics.nearest import nearest_distances
from sfumato_common.phantom import DEVICES, arrays, draw_patient
from sfumato_common.phantom.dicom import write_cohort
from sfumato_common.study.terms import ImageForm

DEEP = ImageForm(size=16, bits=16)
LABELS = ["normal", "opacity"]
KEY = b"0123456789abcdef0123456789abcdef"


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << 16, (16, 16)).astype(np.uint16)


def test_a_sixteen_bit_png_and_npz_come_in_bit_by_bit(tmp_path: Path) -> None:
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "deep.png")
    table = tmp_path / "labels.csv"
    table.write_text("file,patient_id,label\ndeep.png,p,opacity\n")
    np.savez(tmp_path / "set.npz", images=pixels[None])
    index = tmp_path / "index.csv"
    index.write_text("set,row,site,patient_id,split,abnormal\nset,0,alder,p,train,1\n")
    png = next(iter(read_pngs(tmp_path, table, DEEP, LABELS)))
    npz = next(iter(read_npz(index, "alder", DEEP, LABELS)))
    for entry in (png, npz):
        assert isinstance(entry, SiteImage)
        assert entry.pixels.dtype == np.uint16
        assert np.array_equal(entry.pixels, pixels)


@pytest.mark.parametrize("device", sorted(DEVICES))
def test_dicom_of_twelve_or_more_bits_fills_the_sixteen_bit_range(tmp_path: Path, device: str) -> None:
    write_cohort(tmp_path, "north", 1, 1, device)
    entry = next(iter(read_dicom(tmp_path, tmp_path / "labels.csv", ImageForm(size=64, bits=16), LABELS)))
    assert isinstance(entry, SiteImage)
    drawn = fit_square(draw_patient(1, "north", 1, DEVICES[device]).images[0], 64)
    step = 65535 / (DEVICES[device].stored_high - DEVICES[device].stored_low)
    assert entry.pixels.dtype == np.uint16
    np.testing.assert_allclose(entry.pixels, drawn * 65535, atol=step)
    # more levels than eight bits have: nothing on the way rounded to them
    assert len(np.unique(entry.pixels)) > 1000


def test_a_store_keeps_the_depth_and_refuses_a_plan_of_another_form(tmp_path: Path) -> None:
    entries = [SiteImage(noise(n), n % 2, f"patient-{n}", "train") for n in range(6)]
    SiteStore.create(tmp_path / "store", entries, DEEP, LABELS, KEY, KEY)
    store = SiteStore.open(tmp_path / "store", KEY)
    store.facts.require(DEEP, LABELS)
    images, _, _ = store.cohort("train").everything()
    assert images.dtype == np.uint16
    assert np.array_equal(images[0], noise(0))
    for other in (ImageForm(size=16), ImageForm(size=32, bits=16), ImageForm(size=16, channels=3)):
        with pytest.raises(DataError, match="another form"):
            store.facts.require(other, LABELS)


def test_the_gate_sees_a_copy_whatever_its_depth() -> None:
    deep, _, _ = arrays(seed=3, patients=12, size=32, bits=16)
    copies, others = deep[:2], arrays(seed=4, patients=4, size=32, bits=16)[0]
    assert nearest_distances(copies, deep).max() < 0.01
    assert nearest_distances(others, deep).min() > 0.05


def test_candidates_are_pixels_of_eight_or_sixteen_bits() -> None:
    labels = np.zeros(1, np.int64)
    assert CandidateSet("dp-sampling", "spectral", "formal", noise()[None], labels).images.dtype == np.uint16
    with pytest.raises(AssertionError):
        CandidateSet("dp-sampling", "spectral", "formal", noise()[None].astype(np.int32), labels)
