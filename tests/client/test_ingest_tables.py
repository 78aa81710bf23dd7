"""PNG folders, npz sets and the description of a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter
from support.reading import read_pngs

from sfumato_client.ingest import READERS, SiteImage, Skipped, SourceConfig, load_source, read_source
from sfumato_client.ingest.npz import read_npz
from sfumato_client.ingest.sources import DicomSource, NpzSource, PngSource
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.study.terms import ImageForm

FORM = ImageForm(size=16)
LABELS = ["normal", "opacity"]


def gradient(dtype: type = np.uint8, size: int = 16) -> np.ndarray:
    return np.tile(np.linspace(0, np.iinfo(dtype).max, size), (size, 1)).astype(dtype)


@pytest.fixture
def pngs(tmp_path: Path) -> Path:
    Image.fromarray(gradient()).save(tmp_path / "grey.png")
    Image.fromarray(gradient(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.dstack([gradient()] * 3)).save(tmp_path / "colour.png")
    Image.fromarray(gradient()).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(gradient()).convert("LA").save(tmp_path / "alpha.png")
    return tmp_path


def write_table(folder: Path, *rows: str, header: str = "file,patient_id,label") -> Path:
    table = folder / "labels.csv"
    table.write_text("\n".join([header, *rows]) + "\n")
    return table


def test_every_kind_of_png_gives_the_same_grey(pngs: Path) -> None:
    names = ("grey", "deep", "colour", "palette", "alpha")
    table = write_table(pngs, *(f"{name}.png,p{i},opacity" for i, name in enumerate(names)))
    for name, entry in zip(names, read_pngs(pngs, table, FORM, LABELS), strict=True):
        assert isinstance(entry, SiteImage), (name, entry)
        np.testing.assert_allclose(entry.pixels, gradient(), atol=1.0, err_msg=name)
        assert (entry.label, entry.split) == (1, None)


def test_png_splits_and_skips(pngs: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)
    Image.fromarray(noise).save(pngs / "broken.png")
    (pngs / "broken.png").write_bytes((pngs / "broken.png").read_bytes()[:150])
    (pngs / "photo.png").write_bytes(b"\xff\xd8\xff\xe0 a jpeg")
    frames = [Image.fromarray(gradient()), Image.fromarray(gradient().T)]
    frames[0].save(pngs / "film.png", save_all=True, append_images=frames[1:])
    table = write_table(
        pngs,
        "grey.png,p1,normal,val",
        "deep.png,p2,normal,test",
        "colour.png,p3,normal,train",
        "palette.png,,normal,train",
        "alpha.png,p4,normal,",
        "broken.png,p5,normal,train",
        "photo.png,p6,normal,train",
        "film.png,p7,normal,train",
        "missing.png,p8,normal,train",
        header="file,patient_id,label,split",
    )
    entries = list(read_pngs(pngs, table, FORM, LABELS))
    assert [e.split for e in entries if isinstance(e, SiteImage)] == ["train", "holdout", "train"]
    reasons = {e.reference: e.reason for e in entries if isinstance(e, Skipped)}
    assert set(reasons) == {"palette.png", "alpha.png", "broken.png", "photo.png", "film.png", "missing.png"}
    assert "patient" in reasons["palette.png"]
    assert "split" in reasons["alpha.png"]
    assert "several pictures" in reasons["film.png"]


def npz_index(folder: Path, *rows: str) -> Path:
    index = folder / "index.csv"
    index.write_text("\n".join(["set,row,site,patient_id,split,abnormal", *rows]) + "\n")
    return index


def test_npz_rows_of_one_site(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    np.savez(tmp_path / "b.npz", images=np.stack([gradient(np.uint16, 24)] * 2))
    rows = (
        "a,0,east,p1,train,0", "a,2,west,p9,test,1", "a,1,east,p2,val,1", "b,1,east,p2,test,0", "b,7,east,p3,train,0",
        "a,0,east,p3,later,0", "a,0,east,p3,train,2", "a,-1,east,p3,train,0", "a,0,east,,train,0",
    )  # fmt: skip
    index = npz_index(tmp_path, *rows)
    entries = list(read_npz(index, "east", FORM, LABELS))
    taken = [entry for entry in entries if isinstance(entry, SiteImage)]
    assert [(e.patient_id, e.label, e.split) for e in taken] == [
        ("p1", 0, "train"),
        ("p2", 1, "train"),
        ("p2", 0, "holdout"),
    ]
    assert np.array_equal(taken[0].pixels, images[0])  # same size: untouched
    assert taken[2].pixels.shape == (16, 16)
    assert len(entries) - len(taken) == 5


@pytest.mark.parametrize("problem", ["absent", "not an archive", "pickled", "floats", "no images", "path"])
def test_npz_that_cannot_be_used_is_one_clear_line(tmp_path: Path, problem: str) -> None:
    archive = tmp_path / "a.npz"
    if problem == "not an archive":
        archive.write_text("hello")
    elif problem == "pickled":
        np.savez(archive, images=np.array([{"a": 1}], dtype=object))
    elif problem == "floats":
        np.savez(archive, images=np.zeros((1, 16, 16)))
    elif problem == "no images":
        np.savez(archive, other=np.zeros(3))
    index = npz_index(tmp_path, f"{'../a' if problem == 'path' else 'a'},0,east,p1,train,0")
    with pytest.raises(DataError) as caught:
        list(read_npz(index, "east", FORM, LABELS))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_npz_site_without_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="north"):
        list(read_npz(npz_index(tmp_path, "a,0,east,p1,train,0"), "north", FORM, LABELS))


def test_source_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "source.yaml"
    path.write_text("kind: dicom\nfolder: a/b\nlabels: a/labels.csv\n")
    assert load_source(path) == DicomSource(kind="dicom", folder=Path("a/b"), labels=Path("a/labels.csv"))
    path.write_text("kind: npz\nindex: i.csv\nsite: east\n")
    assert load_source(path) == NpzSource(kind="npz", index=Path("i.csv"), site="east")
    adapter: TypeAdapter[PngSource] = TypeAdapter(SourceConfig)
    assert isinstance(adapter.validate_python({"kind": "png", "folder": "a", "labels": "b"}), PngSource)
    assert set(READERS) == {"dicom", "png", "images", "nifti", "npz"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kind: dcom\n", "kind"),
        ("folder: a\n", "kind"),
        ("kind: png\nfoldr: a\nlabels: b\n", "folder"),
        ("kind: npz\nindex: 3\n", "index"),
    ],
)
def test_wrong_source_description_names_the_key(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "source.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=named):
        load_source(path)


def test_read_source_dispatches(pngs: Path) -> None:
    table = write_table(pngs, "grey.png,p1,normal")
    first = next(read_source(PngSource(kind="png", folder=pngs, labels=table), FORM, LABELS))
    assert isinstance(first, SiteImage)


@pytest.mark.shared
def test_real_sites_index() -> None:
    index = Path(__file__).resolve().parents[3] / "shared" / "data" / "cxr_sites_64.csv"
    if not index.exists():
        pytest.skip("the medical test collection is not beside this checkout")
    entries = list(read_npz(index, "hannover", ImageForm(size=64), LABELS))
    assert all(isinstance(entry, SiteImage) for entry in entries)
    assert len({entry.patient_id for entry in entries if isinstance(entry, SiteImage)}) == 63
