import hashlib
import io
import json
import struct
import time
import zipfile
import zlib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from tests.support.certificates import CERTIFICATE

from sfumato_common.crypto.identity import SiteIdentity, create_identity
from sfumato_common.crypto.merkle import leaf_hash, merkle_root
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.imaging import decode_png, encode_png
from sfumato_common.package import Package, PackageImage, archive, build_package, open_package
from sfumato_common.package.archive import read_archive, write_archive
from sfumato_common.package.manifest import ImageFacts

PLAN = hashlib.sha256(b"plan").hexdigest()
LIMIT = 1 << 20


def said(image, **facts):
    """The image as one that says something else of itself, not checked yet."""
    return PackageImage(image.facts.model_copy(update=facts), image.png)


def images(count: int = 3, size: int = 16) -> list[PackageImage]:
    rng = np.random.default_rng(7)
    return [
        PackageImage(
            ImageFacts(
                name=rng.bytes(16).hex(),
                label="normal" if at % 2 else "abnormal",
                model="gan",
                method="dp-sampling",
                guarantee="formal",
            ),
            encode_png(rng.integers(0, 256, (size, size), dtype=np.uint8)),
        )
        for at in range(count)
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteIdentity:
    return create_identity(tmp_path_factory.mktemp("site") / "identity", "north")


def build(identity: SiteIdentity, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "site": "north",
        "study": "chest",
        "plan_hash": PLAN,
        "certificate": CERTIFICATE,
        "images": images(),
        "sign": identity.sign_package,
        "created": date(2026, 1, 2),
    }
    return build_package(**{**values, **changes})


def opened(data: bytes, site: SiteIdentity, **changes: Any) -> Package:
    values: dict[str, Any] = {"expected_site": "north", "expected_plan_hash": PLAN, "largest_bytes": LIMIT}
    return open_package(data, site.signing_public, **{**values, **changes})


@pytest.fixture(scope="module")
def data(site: SiteIdentity) -> bytes:
    return build(site)


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def resigned(site: SiteIdentity, manifest: bytes, pictures: Mapping[str, bytes]) -> bytes:
    return write_archive({**pictures, "manifest.json": manifest, "manifest.sig": site.sign_package(manifest)})


def test_round_trip(data: bytes, site: SiteIdentity) -> None:
    package = opened(data, site)
    found, head = list(package.images()), package.head
    assert found == sorted(images(), key=lambda image: image.facts.name)
    assert (head.site, head.study, head.plan_hash, head.created) == ("north", "chest", PLAN, "2026-01-02")
    assert (head.size, head.channels, head.part, head.images) == (16, 1, "formal", 3)
    assert package.certificate == CERTIFICATE
    assert package.entries[0].pixel_sha256 == hashlib.sha256(decode_png(found[0].png).tobytes()).hexdigest()


def test_the_same_release_gives_the_same_bytes(data: bytes, site: SiteIdentity) -> None:
    assert build(site, images=images()[::-1]) == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_every_single_altered_byte_is_refused(site: SiteIdentity) -> None:
    # the smallest package, every byte of it: archive headers, manifest, signature, picture, central directory
    small = build(site, images=images(1, 16))
    for at in range(len(small)):
        altered = bytearray(small)
        altered[at] ^= 1 << (at % 8)
        with pytest.raises(VerificationError):
            opened(bytes(altered), site)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_refused_with_one_error(data: bytes, site: SiteIdentity, given_data: st.DataObject) -> None:
    at = given_data.draw(st.integers(0, len(data)))
    cut = given_data.draw(st.integers(0, 40))
    insert = given_data.draw(st.binary(max_size=40))
    altered = data[:at] + insert + data[at + cut :]
    if altered == data:
        return
    with pytest.raises(VerificationError):
        opened(altered, site)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(site: SiteIdentity, noise: bytes) -> None:
    for prefix in (b"", b"PK\x03\x04", b"PK\x05\x06"):
        with pytest.raises(VerificationError):
            opened(prefix + noise, site)


@pytest.mark.parametrize(
    "changes",
    [
        {"expected_site": "south"},
        {"expected_plan_hash": "0" * 64},
        {"largest_bytes": 1000},
    ],
)
def test_wrong_site_plan_or_size_is_refused(data: bytes, site: SiteIdentity, changes: dict[str, Any]) -> None:
    with pytest.raises(VerificationError):
        opened(data, site, **changes)


def test_another_key_is_refused(data: bytes, tmp_path: Path) -> None:
    other = create_identity(tmp_path / "identity", "north")
    with pytest.raises(VerificationError, match="signature"):
        opened(data, other)


def test_a_signature_over_the_bare_manifest_does_not_serve(site: SiteIdentity) -> None:
    with pytest.raises(VerificationError, match="signature"):
        opened(build(site, sign=site.signing_key.sign), site)


@pytest.mark.parametrize(
    "extra",
    ["notes.txt", "images/../../evil.png", "/etc/passwd", "images/" + "a" * 16 + ".PNG", "images/abc.png", "images\\x"],
)
def test_members_that_do_not_belong_are_refused(data: bytes, site: SiteIdentity, extra: str) -> None:
    with pytest.raises(VerificationError, match="does not belong"):
        opened(write_archive({**members(data), extra: b"x"}), site)


def test_unlisted_missing_and_repeated_members_are_refused(data: bytes, site: SiteIdentity) -> None:
    all_members = members(data)
    extra = {**all_members, "images/" + "b" * 32 + ".png": images()[0].png}
    with pytest.raises(VerificationError, match="lists"):
        opened(write_archive(extra), site)
    name = next(name for name in all_members if name.startswith("images/"))
    with pytest.raises(VerificationError, match="lists"):
        opened(write_archive({key: value for key, value in all_members.items() if key != name}), site)
    with pytest.raises(VerificationError, match="no signed manifest"):
        opened(write_archive({key: value for key, value in all_members.items() if key != "manifest.sig"}), site)
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(name, b"second")
    with pytest.raises(VerificationError, match="does not belong"):
        opened(stream.getvalue(), site)


def test_compressed_members_are_refused_before_they_unpack(data: bytes, site: SiteIdentity) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members(data).items():
            archive.writestr(name, content)
        archive.writestr("images/" + "c" * 16 + ".png", bytes(200 << 20))
    assert len(stream.getvalue()) < LIMIT
    with pytest.raises(VerificationError, match="compressed"):
        opened(stream.getvalue(), site)


def test_stated_sizes_beyond_the_archive_are_refused(data: bytes, site: SiteIdentity) -> None:
    altered = bytearray(data)
    at = altered.index(b"PK\x01\x02")
    altered[at + 20 : at + 28] = struct.pack("<II", 1 << 30, 1 << 30)
    with pytest.raises(VerificationError, match="sizes"):
        opened(bytes(altered), site)


def test_a_signed_manifest_that_lies_about_an_image_is_refused(data: bytes, site: SiteIdentity) -> None:
    parts = members(data)
    manifest = parts.pop("manifest.json")
    parts.pop("manifest.sig")
    name = next(iter(parts))
    swapped = {**parts, name: images(4)[3].png}
    with pytest.raises(VerificationError, match="not the one that was signed"):
        opened(resigned(site, manifest, swapped), site)
    pixel = next(e for e in opened(data, site).entries if e.name == name[7:-4]).pixel_sha256
    with pytest.raises(VerificationError, match="other pixels"):
        opened(relined(site, data, pixel.encode(), b"0" * 64), site)
    with pytest.raises(VerificationError, match="other pixels"):
        opened(resigned(site, manifest.replace(b'"size":16', b'"size":17'), parts), site)


def relined(site: SiteIdentity, data: bytes, old: bytes, new: bytes) -> bytes:
    """A site that lies: one that alters its entries and signs the root over them."""
    parts = members(data)
    assert old in parts["manifest.entries"]
    lines = parts["manifest.entries"] = parts["manifest.entries"].replace(old, new, 1)
    parts.pop("manifest.sig")
    value = json.loads(parts.pop("manifest.json"))
    value["root"] = merkle_root(map(leaf_hash, lines.split(b"\n")[:-1])).hex()
    return resigned(site, canonical_json(value), parts)


def test_entries_are_those_of_the_signed_root(data: bytes, site: SiteIdentity) -> None:
    parts = members(data)
    lines = parts["manifest.entries"]
    for other in (
        lines.replace(b'"label":"normal"', b'"label":"healthy"'),
        b"".join(lines.splitlines(keepends=True)[::-1]),
        lines[:-1],
        lines + b"\n",
        lines + lines.splitlines(keepends=True)[0],
        b"",
    ):
        with pytest.raises(VerificationError, match="are not those that its manifest states"):
            opened(write_archive({**parts, "manifest.entries": other}), site)


def test_signed_entries_are_in_order_and_of_one_part(data: bytes, site: SiteIdentity) -> None:
    lines = members(data)["manifest.entries"].splitlines()
    with pytest.raises(VerificationError, match="twice or out of order"):
        opened(relined(site, data, lines[0] + b"\n" + lines[1], lines[1] + b"\n" + lines[0]), site)
    with pytest.raises(VerificationError, match="mixes"):
        opened(relined(site, data, b'"guarantee":"formal"', b'"guarantee":"syntactic"'), site)


@pytest.mark.parametrize(("shard", "shards"), [(0, 1), (2, 1), (1, 10_000), (-1, 3)])
def test_a_shard_is_one_of_as_many_as_there_are(site: SiteIdentity, shard: int, shards: int) -> None:
    with pytest.raises(VerificationError):
        build(site, shard=shard, shards=shards)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"guarantee":"formal"', b'"guarantee":"perfect"'),
        (b'"guarantee":"formal"', b'"guarantee":"formal" '),
        (b'"guarantee":"formal"', b'"guarantee":"formal","guarantee":"formal"'),
        (b'"label":"normal"', b'"label":"../x"'),
        (b'"label":"normal"', b'"label":"normal\\n"'),
        (b'"label":"normal"', b'"label":"=cmd|\'/c calc\'!A1"'),
        (b'"label":"normal"', b'"label":"@SUM(1)"'),
        (b'"label":"normal"', b'"label":"' + b"a" * 300 + b'"'),
        (b'"label":"normal"', b'"label":' + b"[" * 100_000 + b"]" * 100_000),
        (b'"model":"gan"', b'"model":"gan","more":1'),
    ],
)
def test_entries_off_the_form_are_refused(data: bytes, site: SiteIdentity, old: bytes, new: bytes) -> None:
    with pytest.raises(VerificationError, match=r"malformed|canonical"):
        opened(relined(site, data, old, new), site)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"channels":1', b'"channels":2'),
        (b'"channels":1', b'"channels":1 '),
        (b'"channels":1', b'"channels":1,"channels":1'),
        (b'"part":"formal"', b'"part":"perfect"'),
        (b'"format":"sfumato-package/2"', b'"format":"sfumato-package/1"'),
        (b'"add_remove":2.5', b'"add_remove":NaN'),
        (b'"add_remove":2.5', b'"add_remove":1e400'),
        (b'"add_remove":2.5', b'"add_remove":1' + b"0" * 400),
        (b'"add_remove":2.5', b'"add_remove":"0"'),
        (b'"noise":"secure"', b'"noise":"none"'),
        (b'"noise":"secure",', b""),
        (b'"noise":"secure"', b'"noise":"secure","more":1'),
        (b'"unit":"patient"', b'"unit":"image"'),
        (b'"created":"2026-01-02"', b'"created":"2026-01-02T10:11"'),
        (b'"site":"north"', b'"site":"<b>"'),
        (b'"site":"north"', b'"site":"north\\n"'),
        (b'"site":"north"', b'"site":"south","site":"north"'),
        (b'"add_remove":2.5', b'"add_remove":' + b"9" * 5000),
        (b'"add_remove":2.5', b'"add_remove":' + b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_manifests_off_the_form_are_refused(data: bytes, site: SiteIdentity, old: bytes, new: bytes) -> None:
    parts = members(data)
    parts.pop("manifest.sig")
    manifest = parts.pop("manifest.json")
    assert old in manifest
    with pytest.raises(VerificationError, match=r"malformed|canonical"):
        opened(resigned(site, manifest.replace(old, new), parts), site)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": []},
        {"images": [*images(), *images()]},
        {"images": [*images(1), *images(1, 32)]},
        {"images": [said(images(1)[0], name="../" + "a" * 20)]},
        {"images": [said(images(1)[0], name="patient-4711")]},
        {"images": [said(images(1)[0], label="Müller")]},
        {"certificate": {"epsilon": float("nan")}},
        {"certificate": CERTIFICATE.model_copy(update={"delta": float("nan")})},
        {"certificate": CERTIFICATE.model_copy(update={"noise": "none"})},
        {"site": "North"},
    ],
)
def test_building_refuses_what_opening_would(site: SiteIdentity, changes: dict[str, Any]) -> None:
    with pytest.raises(VerificationError):
        build(site, **changes)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3), (64, 64)])
def test_png_round_trip_without_metadata(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    png = encode_png(pixels)
    assert np.array_equal(decode_png(png), pixels)
    assert encode_png(pixels) == png
    assert not any(kind in png for kind in (b"tEXt", b"tIME", b"pHYs", b"eXIf"))


def test_metadata_and_hidden_bytes_in_a_png_are_refused() -> None:
    pixels = np.zeros((16, 16), np.uint8)
    stream, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("PatientName", "Doe^Jane")
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=text)
    plain = encode_png(pixels)
    for png in (stream.getvalue(), plain + b"hidden", plain[:-1], plain[:40], b"", plain[8:]):
        with pytest.raises(VerificationError):
            decode_png(png)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def crafted(width: int, height: int, stream: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


def test_png_bombs_and_hidden_tails_are_refused() -> None:
    right = zlib.compress(bytes(16 * 17))
    assert decode_png(crafted(16, 16, right)).shape == (16, 16)
    bomb = zlib.compress(bytes(64 << 20), 9)
    for png in (
        crafted(16, 16, bomb),
        crafted(16, 16, right + b"hidden"),
        crafted(16, 16, zlib.compress(bytes(16 * 16))),
        crafted(16, 16, right[:-4]),
        crafted(65535, 65535, right),
        crafted(16, 17, right),
        crafted(0, 0, right),
        crafted(16, 16, zlib.compress(b"\x09" + bytes(16 * 17 - 1))),
    ):
        with pytest.raises(VerificationError):
            decode_png(png)


def test_any_number_of_empty_chunks_costs_little_and_hides_nothing() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0))
    pieces, pixels = chunk(b"IDAT", b"") * 100_000, chunk(b"IDAT", zlib.compress(bytes(16 * 17)))
    started = time.perf_counter()
    assert not decode_png(b"\x89PNG\r\n\x1a\n" + header + pieces + pixels + chunk(b"IEND", b"")).any()
    with pytest.raises(VerificationError):
        decode_png(b"\x89PNG\r\n\x1a\n" + header + pieces + pixels + chunk(b"IEND", b"hidden"))
    assert time.perf_counter() - started < 5.0


def empty_members(count: int) -> bytes:
    """An archive of empty images in the one allowed form, made without `write_archive`, which takes its time."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as made:
        for number in range(count):
            made.writestr(zipfile.ZipInfo(f"images/{number:016x}.png"), b"")
    return stream.getvalue()


@pytest.mark.parametrize("count", [2_000, 70_000])  # the second one needs ZIP64
def test_thousands_of_empty_members_are_refused_before_they_are_parsed(count: int, monkeypatch) -> None:
    data = empty_members(count)
    monkeypatch.setattr(archive, "_members", lambda *_: pytest.fail("parsed"))
    started = time.perf_counter()
    with pytest.raises(VerificationError, match="more files than the plan asks for"):
        read_archive(data, 1_000)
    assert time.perf_counter() - started < 0.1


def test_a_small_count_does_not_hide_a_long_directory() -> None:
    data = bytearray(empty_members(2_000))
    data[-14:-10] = (2).to_bytes(2, "little") * 2  # both counts of the record at the end
    with pytest.raises(VerificationError, match="more files"):
        read_archive(bytes(data), 1_000)
    wide = bytearray(empty_members(70_000))  # ZIP64
    wide[-10:-6] = (92).to_bytes(4, "little")  # the short record says a short directory: there is no wide one for us
    with pytest.raises(VerificationError, match="not a readable"):
        read_archive(bytes(wide), 1_000)


def test_exactly_as_many_members_as_may_be_are_read() -> None:
    members = {f"images/{number:064x}.png": b"x" for number in range(20)}
    assert read_archive(write_archive(members), 20) == members
    with pytest.raises(VerificationError, match="more files"):
        read_archive(write_archive(members), 19)
