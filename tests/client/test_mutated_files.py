"""Some hundred mutated files through every reader (`make bench NAME=fuzz` has ten thousand)."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import FORM, LABELS, SOURCES, bases, fuzz, of_kind

from sfumato_client.ingest import SiteImage
from sfumato_client.ingest.sources import read_rows


@pytest.mark.parametrize("kind", SOURCES)
def test_whole_files_of_every_kind_are_read(tmp_path: Path, kind: str) -> None:
    every = bases()
    whole = {name: every[name] for name in of_kind(kind, every)}
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    rows = [f"{name},p{number},normal" for number, name in enumerate(whole)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,patient_id,label", *rows]) + "\n")
    terms = {"folder": tmp_path, "labels": tmp_path / "labels.csv"}
    source = SOURCES[kind](kind=kind, **terms)
    found = [one for results in read_rows(source, FORM, LABELS) for one in results]
    read = [one for one in found if isinstance(one, SiteImage)]
    assert len(read) == len(whole)
    means = [one.pixels[..., :1].mean() if one.pixels.ndim == 3 else one.pixels.mean() for one in read]
    assert max(means) - min(means) < 40, "all show one picture"


def test_nothing_ends_a_reader(tmp_path: Path) -> None:
    found = fuzz(400, 7, 2, tmp_path)
    assert not [reason for reason in found.pop("reasons") if " from " in reason]
    outcomes = [outcome for counts in found.values() for outcome in counts.elements()]
    assert len(outcomes) == 400
    assert set(outcomes) == {"read", "refused"}
