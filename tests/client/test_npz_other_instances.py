"""Image sets as programs write them: other axes, numbers, packings and indexes; each is read, or says what to do."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato_client.ingest import SiteImage, read_source
from sfumato_client.ingest.sources import NpzSource
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm

FORM, LABELS = ImageForm(size=16), ["normal", "opacity"]
SET = np.random.default_rng(0).integers(0, 256, (4, 16, 16)).astype(np.uint8)
INDEX = "set,row,site,patient_id,split,abnormal\n" + "".join(f"s,{i},alder,p{i},train,{i % 2}\n" for i in range(4))
AXES, NUMBERS = r"\[N, H, W\]", "uint8 or uint16"


def npz(pack: bool = False, **arrays: Any) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if pack else np.savez)(out, **arrays)
    return out.getvalue()


def member(name: str, method: int = zipfile.ZIP_STORED, version: tuple[int, int] = (1, 0)) -> bytes:
    """`SET` under another name, packing or header."""
    out, array = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array(array, SET, version=version)
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr(name, array.getvalue())
    return out.getvalue()


def row(text: str) -> str:
    return INDEX.replace("s,0,", f"s,{text},", 1)


def flag(text: str) -> str:
    return INDEX.replace("train,1", f"train,{text}")


ARCHIVES: dict[str, tuple[bytes, str | None]] = {
    "packed": (npz(True, images=SET), None),
    "fortran": (npz(images=np.asfortranarray(SET)), None),
    "one sample": (npz(images=SET[..., None]), None),
    "colour": (npz(images=np.repeat(SET[..., None], 3, 3)), None),
    "colour first": (npz(images=np.repeat(SET[:, None], 3, 1)), AXES),
    "alpha": (npz(images=np.repeat(SET[..., None], 4, 3)), AXES),
    "one picture": (npz(images=SET[0]), AXES),
    "one number": (npz(images=np.uint8(3)), AXES),
    "fractions": (npz(images=SET / 255.0), NUMBERS),
    "float32": (npz(images=SET.astype("f4")), NUMBERS),
    "bool": (npz(images=SET > 127), NUMBERS),
    "words": (npz(images=np.array(["a", "b"])), NUMBERS),
    "records": (npz(images=np.zeros(4, [("a", "u1")])), NUMBERS),
    "objects": (npz(images=np.array([*SET, None], object)), "Python objects"),
    "int64": (npz(images=SET.astype("i8")), None),
    "int16": (npz(images=SET.astype("i2")), None),
    "big-endian int32": (npz(images=SET.astype(">i4")), None),
    "big-endian 12 bits": (npz(images=SET.astype(">u2") * 16), None),
    "uint32": (npz(images=SET.astype("u4") * 256), None),
    "below zero": (npz(images=SET.astype("i2") - 300), NUMBERS),
    "too large": (npz(images=SET.astype("u4") * 99999), NUMBERS),
    "no rows": (npz(images=SET[:0]), "row is not in the set"),
    "capitals": (npz(Images=SET), "it has: Images"),
    "no name": (npz(arr_0=SET), "it has: arr_0"),
    "several": (npz(x_train=SET, y_train=SET), "x_train"),
    "more beside": (npz(images=SET, labels=np.arange(4)), None),
    "in a folder": (member("data/images.npy"), "it has: data/images"),
    "no ending": (member("images"), None),
    "bzip2": (member("images.npy", zipfile.ZIP_BZIP2), None),
    "lzma": (member("images.npy", zipfile.ZIP_LZMA), None),
    "header 2": (member("images.npy", version=(2, 0)), None),
    "header 3": (member("images.npy", version=(3, 0)), None),
    "empty": (b"", "npz archive"),
    "cut off": (npz(images=SET)[:900], "cut off"),
    "wrong sum": (npz(images=SET).replace(SET.tobytes()[:8], b"\0" * 8, 1), "damaged"),
    "pickle": (b"\x80\x04K\x01.", "npz archive"),
    "matlab": (b"MATLAB 5.0 MAT-file" + b" " * 200, "npz archive"),
    "empty zip": (b"PK\x05\x06" + b"\0" * 18, "it has: nothing"),
}
INDEXES: dict[str, tuple[str, str | None]] = {
    **{f"row {text!r}": (row(text), None) for text in ("0.0", " 0 ", "00", "+0")},
    **{f"no row {text!r}": (row(text), "row is not in") for text in ("-1", "x", "99", "", "0.5", "²", "1" * 400)},
    **{f"flag {text!r}": (flag(text), None) for text in ("True", "1.0", "TRUE", '"1,0"', "opacity", "Opacity", " 1 ")},
    **{f"no flag {text!r}": (flag(text), "'abnormal' is not") for text in ("yes", "", "nan", "-1", "2", "0.5", "WAHR")},
    "set with ending": (INDEX.replace("\ns,", "\ns.npz,"), None),
    "set above": (INDEX.replace("\ns,", "\n../s,"), "plain file name"),
    "set in a folder": (INDEX.replace("\ns,", "\nx\\s,"), "not there|plain file name"),
    "set missing": (INDEX.replace("\ns,", "\nq,"), "'q.npz' is not there"),
    "site in capitals": (INDEX.replace("alder", "Alder"), None),
    "site with blanks": (INDEX.replace("alder", " alder "), None),
    "another site": (INDEX.replace("alder", "birch"), "no rows for site 'alder'"),
    "semicolons": (INDEX.replace(",", ";"), None),
    "near column": (INDEX.replace("abnormal", "is_abnormal"), "'is_abnormal' meant"),
    "another column": (INDEX.replace("abnormal\n", "abnormal,age\n"), "'age'"),
    "split words": (INDEX.replace("train", "Val."), None),
    "no split": (INDEX.replace("train", "fold1"), "its split is none"),
}


def check(data: bytes, index: str, expected: str | None, folder: Path) -> None:
    """All four pictures as they were written, or the words."""
    (folder / "s.npz").write_bytes(data)
    (folder / "index.csv").write_text(index, encoding="utf-8")
    images, words = [], []
    try:
        for one in read_source(NpzSource(kind="npz", index=folder / "index.csv", site="alder"), FORM, LABELS):
            if isinstance(one, SiteImage):
                images.append(one)
            else:
                words.append(one.reason)
    except DataError as error:
        words.append(str(error))
    assert not re.search(r"Error\b|Exception|Traceback", " ".join(words))
    if expected is not None:
        assert re.search(expected, " ".join(words)), words
        return
    assert not words
    assert [one.label for one in images] == [0, 1, 0, 1]
    for one, plain in zip(images, SET, strict=True):
        assert np.abs(one.pixels.astype(float) - plain).mean() < 2.0


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_read_or_its_fault_is_named(name: str, tmp_path: Path) -> None:
    data, expected = ARCHIVES[name]
    check(data, INDEX, expected, tmp_path)


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_is_read_or_its_fault_is_named(name: str, tmp_path: Path) -> None:
    index, expected = INDEXES[name]
    check(npz(images=SET), index, expected, tmp_path)
