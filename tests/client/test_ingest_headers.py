"""Headers that are wrong as in the field: the right picture with a note, or a reason that names the element."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit
from support.dicoms import lut_item, make, save
from support.reading import read_dicom

from sfumato_client.ingest import SiteImage, Skipped
from sfumato_common.dicom.elements import named
from sfumato_common.dicom.opening import open_dicom
from sfumato_common.dicom.pixels import display_values
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.study.terms import ImageForm

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 65  # 0 .. 4095
SHOWN = RAMP / 4095.0


def ramp(**elements: object) -> Dataset:
    return make(RAMP, bits=12, **elements)


def shown(dataset: Dataset) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return display_values(dataset, notes.append), notes


def raw(dataset: Dataset, **elements: str) -> Dataset:
    """The data set as it is read back, with text values that pydicom would not write."""
    for name in elements:
        setattr(dataset, name, "1")
    stream = io.BytesIO()
    dataset.save_as(stream, implicit_vr=False, little_endian=True)
    stream.seek(0)
    again = dcmread(stream, force=True)
    again.file_meta = dataset.file_meta
    for name, text in elements.items():
        item = again.get_item(name)
        again._dict[item.tag] = item._replace(value=text.encode(), length=len(text))
    return again


@pytest.mark.parametrize(
    "elements",
    [
        {"WindowCenter": "2048,0", "WindowWidth": "4096,0"},
        {"WindowCenter": "\\2048", "WindowWidth": "\\4096"},
        {"WindowCenter": " 2048 ", "WindowWidth": "4096 "},
    ],
)
def test_numbers_are_read_as_people_write_them(elements: dict[str, str]) -> None:
    found, notes = shown(raw(ramp(), **elements))
    np.testing.assert_allclose(found, SHOWN, atol=1e-3)
    assert not notes


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(UnreadableError, match=r"Window Width \(0028,1051\) is no number"):
        shown(raw(ramp(WindowCenter="1"), WindowWidth="wide"))


@pytest.mark.parametrize("width", ["0", "-4096"])
def test_a_window_that_is_none_is_passed_over(width: str) -> None:
    found, notes = shown(ramp(WindowCenter="2048", WindowWidth=width))
    np.testing.assert_allclose(found, SHOWN, atol=1e-3)
    assert named("WindowWidth") in notes[0]


def test_a_window_beside_all_values_is_passed_over_for_the_next() -> None:
    found, notes = shown(ramp(WindowCenter=["-600", "2048"], WindowWidth=["100", "4096"]))
    np.testing.assert_allclose(found, SHOWN, atol=1e-3)
    assert "outside all values" in notes[0]


def test_a_window_below_one_is_exact() -> None:
    found, _ = shown(ramp(RescaleSlope="0.0001", RescaleIntercept="0", WindowCenter="0.20475", WindowWidth="0.4095"))
    np.testing.assert_allclose(found, SHOWN, atol=1e-3)


@pytest.mark.parametrize(("slope", "intercept"), [(None, None), ("1", None), (None, "0")])
def test_an_empty_rescale_changes_nothing(slope: str | None, intercept: str | None) -> None:
    found, _ = shown(ramp(RescaleSlope=slope, RescaleIntercept=intercept))
    np.testing.assert_allclose(found, SHOWN, atol=1e-6)


def test_the_window_of_an_enhanced_object_stands_in_its_functional_groups() -> None:
    dataset, voi, group = ramp(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth = "1024", "2048"
    group.FrameVOILUTSequence = [voi]
    dataset.SharedFunctionalGroupsSequence = [group]
    found, _ = shown(dataset)
    np.testing.assert_allclose(found, np.clip(RAMP / 2047.0, 0, 1), atol=1e-3)


@pytest.mark.parametrize("bits", [10, 12])
def test_a_table_that_holds_fewer_bits_than_it_says_is_read_by_its_data(bits: int) -> None:
    dataset = ramp()
    dataset.VOILUTSequence = [lut_item(0, np.arange(4096) >> (12 - bits), 16)]
    found, notes = shown(dataset)
    np.testing.assert_allclose(found, SHOWN, atol=2.0**-bits)
    assert named("LUTDescriptor") in notes[0]


def test_a_table_that_says_what_it_holds_is_not_changed() -> None:
    dataset = ramp()
    dataset.VOILUTSequence = [lut_item(0, np.arange(4096) * 15, 16)]
    found, notes = shown(dataset)
    np.testing.assert_allclose(found, RAMP * 15 / 65535.0, atol=1e-4)
    assert not notes


def test_an_empty_table_is_passed_over_for_the_window() -> None:
    dataset, item = ramp(WindowCenter="2048", WindowWidth="4096"), Dataset()
    item.LUTDescriptor = item.LUTData = None
    dataset.VOILUTSequence = [item]
    found, notes = shown(dataset)
    np.testing.assert_allclose(found, SHOWN, atol=1e-3)
    assert named("VOILUTSequence") in notes[0]


def test_padding_in_the_other_representation() -> None:
    signed = RAMP.astype(np.int16)
    signed[0] = -2000
    dataset = make(signed)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    found, notes = shown(dataset)
    assert (found[0] == 0).all()
    assert found[1, 0] == 0.0  # the smallest value inside
    assert named("PixelPaddingValue") in notes[0]


def test_values_that_lie_in_the_high_bits_are_shifted_down() -> None:
    dataset = make((RAMP << 4).astype(np.uint16), bits=12)
    dataset.HighBit = 15
    found, notes = shown(dataset)
    np.testing.assert_allclose(found, SHOWN, atol=1e-6)
    assert named("HighBit") in notes[0]


def test_every_frame_of_a_film_is_shifted_down() -> None:
    stored = np.concatenate([RAMP << 4, RAMP[::-1] << 4]).astype(np.uint16)
    dataset = make(stored, bits=12, WindowCenter="2048", WindowWidth="4096")
    dataset.Rows, dataset.NumberOfFrames, dataset.HighBit = 8, 2, 15
    np.testing.assert_allclose(display_values(dataset, frame=0), SHOWN, atol=1e-3)
    np.testing.assert_allclose(display_values(dataset, frame=1), SHOWN[::-1], atol=1e-3)


@pytest.mark.parametrize("missing", ["BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"])
def test_an_element_that_the_others_tell_may_be_missing(missing: str) -> None:
    dataset = ramp()
    del dataset[missing]
    found, _ = shown(dataset)
    np.testing.assert_allclose(found, SHOWN, atol=1e-6)


def test_nobody_can_tell_polarity_where_it_is_missing() -> None:
    dataset = ramp()
    del dataset.PhotometricInterpretation
    with pytest.raises(UnreadableError, match=r"Photometric Interpretation \(0028,0004\) is missing"):
        shown(dataset)


def test_words_of_the_header_may_be_small_letters() -> None:
    dataset = ramp(WindowCenter="2048", WindowWidth="4096", VOILUTFunction="linear")
    dataset.PhotometricInterpretation = "monochrome2"
    np.testing.assert_allclose(shown(dataset)[0], SHOWN, atol=1e-3)


def test_a_marker_far_above_all_values_does_not_darken_the_image() -> None:
    bright = np.repeat(RAMP, 16, axis=0).repeat(16, axis=1).astype(np.uint16)
    bright[0, 0] = 65535
    found, notes = shown(make(bright))
    assert 0.4 < float(np.median(found)) < 0.6
    assert "without them" in notes[0]


def test_grey_with_three_samples_is_a_grey_picture() -> None:
    grey = (RAMP >> 4).astype(np.uint8)
    found, notes = shown(make(np.repeat(grey[..., None], 3, axis=2), "MONOCHROME2"))
    np.testing.assert_allclose(found, np.repeat(grey[..., None], 3, axis=2) / 255.0, atol=1e-6)
    assert named("PhotometricInterpretation") in notes[0]


def jpeg(pixels: np.ndarray, **header: object) -> Dataset:
    """A JPEG Baseline data set of `pixels`, with elements of its header replaced."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=98)
    dataset = make(pixels, "YBR_FULL" if pixels.ndim == 3 else "MONOCHROME2")
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    for name, value in header.items():
        setattr(dataset, name, value)
    return dataset


GREY = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8) * 4


def test_a_jpeg_of_fewer_bits_than_its_header() -> None:
    found, notes = shown(jpeg(GREY, BitsAllocated=16, BitsStored=12, HighBit=11))
    np.testing.assert_allclose(found, GREY / 248.0, atol=0.03)
    assert named("BitsStored") in notes[0]


def test_a_jpeg_of_three_components_under_a_grey_header() -> None:
    found, notes = shown(
        jpeg(np.repeat(GREY[..., None], 3, axis=2), SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2")
    )
    np.testing.assert_allclose(found.mean(axis=2), GREY / 255.0, atol=0.03)
    assert named("SamplesPerPixel") in notes[0]


def test_a_jpeg_that_is_ybr_under_a_header_of_rgb() -> None:
    colour = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)
    found, notes = shown(jpeg(colour, PhotometricInterpretation="RGB"))
    np.testing.assert_allclose(found, colour / 255.0, atol=0.06)
    assert named("PhotometricInterpretation") in notes[0]


def test_a_damaged_jpeg_is_no_picture() -> None:
    dataset = jpeg(GREY)
    stream = bytearray(dataset.PixelData)
    stream[-60:-40] = bytes(range(20))
    dataset.PixelData = bytes(stream)
    with pytest.raises(UnreadableError, match="damaged"):
        shown(dataset)


# -- files ---------------------------------------------------------------------------------------------------------

FORM = ImageForm(size=16)


def read_one(folder: Path, row: str = "a.dcm,normal", head: str = "file,label", **terms: object) -> SiteImage | Skipped:
    table = folder / "labels.csv"
    table.write_text(f"{head}\n{row}\n")
    return next(iter(read_dicom(folder, table, FORM, ["normal", "opacity"], **terms)))


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_and_transfer_syntax(tmp_path: Path, implicit: bool) -> None:
    dataset = dcmread(save(ramp(), tmp_path / "whole.dcm"))
    plain = Dataset()
    plain.update(dataset)
    plain.save_as(tmp_path / "a.dcm", implicit_vr=implicit, little_endian=True)
    found = read_one(tmp_path)
    assert isinstance(found, SiteImage)
    assert any(named("TransferSyntaxUID") in note for note in found.notes)
    assert np.array_equal(found.pixels, read_one(tmp_path, "whole.dcm,normal").pixels)


def test_compressed_pixels_say_their_transfer_syntax_or_are_refused_by_its_name(tmp_path: Path) -> None:
    save(jpeg(GREY), tmp_path / "a.dcm")
    dataset = dcmread(tmp_path / "a.dcm")
    expected = shown(dataset)
    del dataset.file_meta.TransferSyntaxUID
    np.testing.assert_array_equal(shown(dataset)[0], expected[0])
    dataset = dcmread(tmp_path / "a.dcm")
    del dataset.file_meta.TransferSyntaxUID
    dataset.PixelData = dataset.PixelData.replace(b"\xff\xd8\xff", b"\xff\xd8\xfe")
    with pytest.raises(UnreadableError, match=r"Transfer Syntax UID \(0002,0010\)"):
        shown(dataset)


def test_a_file_that_lost_its_end_is_whole_and_one_cut_off_is_not(tmp_path: Path) -> None:
    data = save(jpeg(GREY), tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[:-8])
    assert isinstance(read_one(tmp_path), SiteImage)
    (tmp_path / "a.dcm").write_bytes(data[:-100])
    found = read_one(tmp_path)
    assert isinstance(found, Skipped)
    assert f"cut off in its {named('PixelData')}" in found.reason


def test_pixels_that_are_not_square_become_so(tmp_path: Path) -> None:
    wide = np.repeat(RAMP, 2, axis=1)
    save(make(wide, bits=12), tmp_path / "wide.dcm", PixelSpacing=["0.4", "0.2"])
    save(ramp(), tmp_path / "a.dcm")
    first, second = read_one(tmp_path), read_one(tmp_path, "wide.dcm,normal")
    assert isinstance(first, SiteImage)
    assert isinstance(second, SiteImage)
    np.testing.assert_allclose(first.pixels, second.pixels, atol=1)


@pytest.mark.parametrize(
    ("elements", "allow", "name"),
    [
        ({"Modality": "CT"}, "CT", "Modality"),
        ({"Modality": "US"}, "us", "Modality"),
        ({"BurnedInAnnotation": "YES"}, "burned-in", "BurnedInAnnotation"),
        ({"ConversionType": "SD"}, "scanned", "ConversionType"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for-processing", "PresentationIntentType"),
    ],
)
def test_other_objects_have_to_be_allowed(tmp_path: Path, elements: dict[str, str], allow: str, name: str) -> None:
    save(ramp(), tmp_path / "a.dcm", **elements)
    found = read_one(tmp_path)
    assert isinstance(found, Skipped)
    assert named(name) in found.reason
    assert "allow" in found.reason
    assert isinstance(read_one(tmp_path, allow=[allow]), SiteImage)


def test_a_segmentation_is_never_a_picture(tmp_path: Path) -> None:
    save(ramp(), tmp_path / "a.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG")
    found = read_one(tmp_path, allow=["SEG"])
    assert isinstance(found, Skipped)
    assert "Segmentation" in found.reason


def film(path: Path, frames: int = 5) -> None:
    dataset = make(np.concatenate([np.roll(RAMP, at, axis=0) for at in range(frames)]), bits=12)
    dataset.Rows, dataset.NumberOfFrames = RAMP.shape[0], frames
    save(dataset, path)


@pytest.mark.parametrize(("frames", "count"), [("first", 1), ("all", 5), (2, 3)])
def test_frames_of_a_film(tmp_path: Path, frames: str | int, count: int) -> None:
    film(tmp_path / "a.dcm")
    assert "multi-frame" in read_one(tmp_path).reason
    (tmp_path / "labels.csv").write_text("file,label\na.dcm,normal\n")
    found = list(read_dicom(tmp_path, tmp_path / "labels.csv", FORM, ["normal", "opacity"], frames=frames))
    assert len(found) == count
    assert len({entry.pixels.tobytes() for entry in found}) == count
    assert len({entry.facts.instance for entry in found}) == count


def test_the_table_may_say_whose_and_which_split(tmp_path: Path) -> None:
    save(ramp(), tmp_path / "a.dcm", patient="")
    assert "no patient id" in read_one(tmp_path).reason
    found = read_one(tmp_path, "a.dcm,normal,PAT1,test", "file,label,patient_id,split")
    assert isinstance(found, SiteImage)
    assert (found.patient_id, found.split) == ("PAT1", "holdout")


def test_what_is_no_dicom_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"\x08\x00 nothing that could be read")
    with pytest.raises(UnreadableError, match="not a DICOM file"):
        open_dicom((tmp_path / "a.dcm").open("rb"), lambda note: None)
