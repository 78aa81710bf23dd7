"""Inputs of the kinds that failed in the field, in other instances: each gives its picture, or names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.others import (
    dicom_bits,
    dicom_frames,
    dicom_lies,
    dicom_lookups,
    dicom_more,
    dicom_objects,
    dicom_streams,
    dicom_windows,
    pictures,
    table_forms,
    table_more,
    table_patients,
    table_words,
    tiffs,
)
from support.others.picture import SIDE, Case
from support.others.table import Table
from support.reading import Read, read_dicom, read_images

from sfumato_client.dataset import SiteStore
from sfumato_client.ingest import SiteImage, Skipped, read_source
from sfumato_client.ingest.sources import PngSource
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.imaging import fit_square
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=SIDE), ["normal", "opacity"]
OF_DICOM = (
    dicom_windows, dicom_lookups, dicom_bits, dicom_streams, dicom_frames, dicom_objects, dicom_lies, dicom_more,
)  # fmt: skip
DICOM = [case for module in OF_DICOM for case in module.all_cases()]
PICTURES = [*pictures.all_cases(), *tiffs.all_cases()]
TABLES = [table for module in (table_forms, table_words, table_patients, table_more) for table in module.all_tables()]
# what a reason never holds: words of programs instead of a hospital's
PROGRAM = re.compile(r"Error\b|Exception|Traceback|0x[0-9a-f]{6}|None\b|NoneType|object at|site-packages")


def check(case: Case, place: Path, read: Callable[..., Read]) -> None:
    """The case's picture as it was made, or its words."""
    case.make(place)
    table = place.parent / "labels.csv"
    table.write_text(f"file,patient_id,label\n{place.name},p1,normal\n")
    found = next(iter(read(place.parent, table, FORM, LABELS, **{"text": "allow", **case.terms})))
    if isinstance(case.expected, str):
        assert isinstance(found, Skipped), "a silently kept file"
        assert re.search(case.expected, found.reason), found.reason
        assert not PROGRAM.search(found.reason), found.reason
        return
    assert isinstance(found, SiteImage), found
    expected = np.clip(fit_square(np.asarray(case.expected, np.float32), SIDE), 0, 1) * 255
    assert np.abs(found.pixels.astype(float) - expected).mean() <= case.tolerance, found.notes


def test_no_two_cases_have_one_name() -> None:
    names = [case.name for case in [*DICOM, *PICTURES]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", DICOM, ids=lambda case: case.name)
def test_a_dicom_file_gives_its_picture_or_names_an_element(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path / "a.dcm", read_dicom)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PICTURES, ids=lambda case: case.name)
def test_a_picture_is_as_it_was_made_or_its_fault_is_named(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path / "a.img", read_images)


def draw(folder: Path, names: tuple[str, ...]) -> None:
    """Small pictures; `d.png=a.png` is a copy."""
    for name in names:
        here, _, like = name.partition("=")
        path = folder / here
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(names.index(like or name))
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(path, "PNG")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_is_read_or_its_fault_is_named_in_a_hospitals_words(table: Table, tmp_path: Path) -> None:
    draw(tmp_path / "images", table.files)
    (tmp_path / "labels.csv").write_bytes(table.data)
    place = {"folder": str(tmp_path / "images"), "labels": str(tmp_path / "labels.csv")}
    source = PngSource.model_validate({"kind": "png", "text": "allow", **place, **table.source})
    form, kept, words = ImageForm(size=16), [], []
    try:
        for one in read_source(source, form, LABELS):
            if isinstance(one, SiteImage):
                kept.append((one.patient_id, LABELS[one.label], one.split))
            else:
                words.append(one.reason)
        images = read_source(source, form, LABELS)
        SiteStore.create(tmp_path / "store", images, form, LABELS, b"k" * 32, b"s" * 32, answers=source.answers)
        refused = ""
    except (DataError, ConfigError) as error:
        refused = str(error)
    assert not PROGRAM.search(" ".join([refused, *words]))
    if isinstance(table.expected, str):
        assert re.search(table.expected, " ".join([refused, *words]))
        return
    assert sorted(kept, key=str) == sorted(table.expected.values(), key=str)
    assert not refused
