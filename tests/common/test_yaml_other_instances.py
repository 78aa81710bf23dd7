"""Settings as people write them: each is read, or the message names line or key and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import Field

from sfumato_common.errors import ConfigError
from sfumato_common.strict import Strict, load_yaml


class Part(Strict):
    """Words and numbers."""

    patients: int = 1
    share: float = 0.5


class Whole(Strict):
    """What a study or a source says."""

    labels: list[str] = Field(default_factory=list)
    folder: str = ""
    map: dict[str, str] = Field(default_factory=dict)
    dry: bool = False
    part: Part = Part()


GOOD = {
    "mark": b"\xef\xbb\xbffolder: x\n",
    "utf-16": "folder: x\n".encode("utf-16"),
    "windows lines": b"folder: x\r\nlabels: [a]\r\n",
    "quoted words": b"labels: ['no', \"yes\", '007', '2024-01-01', 'null', '1.0']\n",
    "single quotes": rb"folder: 'C:\new\data'",
    "plain path": rb"folder: C:\new\data",
    "doubled": rb'folder: "C:\\new\\data"',
    "anchor": b"labels: &x [a, b]\n",
    "zero": b"part: {patients: 0}\n",
    "exponent": b"part: {share: 1.0e-5}\n",
    "exponent without a point": b"part: {share: 1e-5}\n",
    "norway": b"labels: [no, yes]\n",
    "on": b"labels: [on, off]\n",
    "date": b"labels: [2024-01-01]\n",
    "time": b"labels: [12:30]\n",
    "umlauts": "folder: Müller\nlabels: [Übersicht]\n".encode(),
    "number keys": b"map: {0: normal, 1: opacity, 007: x, no: y}\n",
    "a truth of YAML 1.1": b"dry: yes\n",
    "merge": b"part: {<<: &p {patients: 2}, share: 0.1}\nfolder: x\n",
}
BAD = {
    "truth": (b"labels: [true]\n", "'labels.0'.*true or false.*quotes"),
    "quoted truth": (b"dry: 'yes'\n", "'dry': .*neither true nor false"),
    "number": (b"labels: [1, 2.5]\n", "'labels.0'.*number.*quotes"),
    "octal": (b"part: {patients: 0100}\n", "line 1.*'0100' has leading zeros"),
    "octal word": (b"labels:\n  - 007\n", "line 2.*'007'.*quotes where it is a word"),
    "time": (b"part:\n  patients: 12:30\n", "line 2.*'12:30' is no whole number"),
    "tab": (b"part:\n\tpatients: 2\n", "line 2.*tab"),
    "twice": (b"folder: x\nfolder: y\n", "line 2.*'folder' is given twice"),
    "twice below": (b"part:\n  patients: 1\n  patients: 2\n", "line 3.*twice"),
    "misspelt": (b"foldr: x\n", "'foldr'.*'folder'"),
    "misspelt below": (b"part: {patient: 2}\n", "'part.patient'.*'patients'"),
    "capitals": (b"Folder: x\n", "'Folder'.*'folder'"),
    "comma": (b"part:\n  share: 0,5\n", "line 2.*'part.share'.*write 0.5"),
    "comma in braces": (b"part: {share: 0,5}\n", "line 1.*unknown key 'part.5'"),
    "escape": (rb'folder: "C:\data\x"', "line 1.*backslash"),
    "escape that is one": (rb'folder: "C:\new\table"', "line 1.*backslash"),
    "merge": (b"labels: &p [a]\npart:\n  <<: *p\n", "line 1.*'<<' takes in a mapping"),
    "no such mark": (b"part: *p\n", "line 1.*no '&p' is above"),
    "no key": (b"? \n: x\n", "line 1.*not a plain word"),
    "yes key": (b"yes: x\n", "line 1.*unknown key 'yes'"),
    "number key": (b"1: x\n", "line 1.*unknown key '1'"),
    "two documents": (b"folder: x\n---\nfolder: y\n", "line 2.*second document"),
    "list": (b"- folder\n", "mapping of keys"),
    "word": (b"folder", "mapping of keys"),
    "nothing": (b"", "mapping of keys"),
    "old letters": ("folder: x\nlabels: [Müller]\n".encode("cp1252"), "not UTF-8 at line 2"),
    "python": (b"folder: !!python/object:os.system x\n", "line 1"),
    "text for a number": (b"part: {patients: many}\n", "'part.patients'"),
    "quoted number": (b"part: {patients: '5'}\n", "'part.patients'.*quotes; write the number"),
    "share of percent": (b"part: {share: 50%}\n", "'part.share'.*write 0.5"),
    "thousands": (b"part: {patients: 1_000}\n", "'part.patients'.*write 1000"),
    "unended": (b"folder: 'x\n", "line"),
    "nulls": (b"folder: x\0y\n", "not valid YAML"),
}


@pytest.mark.parametrize("name", GOOD)
def test_settings_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(GOOD[name])
    found = load_yaml(tmp_path / "a.yaml", Whole)
    assert found != Whole() or name == "zero"
    assert "\n" not in found.folder


@pytest.mark.parametrize("name", BAD)
def test_a_fault_is_named_with_its_place(name: str, tmp_path: Path) -> None:
    text, wanted = BAD[name]
    (tmp_path / "a.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as told:
        load_yaml(tmp_path / "a.yaml", Whole)
    assert re.search(wanted, str(told.value)), told.value
    assert not re.search(r"Error\b|Exception|object at", str(told.value))


def test_a_missing_file_and_a_folder_are_named_in_words(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(ConfigError, match="cannot be read") as told:
            load_yaml(path, Whole)
        assert "Error" not in str(told.value)
