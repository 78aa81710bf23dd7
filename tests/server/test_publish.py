import base64
import csv
import html.parser
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.carded import UTILITY
from support.lying import resign, sha256

from sfumato_common.crypto.merkle import leaf_hash, merkle_root
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.errors import ConfigError, UnverifiedOrigin, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.imaging import decode_png
from sfumato_server import pictures
from sfumato_server.cli.dataset import dataset_verify
from sfumato_server.enrol import create_authority
from sfumato_server.pool import Pool, Source, pool_packages
from sfumato_server.publish import open_folder, publish, sheets, verify_dataset, write_overview
from sfumato_server.publish.guarantee import guarantees
from sfumato_server.publish.report import foreign_details, release_rows, size, stage_rows, utility_rows
from sfumato_server.publish.tables import COLUMNS, NO_GUARANTEE

RUN = {
    "exchanges": [
        {"stage": "spectral", "seconds": 4.0, "bytes_down": 1000, "bytes_up": 2000},
        {"stage": "release", "seconds": 2.5, "bytes_down": 0, "bytes_up": 10},
    ],
    "seconds": 12.0,
    "versions": {"python": "3.11.2"},
}


def pooled(consortium: Any, **packages: dict[str, Any]) -> Pool:
    (consortium.home / "intake").mkdir(exist_ok=True)
    for site in consortium.plan.sites:
        data = consortium.package(site, **packages.get(site, {}))
        (consortium.home / "intake" / f"{site}.formal.sfumato").write_bytes(data)
    return pool_packages(consortium.home, consortium.plan, consortium.registry)


@pytest.fixture(scope="module")
def first_set(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    consortium = founded.copied(tmp_path_factory.mktemp("home") / "coordinator")
    result = publish(pooled(consortium), consortium.plan, out, consortium.authority, RUN, UTILITY)
    assert (result.folder, result.images) == (out / "published", 18)
    return out


@pytest.fixture
def published(consortium: Any, first_set: Path, tmp_path: Path) -> tuple[Any, Path]:
    shutil.copytree(first_set, tmp_path / "out")
    return consortium, tmp_path / "out" / "published"


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_published_verifies(published: Any) -> None:
    consortium, folder = published
    report = verify_dataset(folder, consortium.authority.public_key)
    assert (report.images, report.sites, report.trusted) == (18, ("east", "north", "south"), True)
    assert report.plan_hash == consortium.plan.digest
    assert "NOT compared" in verify_dataset(folder).summary()
    assert "NOT" not in report.summary()


def test_what_is_published_verifies_for_scripts(published: Any, capsys: pytest.CaptureFixture[str]) -> None:
    consortium, folder = published
    with pytest.raises(UnverifiedOrigin):
        dataset_verify(folder, key=None, site_key=None, as_json=True)
    report = json.loads(capsys.readouterr().out)
    keys = {site: fingerprint(consortium.identities[site].signing_public) for site in consortium.plan.sites}
    assert report == {
        "study": "chest",
        "plan_hash": consortium.plan.digest,
        "images": 18,
        "sites": ["east", "north", "south"],
        "coordinator_fingerprint": fingerprint(consortium.authority.public_key),
        "trusted": False,
        "site_fingerprints": keys,
        "compared_sites": [],
        "private": True,
        "strays": [],
    }


def test_layout_and_labels(published: Any) -> None:
    consortium, folder = published
    names = {path.relative_to(folder).as_posix() for path in files(folder)}
    assert {"labels.csv", "report.html", "manifest.json", "manifest.sig", "coordinator.pem"} <= names
    assert {f"provenance/{site}/key.pem" for site in consortium.plan.sites} <= names
    rows = list(csv.DictReader(io.StringIO((folder / "labels.csv").read_text())))
    assert {row["file"] for row in rows} == {name for name in names if name.startswith("images/")}
    assert {row["label"] for row in rows} == {"abnormal", "normal"}
    assert tuple(rows[0]) == COLUMNS
    assert json.loads((folder / "manifest.json").read_text())["plan"]["study"] == "chest"


def test_one_altered_byte_in_any_file_is_refused_by_name(published: Any) -> None:
    _, folder = published
    rng = np.random.default_rng(3)
    for path in files(folder):
        original = path.read_bytes()
        for at in {0, len(original) - 1, *rng.integers(0, len(original), 6).tolist()}:
            altered = bytearray(original)
            altered[at] ^= 1 << int(rng.integers(8))
            path.write_bytes(altered)
            with pytest.raises(VerificationError) as caught:
                verify_dataset(folder)
            name = path.relative_to(folder).as_posix()
            top = ("manifest.json", "manifest.sig", "coordinator.pem")
            assert name in str(caught.value) or name in top
        path.write_bytes(original)
    verify_dataset(folder)


def test_shortened_lengthened_and_missing_files_are_refused(published: Any) -> None:
    _, folder = published
    for path in files(folder)[::3]:
        original = path.read_bytes()
        for content in (original[:-1], original + b"\n", b""):
            path.write_bytes(content)
            with pytest.raises(VerificationError):
                verify_dataset(folder)
        path.unlink()
        with pytest.raises((VerificationError, ConfigError)):
            verify_dataset(folder)
        path.write_bytes(original)


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "images/north/extra.png",
        "images/north/formal/0001/extra.png",
        "images/north/formal/0002/",
        "provenance/west/key.pem",
        ".hidden",
        "empty/",
    ],
)
def test_extra_files_and_folders_are_refused(published: Any, name: str) -> None:
    _, folder = published
    path = folder / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    with pytest.raises(VerificationError, match="does not belong"):
        verify_dataset(folder)


def test_what_systems_and_portals_add_is_listed_apart_and_hides_nothing_altered(
    published: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    consortium, folder = published
    image = next((folder / "images").rglob("*.png"))
    room = image.parent.relative_to(folder).as_posix()
    strays = (".DS_Store", ".gitattributes", "__MACOSX", f"{room}/._{image.name}", f"{room}/Thumbs.db")
    (folder / "__MACOSX" / "images").mkdir(parents=True)
    for name in (*strays, "__MACOSX/images/._x.png"):
        if name != "__MACOSX":
            (folder / name).write_bytes(b"x")
    for workers in (1, 2):
        assert verify_dataset(folder, consortium.authority.public_key, workers=workers).strays == strays
    (folder / "key.pem").write_bytes(consortium.authority.public_key)
    with pytest.raises(
        VerificationError, match=r"key\.pem does not belong to the data set, all of whose own files hold"
    ):
        verify_dataset(folder)
    (folder / "key.pem").rename(folder.parent / "key.pem")
    dataset_verify(folder, folder.parent / "key.pem")
    assert f"no part of the set, and not looked at: {', '.join(strays)};" in capsys.readouterr().out
    (folder / "notes.txt").write_text("of a person")
    image.write_bytes(image.read_bytes() + b"x")
    with pytest.raises(VerificationError, match=re.escape(image.name)):  # what is altered comes before what is added
        verify_dataset(folder)


@pytest.mark.parametrize("name", ["images/.gitattributes", "a.DS_Store", "images/north/extra/Thumbs.db", "DS_Store"])
def test_what_only_looks_like_a_systems_is_refused(published: Any, name: str) -> None:
    _, folder = published
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    with pytest.raises(VerificationError, match="does not belong"):
        verify_dataset(folder)


def test_a_link_under_a_systems_name_is_refused(published: Any, tmp_path: Path) -> None:
    _, folder = published
    (folder / ".DS_Store").symlink_to(tmp_path)
    with pytest.raises(VerificationError, match="plain file"):
        verify_dataset(folder)


def test_a_link_in_place_of_a_file_is_refused(published: Any, tmp_path: Path) -> None:
    _, folder = published
    image = next((folder / "images").rglob("*.png"))
    image.rename(tmp_path / "moved.png")
    image.symlink_to(tmp_path / "moved.png")
    with pytest.raises(VerificationError, match="plain file"):
        verify_dataset(folder)


def test_another_coordinators_key_is_not_trusted(published: Any, tmp_path: Path) -> None:
    _, folder = published
    stranger = create_authority(tmp_path / "stranger")
    with pytest.raises(VerificationError, match="trusted"):
        verify_dataset(folder, stranger.public_key)


def replan(value: dict[str, Any], folder: Path) -> None:
    value["plan"]["privacy"]["epsilon"] = 1.0


def drop_site(value: dict[str, Any], folder: Path) -> None:
    value["shards"].pop(0)


def drop_part(value: dict[str, Any], folder: Path) -> None:
    value["packages"].pop("north")


def forget(value: dict[str, Any], folder: Path) -> None:
    value["files"].pop("provenance/north/key.pem")


def recount(value: dict[str, Any], folder: Path) -> None:
    value["shards"][0]["images"] -= 1


def reroot(value: dict[str, Any], folder: Path) -> None:
    value["shards"][0]["root"] = "0" * 64


def renumber(value: dict[str, Any], folder: Path) -> None:
    value["shards"][0]["shards"] = 2


def twice(value: dict[str, Any], folder: Path) -> None:
    value["shards"].insert(0, value["shards"][0])


def swap(value: dict[str, Any], folder: Path) -> None:
    """North's images under the name of south."""
    first, second = value["shards"][1], value["shards"][2]
    for name in ("head", "root", "index"):
        first[name], second[name] = second[name], first[name]
    for room in ("provenance", "shards", "images"):
        one, other, aside = folder / room / "north/formal", folder / room / "south/formal", folder / "aside"
        one.rename(aside), other.rename(one), aside.rename(other)


def relabel(value: dict[str, Any], folder: Path) -> None:
    """Entries altered, with a root over them in the line and in the head, which the site never signed."""
    path = folder / "provenance/east/formal/0001.entries"
    lines = path.read_bytes().replace(b'"label":"normal"', b'"label":"abnormal"', 1)
    path.write_bytes(lines)
    root = merkle_root(map(leaf_hash, lines.splitlines())).hex()
    head = folder / "provenance/east/formal/0001.json"
    head.write_bytes(canonical_json({**json.loads(head.read_bytes()), "root": root}))
    value["shards"][0] |= {"root": root, "head": sha256(head.read_bytes())}


@pytest.mark.parametrize(
    "change", [replan, drop_site, drop_part, forget, recount, reroot, renumber, twice, swap, relabel]
)
def test_even_the_coordinator_cannot_change_what_a_site_signed(published: Any, change: Any) -> None:
    consortium, folder = published
    resign(consortium, folder, lambda value: change(value, folder))
    with pytest.raises(VerificationError):
        verify_dataset(folder, consortium.authority.public_key)


def test_the_coordinator_cannot_slip_in_its_own_image(published: Any) -> None:
    _, folder = published
    image = next((folder / "images" / "north").rglob("*.png"))
    other = next((folder / "images" / "south").rglob("*.png")).read_bytes()
    image.write_bytes(other)
    with pytest.raises(VerificationError, match="not the picture that site 'north' signed"):
        verify_dataset(folder)


def leave_out(consortium: Any, folder: Path, **said: Any) -> None:
    """The first image of east goes from images and labels; the index says of it what `said` says."""
    line = (folder / "provenance/east/formal/0001.entries").read_bytes().splitlines()[0]
    name = json.loads(line)["name"]
    (folder / "images/east/formal/0001" / f"{name}.png").unlink()
    labels = b"".join(
        row for row in (folder / "labels.csv").read_bytes().splitlines(keepends=True) if name.encode() not in row
    )
    (folder / "labels.csv").write_bytes(labels)
    path = folder / "shards/east/formal/0001.json"
    duplicates = [{"name": name, "kept_site": "north", "kept_name": "0" * 32, **said}] if said else []
    index = canonical_json({**json.loads(path.read_bytes()), "duplicates": duplicates})
    path.write_bytes(index)

    def change(value: dict[str, Any]) -> None:
        value["files"]["labels.csv"] = {"bytes": len(labels), "sha256": sha256(labels)}
        value["shards"][0] |= {"images": 5, "duplicates": len(duplicates), "index": sha256(index)}

    resign(consortium, folder, change)


def test_the_coordinator_cannot_leave_an_image_out_unseen(published: Any) -> None:
    consortium, folder = published
    leave_out(consortium, folder)
    with pytest.raises(VerificationError, match="leaves out"):
        verify_dataset(folder)


def test_the_coordinator_cannot_call_an_image_a_duplicate_of_another(published: Any) -> None:
    consortium, folder = published
    line = (folder / "provenance/north/formal/0001.entries").read_bytes().splitlines()[0]
    for kept in (json.loads(line)["name"], "0" * 32):
        fresh = shutil.copytree(folder, folder.parent / f"other-{kept}")
        leave_out(consortium, fresh, kept_name=kept)
        with pytest.raises(VerificationError, match="leaves out images as those of site 'north'"):
            verify_dataset(fresh)


@pytest.mark.parametrize("said", [{"name": "f" * 32}, {"name": "../x"}, {"more": 1}, {"kept_name": "x"}])
def test_an_index_that_does_not_fit_its_entries_is_refused(published: Any, said: dict[str, Any]) -> None:
    consortium, folder = published
    leave_out(consortium, folder, **said)
    with pytest.raises(VerificationError, match=r"shards/east/formal/0001\.json"):
        verify_dataset(folder)


def test_an_index_of_another_shard_is_refused(published: Any) -> None:
    consortium, folder = published
    index = (folder / "shards/north/formal/0001.json").read_bytes()
    (folder / "shards/east/formal/0001.json").write_bytes(index)
    with pytest.raises(VerificationError, match=r"shards/east/formal/0001\.json was altered"):
        verify_dataset(folder)
    resign(consortium, folder, lambda value: value["shards"][0].update(index=sha256(index)))
    with pytest.raises(VerificationError, match=r"shards/east/formal/0001\.json does not fit"):
        verify_dataset(folder)


def test_labels_say_what_the_sites_signed(published: Any) -> None:
    consortium, folder = published
    labels = (folder / "labels.csv").read_bytes()
    for other in (labels.replace(b",normal,", b",abnormal,", 1), labels + b"\n", labels[:-1], b""):
        (folder / "labels.csv").write_bytes(other)
        entry = {"bytes": len(other), "sha256": sha256(other)}
        resign(consortium, folder, lambda value, entry=entry: value["files"].update({"labels.csv": entry}))
        with pytest.raises(VerificationError, match=r"labels\.csv does not say"):
            verify_dataset(folder)


def test_workers_find_the_same(published: Any) -> None:
    consortium, folder = published
    told: list[int] = []
    key = consortium.authority.public_key
    assert verify_dataset(folder, key, workers=2, progress=told.append) == verify_dataset(folder, key)
    assert told == [6, 6, 6]
    image = next((folder / "images" / "south").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(VerificationError, match=image.name):
        verify_dataset(folder, workers=3)


def test_duplicates_are_left_out_listed_and_still_verify(consortium: Any, tmp_path: Path) -> None:
    mine, theirs = consortium.images(1), consortium.images(2)
    theirs[0] = replace(theirs[0], png=mine[3].png)
    pool = pooled(consortium, north={"images": mine}, south={"images": theirs})
    result = publish(pool, consortium.plan, tmp_path / "out", consortium.authority, RUN, None)
    assert result.images == 17
    assert verify_dataset(result.folder).images == 17
    assert theirs[0].facts.name in result.report.read_text()
    assert not list(result.folder.rglob(f"{theirs[0].facts.name}.png"))
    ((site, item),) = open_folder(result.folder).duplicates()
    assert (site, item.name, item.kept_name) == ("south", theirs[0].facts.name, mine[3].facts.name)


def test_publishing_again_replaces_the_whole_set(published: Any) -> None:
    consortium, folder = published
    first = {path.name for path in files(folder)}
    pool = pooled(consortium, north={"images": consortium.images(77)})
    publish(pool, consortium.plan, folder.parent, consortium.authority, RUN, None)
    verify_dataset(folder, consortium.authority.public_key)
    assert {path.name for path in files(folder)} != first
    assert {path.name for path in folder.parent.iterdir()} == {"published"}


def test_a_folder_that_is_something_else_is_left_alone(consortium: Any, tmp_path: Path) -> None:
    (tmp_path / "out" / "published").mkdir(parents=True)
    (tmp_path / "out" / "published" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not a published data set"):
        publish(pooled(consortium), consortium.plan, tmp_path / "out", consortium.authority, RUN, None)
    assert (tmp_path / "out" / "published" / "thesis.txt").read_text() == "mine"
    assert [path.name for path in (tmp_path / "out" / "published").iterdir()] == ["thesis.txt"]


def test_a_failed_write_leaves_the_earlier_set(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    consortium, folder = published

    def fails(*_: Any) -> None:
        raise OSError("disk full")

    pool = pooled(consortium, north={"images": consortium.images(77)})
    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="disk full"):
        publish(pool, consortium.plan, folder.parent, consortium.authority, RUN, None)
    monkeypatch.undo()
    verify_dataset(folder, consortium.authority.public_key)
    assert {path.name for path in folder.parent.iterdir()} == {"published"}


def test_verifying_something_else_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a published data set"):
        verify_dataset(tmp_path)


def test_a_moved_data_set_still_verifies(published: Any, tmp_path: Path) -> None:
    _, folder = published
    shutil.copytree(folder, tmp_path / "elsewhere")
    verify_dataset(tmp_path / "elsewhere")


class Resources(html.parser.HTMLParser):
    """Collects what a browser would fetch, and the structure that a screen reader needs."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.without_alt = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.fetched += [str(values[key]) for key in ("src", "href", "srcset", "data", "poster") if key in values]
        self.without_alt += tag == "img" and not values.get("alt")


def test_the_report_needs_nothing_from_outside(published: Any) -> None:
    _, folder = published
    text = (folder / "report.html").read_text()
    parser = Resources()
    parser.feed(text)
    assert parser.fetched
    # but for links to places on the page itself, every one of which is there
    assert all(item.startswith(("data:image/png;base64,", "#")) for item in parser.fetched)
    assert all(f'id="{item[1:]}"' in text for item in parser.fetched if item.startswith("#"))
    assert not re.search(r"https?://|@import|url\(|<script|<link|<iframe", text)
    assert parser.without_alt == 0
    assert parser.tags.count("h1") == 1
    assert parser.tags.count("figure") == 6


def test_the_report_says_what_the_epsilons_mean(published: Any) -> None:
    consortium, folder = published
    text = (folder / "report.html").read_text()
    for fact in (
        "1.699",
        "1.881",
        "3.805",
        "a patient known to two sites",
        "3.397",
        "7.609",
        "0.0002",
        "0.0001",
        "patient",
        "add/remove",
        "noise multiplier 2",
        "gate verdict",
        "1 bit",
        "formal",
        "0.910",
        "0.870 to 0.940",
        "0.710",
        "the noise left no figure",
        "What is not covered",
        consortium.plan.digest,
        fingerprint(consortium.authority.public_key),
        fingerprint(consortium.identities["north"].signing_public),
        "south",
    ):
        assert fact in text
    assert "TEST NOISE" not in text
    assert str(folder.parent) not in text


def test_test_noise_is_loud_and_takes_the_guarantee_from_all(consortium: Any, tmp_path: Path) -> None:
    pool = pooled(consortium, north={"certificate": consortium.certificate(noise="test")})
    text = publish(pool, consortium.plan, tmp_path, consortium.authority, RUN, None).report.read_text()
    assert text.count("TEST NOISE: no guarantee") == 2
    assert 'role="alert"' in text
    assert '<td class="word">formal' not in text
    rows = list(csv.DictReader((tmp_path / "published" / "labels.csv").open()))
    assert {(row["epsilon"], row["delta"], row["unit"]) for row in rows} == {("", "", "")}
    for card in ("README.md", "DATASHEET.md", "croissant.json", "facts.json"):
        said = (tmp_path / "published" / card).read_text()
        assert "guarantee: formal" not in said and "| formal |" not in said and '"guarantee":"formal"' not in said


def test_what_a_site_writes_is_escaped(consortium: Any, tmp_path: Path) -> None:
    declared = [*consortium.certificate().model_dump()["declared"], {"what": "<b>", "bits": 1}]
    hostile = consortium.certificate(covers="<script>alert(1)</script><img src=http://evil/>", declared=declared)
    pool = pooled(consortium, north={"certificate": hostile})
    text = publish(pool, consortium.plan, tmp_path, consortium.authority, RUN, None).report.read_text()
    assert "<script" not in text
    assert "<img src=http" not in text
    assert "&lt;b&gt;" in text


def test_contact_sheets_show_the_published_pixels(consortium: Any) -> None:
    pool = pooled(consortium)
    made = sheets.contact_sheets(pool, consortium.plan)
    assert [(sheet.site, sheet.label) for sheet in made[:2]] == [("east", "abnormal"), ("east", "normal")]
    assert all(sheet.shown == sheet.of == 3 for sheet in made)
    first = next(item for item in pool.items if (item.site, item.facts.label) == ("east", "abnormal"))
    tile = decode_png(first.png)
    with Image.open(io.BytesIO(base64.b64decode(made[0].uri.partition(",")[2]))) as sheet:
        assert np.array_equal(np.asarray(sheet)[:16, :16], tile)  # one pixel of the image is one of the sheet
    enlarged = pictures.mosaic([[tile]])
    factor = enlarged.shape[1] // (pictures.COLUMNS * (16 + pictures.GAP) - pictures.GAP)
    assert enlarged.shape[1] >= pictures.LEAST_WIDTH
    assert np.array_equal(enlarged[: 16 * factor : factor, : 16 * factor : factor], tile)


def test_colour_sheets() -> None:
    tile = np.zeros((16, 16, 3), np.uint8)
    assert pictures.mosaic([[tile, tile], [tile]]).shape[2] == 3


def test_small_helpers() -> None:
    assert [size(value) for value in (0, 999, 1000, 123_456, 5_000_000)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "5.0 MB",
    ]
    rows = stage_rows([{"stage": "gan", "seconds": 1.5}, {"stage": "gan", "seconds": 2, "bytes_up": 7}])
    assert [(row.exchanges, row.seconds, row.bytes_up) for row in rows] == [(2, 3.5, 7)]
    assert utility_rows(None) == []


def test_the_overview_shows_every_site_and_model_and_verifies_first(published: Any, tmp_path: Path) -> None:
    folder, target = published[1], tmp_path / "overview.png"
    assert write_overview(folder, target) == 18
    assert target.read_bytes().startswith(b"\x89PNG")
    target.unlink()
    (folder / "labels.csv").write_text("altered")
    with pytest.raises(VerificationError):
        write_overview(folder, target)
    assert not target.exists()


@pytest.mark.parametrize("level", ["formal", "formal, labels public"])
def test_test_noise_takes_every_word_that_an_epsilon_stands_behind(consortium: Any, level: Any) -> None:
    pool = pooled(consortium, north={"certificate": consortium.certificate(noise="test")})
    said = Counter({source._replace(guarantee=level): images for source, images in pool.counts.items()})
    pool = replace(pool, counts=said)
    assert {row.guarantee for row in release_rows(pool, consortium.plan, guarantees(pool.certificates))} == {
        NO_GUARANTEE
    }
    sound = replace(pooled(consortium), counts=said)
    assert {row.guarantee for row in release_rows(sound, consortium.plan, guarantees(sound.certificates))} == {level}


def test_averages_in_a_models_space_are_not_said_to_be_under_its_guarantee() -> None:
    class Study:
        candidates, foreign_detail = ("appearance",), "Lines are nobody's."

        def __init__(self) -> None:
            self.counts = Counter({Source("east", "normal", "appearance", "dp-sampling", "formal"): 1})

        def stage(self, kind: str) -> Any:
            return self

    alone: Any = Study()
    assert foreign_details(alone, alone) == [("appearance", "Lines are nobody's.")]
    both: Any = Study()
    both.counts[Source("east", "normal", "appearance", "k-same", "syntactic")] = 1
    both.counts[Source("east", "normal", "appearance", "dp-k-average", "formal")] = 1
    ((_, said),) = foreign_details(both, both)
    assert "by k-same what" in said and "no epsilon covers it" in said and "dp-k-average" not in said
