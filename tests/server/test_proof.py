"""One image verified alone, back to the coordinator's and its site's signature; and proofs that lie."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.commands import speaker

from sfumato_common.crypto.identity import create_identity
from sfumato_common.crypto.merkle import inclusion_path, leaf_hash
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.imaging import decode_png
from sfumato_server.enrol import create_authority
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import open_folder, publish
from sfumato_server.publish.layout import ShardFiles, key_file
from sfumato_server.publish.proof import Proof, prove, read_proof, verify_image
from sfumato_server.publish.shard import read_shard
from sfumato_server.publish.verify import read_signed


@pytest.fixture(scope="module")
def honest(founded: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    consortium = founded.copied(tmp_path_factory.mktemp("home") / "coordinator")
    for site in consortium.plan.sites:
        path = package_path(consortium.home, site, "formal")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(consortium.package(site))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    out = tmp_path_factory.mktemp("out")
    return consortium, publish(pool, consortium.plan, out, consortium.authority, {}, None).folder


def test_every_image_is_proved_alone_by_a_few_kilobytes(honest: Any) -> None:
    consortium, folder = honest
    for image in open_folder(folder).images():
        proof = read_proof(prove(folder, image.file).encode())
        site_key = consortium.identities[image.entry.site].signing_public
        found = verify_image(image.pixels, proof, consortium.authority.public_key, site_key)
        assert (found.site, found.name, found.label) == (image.entry.site, image.entry.name, image.entry.label)
        assert (found.images, found.compared_site) == (18, True)
        assert len(proof.encode()) < 12_000  # of which two paths grow, by 64 digits with each doubling of the set


def test_other_pixels_and_other_keys_are_refused(honest: Any, tmp_path: Path) -> None:
    consortium, folder = honest
    first, second, *_ = open_folder(folder).images()
    proof, key = prove(folder, first.entry.name), consortium.authority.public_key
    own = consortium.identities[first.entry.site].signing_public
    verify_image(first.pixels, proof, key, own)
    altered = first.pixels.copy()
    altered[0, 0] ^= 1
    for pixels in (second.pixels, altered, first.pixels.astype("uint16"), first.pixels[:-1]):
        with pytest.raises(VerificationError, match="other pixels"):
            verify_image(pixels, proof, key, own)
    stranger = create_authority(tmp_path / "stranger").public_key
    with pytest.raises(VerificationError, match="root signature"):
        verify_image(first.pixels, proof, stranger)
    with pytest.raises(VerificationError, match="not the trusted key"):
        verify_image(first.pixels, proof, key, create_identity(tmp_path / "own", "east").signing_public)


def test_an_image_that_the_set_leaves_out_is_not_proved_to_be_one_of_it(founded: Any, tmp_path: Path) -> None:
    """Its site signed it, so that every path in a proof of it holds."""
    consortium = founded.copied(tmp_path / "coordinator")
    sites = sorted(consortium.plan.sites)
    images = {site: consortium.images(seed) for seed, site in enumerate(sites)}
    images[sites[1]][:2] = [
        replace(one, png=other.png) for one, other in zip(images[sites[1]], images[sites[0]][:2], strict=False)
    ]
    for site in sites:
        path = package_path(consortium.home, site, "formal")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(consortium.package(site, images=images[site]))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    folder = publish(pool, consortium.plan, tmp_path, consortium.authority, {}, None).folder
    key, manifest = consortium.authority.public_key, read_signed(folder, None)[0]
    line = next(line for line in manifest.shards if line.duplicates)
    _, entries, index = read_shard(folder, line)
    place = next(at for at, entry in enumerate(entries) if entry.name in index.left)
    pixels = next(one.pixels for one in open_folder(folder).images() if one.entry.name == index.duplicates[0].kept_name)
    with pytest.raises(ConfigError, match="no image"):
        prove(folder, entries[place].name)
    honest = next(prove(folder, one.entry.name) for one in open_folder(folder).images() if one.entry.site == sites[0])
    number, files = manifest.shards.index(line), ShardFiles(line.site, line.part, line.shard)
    forged = honest.model_copy(update={
        "entry": entries[place], "place": place, "line": line, "line_place": number,
        "path": [one.hex() for one in inclusion_path([leaf_hash(entry.line) for entry in entries], place)],
        "head": (folder / files.head).read_text(), "head_signature": (folder / files.signature).read_bytes().hex(),
        "site_key": (folder / key_file(line.site)).read_text(),
        "line_path": [one.hex() for one in inclusion_path([other.leaf for other in manifest.shards], number)],
    })  # fmt: skip
    for one in open_folder(folder).images():  # those beside it are proved as ever
        verify_image(one.pixels, read_proof(prove(folder, one.entry.name).encode()), key)
    fewer = index.model_copy(update={"duplicates": index.duplicates[1:]})
    for said, words in ((None, "does not say which"), (fewer, "leaves out other"), (index, "and the set leaves out")):
        with pytest.raises(VerificationError, match=words):
            verify_image(pixels, forged.model_copy(update={"index": said}), key)


def lies(proof: Proof, other: Proof) -> dict[str, dict[str, Any]]:
    return {
        "another label": {"entry": proof.entry.model_copy(update={"label": "healthy"})},
        "another entry": {"entry": other.entry},
        "another place": {"place": (proof.place + 1) % 6},
        "no path": {"path": []},
        "a longer path": {"path": [*proof.path, leaf_hash(b"x").hex()]},
        "another head": {"head": other.head, "head_signature": other.head_signature, "site_key": other.site_key},
        "another signature": {"head_signature": other.head_signature},
        "another key": {"site_key": other.site_key},
        "another line": {"line": other.line},
        "another line's place": {"line_place": other.line_place},
        "a line of another root": {"line": proof.line.model_copy(update={"root": other.line.root})},
        "more images": {"root": proof.root.model_copy(update={"images": 10**6})},
        "another root": {"root": proof.root.model_copy(update={"root": "0" * 64})},
        "no signature": {"root_signature": "0" * 128},
        "a line of no tree": {"line_path": []},
    }


def test_every_lie_in_a_proof_is_found(honest: Any) -> None:
    consortium, folder = honest
    images = list(open_folder(folder).images())
    image = images[0]
    proof, other = prove(folder, image.entry.name), prove(folder, images[-1].entry.name)
    assert proof.line.site != other.line.site
    for change in lies(proof, other).values():
        with pytest.raises(VerificationError):
            verify_image(image.pixels, proof.model_copy(update=change), consortium.authority.public_key)


def test_proofs_off_the_form_are_refused(honest: Any) -> None:
    _, folder = honest
    data = prove(folder, next(open_folder(folder).entries()).name).encode()
    value = json.loads(data)
    for other in (
        b"",
        b"[" * 100_000,
        data + b" ",
        data[:-1],
        json.dumps(value).encode(),
        data.replace(b'"place":', b'"place":-'),
        b" " * (2 << 20),
    ):
        with pytest.raises(VerificationError):
            read_proof(other)


def test_the_commands(honest: Any, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    consortium, folder = honest
    say = partial(speaker(monkeypatch, capsys), "sfumato", "dataset")
    image = next(open_folder(folder).images())
    out, key, own = tmp_path / "proof.json", consortium.authority.folder / "coordinator.pem", tmp_path / "own.pem"
    own.write_bytes(consortium.identities[image.entry.site].signing_public)
    assert say("prove", folder, image.entry.name, "--out", out, "--json")[0] == 0
    code, _, said = say("verify", folder / image.file, "--proof", out, "--key", key)
    assert code == 0 and "NOT compared" in said
    named = ("--site-key", f"{image.entry.site}={own}")
    code, _, said = say("verify", folder / image.file, "--proof", out, "--key", key, *named, "--json")
    assert code == 0 and json.loads(said)["name"] == image.entry.name
    assert say("verify", folder / image.file, "--proof", out)[0] == ConfigError.exit_code
    assert say("verify", folder / image.file, "--proof", out, "--key", key, "--site-key", f"west={own}")[0] == 2
    assert say("prove", folder, "0" * 32, "--out", out)[0] == ConfigError.exit_code
    other = next(path for path in folder.rglob("*.png") if path != folder / image.file)
    assert say("verify", other, "--proof", out, "--key", key)[0] == VerificationError.exit_code
    assert decode_png((folder / image.file).read_bytes()).shape == (16, 16)
