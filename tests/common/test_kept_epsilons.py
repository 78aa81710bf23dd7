"""Epsilons kept on disk: the same as computed ones, and never another's, an older code's or an altered one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sfumato_common.accounting import accountant, kept
from sfumato_common.accounting.accountant import epsilon
from sfumato_common.accounting.events import GaussianRelease, KAverageGaussian, SampledGaussian
from sfumato_common.accounting.kept import keeping

EVENTS = [GaussianRelease(1.5), GaussianRelease(3.0)]
DELTA = 1e-5


@pytest.fixture
def exact() -> float:
    return epsilon(EVENTS, DELTA)


def entry(folder: Path) -> Path:
    (found,) = [file for file in folder.iterdir() if file.name != "key"]
    return found


def unable(*_: object) -> float:
    raise AssertionError("computed again")


def test_what_was_computed_is_not_computed_again(tmp_path: Path, exact: float, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeping(tmp_path / "kept"):
        assert epsilon(EVENTS, DELTA) == exact
        monkeypatch.setattr(accountant, "_epsilon", unable)
        assert epsilon(EVENTS, DELTA) == exact
        assert epsilon(reversed(EVENTS), DELTA) == exact
        with pytest.raises(AssertionError, match="again"):
            epsilon([*EVENTS, EVENTS[0]], DELTA)
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "kept").iterdir()} == {0o600}


def test_nothing_else_reads_it(tmp_path: Path, exact: float) -> None:
    """Also not by way of what a process remembers: a ledger's figures are computed, whatever stands in the folder."""
    with keeping(tmp_path / "kept"):
        epsilon(EVENTS, DELTA)
        file, key = entry(tmp_path / "kept"), (tmp_path / "kept" / "key").read_bytes()
        file.write_text(json.dumps(kept._signed(file.name, (exact / 2).hex(), key)))
        assert epsilon(EVENTS, DELTA) == exact / 2
    assert epsilon(EVENTS, DELTA) == exact


@pytest.mark.parametrize("spoil", ["lower", "another question's", "another folder's", "cut", "empty", "list", "deep"])
def test_what_was_not_written_here_is_computed(tmp_path: Path, exact: float, spoil: str) -> None:
    folder, other = tmp_path / "kept", tmp_path / "other"
    with keeping(folder):
        epsilon(EVENTS, DELTA)
    file = entry(folder)
    whole = json.loads(file.read_text())
    if spoil == "lower":
        file.write_text(json.dumps({**whole, "epsilon": (exact / 2).hex()}))
    elif spoil == "another question's":
        with keeping(other):
            epsilon(EVENTS[1:], DELTA)
        (folder / "key").write_bytes((other / "key").read_bytes())
        file.write_bytes(entry(other).read_bytes())
    elif spoil == "another folder's":
        signed = kept._signed(file.name, (exact / 2).hex(), b"0" * 32)
        file.write_text(json.dumps(signed))
    else:
        file.write_text({"cut": file.read_text()[:30], "empty": "", "list": "[1]", "deep": "[" * 100_000}[spoil])
    with keeping(folder):
        assert epsilon(EVENTS, DELTA) == exact
        assert epsilon(EVENTS, DELTA) == exact
    assert float.fromhex(json.loads(file.read_text())["epsilon"]) == exact  # mended


def test_every_part_of_the_question_and_of_the_code_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled, average = SampledGaussian(1.0, 0.1, 1), KAverageGaussian(1.0, 5)
    questions = [
        (((event, times),), delta, adjacency)
        for event in (
            *(sampled, replace(sampled, noise_multiplier=1.0 + 2**-52), replace(sampled, sampling_rate=0.2)),
            *(average, replace(average, k=6), GaussianRelease(1.0)),
        )
        for times in (1, 2)
        for delta in (1e-5, 2e-5)
        for adjacency in ("add-remove", "replace-one")
    ]
    names = {kept._name(*question) for question in questions}
    assert len(names) == len(questions)
    code = kept._code()
    for part in code:
        monkeypatch.setattr(kept, "_code", lambda part=part: {**code, part: "another"})
        assert kept._name(*questions[0]) not in names


def test_the_code_of_the_accountant_is_all_of_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed source is another code: what an older one computed counts no more."""
    (tmp_path / "kept.py").write_text("1")
    (tmp_path / "pld.py").write_text("2")
    monkeypatch.setattr(kept, "__file__", str(tmp_path / "kept.py"))
    code = kept._code.__wrapped__
    before = code()["sources"]
    assert code()["sources"] == before
    (tmp_path / "pld.py").write_text("3")
    assert code()["sources"] != before


def test_where_nothing_can_be_kept_all_is_computed(tmp_path: Path, exact: float) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in (tmp_path / "file", tmp_path / "link"):
        with keeping(folder):
            assert epsilon(EVENTS, DELTA) == exact
    with keeping(tmp_path / "kept"):
        (tmp_path / "kept" / "key").write_bytes(b"short")
        assert epsilon(EVENTS, DELTA) == exact
    assert not list((tmp_path / "real").iterdir())


def test_the_folder_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MOST", 4)
    monkeypatch.setattr(accountant, "_epsilon", lambda *_: 1.0)
    with keeping(tmp_path):
        for number in range(12):
            epsilon([GaussianRelease(1.0 + number)], DELTA)
    assert len(list(tmp_path.iterdir())) <= 6
