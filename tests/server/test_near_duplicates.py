"""Near-duplicates across sites and versions: what is left out, what stays, and what a verifier makes of a claim."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support.lying import resign, sha256

from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json
from sfumato_common.imaging import decode_png, encode_png
from sfumato_common.metrics.alike import LIMIT, distances, prints, views
from sfumato_common.study.lineage import Lineage, Tombstone
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import near, pool_packages, pooling
from sfumato_server.pool.withdrawn import note_withdrawn, read_withdrawn
from sfumato_server.publish import convert, open_folder, publish, verify_dataset
from sfumato_server.publish.cards.again import facts_of


def altered(image, change, name=None):
    pixels = decode_png(image.png).astype(np.int64)
    png = encode_png(np.clip(change(pixels), 0, 255).astype(np.uint8))
    return replace(image, png=png, facts=image.facts.model_copy(update={"name": name or image.facts.name}))


RUN = {"exchanges": []}
ALTERED = {
    "noise": lambda pixels: pixels + np.random.default_rng(5).integers(-4, 5, pixels.shape),
    "moved": lambda pixels: np.roll(pixels, 1, 1),
    "darker": lambda pixels: pixels * 3 // 4,
}


def sent(consortium, **images):
    for site in consortium.plan.sites:
        path = package_path(consortium.home, site, "formal")
        path.parent.mkdir(exist_ok=True)
        more = {"images": images[site]} if site in images else {}
        path.write_bytes(consortium.package(site, **more))
    return pool_packages(consortium.home, consortium.plan, consortium.registry)


@pytest.fixture
def copied(consortium):
    """North's first three images come again from south, each altered in another way."""
    mine, theirs = consortium.images(1), consortium.images(2)
    for at, change in enumerate(ALTERED.values()):
        theirs[at] = altered(mine[at], change, theirs[at].facts.name)
    return mine, theirs, sent(consortium, north=mine, south=theirs)


def test_near_copies_of_another_site_are_left_out_and_said_in_every_form(consortium, copied, tmp_path):
    mine, theirs, pool = copied
    wanted = {theirs[at].facts.name: mine[at].facts.name for at in range(3)}
    assert {own.name: own.kept_name for own in pool.near.kept} == wanted
    done = publish(pool, consortium.plan, tmp_path, consortium.authority, RUN, None)
    assert (done.images, verify_dataset(done.folder).images, verify_dataset(done.folder, workers=2).images) == (
        15,
        15,
        15,
    )
    published = open_folder(done.folder)
    assert not {entry.name for entry in published.entries()} & set(wanted)
    assert {path.rsplit("/", 1)[1] for path in published.near_pictures()} == {f"{name}.png" for name in wanted}
    facts = facts_of(published)
    assert (facts.images, facts.near, facts.duplicates) == (15, 3, 0)
    for page in ("report.html", "DATASHEET.md"):
        assert "3 near-duplicates" in (done.folder / page).read_text()
    convert(done.folder, "webdataset", tmp_path / "tars")
    assert verify_dataset(tmp_path / "tars").images == 15


@pytest.mark.parametrize("what", ["another image", "no image", "a picture that nobody signed", "no picture", "stay"])
def test_a_claim_that_does_not_hold_is_refused(consortium, copied, tmp_path, what):
    mine, _, pool = copied
    folder = publish(pool, consortium.plan, tmp_path, consortium.authority, RUN, None).folder
    path = folder / "shards/south/formal/0001.json"
    index = json.loads(path.read_bytes())
    claim = index["near"][0]
    picture = next((folder / "near-duplicates").rglob(f"{claim['name']}.png"))
    if what == "another image":
        claim["kept_name"] = next(own.facts.name for own in mine if own.facts.name != claim["kept_name"])
    elif what == "no image":
        claim["kept_name"] = "0" * 32
    elif what == "a picture that nobody signed":
        picture.write_bytes(mine[0].png)
    elif what == "no picture":
        picture.unlink()
    path.write_bytes(canonical_json(index))

    def change(value):
        value["shards"][2]["index"] = sha256(path.read_bytes())
        if what == "stay":
            plan = consortium.plan.model_copy(update={"near_duplicates": "stay"})
            value |= {"plan": plan.model_dump(mode="json"), "plan_hash": plan.digest}

    resign(consortium, folder, change)
    words = {
        "another image": "is left out as nearly an image of site 'north', and is not",
        "no image": "which is not in the set",
        "a picture that nobody signed": "not the picture that site 'south' signed",
        "no picture": "is missing",
        "stay": "another study or plan|lets them stay",
    }
    with pytest.raises(VerificationError, match=words[what]):
        verify_dataset(folder)


def test_a_converted_set_is_held_to_its_claims_too(consortium, copied, tmp_path):
    folder = publish(copied[2], consortium.plan, tmp_path, consortium.authority, RUN, None).folder
    convert(folder, "webdataset", tmp_path / "tars")
    picture = next((tmp_path / "tars/statement/near-duplicates").rglob("*.png"))
    picture.write_bytes(copied[0][4].png)
    with pytest.raises(VerificationError, match="is not the picture that its site signed"):
        verify_dataset(tmp_path / "tars")


def test_a_plan_may_let_them_stay_and_its_silence_changes_no_digest(consortium, copied, make_plan):
    assert "near_duplicates" not in consortium.plan.model_dump(mode="json")
    plan = make_plan(near_duplicates="stay")
    assert plan.digest != consortium.plan.digest
    own = replace(consortium, plan=plan)
    pool = sent(own, north=copied[0], south=copied[1])
    assert (pool.near, len(pool.items)) == (None, 18)


def test_all_that_a_generator_of_low_variety_makes_stays(consortium, make_plan):
    """Each image differs from one picture by a hundredth of what unrelated pictures differ by."""
    plan = make_plan(release=[{"model": "spectral", "images": 40}])
    own, rng = replace(consortium, plan=plan), np.random.default_rng(4)
    picture = rng.integers(60, 180, (16, 16))
    images = [altered(one, lambda _: picture + rng.integers(-1, 2, (16, 16))) for one in consortium.images(3, count=40)]
    every = prints(views(np.stack([decode_png(one.png) for one in images])))
    assert max(np.linalg.norm(every[1:] - every[:-1], axis=1)) < LIMIT
    pool = sent(
        own, **{site: images if site == "north" else consortium.images(at, 40) for at, site in enumerate(plan.sites)}
    )
    assert Counter(item.site for item in pool.items) == dict.fromkeys(plan.sites, 40)


def test_blocks_and_trees_find_what_a_look_at_all_pairs_finds(consortium, make_plan, monkeypatch):
    plan = make_plan(release=[{"model": "spectral", "images": 120}])
    own, rng = replace(consortium, plan=plan), np.random.default_rng(6)
    images = {site: consortium.images(at + 10, 120) for at, site in enumerate(sorted(plan.sites))}
    first = [one for site in images for one in images[site]]
    for at in rng.choice(len(first), 60, replace=False):
        site = sorted(images)[int(rng.integers(3))]
        place = int(rng.integers(120))
        noise = rng.integers(-4, 5, (16, 16))
        images[site][place] = altered(
            first[at], lambda pixels, noise=noise: pixels + noise, images[site][place].facts.name
        )
    found = [list(sent(own, **images).near.kept)]
    for size in (7, 64):
        monkeypatch.setattr(near, "_BLOCK", size)
        found.append(list(sent(own, **images).near.kept))
    assert found[0] == found[1] == found[2]
    kept, left = [], []
    for site in sorted(images):
        for one in sorted(images[site], key=lambda image: image.facts.name):
            seen = views(decode_png(one.png)[None])
            if kept and distances(seen[0], np.stack(kept)).min() < LIMIT:
                left.append(one.facts.name)
            else:
                kept.append(prints(seen)[0])
    assert sorted(item.name for item in found[0]) == sorted(left)
    assert len(left) > 20


def test_what_an_earlier_version_withdrew_does_not_come_again_nearly(consortium, tmp_path):
    """South withdrew; north, which is asked again, makes an image like one of south's, and nothing else goes."""
    gone, mine = consortium.images(2), consortium.images(1)
    earlier = sent(consortium, south=gone, north=consortium.images(9))
    note_withdrawn(consortium.home, consortium.home, earlier, ["south"])
    assert read_withdrawn(consortium.home).shape == (6, 14 * 14)
    mine[2] = altered(gone[3], ALTERED["noise"], mine[2].facts.name)
    stone = Tombstone(site="south", what="site-withdrew", since="2026-11-28", images="removed")
    lineage = Lineage(version=2, previous="1" * 64, tombstones=[stone])
    sites = {site: terms for site, terms in consortium.plan.sites.items() if site != "south"}
    plan = consortium.plan.model_copy(update={"lineage": lineage, "sites": sites})
    own = replace(consortium, plan=plan)
    pool = sent(own, north=mine)
    assert [item.name for item in pool.near.withdrawn] == [mine[2].facts.name]
    done = publish(pool, plan, tmp_path, own.authority, RUN, None)
    assert (done.images, verify_dataset(done.folder).images) == (11, 11)
    assert not list(done.folder.rglob(f"{mine[2].facts.name}.png")), "no picture of it is published, also not apart"
    assert (
        "1 images that nearly equal one that an earlier version withdrew" in (done.folder / "report.html").read_text()
    )


def test_who_is_asked_again_puts_out_nobody_whose_images_were_published(consortium, copied):
    """North's name comes first; it knows what south published, and sends images that equal it, or nearly."""
    mine, theirs, pool = copied
    found = near.find_near(replace(pool, near=None), ["north", "east"], None)
    names = zip(mine[:3], theirs[:3], strict=True)
    assert {own.name: own.kept_name for own in found.kept} == {own.facts.name: kept.facts.name for own, kept in names}
    mine[0] = replace(theirs[0], facts=mine[0].facts)
    pool = sent(consortium, north=mine, south=theirs)
    for asked, left in ((["north", "east", "south"], theirs[0]), (["north", "east"], mine[0])):
        _, duplicates = pooling._without_duplicates(pool.shards, asked)
        assert [one.name for one in duplicates] == [left.facts.name]


def test_a_first_version_cannot_say_that_images_were_withdrawn(consortium, tmp_path):
    folder = publish(sent(consortium), consortium.plan, tmp_path, consortium.authority, RUN, None).folder
    line = (folder / "provenance/east/formal/0001.entries").read_bytes().splitlines()[0]
    name, path = json.loads(line)["name"], folder / "shards/east/formal/0001.json"
    (folder / f"images/east/formal/0001/{name}.png").unlink()
    path.write_bytes(canonical_json({**json.loads(path.read_bytes()), "withdrawn": [name]}))
    changed = {"images": 5, "withdrawn": 1, "index": sha256(path.read_bytes())}
    resign(consortium, folder, lambda value: value["shards"][0].update(changed))
    with pytest.raises(VerificationError, match="nothing was withdrawn"):
        verify_dataset(folder)


def test_a_damaged_file_of_what_was_withdrawn_stops_the_pool(consortium):
    (consortium.home / "withdrawn.npy").write_bytes(b"?")
    with pytest.raises(ConfigError, match="take it from a backup"):
        sent(consortium)
