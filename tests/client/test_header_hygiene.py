"""Nothing that a header, a name of a file or a cell of a table says stays in the home, but a short list of values.

A value of its own is planted in every element that a data set can have, in private ones and in sequences, in the names
of files and folders and in every cell; then every byte that an ingest left in the home is searched, decrypted.
"""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from support.dicoms import make, save
from support.studies import PLAN, POLICY

from sfumato_client.dataset.encryption import EncryptedReader
from sfumato_client.dataset.facts import StoreFacts
from sfumato_client.dataset.filling import INDEX
from sfumato_client.dataset.journal import JOURNAL, read_journal
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.dataset.register import REGISTER
from sfumato_client.dataset.report import REPORT
from sfumato_client.ingest import Answers
from sfumato_client.ingest.sources import DicomSource
from sfumato_client.site.home import SiteHome
from sfumato_client.site.ingesting import check_source, ingest_source, update_source
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import DataError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan

STUDY = parse({**PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}]}, Plan, "plan")
TEXTS = {"AE": 16, "CS": 16, "LO": 64, "LT": 200, "PN": 64, "SH": 16, "ST": 200, "UC": 64, "UR": 64, "UT": 200}
BYTES = ("OB", "OW", "UN", "OF", "OD", "OL", "OV")
# what says how pixels are to be read, and what kind of object it is: the file would be another, or none
NEEDED = {
    "SOPClassUID", "Modality", "BurnedInAnnotation", "ConversionType", "PresentationIntentType", "ImageLaterality",
    "ViewPosition", "Laterality", "DirectoryRecordSequence", "SpecificCharacterSet", "NumberOfFrames",
}  # fmt: skip
PIXELS = {0x0028, 0x7FE0, 0x0002, 0x0000, 0x0004, 0x0022}


class Planted:
    """Values that stand nowhere else, by where they were planted."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self._numbers = itertools.count(1)

    def text(self, where: str, most: int = 64) -> str:
        value = f"ZQ{next(self._numbers):06d}K"
        self.values[where] = value.encode()
        return value[:most]

    def uid(self, where: str) -> str:
        value = f"1.9876.{next(self._numbers)}.54321"
        self.values[where] = value.encode()
        return value

    def raw(self, where: str) -> bytes:
        value = struct.pack("<IIII", 0xC0DE5AFE, next(self._numbers), 0xFEED5AFE, 0x13579BDF)
        self.values[where] = value
        return value

    def digits(self, where: str, form: str) -> str:
        """A date, time, number or age of many digits."""
        number = next(self._numbers)
        value = form.format(number % 10**4, number % 28 + 1, number)
        self.values[where] = value.encode()
        return value

    def found(self, data: bytes) -> set[str]:
        """Where the values were planted that stand in `data`, whole, as text of any width or as numbers."""
        wide = data[::4], data[1::4], data[2::4], data[3::4], data[::2], data[1::2]
        return {where for where, value in self.values.items() if any(value in part for part in (data, *wide))}


def plant(dataset: Dataset, planted: Planted, prefix: str = "", depth: int = 0) -> None:
    """A value in every element of the dictionary that `dataset` may have."""
    for number, (vr, _, _, retired, keyword) in DicomDictionary.items():
        tag, where = Tag(number), f"{prefix}{keyword}"
        if not keyword or keyword in NEEDED or tag.group in PIXELS or tag in dataset or retired:
            continue
        if vr in TEXTS:
            dataset.add_new(tag, vr, planted.text(where, TEXTS[vr]))
        elif vr == "UI":
            dataset.add_new(tag, vr, planted.uid(where))
        elif vr == "DA":
            dataset.add_new(tag, vr, planted.digits(where, "{0:04d}02{1:02d}")[:8])
            planted.values.pop(where)  # too short to be told from chance; the next two are long
        elif vr == "DT":
            dataset.add_new(tag, vr, planted.digits(where, "19500203040506.{2:06d}"))
        elif vr == "DS":
            dataset.add_new(tag, vr, planted.digits(where, "7.1357{2:06d}"))
        elif vr in BYTES:
            dataset.add_new(tag, vr, planted.raw(where))
        elif vr == "FD":
            dataset.add_new(tag, vr, struct.unpack("<d", struct.pack("<d", 1e6 + next(planted._numbers) / 7))[0])
            planted.values[where] = struct.pack("<d", dataset[tag].value)
        elif vr == "SQ" and depth == 0 and tag.group in (0x0008, 0x0010, 0x0018, 0x0020, 0x0040):
            item = Dataset()
            for inner in ("PatientName", "PatientID", "ReferencedSOPInstanceUID", "CodeMeaning", "InstitutionName"):
                at = f"{where}/{inner}"
                setattr(item, inner, planted.uid(at) if inner.endswith("UID") else planted.text(at))
            dataset.add_new(tag, vr, [item])
    block = dataset.private_block(0x0099, planted.text(f"{prefix}private creator"), create=True)
    block.add_new(0x01, "LO", planted.text(f"{prefix}private text"))
    block.add_new(0x02, "UN", planted.raw(f"{prefix}private bytes"))


@pytest.fixture
def ward(tmp_path: Path) -> tuple[SiteHome, DicomSource, Planted]:
    """A home, and two files of which every element says something; one is skipped."""
    planted = Planted()
    folder = tmp_path / planted.text("folder")
    inner = folder / planted.text("inner folder")
    inner.mkdir(parents=True)
    rows = [f"file,label,view,{planted.text('column')}"]
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 4096, (24, 24)).astype(np.uint16)
        dataset, name = make(pixels, bits=12), planted.text(f"{number} file name")
        plant(dataset, planted, f"{number} ")
        told = {
            "Modality": "CT" if number == 5 else "DX",
            "ImageLaterality": "L",
            "PatientID": planted.text(f"{number} id"),
        }
        save(dataset, inner / f"{name}.dcm", told.pop("PatientID"), **told)
        rows.append(f"{inner.name}/{name}.dcm,normal,PA,{planted.text(f'{number} cell')}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    root = tmp_path / "alder"
    create_identity(root / "identity", "alder")
    (root / "identity" / "split.key").write_text(bytes(range(32)).hex())
    (root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY}))
    column = rows[0].rsplit(",", 1)[1]
    source = DicomSource(kind="dicom", folder=folder, labels=folder / "labels.csv", ignored_columns=[column])
    return SiteHome(root), source, planted


def opened(home: SiteHome) -> dict[str, bytes]:
    """Every file of a home by its name, and what is encrypted in it as it is when it is opened."""
    found = {str(path.relative_to(home.root)): path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    found["the names of all files"] = "\n".join(found).encode()
    if home.store.exists():
        key, facts = home.store_key(), StoreFacts.read(home.store, home.store_key())
        for kind, file_id in ((INDEX, facts.index), (REGISTER, facts.register)):
            with EncryptedReader(home.store, kind, bytes.fromhex(file_id), key) as stream:
                found[f"encrypted {kind}"] = stream.readall()
        found["encrypted pixels"] = np.asarray(EncryptedPixels(home.store, facts.of_pixels, key)).tobytes()
    return found


def left(home: SiteHome, planted: Planted) -> dict[str, set[str]]:
    return {name: said for name, data in opened(home).items() if (said := planted.found(data))}


def test_the_search_finds_what_is_there() -> None:
    planted = Planted()
    values = [planted.text("text"), planted.uid("uid")]
    raw = planted.raw("raw")
    array = np.array(values, dtype="U40").tobytes()
    assert planted.found(b"x" + array + raw) == {"text", "uid", "raw"}
    assert not planted.found(b"nothing" * 100)


def test_no_value_of_a_header_a_path_or_a_table_stays_in_the_home(ward) -> None:
    home, source, planted = ward
    report = ingest_source(home, source, STUDY, workers=1)
    assert len(planted.values) > 15_000, "every element of six files"
    assert (report.kept, len(report.skipped)) == (5, 1), report.reasons
    found = left(home, planted)
    assert set(found) == {REPORT}
    device = {f"{n} {name}" for n in range(6) for name in ("Manufacturer", "ManufacturerModelName")}
    # of a skipped file the reference, and devices of those kept
    assert found[REPORT] <= device | {"5 file name", "inner folder"}
    store = home.open_store()
    assert store.cohort("train").views.tolist() + store.cohort("holdout").views.tolist() == ["PA"] * 5


def test_nor_after_an_update_or_a_question(ward) -> None:
    home, source, planted = ward
    ingest_source(home, source, STUDY, workers=1)
    lines = source.labels.read_text().splitlines()
    source.labels.write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(DataError, match="gone"):
        update_source(home, source, STUDY, workers=1)
    assert set(left(home, planted)) <= {REPORT}, "what waits for the answer is encrypted"
    answered = source.model_copy(update={"answers": Answers(gone="remove", most_dropped=1.0)})
    update_source(home, answered, STUDY, workers=1)
    assert set(left(home, planted)) <= {REPORT}


def test_what_a_check_keeps_for_the_ingest_is_encrypted(ward) -> None:
    home, source, planted = ward
    check_source(home, source, STUDY, workers=1)
    assert set(left(home, planted)) <= {REPORT}
    records = [record for record, _ in read_journal(home.root / ".store.partial" / JOURNAL, _key(home))]
    said = json.dumps(records).encode()
    # the journal has to know whom it would ask about, until the store is whole
    assert {where.split(" ", 1)[1] for where in planted.found(said)} <= {
        "id", "file name", "folder", "Manufacturer", "ManufacturerModelName", "column", "cell",
    }  # fmt: skip


def _key(home: SiteHome) -> bytes:
    return bytes.fromhex((home.identity / "store.key").read_text())
