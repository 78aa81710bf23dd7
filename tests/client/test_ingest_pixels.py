"""DICOM samples to display values, against values computed by hand from PS3.3."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.dicoms import lut_item, make

from sfumato_client.ingest.records import to_form
from sfumato_common.dicom.pixels import display_values, window
from sfumato_common.dicom.unreadable import UnreadableError
from sfumato_common.study.terms import ImageForm


def test_linear_window_of_the_standards_note() -> None:
    # PS3.3 C.11.2.1.2.1: c=2048, w=4096 maps 0..4095 to the whole range; c=0, w=100: black at -50, white at 49
    shown = window(np.array([0.0, 4095.0, 2047.5]), 2048, 4096, "LINEAR")
    np.testing.assert_allclose(shown, [0.0, 1.0, 0.5], atol=1e-6)
    np.testing.assert_allclose(
        window(np.array([-51, -50, -0.5, 49, 50]), 0, 100, "LINEAR"), [0, 0, 0.5, 1, 1], atol=1e-6
    )


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("dtype", [np.uint16, np.float64])
def test_a_large_film_is_windowed_as_its_rows_are(function: str, dtype: type) -> None:
    film = np.random.default_rng(0).integers(0, 4096, (301, 1000)).astype(dtype)  # more than is windowed at once
    rows = [window(row[None], 1800.5, 700, function) for row in film]
    assert np.array_equal(window(film, 1800.5, 700, function), np.concatenate(rows))


def test_linear_window_of_width_one_is_a_threshold() -> None:
    assert window(np.array([9.4, 9.5, 9.6]), 10, 1, "LINEAR").tolist() == [0.0, 0.0, 1.0]


def test_linear_exact_window() -> None:
    # C.11.2.1.3.2: c=0, w=100: black at -50, white at 50
    np.testing.assert_allclose(window(np.array([-50, 0, 25, 50]), 0, 100, "LINEAR_EXACT"), [0, 0.5, 0.75, 1], atol=1e-6)


def test_sigmoid_window() -> None:
    # C.11.2.1.3.1: 1 / (1 + exp(-4 (x - c) / w))
    expected = [1 / (1 + np.exp(2)), 0.5, 1 / (1 + np.exp(-4))]
    np.testing.assert_allclose(window(np.array([50, 100, 200]), 100, 100, "SIGMOID"), expected, rtol=1e-5)


@pytest.mark.parametrize(("width", "function"), [(0, "LINEAR"), (-1, "SIGMOID"), (9, "CUBIC")])
def test_forbidden_windows_are_refused(width: float, function: str) -> None:
    with pytest.raises(UnreadableError):
        window(np.zeros(3), 0, width, function)


def test_rescale_comes_before_the_window() -> None:
    stored = np.array([[0, 100], [200, 300]], dtype=np.uint16)
    dataset = make(stored, bits=12, RescaleSlope="2", RescaleIntercept="-100", WindowCenter="200.5", WindowWidth="401")
    # values -100, 100, 300, 500; window 0..400
    np.testing.assert_allclose(display_values(dataset), [[0, 0.25], [0.75, 1]], atol=1e-6)


def test_first_of_several_windows() -> None:
    stored = np.array([[0, 50, 100]], dtype=np.uint16)
    dataset = make(stored, WindowCenter=["50.5", "9999"], WindowWidth=["101", "7"])
    np.testing.assert_allclose(display_values(dataset), [[0, 0.5, 1]], atol=1e-6)


def test_without_a_window_the_images_own_range() -> None:
    np.testing.assert_allclose(display_values(make(np.array([[100, 300, 500]], dtype=np.uint16))), [[0, 0.5, 1]])


def test_monochrome1_is_the_mirror_of_monochrome2() -> None:
    stored = np.array([[0, 10, 400, 1023]], dtype=np.uint16)
    settings = {"bits": 10, "WindowCenter": "512", "WindowWidth": "1024"}
    plain = display_values(make(stored, "MONOCHROME2", **settings))
    np.testing.assert_allclose(display_values(make(stored, "MONOCHROME1", **settings)), 1 - plain, atol=1e-6)


def test_inverse_presentation_shape_does_not_invert_twice() -> None:
    dataset = make(np.array([[0, 255]], dtype=np.uint8), "MONOCHROME1", PresentationLUTShape="INVERSE")
    assert display_values(dataset).tolist() == [[1.0, 0.0]]


def test_signed_values() -> None:
    dataset = make(np.array([[-1000, 0, 1000]], dtype=np.int16), WindowCenter="0.5", WindowWidth="2001")
    np.testing.assert_allclose(display_values(dataset), [[0, 0.5, 1]], atol=1e-6)


def test_bits_above_bits_stored_are_ignored() -> None:
    # an overlay in the unused high bits (retired, but old scanners wrote it)
    stored = np.array([[0, 1023, 1023 + 4096]], dtype=np.uint16)
    np.testing.assert_allclose(display_values(make(stored, bits=10)), [[0, 1, 1]])


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_outside_the_range(photometric: str) -> None:
    stored = np.array([[-2000, -1990, 0, 100]], dtype=np.int16)
    dataset = make(stored, photometric, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1985)
    dataset["PixelPaddingValue"].VR = dataset["PixelPaddingRangeLimit"].VR = "SS"
    inside = [0, 1] if photometric == "MONOCHROME2" else [1, 0]
    np.testing.assert_allclose(display_values(dataset), [[0, 0, *inside]])


def test_modality_lut_sequence() -> None:
    dataset = make(np.array([[0, 1, 2]], dtype=np.uint8), WindowCenter="500.5", WindowWidth="1001")
    dataset.ModalityLUTSequence = [lut_item(0, np.array([0, 250, 1000]), 16)]
    np.testing.assert_allclose(display_values(dataset), [[0, 0.25, 1]], atol=1e-6)


@pytest.mark.parametrize("rescaled", [False, True])
def test_voi_lut_goes_before_a_window(rescaled: bool) -> None:
    extra = {"RescaleSlope": "1", "RescaleIntercept": "10"} if rescaled else {}
    dataset = make(np.array([[0, 1, 2, 9]], dtype=np.uint8), WindowCenter="1", WindowWidth="2", **extra)
    dataset.VOILUTSequence = [lut_item(10 if rescaled else 0, np.array([4095, 1024, 0]), 12)]
    # values beyond the table take its last entry
    np.testing.assert_allclose(display_values(dataset), [[1, 1024 / 4095, 0, 0]], atol=1e-6)


def test_rgb_to_luma_and_grey_to_three_channels() -> None:
    pure = np.zeros((2, 2, 3), dtype=np.uint8)
    pure[0, 0, 0] = pure[0, 1, 1] = pure[1, 0, 2] = 255
    shown = display_values(make(pure, "RGB"))
    form = ImageForm(size=16)
    grey = to_form(shown, form)
    assert [grey[0, 0], grey[0, 15], grey[15, 0], grey[15, 15]] == [76, 150, 29, 0]  # BT.601: .299, .587, .114
    colour = to_form(shown, ImageForm(size=16, channels=3))
    assert colour.shape == (16, 16, 3)
    assert colour[0, 0].tolist() == [255, 0, 0]
    tripled = to_form(display_values(make(np.array([[0, 255]], dtype=np.uint8))), ImageForm(size=16, channels=3))
    assert np.array_equal(tripled[..., 0], tripled[..., 2])


def test_ybr_full_is_converted() -> None:
    # Y=128, Cb=Cr=128 is mid grey
    shown = display_values(make(np.array([[[128, 128, 128], [255, 128, 128]]], dtype=np.uint8), "YBR_FULL"))
    np.testing.assert_allclose(shown[0, 0], 128 / 255, atol=0.01)
    np.testing.assert_allclose(shown[0, 1], 1.0, atol=0.01)


def test_palette_colour() -> None:
    dataset = make(np.array([[0, 1]], dtype=np.uint8), "PALETTE COLOR")
    for channel, values in zip(("Red", "Green", "Blue"), ([0, 255], [0, 0], [255, 0]), strict=True):
        setattr(dataset, f"{channel}PaletteColorLookupTableDescriptor", [2, 0, 8])
        dataset[f"{channel}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(dataset, f"{channel}PaletteColorLookupTableData", bytes(values))
    np.testing.assert_allclose(display_values(dataset), [[[0, 0, 1], [1, 0, 0]]])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"PhotometricInterpretation": "HSV"}, "Photometric"),
        ({"PhotometricInterpretation": ""}, "Photometric"),
        ({"Rows": 0}, "Rows"),
        ({"Rows": 65535, "Columns": 65535}, "too large"),
        ({"WindowCenter": "10", "WindowWidth": "5", "VOILUTFunction": "CUBIC"}, "VOI LUT Function"),
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "Rescale Slope"),
        ({"BitsAllocated": 12}, "Bits Allocated"),
        ({"BitsStored": 9}, "Bits Stored"),
    ],
)
def test_what_cannot_be_shown_has_a_reason(change: dict[str, Any], reason: str) -> None:
    dataset = make(np.array([[0, 9]], dtype=np.uint8), **change)
    with pytest.raises(UnreadableError, match=reason):
        display_values(dataset)


def test_blank_images_are_refused() -> None:
    with pytest.raises(UnreadableError, match="blank"):
        display_values(make(np.full((4, 4), 7, dtype=np.uint16)))
    with pytest.raises(UnreadableError, match="blank"):
        to_form(np.zeros((4, 4), dtype=np.float32), ImageForm(size=16))
