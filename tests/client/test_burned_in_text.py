"""Text in pixels: found before an image is reduced, by default refused, and never written anywhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.burned_in import MARKERS, draw_text, film, random_marker, random_text
from support.dicoms import make, save
from support.reading import read_dicom, read_images, read_pngs

from sfumato_client.ingest import SiteImage, Skipped, text_networks
from sfumato_client.ingest.burned_in import REASON, has_text, painted_over
from sfumato_client.ingest.sources import DicomSource, read_rows
from sfumato_common.errors import ConfigError
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=64), ["normal", "opacity"]
SECRET = "MORLU^XOYA"
COLLECTION = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"


def with_text(side: int = 512, tone: str = "light", place: str = "top left") -> np.ndarray:
    return draw_text(film(31, 4, side), (SECRET, "1951-07-03"), "plain", tone, place, side // 40)[0]


def folder_of(tmp_path: Path, name: str, picture: np.ndarray) -> tuple[Path, Path]:
    """A folder of one file of this name, DICOM of 12 bits or a picture of 8 or 16, and its table."""
    folder = tmp_path / "images"
    folder.mkdir(exist_ok=True)
    if name.endswith(".dcm"):
        dataset = make(np.rint(picture * 4000).astype(np.uint16), bits=12, WindowCenter="2000", WindowWidth="4000")
        save(dataset, folder / name)
    elif name.startswith("deep"):
        Image.fromarray(np.rint(picture * 65535).astype(np.uint16)).save(folder / name)
    else:
        Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(folder / name)
    table = tmp_path / "labels.csv"
    table.write_text(f"file,patient_id,label\n{name},p1,normal\n")
    return folder, table


READERS = {"a.dcm": read_dicom, "a.png": read_pngs, "deep.png": read_pngs, "a.jpg": read_images, "a.tif": read_images}


@pytest.mark.parametrize("name", READERS)
def test_text_is_refused_by_default_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    (found,) = READERS[name](*folder_of(tmp_path, name, with_text()), FORM, LABELS)
    assert isinstance(found, Skipped)
    assert found.reason.startswith(REASON)
    assert not any(part in found.reason for part in ("MORLU", "XOYA", "1951"))


@pytest.mark.parametrize("name", READERS)
def test_text_is_painted_over_before_the_reduction(tmp_path: Path, name: str) -> None:
    clean = film(31, 4, 512)
    at = folder_of(tmp_path, name, with_text())
    (masked,) = READERS[name](*at, FORM, LABELS, text="mask")
    (allowed,) = READERS[name](*at, FORM, LABELS, text="allow")
    (whole,) = READERS[name](*folder_of(tmp_path, name, clean), FORM, LABELS, text="allow")
    assert isinstance(masked, SiteImage) and isinstance(allowed, SiteImage) and isinstance(whole, SiteImage)
    assert any(REASON in note for note in masked.notes) and not any("XOYA" in note for note in masked.notes)
    left = [np.abs(one.pixels[:6, :30].astype(float) - whole.pixels[:6, :30]).mean() for one in (masked, allowed)]
    assert left[0] < left[1] / 4, "what was written is gone from the reduced image"
    assert np.array_equal(masked.pixels[32:], whole.pixels[32:]), "the rest is as it was"


@pytest.mark.parametrize("word", MARKERS)
def test_markers_are_no_text(word: str) -> None:
    for turn in (lambda picture: picture, lambda picture: np.ascontiguousarray(picture[:, ::-1])):
        marked = turn(draw_text(film(32, 1, 640), (word,), "bold", "light", "bottom left", 24)[0])
        assert not has_text(marked)


def test_a_name_beside_a_marker_is_text() -> None:
    marked = draw_text(film(32, 2, 640), ("L AP",), "bold", "light", "bottom left", 24)[0]
    assert has_text(draw_text(marked, ("Lopa Virso",), "plain", "grey", "middle", 10)[0])


@pytest.mark.parametrize(
    ("films", "may_miss", "may_be_wrong"), [(16, 0, 0), pytest.param(60, 1, 2, marks=pytest.mark.slow)]
)
def test_text_is_found_and_clean_films_are_kept_on_a_set_that_no_choice_has_seen(
    films: int, may_miss: int, may_be_wrong: int
) -> None:
    """Recall of 60 at least .98, and at most 2 % of 120 clean films; the first of them every time."""
    sides = (512, 800, 1200, 2000)
    missed, wrong, left = 0, 0, list[float]()
    for number in range(films):
        rng, clean = np.random.default_rng([977, number]), film(977, number, sides[number % 4])
        picture, drawn = random_text(clean, rng)
        missed += not has_text(picture)
        left.append(float((drawn.where & (np.abs(painted_over(picture) - picture) == 0)).sum() / drawn.where.sum()))
        wrong += has_text(clean) + has_text(random_marker(clean, rng))
    assert missed <= may_miss
    assert wrong <= may_be_wrong
    assert np.mean(left) < 0.05, "what is painted over covers what was written"


def test_the_reader_says_nothing_of_what_it_read_to_the_site(tmp_path: Path) -> None:
    """What crosses from a reader's process, and what the report has, hold no part of a name."""
    from sfumato_client.ingest.pool import Pool
    from sfumato_client.ingest.results import to_bytes

    folder, table = folder_of(tmp_path, "a.dcm", with_text())
    for policy in ("reject", "mask"):
        source = DicomSource(kind="dicom", folder=folder, labels=table, text=policy)
        with Pool(source, FORM, LABELS, 1) as pool:
            (results,) = read_rows(source, FORM, LABELS, pool.run)
        words = to_bytes(results)
        assert not any(part in words for part in (b"MORLU", b"XOYA", b"1951"))
        assert isinstance(results[0], Skipped) == (policy == "reject")


def test_without_what_finds_it_a_source_is_refused_and_allow_reads_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, table = folder_of(tmp_path, "a.png", with_text(128))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else real(name))
    with pytest.raises(ConfigError, match="pip install onnxruntime rapidocr"):
        list(read_pngs(folder, table, FORM, LABELS))
    (found,) = read_pngs(folder, table, FORM, LABELS, text="allow")
    assert isinstance(found, SiteImage)


def test_other_weights_than_those_that_were_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(iter(text_networks._WEIGHTS))
    monkeypatch.setitem(text_networks._WEIGHTS, name, "0" * 64)
    with pytest.raises(ConfigError, match="another"):
        text_networks.require_networks()


def test_a_picture_with_more_places_than_can_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sfumato_client.ingest import burned_in

    assert not has_text(film(33, 5, 256))
    monkeypatch.setattr(burned_in, "_MOST_PLACES", -1)
    assert has_text(film(33, 5, 256))


@pytest.mark.shared
def test_names_in_the_collections_films_are_found() -> None:
    if not COLLECTION.exists():
        pytest.skip("the medical test collection is not beside this checkout")
    from sfumato_common.dicom.opening import open_dicom
    from sfumato_common.dicom.pixels import display_values

    def shown(name: str) -> np.ndarray:
        return display_values(open_dicom((COLLECTION / name).open("rb"), lambda text: None))

    # phi_pt_sc_rgb_overlay has its text in the header alone: nothing is written in its pixels
    for name in ("phi_cr_chest_mono1_rle.dcm", "phi_ct_implicit.dcm"):
        assert has_text(shown(name)), name
        assert not has_text(painted_over(shown(name))), name
    for name in ("cr_extremity_mono1_10bit_j2k_lossy.dcm", "dx_thorax_mono1_8bit.dcm", "phi_pt_sc_rgb_overlay.dcm"):
        assert not has_text(shown(name)), name
