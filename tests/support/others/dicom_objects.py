"""DICOM objects that are no radiographs, marks on them, pixels that are not square, and palettes."""
# ruff: noqa: E501 - a row a case

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from sfumato_common.imaging import fit_square
from support.dicoms import make, save
from support.others.dicom_frames import group
from support.others.dicom_made import case, raw
from support.others.picture import SIDE, Case, Display, stored, truth

S = "1.2.840.10008.5.1.4.1.1."


def other(
    name: str,
    wanted: Display | str,
    dataset: Dataset | None = None,
    terms: dict[str, Any] | None = None,
    **elements: Any,
) -> Case:
    """An object saved with other elements than a radiograph's; those given as bytes are raw texts."""

    def write(place: Path) -> None:
        found = dataset if dataset is not None else make(stored(8))
        plain = {key: value for key, value in elements.items() if not isinstance(value, bytes)}
        save(found, place, **plain)
        for key, value in elements.items():
            if isinstance(value, bytes):
                raw(found, key, "CS", value)
        found.save_as(place)

    return Case(name, write, wanted, terms or {}, 1.5)


def modalities() -> Iterator[Case]:
    """Objects of other modalities, by class or by header."""
    for uid, modality in (
        ("2", "CT"), ("4", "MR"), ("2.1", "CT"), ("20", "NM"), ("128", "PT"), ("6.1", "US"), ("3.1", "US"),
        ("12.1", "XA"), ("12.2", "RF"), ("77.1.6", "SM"), ("66.4", "SEG"), ("66.5", "SEG"), ("88.11", "SR"), ("88.33", "SR"),
        ("104.1", "DOC"), ("88.59", "KO"), ("11.1", "PR"), ("481.1", "RTIMAGE"), ("481.2", "RTDOSE"), ("13.1.3", "MG"),
        ("66.1", "REG"), ("7.4", "ES"), ("9.1.1", "ECG"), ("77.1.1", "ES"), ("67", "PT"), ("4.1", "MR"), ("77.1.5.4", "OPT"),
    ):  # fmt: skip
        if modality != "MG":
            yield other(f"other {modality} {uid}", r"\(0008,00(16|60)\)", SOPClassUID=S + uid, Modality=modality)
        expected = r"\(0008,0016\)" if modality not in ("MG", "ES") else truth()
        yield other(f"other {uid} says DX", expected, SOPClassUID=S + uid, Modality="DX")
    for said in (b"ct", b"Ct ", b"CT\\DX ", b"CT\0"):
        yield other(f"other written {said!r}", r"\(0008,0060\)", Modality=said)
    for said in (b"dx", b"DX ", b"Cr", b"", b"DX\0"):
        yield other(f"modality {said!r}", truth(), Modality=said)
    yield other("secondary capture", truth(), SOPClassUID=S + "7", Modality="OT")
    yield other("secondary capture of CT", r"\(0008,0060\)", SOPClassUID=S + "7", Modality="CT")
    yield other("allowed CT", truth(), None, {"allow": ["ct"]}, SOPClassUID=S + "2", Modality="CT")


def marks() -> Iterator[Case]:
    """Marks that make a picture a question of the site's policy."""
    for said in (b"YES", b"yes ", b"Yes", b" YES", b"Y ", b"TRUE", b"YES\0"):
        yield other(f"burned-in {said!r}", r"\(0028,0301\)", BurnedInAnnotation=said)
    for said in (b"NO", b"no", b"", b"No "):
        yield other(f"not burned-in {said!r}", truth(), BurnedInAnnotation=said)
    for said in (b"SD", b"sd", b"SD\0", b" SD "):
        yield other(f"scanned {said!r}", r"\(0008,0064\)", SOPClassUID=S + "7", ConversionType=said)
    for said in (b"DI", b"WSD ", b"DF", b"SI"):
        yield other(f"captured {said!r}", truth(), SOPClassUID=S + "7", Modality="CR", ConversionType=said)
    for said in (b"FOR PROCESSING", b"for processing", b"FOR_PROCESSING", b"For Processing "):
        yield other(f"for-processing {said!r}", r"\(0008,0068\)", PresentationIntentType=said)
    for uid in ("1.1.1", "1.2.1", "1.3.1"):
        yield other(f"for-processing class {uid}", r"\(0008,0016\)", SOPClassUID=S + uid, Modality="DX")
    yield other("for-presentation", truth(), PresentationIntentType="FOR PRESENTATION")
    yield other(
        "for-processing allowed", truth(), None, {"allow": ["for-processing"]}, PresentationIntentType="FOR PROCESSING"
    )


def shapes() -> Iterator[Case]:
    """Pixels that are not square."""
    t = truth()
    squeezed = np.rint(t[::2] * 255).astype(np.uint8)
    shown = squeezed / 255
    tall = fit_square(shown.astype(np.float32), SIDE, (2.0, 1.0))
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        yield case(f"nonsquare {keyword}", make(squeezed, **{keyword: [0.4, 0.2]}), tall)
    yield case("nonsquare ratio", make(squeezed, PixelAspectRatio=[2, 1]), tall)
    for name, said in (
        ("commas", b"0,4\\0,2 "),
        ("blanks", b" 0.4\\ 0.2"),
        ("exponent", b"4e-1\\2e-1 "),
        ("nulls", b"0.4\\0.2\0"),
    ):
        raw(dataset := make(squeezed), "PixelSpacing", "DS", said)
        yield case(f"nonsquare {name}", dataset, tall)
    flat = np.rint(t[:, ::2] * 255).astype(np.uint8)
    yield case(
        "nonsquare wide",
        make(flat, PixelSpacing=[0.2, 0.4]),
        fit_square((flat / 255).astype(np.float32), SIDE, (1.0, 2.0)),
    )
    dataset = make(squeezed, NumberOfFrames=1)
    from pydicom.sequence import Sequence

    dataset.SharedFunctionalGroupsSequence = Sequence([group(PixelMeasuresSequence={"PixelSpacing": [0.4, 0.2]})])
    yield case("nonsquare functional group", dataset, tall)
    for name, said in (
        ("empty", b""),
        ("one", b"0.2 "),
        ("zeros", b"0\\0 "),
        ("negative", b"-1\\-1 "),
        ("equal", b"0.1400\\.14 "),
    ):
        raw(dataset := make(stored(8)), "PixelSpacing", "DS", said)
        yield case(f"square {name}", dataset, t)
    for name, said in (("words", b"a\\b "), ("absurd", b"0.1\\100 ")):
        raw(dataset := make(stored(8)), "PixelSpacing", "DS", said)
        yield case(f"nonsquare {name}", dataset, r"\(0028,0030\)")


def palette(
    values: np.ndarray, tops: np.ndarray, bits: int, first: int = 0, width: int | None = None, words: bool = True
) -> Dataset:
    """A palette image whose three tables are `tops`."""
    dataset = make(values, "PALETTE COLOR", width)
    for name in ("Red", "Green", "Blue"):
        descriptor = [len(tops) % 2**16, first, bits]
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", descriptor)
        dataset[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(dataset, f"{name}PaletteColorLookupTableData", tops.astype("<u2" if words else "<u1").tobytes())
    return dataset


def palettes() -> Iterator[Case]:
    """Palettes of every depth, and their lies."""
    t, v8 = truth(), stored(8)
    ramp = np.arange(256)
    yield case("palette 16", palette(v8, ramp * 257, 16), t)
    yield case("palette 8", palette(v8, ramp, 8, words=False), t)
    yield case("palette-8in16", palette(v8, ramp, 16), t)
    yield case("palette 8 as words", palette(v8, ramp, 8), t)
    yield case("palette 8 says 16 bytes", palette(v8, ramp, 16, words=False), t)
    yield case("palette 12in16", palette(v8, ramp * 4095 // 255, 16), t)
    yield case("palette falling", palette(v8, (255 - ramp) * 257, 16), 1 - t)
    yield case(
        "palette first",
        palette((v8 // 2 + 100).astype(np.uint8), np.arange(128) * 516, 16, first=100),
        np.floor(v8 / 2) / 127,
    )
    yield case("palette 12 bit index", palette(stored(12), np.arange(4096) * 16, 16, width=12), t)
    yield case("palette 16 bit index", palette(stored(16), np.arange(65536), 16), t)
    big = palette(v8, ramp * 257, 16)
    del big.GreenPaletteColorLookupTableData
    yield case("palette no green", big, r"\(0028,1[12]0\d\)")
    big = palette(v8, ramp * 257, 16)
    del big.RedPaletteColorLookupTableDescriptor
    yield case("palette no descriptor", big, r"\(0028,1[12]0\d\)")
    segmented = palette(v8, ramp, 16)
    for name in ("Red", "Green", "Blue"):
        delattr(segmented, f"{name}PaletteColorLookupTableData")
        words = np.array([0, 2, 0, 257, 1, 254, 65535], "<u2").tobytes()
        setattr(segmented, f"Segmented{name}PaletteColorLookupTableData", words)
    yield case("palette segmented", segmented, t)
    big = palette(stored(16).byteswap().view(">u2").astype(np.uint16), np.arange(65536), 16)
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    big.PixelData = stored(16).astype(">u2").tobytes()
    for name in ("Red", "Green", "Blue"):
        setattr(big, f"{name}PaletteColorLookupTableData", np.arange(65536).astype(">u2").tobytes())
    yield case("palette big-endian", big, t)


def all_cases() -> list[Case]:
    """All of this module."""
    return [each for maker in (modalities, marks, shapes, palettes) for each in maker()]
