"""The contract of the forms of a published set: the same pixels, the same bytes, all back to the same signatures.

To add a format: its line in `FORMATS` is enough to be tested here.
"""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.damaged import flipped
from support.published import FORMS, published_set

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.imaging import encode_png, pixel_hash
from sfumato_server.publish import convert, open_folder, verify_dataset
from sfumato_server.publish.converted import INDEX, STATEMENT, Source, open_source
from sfumato_server.publish.formats import FORMATS, base, format_of
from sfumato_server.publish.manifest import FORM, MANIFEST


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Published sets by image form."""
    return {form: published_set(tmp_path_factory.mktemp(form), **words) for form, words in FORMS.items()}


@pytest.fixture(params=FORMATS)
def name(request):
    return request.param


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


@pytest.fixture
def few_a_shard(monkeypatch):
    """Five images a shard, so that a small set has several."""
    shrunk = {name: replace(known, per_shard=lambda plan: 5) for name, known in FORMATS.items()}
    monkeypatch.setattr("sfumato_server.publish.formats.FORMATS", shrunk)


def key_of(folder):
    return (folder.parent / "key.pem").read_bytes()


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels_of(source: Source):
    format_ = source.converted
    for shard in source.shards(format_):
        yield from format_.read(source.folder, shard, source.about)


def files_of_images(folder):
    beside = (FORM, INDEX)
    return sorted(name for name in tree(folder) if name not in beside and not name.startswith(f"{STATEMENT}/"))


def test_the_same_pixels_come_back_and_verify_to_the_same_signatures(sets, form, name, tmp_path, few_a_shard):
    folder, out = sets[form], tmp_path / "out"
    done = convert(folder, name, out)
    wanted = {image.entry.name: image.pixels for image in open_folder(folder).images()}
    found = dict(pixels_of(open_source(out)))
    assert done.images == len(wanted) == len(found) == 12
    for own, pixels in wanted.items():
        assert found[own].dtype == pixels.dtype and np.array_equal(found[own], pixels)
    assert verify_dataset(out, key_of(folder)) == verify_dataset(folder, key_of(folder))
    assert (out / STATEMENT / MANIFEST).read_bytes() == (folder / MANIFEST).read_bytes()
    assert done.files == len(tree(out)) and done.bytes == sum(map(len, tree(out).values()))


def test_the_bytes_are_the_same_again_and_from_many_processes(sets, form, name, tmp_path):
    first = convert(sets[form], name, tmp_path / "one")
    again = convert(sets[form], name, tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two") and first.bytes == again.bytes


def test_processes_share_the_shards(tmp_path):
    """Enough images for two shards of a form that writes 1,000 at once."""
    folder = published_set(tmp_path, images=600)
    one, two = convert(folder, "png", tmp_path / "one"), convert(folder, "png", tmp_path / "two", workers=2)
    assert one.images == two.images == 1200 and tree(tmp_path / "one") == tree(tmp_path / "two")
    fullest = max(len(list(path.iterdir())) for path in (tmp_path / "two" / "images").rglob("*") if path.is_dir())
    assert fullest <= base.LARGEST_FOLDER
    verify_dataset(tmp_path / "two", key_of(folder))


def test_a_set_goes_from_any_form_back_to_pictures(sets, name, tmp_path, few_a_shard):
    there, back = tmp_path / "there", tmp_path / "back"
    convert(sets["grey-16"], name, there)
    convert(there, "png", back)
    direct = tmp_path / "direct"
    convert(sets["grey-16"], "png", direct)
    assert tree(back) == tree(direct)


def test_a_folder_that_holds_something_is_left_alone(sets, name, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something"):
        convert(sets["grey-8"], name, tmp_path / "out")
    assert tree(tmp_path) == {"out/mine.txt": b"mine"}
    (tmp_path / "out" / "mine.txt").unlink()
    convert(sets["grey-8"], name, tmp_path / "out")
    inside = tmp_path / "out" / "inside"
    with pytest.raises(ConfigError, match="inside the set itself"):
        convert(tmp_path / "out", "png", inside)


def test_nothing_stays_of_a_conversion_that_fails(sets, name, tmp_path):
    """The last image is another picture than its site signed: it is found before anything has the name."""
    folder = tmp_path / "set"
    shutil.copytree(sets["grey-8"], folder)
    published = open_folder(folder)
    last = published.image(list(published.entries())[-1])
    (folder / last.file).write_bytes(encode_png(255 - last.pixels))
    with pytest.raises(VerificationError, match="not the picture that site"):
        convert(folder, name, tmp_path / "out", workers=2)
    assert {path.name for path in tmp_path.iterdir()} == {"set"}


def test_one_byte_anywhere_is_noticed(sets, name, tmp_path):
    """Of every file a byte at the beginning, in the middle and at the end; and a byte more, and a byte less."""
    out = tmp_path / "out"
    convert(sets["rgb-8"], name, out)
    key = key_of(sets["rgb-8"])
    chosen = [*files_of_images(out)[:2], INDEX, FORM, f"{STATEMENT}/{MANIFEST}", f"{STATEMENT}/report.html"]
    for file in chosen:
        whole = (out / file).read_bytes()
        turned = [flipped(whole, at) for at in (0, len(whole) // 2, -1)]
        for wrong in (*turned, whole + b"\0", whole[:-1], b""):
            (out / file).write_bytes(wrong)
            # Parquet's last bytes are its magic number, and everything it says hangs on its footer
            with pytest.raises(VerificationError):
                verify_dataset(out, key)
        (out / file).write_bytes(whole)
    verify_dataset(out, key)


def test_missing_extra_and_linked_files_are_noticed(sets, name, tmp_path):
    out = tmp_path / "out"
    convert(sets["grey-8"], name, out)
    key, file = key_of(sets["grey-8"]), files_of_images(out)[0]
    (out / file).rename(tmp_path / "kept")
    with pytest.raises(VerificationError, match="missing"):
        verify_dataset(out, key)
    (out / file).symlink_to(tmp_path / "kept")
    with pytest.raises(VerificationError, match="not a plain file"):
        verify_dataset(out, key)
    (out / file).unlink()
    (tmp_path / "kept").rename(out / file)
    for extra in ("more.txt", f"{Path(file).parent}/more.png", f"{STATEMENT}/more.txt"):
        (out / extra).write_text("more")
        with pytest.raises(VerificationError, match=f"{extra} does not belong"):
            verify_dataset(out, key)
        (out / extra).unlink()
    shutil.rmtree(out / STATEMENT)
    with pytest.raises(VerificationError, match=f"{STATEMENT} is missing"):
        verify_dataset(out, key)


def test_what_a_system_leaves_in_a_folder_is_listed_and_read_by_nobody(sets, name, tmp_path):
    out = tmp_path / "out"
    convert(sets["grey-8"], name, out)
    room = Path(files_of_images(out)[0]).parent
    strays = {(room / ".DS_Store").as_posix(), f"{STATEMENT}/Thumbs.db", ".gitattributes"}
    for stray in strays:
        (out / stray).write_bytes(b"\0\0\0\1Bud1")
    report = verify_dataset(out, key_of(sets["grey-8"]))
    assert set(report.strays) == strays
    again = tmp_path / "again"
    convert(out, "png", again)
    assert verify_dataset(again, key_of(sets["grey-8"])).strays == ()


def test_two_images_that_changed_places_are_noticed(sets, name, tmp_path, few_a_shard):
    """Each is an image of the set, as its site signed it, under the name of another."""
    folder = sets["grey-8"]
    source = open_source(folder)
    images = [image for shard in source.shards(format_of(name)) for image in source.images(shard)]
    others = zip(images, [*images[1:], images[0]], strict=True)
    swapped = [replace(one, pixels=other.pixels, png=other.png) for one, other in others]
    out = tmp_path / "out"
    convert(folder, name, out)
    for path in files_of_images(out):
        (out / path).unlink()
    for directory in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        if STATEMENT not in directory.parts and not any(directory.iterdir()):
            directory.rmdir()
    for shard in source.shards(format_of(name)):
        own = swapped[shard.start : shard.start + len(shard.entries)]
        format_of(name).write(out, shard, own, source.about)
    with pytest.raises(VerificationError, match="not the picture that site"):
        verify_dataset(out, key_of(folder))


def test_another_sets_images_under_these_signatures_are_noticed(sets, name, tmp_path):
    for form in ("grey-8", "grey-16"):
        convert(sets[form], name, tmp_path / form)
    shutil.rmtree(tmp_path / "grey-8" / STATEMENT)
    shutil.copytree(tmp_path / "grey-16" / STATEMENT, tmp_path / "grey-8" / STATEMENT)
    with pytest.raises(VerificationError, match="speaks of another set"):
        verify_dataset(tmp_path / "grey-8", key_of(sets["grey-16"]))
    with pytest.raises(VerificationError, match="not the trusted coordinator's key"):
        verify_dataset(tmp_path / "grey-16", key_of(sets["grey-8"]))


def test_the_index_says_where_every_image_is(sets, name, tmp_path, few_a_shard):
    out = tmp_path / "out"
    convert(sets["grey-8"], name, out)
    rows = list(csv.DictReader((out / INDEX).open()))
    entries = {entry.name: entry for entry in open_folder(sets["grey-8"]).entries()}
    assert [row["name"] for row in rows] == list(entries)
    assert {row["file"] for row in rows} == set(files_of_images(out))
    for row in rows:
        # the published file and its hash are of that form alone
        said = entries[row["name"]].model_dump(exclude={"file", "sha256"})
        assert said == {key: row[key] for key in said}


def test_an_unknown_form_is_refused(sets, tmp_path):
    with pytest.raises(ConfigError, match="choose one of png, dicom"):
        convert(sets["grey-8"], "tiff", tmp_path / "out")
    convert(sets["grey-8"], "png", tmp_path / "out")
    said = json.loads((tmp_path / "out" / FORM).read_text())
    for wrong in ({**said, "form": "tiff"}, {**said, "images": 11}, {**said, "more": 1}, [], {"a": {}}):
        (tmp_path / "out" / FORM).write_text(json.dumps(wrong))
        with pytest.raises((ConfigError, VerificationError)):
            verify_dataset(tmp_path / "out", key_of(sets["grey-8"]))


def test_pixel_hashes_know_no_form(sets, form):
    published = open_folder(sets[form])
    image = next(published.images())
    plain = np.ascontiguousarray(image.pixels).astype(f"<u{image.pixels.itemsize}").tobytes()
    assert pixel_hash(image.pixels) == hashlib.sha256(plain).hexdigest() == image.entry.pixel_sha256
