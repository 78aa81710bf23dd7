"""`sfumato dataset convert`: what people do with a converted set, and what hostile files are refused for."""

import csv
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
import typer.testing
import webdataset
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.published import LABELS, published_set

from sfumato_common.errors import ConfigError, NoRoomError, SfumatoError, UnverifiedOrigin, VerificationError
from sfumato_common.imaging import encode_png, pixel_hash
from sfumato_server.cli.dataset import dataset_app, dataset_convert, dataset_verify
from sfumato_server.evaluate.made import read_made
from sfumato_server.publish import convert, open_folder, verify_dataset
from sfumato_server.publish.formats import FORMATS, format_of
from sfumato_server.publish.formats.png import packed

SFUMATO = Path(sys.executable).with_name("sfumato")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return published_set(tmp_path_factory.mktemp("set"), images=8)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    return published_set(tmp_path_factory.mktemp("deep"), bits=16)


def sfumato(*words):
    done = subprocess.run([SFUMATO, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def test_datasets_loads_it_in_one_line_offline(folder, tmp_path):
    """In a process of its own: the package reads its environment when it is imported."""
    convert(folder, "parquet", tmp_path / "out")
    script = """
import json, sys, socket
def refuse(*_): raise OSError("no network here")
socket.socket.connect = refuse
import datasets
found = datasets.load_dataset(sys.argv[1])
train = found["train"]
print(json.dumps({"splits": list(found), "labels": train.features["label"].names, "names": list(train["name"]),
    "label": list(train["label"]), "sums": [sum(image.tobytes()) for image in train["image"]]}))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    words = [sys.executable, "-c", script, str(tmp_path / "out")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    images = list(open_folder(folder).images())
    assert found["splits"] == ["train"] and found["labels"] == list(LABELS)
    assert found["names"] == [image.entry.name for image in images]
    assert [LABELS[label] for label in found["label"]] == [image.entry.label for image in images]
    assert found["sums"] == [int(image.pixels.sum()) for image in images]


def test_pandas_reads_it_in_one_line(deep, tmp_path):
    convert(deep, "parquet", tmp_path / "out")
    table = pandas.read_parquet(tmp_path / "out" / "data")
    assert len(table) == 12 and set(table["site"]) == {"east", "north"}
    for row in table.itertuples():
        pixels = np.asarray(Image.open(io.BytesIO(row.image["bytes"])))
        assert pixels.dtype == np.uint16 and pixel_hash(pixels) == row.pixel_sha256


def test_webdataset_and_tarfile_read_the_shards(folder, tmp_path):
    convert(folder, "webdataset", tmp_path / "out")
    (tar,) = (tmp_path / "out" / "data").iterdir()
    images = {image.entry.name: image for image in open_folder(folder).images()}
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode("l8").to_tuple("png", "json"))
    assert len(samples) == len(images)
    for pixels, said in samples:
        assert said == images[said["name"]].entry.model_dump(exclude={"file", "sha256"})
        assert np.array_equal(pixels, images[said["name"]].pixels)
    with tarfile.open(tar) as opened:
        members = opened.getmembers()
        assert [member.name for member in members] == [
            f"{name}.{ending}" for name in images for ending in ("png", "json")
        ]
        assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {
            (0, 0, "", "", 0)
        }


def test_pictures_lie_in_a_folder_a_label(deep, tmp_path):
    convert(deep, "png", tmp_path / "out")
    for path in (tmp_path / "out" / "images").rglob("*.png"):
        (entry,) = (entry for entry in open_folder(deep).entries() if entry.name == path.stem)
        assert path.parts[-3] == entry.label and pixel_hash(np.asarray(Image.open(path))) == entry.pixel_sha256


def test_the_command_says_what_it_wrote(folder, tmp_path):
    """By processes of their own, as people call it; then what is refused, in this one."""
    d = tmp_path / "d"
    code, said, _ = sfumato("dataset", "convert", folder, "--to", "dicom", "--multi-frame", "--out", d, "--json")
    assert code == 0 and (json.loads(said)["form"], json.loads(said)["images"]) == ("dicom-multi-frame", 16)
    code, said, _ = sfumato("dataset", "verify", d, "--key", folder.parent / "key.pem", "--json")
    assert code == 0 and json.loads(said)["trusted"] and json.loads(said)["images"] == 16
    with pytest.raises(UnverifiedOrigin, match="UNVERIFIED ORIGIN"):
        dataset_verify(d)
    (tmp_path / "empty").mkdir()
    for source, to, more, what in (
        (folder, "png", {"multi_frame": True}, "--multi-frame is for --to dicom"),
        (folder, "jpeg", {}, "unknown format 'jpeg'; choose one of png, dicom"),
        (folder, "png", {"workers": 0}, "--workers takes a number from 1"),
        (tmp_path / "empty", "png", {}, "not a published data set"),
    ):
        with pytest.raises(ConfigError, match=what):
            dataset_convert(source, to, tmp_path / "x", **more)
        assert not (tmp_path / "x").exists()


def test_help_names_every_format():
    said = typer.testing.CliRunner().invoke(dataset_app, ["convert", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in said for name in FORMATS)


def test_the_page_for_researchers_has_every_format():
    page = (Path(__file__).parents[2] / "docs" / "researcher.md").read_text()
    rows = [f"| `{form.name}` | {form.purpose} | `{form.opened_by}` |" for form in FORMATS.values()]
    assert "\n".join(rows) in page


def test_what_a_worker_says_is_said(tmp_path, monkeypatch):
    """A full disk in a worker is a full disk; a worker that was killed is said to be."""
    folder = published_set(tmp_path, images=600)
    for code, said, kind, what in (
        (11, "the disk is full\n", NoRoomError, "^the disk is full$"),
        (-9, "", SfumatoError, "killed"),
    ):
        monkeypatch.setattr(
            "sfumato_server.publish.conversion.run_to_end", lambda *_, code=code, said=said: (code, said)
        )
        with pytest.raises(kind, match=what):
            convert(folder, "png", tmp_path / "out", workers=2)
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out-*"))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("sfumato_server.publish.formats.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"'dicom' needs highdicom: pip install"):
        format_of("dicom")
    assert format_of("webdataset").name == "webdataset"


def test_a_conversion_that_is_killed_leaves_nothing_under_the_name(tmp_path):
    folder = published_set(tmp_path / "set", images=600)
    words = [SFUMATO, "dataset", "convert", folder, "--to", "dicom", "--out", tmp_path / "out", "--workers", "2"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".out-*/dicom/*/*.dcm")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    assert not (tmp_path / "out").exists()
    time.sleep(0.5)
    left = len(list(tmp_path.glob(".out-*/dicom/*/*.dcm")))
    time.sleep(0.5)
    assert len(list(tmp_path.glob(".out-*/dicom/*/*.dcm"))) == left < 1200, "workers outlived their parent"
    done = convert(folder, "png", tmp_path / "out")
    assert done.images == 1200


def replaced(old, new):
    """The first file has other bytes in the place of those, of the same length."""
    assert len(old) == len(new)

    def change(path):
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))

    return change


def hidden_element(path):
    found = pydicom.dcmread(path)
    found.private_block(0x0011, "SOMEBODY", create=True).add_new(0x01, "LO", "hidden")
    found.save_as(path)


def other_pixels(path):
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 7]))


def tar_again(change):
    """The shard with its members changed by a function of (member, data): a list of such pairs."""

    def rewrite(path):
        with tarfile.open(path) as opened:
            members = [(member, opened.extractfile(member).read()) for member in opened]
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as written:
            for at, pair in enumerate(members):
                for member, data in change(*pair) if at == 2 else [pair]:
                    member.size = len(data)
                    written.addfile(member, io.BytesIO(data))

    return rewrite


def named(member, name, **more):
    other = tarfile.TarInfo(name)
    other.mode = 0o644
    for key, value in more.items():
        setattr(other, key, value)
    return other


def with_text(png, text):
    info = PngInfo()
    info.add_text("Patient", text)
    stream = io.BytesIO()
    Image.open(io.BytesIO(png)).save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def table_again(change, **form):
    """The file with its table changed, written with the same metadata."""

    def rewrite(path):
        table = pq.read_table(path)
        pq.write_table(change(table), path, compression="none", write_statistics=False, **form)

    return rewrite


def column(name, values):
    return lambda table: table.set_column(table.schema.get_field_index(name), table.schema.field(name), values(table))


def pickled(table):
    """A column whose type is an extension that old readers made by unpickling its metadata."""
    payload = pickle.dumps({"a": 1})
    sites = pa.field(
        "site",
        pa.string(),
        metadata={"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": payload},
    )
    return table.set_column(3, sites, table["site"])


def swapped_labels(table):
    return pa.array([1 - value for value in table["label"].to_pylist()], pa.int64())


HOSTILE = {
    "dicom: a person's name": ("dicom", replaced(b"Synthetic^000001", b"Doe^Jane--------"), "its header is not"),
    "dicom: a hidden element": ("dicom", hidden_element, "not of the size"),
    "dicom: a program before it": (
        "dicom",
        lambda path: path.write_bytes(b"MZ" + path.read_bytes()[2:]),
        "its header is not",
    ),
    "dicom: other pixels": ("dicom", other_pixels, "not the picture"),
    "dicom: another label": ("dicom", replaced(b"Synthetic: normal", b"Synthetic: benign"), "its header is not"),
    "frames: other pixels": ("dicom-multi-frame", other_pixels, "not the picture"),
    "frames: another guarantee": (
        "dicom-multi-frame",
        replaced(b"guarantee: formal", b"guarantee: proved"),
        "its header is not",
    ),
    "tar: a path that climbs": (
        "webdataset",
        tar_again(lambda m, d: [(named(m, "../../climbs.png"), d)]),
        "another member",
    ),
    "tar: an absolute path": ("webdataset", tar_again(lambda m, d: [(named(m, "/etc/passwd"), d)]), "another member"),
    "tar: a link": (
        "webdataset",
        tar_again(lambda m, d: [(named(m, m.name, type=tarfile.SYMTYPE, linkname="/etc"), b"")]),
        "another member",
    ),
    "tar: a member more": (
        "webdataset",
        tar_again(lambda m, d: [(named(m, "more.txt"), b"x"), (m, d)]),
        "another member",
    ),
    "tar: a member twice": ("webdataset", tar_again(lambda m, d: [(m, d), (m, d)]), "another member"),
    "tar: an owner": ("webdataset", tar_again(lambda m, d: [(named(m, m.name, uname="jane"), d)]), "another member"),
    "tar: other words": ("webdataset", replaced(b'"guarantee":"formal"', b'"guarantee":"proved"'), "does not say what"),
    "tar: a text in a picture": (
        "webdataset",
        tar_again(lambda m, d: [(m, with_text(d, "Doe"))]),
        "something besides its picture",
    ),
    "png: a text in a picture": (
        "png",
        lambda path: path.write_bytes(with_text(path.read_bytes(), "Doe")),
        "something besides its picture",
    ),
    "png: a huge file": ("png", lambda path: path.write_bytes(bytes(10**7)), "larger than an image of the study"),
    "parquet: a column less": ("parquet", table_again(lambda table: table.drop_columns(["site"])), "other columns"),
    "parquet: a column more": (
        "parquet",
        table_again(lambda table: table.append_column("age", table["label"])),
        "other columns",
    ),
    "parquet: another type": (
        "parquet",
        table_again(lambda table: table.set_column(1, "label", table["label"].cast(pa.int32()))),
        "other columns",
    ),
    "parquet: a pickle": ("parquet", table_again(pickled), "other columns"),
    "parquet: more in its metadata": (
        "parquet",
        table_again(lambda table: table.replace_schema_metadata({**table.schema.metadata, b"x": b"y"})),
        "other columns",
    ),
    "parquet: other class names": (
        "parquet",
        table_again(
            lambda table: table.replace_schema_metadata(
                {b"huggingface": table.schema.metadata[b"huggingface"].replace(b"abnormal", b"all well")}
            )
        ),
        "other columns",
    ),
    "parquet: labels swapped": (
        "parquet",
        table_again(column("label", swapped_labels)),
        "does not say what the signed entry says",
    ),
    "parquet: a row less": ("parquet", table_again(lambda table: table.slice(1)), "another number of images"),
    "parquet: rows in another order": (
        "parquet",
        table_again(lambda table: table.take(list(range(len(table)))[::-1])),
        "does not say",
    ),
    "parquet: no Parquet": ("parquet", lambda path: path.write_bytes(pickle.dumps([1, 2])), "no Parquet file"),
    "parquet: empty images": (
        "parquet",
        table_again(column("image", lambda table: pa.nulls(len(table), table.schema.field("image").type))),
        "does not say",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(folder, tmp_path, what):
    name, change, said = HOSTILE[what]
    out, key = tmp_path / "out", (folder.parent / "key.pem").read_bytes()
    convert(folder, name, out)
    verify_dataset(out, key)
    first = next(path for entry in open_folder(folder).entries() for path in [out / place_of(out, entry.name)])
    change(first)
    with pytest.raises(VerificationError, match=said) as caught:
        verify_dataset(out, key)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200
    assert not (tmp_path / "climbs.png").exists()


def place_of(out, name):
    """The file of an image, as the index says it."""
    with (out / "index.csv").open() as stream:
        return next(row["file"] for row in csv.DictReader(stream) if row["name"] == name)


@pytest.mark.parametrize("name", ["png", "webdataset", "parquet"])
def test_a_picture_is_copied_as_its_site_signed_it_and_never_unchecked(folder, tmp_path, name, monkeypatch):
    """Nothing is packed anew; a file of the same pixels that its site did not sign is refused, and leaves nothing."""
    monkeypatch.setattr("sfumato_server.publish.formats.png.encode_png", lambda pixels: pytest.fail("packed anew"))
    convert(folder, name, tmp_path / "out")
    signed = {entry.name: entry.sha256 for entry in open_folder(folder).entries()}
    if name == "png":
        found = {path.stem: path.read_bytes() for path in (tmp_path / "out/images").rglob("*.png")}
    elif name == "parquet":
        table = pandas.read_parquet(tmp_path / "out/data")
        found = {row.name: row.image["bytes"] for row in table.itertuples(index=False)}
    else:
        (tar,) = (tmp_path / "out/data").iterdir()
        with tarfile.open(tar) as opened:
            found = {
                own.name.removesuffix(".png"): opened.extractfile(own).read()
                for own in opened
                if own.name[-3:] == "png"
            }
    assert {own: hashlib.sha256(png).hexdigest() for own, png in found.items()} == signed
    other = shutil.copytree(folder, tmp_path / "other")
    path = next((other / "images").rglob("*.png"))
    Image.open(path).save(path, compress_level=1)
    with pytest.raises(VerificationError, match="is not the file that site"):
        convert(other, name, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_bytes_beyond_what_pixels_need_are_packed_anew(folder):
    image = next(open_folder(folder).images())
    assert packed(image) == image.png
    long = replace(image, png=image.png + bytes(4096))
    assert packed(long) == encode_png(image.pixels) != long.png


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_adds_up_however_many_write(tmp_path, workers):
    folder, told = published_set(tmp_path, images=600), []
    convert(folder, "png", tmp_path / "out", workers, told.append)
    assert (sum(told), min(told) >= 0) == (1200, True) if workers == 1 else 0 <= sum(told) <= 1200


def test_info_diff_card_and_evaluate_take_a_converted_set(folder, tmp_path):
    convert(folder, "webdataset", tmp_path / "tars")
    run = typer.testing.CliRunner().invoke
    plain, tars = (run(dataset_app, ["info", str(place), "--json"]).stdout for place in (folder, tmp_path / "tars"))
    assert json.loads(plain) == json.loads(tars) and json.loads(plain)["images"] == 16
    found = run(dataset_app, ["diff", str(folder), str(tmp_path / "tars"), "--json"])
    assert json.loads(found.stdout)["same"], found.output
    cards = run(dataset_app, ["card", str(tmp_path / "tars"), "--out", str(tmp_path / "cards"), "--json"])
    assert "README.md" in json.loads(cards.stdout)["written"], cards.output
    made = [read_made(place, 10) for place in (folder, tmp_path / "tars")]
    assert np.array_equal(made[0].images.pixels, made[1].images.pixels) and len(made[0].images) == 10
    assert np.array_equal(made[0].images.labels, made[1].images.labels)
    assert made[0].manifest_sha256 == made[1].manifest_sha256


def test_a_converted_set_is_told_from_a_folder_of_something_else(folder, tmp_path):
    convert(folder, "parquet", tmp_path / "out")
    with pytest.raises(ConfigError, match="in another form"):
        open_folder(tmp_path / "out")
    said = [list(open_folder(place).entries()) for place in (folder, tmp_path / "out" / "statement")]
    assert said[0] == said[1]
