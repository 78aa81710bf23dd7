"""The store at rest: nothing opens without its key, whatever was moved is noticed, and no nonce comes twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.commands import speaker
from support.damaged import flipped
from support.homes import make_home
from support.studies import PLAN, POLICY

from sfumato_client.dataset import SiteStore, StoreTerms
from sfumato_client.dataset.encryption import FileCipher
from sfumato_client.dataset.journal import JOURNAL
from sfumato_client.dataset.pixel_file import EncryptedPixels
from sfumato_client.ingest import Facts, SiteImage
from sfumato_client.site.home import SiteHome
from sfumato_client.site.store_key import VARIABLE, make_store_key, read_store_key
from sfumato_common.crypto.pieces import NONCE_BYTES, OVERHEAD, new_id
from sfumato_common.errors import ConfigError, DataError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.terms import ImageForm
from sfumato_common.supervise import flower_environment

FORM, LABELS, SPLIT_KEY, KEY = ImageForm(size=16), ["normal", "opacity"], b"s" * 32, bytes(range(32))
CHUNK, HEAD = 16 * 16 + OVERHEAD, 24
TERMS = StoreTerms(FORM, LABELS, SPLIT_KEY, KEY)


def images(count: int, seed: int = 0) -> list[SiteImage]:
    draws = np.random.default_rng(seed).integers(0, 256, (count, 16, 16)).astype(np.uint8)
    return [SiteImage(draws[n], n % 2, f"p{n + 1}", "train", "", (), Facts(f"{n}.png")) for n in range(count)]


def create(folder: Path, found: list[SiteImage]) -> Path:
    SiteStore.create(folder, found, FORM, LABELS, SPLIT_KEY, KEY)
    (pixels,) = folder.glob("pixels-*")
    return pixels


def chunk(number: int) -> slice:
    return slice(HEAD + number * CHUNK, HEAD + (number + 1) * CHUNK)


@pytest.mark.parametrize("how", ["swapped", "repeated", "other-store", "bit", "nonce", "tag"])
def test_an_image_that_was_moved_or_altered_is_noticed(tmp_path: Path, how: str) -> None:
    path = create(tmp_path / "store", images(6))
    data = bytearray(path.read_bytes())
    second = create(tmp_path / "second", images(6)).read_bytes()
    one, two = bytes(data[chunk(1)]), bytes(data[chunk(2)])
    if how == "swapped":
        data[chunk(1)], data[chunk(2)] = two, one
    elif how == "repeated":
        data[chunk(1)] = two
    elif how == "other-store":
        data[chunk(1)] = second[chunk(1)]
    else:
        data[chunk(1).start + {"nonce": 0, "bit": 100, "tag": CHUNK - 1}[how]] ^= 1
    path.write_bytes(data)
    pixels = SiteStore.open(tmp_path / "store", KEY).cohort("train").images
    assert np.array_equal(pixels[5], images(6)[5].pixels)
    with pytest.raises(DataError, match="altered or damaged"):
        pixels[1]
    with pytest.raises(DataError, match="altered or damaged"):
        SiteStore.open(tmp_path / "store", KEY).cohort("train").everything()


@pytest.mark.parametrize("kind", ["pixels", "index"])
@pytest.mark.parametrize("how", ["dropped", "cut", "longer", "mixed"])
def test_a_file_that_is_not_the_stores_is_noticed_when_it_is_opened(tmp_path: Path, kind: str, how: str) -> None:
    create(tmp_path / "store", images(6))
    create(tmp_path / "second", images(6, seed=1))
    (path,) = (tmp_path / "store").glob(f"{kind}-*")
    (other,) = (tmp_path / "second").glob(f"{kind}-*")
    data = path.read_bytes()
    changed = {"dropped": data[:-CHUNK], "cut": data[:-1], "longer": data + data[-CHUNK:], "mixed": other.read_bytes()}
    path.write_bytes(changed[how])
    with pytest.raises(DataError, match="altered or damaged"):
        SiteStore.open(tmp_path / "store", KEY)


@pytest.mark.parametrize("change", [{"labels": ["opacity", "normal"]}, {"shape": [5, 16, 16]}, {"key": "0" * 32}])
def test_what_the_store_says_of_itself_cannot_be_altered(tmp_path: Path, change: dict[str, object]) -> None:
    create(tmp_path / "store", images(6))
    path = tmp_path / "store" / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match="altered or damaged"):
        SiteStore.open(tmp_path / "store", KEY)


def test_another_key_and_an_unencrypted_store_are_told_apart(tmp_path: Path) -> None:
    create(tmp_path / "store", images(6))
    with pytest.raises(DataError, match="written under another key"):
        SiteStore.open(tmp_path / "store", KEY[::-1])
    (tmp_path / "store" / "store.json").write_text(json.dumps({"format": 2, "labels": LABELS}))
    with pytest.raises(DataError, match="did not encrypt it; remove the folder and ingest again"):
        SiteStore.open(tmp_path / "store", KEY)


def test_an_array_of_encrypted_pixels_is_read_as_any_other(tmp_path: Path) -> None:
    found = images(9)
    create(tmp_path / "store", found)
    encrypted = SiteStore.open(tmp_path / "store", KEY).cohort("train").images
    whole = np.stack([one.pixels for one in found])
    assert isinstance(encrypted, EncryptedPixels)
    assert np.array_equal(np.asarray(encrypted), whole)
    assert (len(encrypted), encrypted.shape, encrypted.dtype) == (9, (9, 16, 16), np.uint8)
    for rows in (3, -1, np.int64(2), [4, 4, 0], np.array([8, -2]), slice(1, 7, 2), whole[:, 0, 0] > 90, slice(3, 3)):
        assert np.array_equal(encrypted[rows], whole[rows])
    assert encrypted[[]].shape == (0, 16, 16)
    for row in (9, -10, [0, 9]):
        with pytest.raises(IndexError):
            encrypted[row]


def stopped(found: list[SiteImage], until: int):
    def rows(start: int):
        for number, one in enumerate(found[start:], start):
            if number == until:
                raise KeyboardInterrupt
            yield [one]

    return rows


def pieces_of(path: Path) -> list[bytes]:
    data = path.read_bytes()[HEAD:]
    return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]


def test_no_nonce_comes_again_where_a_file_is_cut_back_and_written_on(tmp_path: Path) -> None:
    """Killed after pixels and before their record: the same place gets other pixels, under the same key."""
    partial, seen = tmp_path / ".store.partial", set[bytes]()
    for attempt in range(6):
        with pytest.raises(KeyboardInterrupt):
            SiteStore.grow(tmp_path / "store", stopped([*images(3), *images(10, seed=attempt)[3:]], 9), TERMS, "these")
        (path,) = partial.glob("pixels-*")
        pieces = pieces_of(path)
        assert len(pieces) == 9
        new = {piece[:NONCE_BYTES] for piece in pieces[3 if attempt else 0 :]}
        assert len(new) == (6 if attempt else 9)
        assert not new & seen
        seen |= new
        first = (partial / JOURNAL).read_bytes()
        keep = HEAD  # the first record and three rows
        for _ in range(4):
            keep += 4 + int.from_bytes(first[keep : keep + 4], "big")
        os.truncate(partial / JOURNAL, keep)
        assert path.name == next(partial.glob("pixels-*")).name
    nonces = {FileCipher(KEY, "pixels", new_id()).encrypt(0, b"same")[:NONCE_BYTES] for _ in range(1000)}
    assert len(nonces) == 1000


def test_a_journal_of_other_records_counts_up_to_where_it_was_altered(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        SiteStore.grow(tmp_path / "store", stopped(images(9), 8), TERMS, "these")
    path = tmp_path / ".store.partial" / JOURNAL
    data = path.read_bytes()
    path.write_bytes(flipped(data, len(data) // 2))
    read = list[int]()

    def rows(start: int):
        read.append(start)
        yield from stopped(images(9), 99)(start)

    SiteStore.grow(tmp_path / "store", rows, TERMS, "these")
    assert 0 < read[0] < 8
    pixels = np.asarray(SiteStore.open(tmp_path / "store", KEY).cohort("train").images)
    assert np.array_equal(pixels, np.stack([one.pixels for one in images(9)]))


def test_nothing_of_an_image_or_a_name_lies_on_the_disk_in_the_clear(tmp_path: Path) -> None:
    """At every row of an ingest, and when it is whole: also in the file that an image is dropped from."""
    secret = np.frombuffer(b"a picture that nobody may read. " * 8, np.uint8).reshape(16, 16)
    found = [*images(3), *[SiteImage(secret, 0, "DOE-4711", "train", "", (), Facts("doe-4711.png", "1.2.3"))] * 2]

    def look() -> None:
        for path in tmp_path.rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert b"nobody may read" not in data, path.name
                assert not any(word in data for word in (b"DOE", b"4711", b"1.2.3")), path.name
                assert path.stat().st_mode & 0o077 == 0 or path.name == "store.json"

    def rows(start: int):
        for one in found:
            look()
            yield [one]
            look()

    SiteStore.grow(tmp_path / "store", rows, TERMS, "these")
    (tmp_path / "ingest-report.json").unlink()
    look()
    assert len(SiteStore.open(tmp_path / "store", KEY).cohort("train").labels) == 4


# -- the key -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> SiteHome:
    plan = parse({**PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}]}, Plan, "plan")
    return make_home(tmp_path_factory.mktemp("alder"), "alder", plan, POLICY, 20)


def test_the_key_lies_outside_the_store_and_without_it_nothing_opens(home: SiteHome, monkeypatch) -> None:
    path = home.identity / "store.key"
    assert path.stat().st_mode & 0o077 == 0
    assert home.store not in path.parents
    kept = path.read_text()
    assert home.open_store().patients == 20
    path.unlink()
    try:
        with pytest.raises(ConfigError, match="cannot be read without it"):
            home.open_store()
        monkeypatch.setenv(VARIABLE, str(path))
        path.write_text("ab" * 32)
        path.chmod(0o600)
        with pytest.raises(DataError, match="written under another key"):
            home.open_store()
    finally:
        path.write_text(kept)
    assert home.open_store().patients == 20


@pytest.mark.parametrize(("text", "mode"), [("ab" * 31, 0o600), ("no key", 0o600), ("ab" * 32, 0o644)])
def test_a_file_that_is_no_key_or_that_others_can_read_is_refused(tmp_path: Path, text: str, mode: int) -> None:
    (tmp_path / "store.key").write_text(text)
    (tmp_path / "store.key").chmod(mode)
    with pytest.raises(ConfigError, match="read by others" if mode & 0o077 else "hexadecimal digits"):
        make_store_key(tmp_path)


@pytest.mark.parametrize(("mode", "fine"), [(0o400, True), (0o440, True), (0o444, False), (0o660, False)])
def test_a_mounted_secret_takes_the_place_of_the_homes_own(tmp_path: Path, monkeypatch, mode: int, fine: bool) -> None:
    (tmp_path / "secret").write_text("cd" * 32 + "\n")
    (tmp_path / "secret").chmod(mode)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "secret"))
    if fine:
        assert make_store_key(tmp_path / "identity") == read_store_key(tmp_path / "identity") == b"\xcd" * 32
        assert not (tmp_path / "identity").exists()
        return
    with pytest.raises(ConfigError, match="read by others"):
        read_store_key(tmp_path / "identity")


def test_an_option_names_the_key_for_the_command_and_what_it_starts(
    home: SiteHome, tmp_path, monkeypatch, capsys
) -> None:
    say = speaker(monkeypatch, capsys)
    monkeypatch.setenv(VARIABLE, "")
    (tmp_path / "secret").write_text((home.identity / "store.key").read_text())
    code, said, _ = say("sfumato-site", "--store-key", tmp_path / "secret", "fingerprint", "--home", home.root)
    assert not code, said
    assert flower_environment(home.root, [], "HOME")[VARIABLE] == str(tmp_path / "secret")
