"""Readers' processes: a file that ends, hangs or fills its reader costs itself alone; a killed ingest goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from support.plans import small_plan
from support.reading import read_pngs

from sfumato_client.dataset import SiteStore
from sfumato_client.dataset.filling import StoreTerms
from sfumato_client.dataset.journal import JOURNAL, read_journal
from sfumato_client.dataset.splits import SPLITS
from sfumato_client.ingest import Answers, Facts, SiteImage, Skipped, load_source
from sfumato_client.ingest import pool as pools
from sfumato_client.ingest.jobs import Results
from sfumato_client.ingest.results import HEAD, from_bytes, lengths, to_bytes
from sfumato_client.ingest.sources import PngSource, read_rows
from sfumato_client.site.store_key import read_store_key
from sfumato_common.errors import DataError
from sfumato_common.study.terms import ImageForm

FORM, LABELS, KEY = ImageForm(size=16), ["normal", "opacity"], b"k" * 32


def folder_of(path: Path, names: list[str]) -> PngSource:
    """A folder of pictures with these names, and its table."""
    path.mkdir()
    rows = ["file,patient_id,label"]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20)).astype(np.uint8)
        Image.fromarray(pixels).save(path / name)
        rows.append(f"{name},p{number + 1},{LABELS[number % 2]}")
    (path / "labels.csv").write_text("\n".join(rows) + "\n")
    return PngSource(kind="png", folder=path, labels=path / "labels.csv")


def flat(rows: Iterator[Results]) -> list[SiteImage | Skipped]:
    return [one for results in rows for one in results]


def same(one: SiteImage | Skipped, other: SiteImage | Skipped) -> bool:
    if isinstance(one, Skipped) or isinstance(other, Skipped):
        return one == other
    names = ("label", "patient_id", "split", "view", "notes", "facts")
    return np.array_equal(one.pixels, other.pixels) and all(getattr(one, n) == getattr(other, n) for n in names)


def test_a_pool_gives_what_one_process_gives_in_order(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "images", [f"{n:02d}.png" for n in range(30)])
    (tmp_path / "images" / "07.png").write_bytes(b"no picture")
    with pools.Pool(source, FORM, LABELS, workers=2) as pool:
        found = flat(read_rows(source, FORM, LABELS, pool.run))
    alone = list(read_pngs(source.folder, source.labels, FORM, LABELS))
    assert len(found) == len(alone) == 30
    assert all(map(same, found, alone))


def test_a_hostile_file_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_PROGRAM", "support.hostile_reader")
    monkeypatch.setattr(pools, "_PROCESSOR_SECONDS", 0.5)
    monkeypatch.setattr(pools, "_SILENT_SECONDS", 10.0)
    monkeypatch.setattr(pools, "_START_SECONDS", 45.0)  # what sleeps may be the first file of its reader
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    names = ["a.png", "die.png", "b.png", "spin.png", "sleep.png", "c.png", "eat.png", "babble.png"]
    names += ["print.png", "call.png", "call-unix.png", "d.png"]
    source = folder_of(tmp_path / "images", names)
    with pools.Pool(source, FORM, LABELS, workers=2) as pool:
        found = flat(read_rows(source, FORM, LABELS, pool.run))
    reasons = {one.reference: one.reason for one in found if isinstance(one, Skipped)}
    calls = {"call.png", "call-unix.png"}
    assert set(reasons) == {"die.png", "spin.png", "sleep.png", "eat.png", "babble.png", *calls}
    assert not any("ended the reader" in reasons[name] for name in calls), "the reader goes on"
    assert "ended the reader" in reasons["die.png"]
    assert "of a processor" in reasons["spin.png"]
    assert "says nothing" in reasons["sleep.png"]
    assert "memory" in reasons["eat.png"]
    kept = [one.facts.reference for one in found if isinstance(one, SiteImage)]
    assert kept == ["a.png", "b.png", "c.png", "print.png", "d.png"]


def test_the_filter_holds_in_every_thread_and_lets_a_process_work() -> None:
    said = """
import socket, threading, time
from sfumato_client.ingest.offline import has_network, leave_network
def late():
    time.sleep(0.3)
    found.append(has_network())
found = [has_network()]
thread = threading.Thread(target=late)
thread.start()
found.append(leave_network())
thread.join()
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    try:
        socket.socket(family)
        found.append("open")
    except PermissionError:
        found.append("refused")
print(found)
"""
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[True, True, False, 'refused', 'refused', 'refused']"


def test_readers_end_with_their_pool(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "images", ["a.png", "b.png"])
    with pools.Pool(source, FORM, LABELS, workers=1) as pool:
        rows = read_rows(source, FORM, LABELS, pool.run)
        next(rows)
        (reader,) = pool._all
        pid = reader._child.pid
    assert not Path(f"/proc/{pid}").exists()


# -- what a reader says ------------------------------------------------------------------------------------------------

IMAGE = SiteImage(np.arange(256, dtype=np.uint8).reshape(16, 16), 1, "p", "train", "PA", ("note",), Facts("a.png"))


def said(results: Results) -> tuple[bytes, bytes]:
    data = to_bytes(results)
    words, pixels = lengths(data[:HEAD])
    assert len(data) == HEAD + words + pixels
    return data[HEAD : HEAD + words], data[HEAD + words :]


def test_results_come_back_as_they_were() -> None:
    results: Results = [IMAGE, Skipped("b", "why"), IMAGE]
    again = from_bytes(*said(results), (16, 16), 2)
    assert all(map(same, again, results))


@pytest.mark.parametrize(
    "change",
    [
        {"label": 2},
        {"label": -1},
        {"shape": [16, 17]},
        {"dtype": "object"},
        {"split": "val"},
        {"facts": {"unknown": 1}},
        {"notes": 3},
    ],
)
def test_words_of_another_form_are_refused(change: dict[str, object]) -> None:
    text, body = said([IMAGE])
    words = json.loads(text)
    words[0] |= change
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_bytes(json.dumps(words).encode(), body, (16, 16), 2)


def test_more_or_fewer_pixels_than_words_are_refused() -> None:
    text, body = said([IMAGE])
    for other in (body[:-1], body + b"\0"):
        with pytest.raises(ValueError, match="image"):
            from_bytes(text, other, (16, 16), 2)
    with pytest.raises(ValueError, match="longer"):
        lengths(b"\xff" * HEAD)


# -- going on ----------------------------------------------------------------------------------------------------------


def rows_of(images: list[SiteImage | Skipped], until: int | None = None, read: list[int] | None = None):
    """Rows of one image each, that stop as a killed process does after number `until`."""

    def rows(start: int) -> Iterator[Results]:
        for number, one in enumerate(images[start:], start):
            if number == until:
                raise KeyboardInterrupt
            if read is not None:
                read.append(number)
            yield [one]

    return rows


def pictures(count: int) -> list[SiteImage | Skipped]:
    draws = np.random.default_rng(0).integers(0, 256, (count, 16, 16)).astype(np.uint8)
    return [SiteImage(draws[n], n % 2, f"p{n + 1}", None, "", (), Facts(f"{n}.png")) for n in range(count)]


TERMS = StoreTerms(FORM, LABELS, KEY, KEY)


def contents(folder: Path) -> list[object]:
    """All that a store says; its files are encrypted anew each time."""
    store = SiteStore.open(folder, KEY)
    cohorts = [store.cohort(split) for split in SPLITS]
    everything = [value.tolist() for cohort in cohorts for value in (*cohort.everything(), cohort.views)]
    return [sorted(path.name.split("-")[0] for path in folder.iterdir()), store.members(*SPLITS), everything]


def test_an_ingest_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    images = [*pictures(9), Skipped("x.png", "why"), *pictures(0)]
    SiteStore.grow(tmp_path / "whole", rows_of(images), TERMS)
    with pytest.raises(KeyboardInterrupt):
        SiteStore.grow(tmp_path / "store", rows_of(images, until=6), TERMS, "these")
    read: list[int] = []
    SiteStore.grow(tmp_path / "store", rows_of(images, read=read), TERMS, "these")
    assert read == [6, 7, 8, 9]
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert not (tmp_path / ".store.partial").exists()


def test_another_set_begins_anew(tmp_path: Path) -> None:
    images, read = pictures(6), list[int]()
    with pytest.raises(KeyboardInterrupt):
        SiteStore.grow(tmp_path / "store", rows_of(images, until=4), TERMS, "these")
    SiteStore.grow(tmp_path / "store", rows_of(images, read=read), TERMS, "others")
    assert read == list(range(6))


@pytest.mark.parametrize("cut", ["journal", "pixels-*", "line"])
def test_what_a_crash_left_half_is_not_counted(tmp_path: Path, cut: str) -> None:
    images, read = pictures(6), list[int]()
    with pytest.raises(KeyboardInterrupt):
        SiteStore.grow(tmp_path / "store", rows_of(images, until=4), TERMS, "these")
    partial = tmp_path / ".store.partial"
    if cut == "line":
        with (partial / JOURNAL).open("ab") as stream:
            stream.write(b"\0\0\1\0 the beginning of a record")
    else:
        (path,) = partial.glob(cut)
        path.write_bytes(path.read_bytes()[:-40])
    SiteStore.grow(tmp_path / "store", rows_of(images, read=read), TERMS, "these")
    SiteStore.grow(tmp_path / "whole", rows_of(images), TERMS)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert read[0] == {"journal": 3, "pixels-*": 0, "line": 4}[cut]


def test_an_answer_does_not_have_everything_read_again(tmp_path: Path) -> None:
    images, read = pictures(6), list[int]()
    images[1] = SiteImage(images[0].pixels, 1, "P1", None, "", (), Facts("again.png"))  # type: ignore[union-attr]
    with pytest.raises(DataError, match="alike_ids"):
        SiteStore.grow(tmp_path / "store", rows_of(images), TERMS, "these")
    answered = StoreTerms(FORM, LABELS, KEY, KEY, Answers(alike_ids="merge", image_of_two_labels="first"))
    report = SiteStore.grow(tmp_path / "store", rows_of(images, read=read), answered, "these")
    assert not read
    assert (report.kept, report.patients) == (5, 5)


# -- the commands ------------------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from sfumato_client.cli.main import main; main()"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A site with a policy and a plan, and many pictures."""
    value = small_plan(released="spectral", sites={"alder": 120})
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(value))
    policy = Path(__file__).parents[2] / "configs" / "policy.yaml"
    source = folder_of(tmp_path / "images", [f"{n:03d}.png" for n in range(150)])
    (tmp_path / "source.yaml").write_text(f"kind: png\nfolder: {source.folder}\nlabels: {source.labels}\n")
    run(tmp_path, "init", "--home", "site", "--policy", str(policy))
    return tmp_path


def run(folder: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def records(journal: Path) -> int:
    """How many records the journal of a home holds, its first one too."""
    return len(list(read_journal(journal, read_store_key(journal.parents[1] / "identity"))))


ARGUMENTS = ("--home", "site", "source.yaml", "--plan", "plan.yaml")


def test_a_check_of_files_none_of_which_can_be_read_says_so(home: Path) -> None:
    for path in (home / "images").glob("*.png"):
        path.write_bytes(b"no picture")
    said = run(home, "check", *ARGUMENTS, code=2)
    assert "150 x " in said and "Traceback" not in said
    with Image.open(home / "site" / "check-sheet.png") as sheet:
        assert not np.asarray(sheet).any()


def test_check_then_kill_then_ingest(home: Path) -> None:
    running = subprocess.Popen([*COMMAND, "ingest", *ARGUMENTS], cwd=home)
    journal = home / "site" / ".store.partial" / JOURNAL
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and records(journal) <= 20:
        time.sleep(0.05)
    running.send_signal(signal.SIGSTOP)
    busy = run(home, "ingest", *ARGUMENTS, code=5)
    running.send_signal(signal.SIGKILL)
    running.wait(30)
    assert "already running" in busy
    kept = records(journal)
    assert 20 < kept <= 151
    said = run(home, "check", *ARGUMENTS, code=2)  # the plan has next to no noise
    assert "150 images of 150 patients would be kept" in said
    assert (home / "site" / "check-sheet.png").stat().st_mode & 0o077 == 0
    assert not (home / "site" / "store").exists()
    assert "kept 150 images" in run(home, "ingest", *ARGUMENTS)
    assert not (home / "site" / "check-sheet.png").exists()
    source = load_source(home / "source.yaml")
    assert len(list(read_rows(source, FORM, LABELS))) == 150
