"""A part of a release in several shards: admitted one by one, whole or not at all in the pool, published and proved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sfumato_common.errors import VerificationError
from sfumato_common.package import PackageImage
from sfumato_common.study import shards
from sfumato_common.study.shards import shard_sizes, shards_at
from sfumato_server.intake.admission import admit, largest_package, package_path
from sfumato_server.intake.stored import Stored
from sfumato_server.pool import Duplicate, pool_packages
from sfumato_server.publish import open_folder, publish, verify_dataset
from sfumato_server.publish.proof import prove, verify_image
from sfumato_server.rounds.receipts import Receipts

SITES = ("east", "north", "south")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images at most: the six of a site are two shards of three."""
    monkeypatch.setattr(shards, "MOST_IMAGES", 4)


def cut(consortium: Any, site: str, images: list[PackageImage] | None = None, **changes: Any) -> list[bytes]:
    images = sorted(images or consortium.images(sum(site.encode())), key=lambda image: image.facts.name)
    return [
        consortium.package(site, **{"images": images[at : at + 3], "shard": at // 3 + 1, "shards": 2, **changes})
        for at in (0, 3)
    ]


def store(consortium: Any, site: str, packages: list[bytes | None]) -> None:
    for number, data in enumerate(packages, 1):
        path = package_path(consortium.home, site, "formal", number)
        path.parent.mkdir(exist_ok=True)
        if data is not None:
            path.write_bytes(data)


def pool_of(consortium: Any) -> Any:
    return pool_packages(consortium.home, consortium.plan, consortium.registry)


def test_shards_follow_from_the_plan_alone(consortium: Any, monkeypatch: Any) -> None:
    assert shard_sizes(consortium.plan, "north", "formal") == [3, 3]
    assert shards_at(consortium.plan, "north") == [("formal", 1), ("formal", 2)]
    monkeypatch.setattr(shards, "MOST_IMAGES", 10_000)
    many = consortium.plan.model_copy(
        update={"release": [consortium.plan.release[0].model_copy(update={"images": 25_000})]}
    )
    assert shard_sizes(many, "north", "formal") == [8334, 8333, 8333]
    large = many.model_copy(update={"image": many.image.model_copy(update={"size": 1024, "bits": 16})})
    sizes = shard_sizes(large, "north", "formal")
    assert sum(sizes) == 25_000 and max(sizes) == 61 and max(sizes) - min(sizes) <= 1
    # any shard fits what the site may send, and no archive needs more than 32 bits
    assert largest_package(large) < 256 * 1024**2 and largest_package(many) < 256 * 1024**2


def test_all_shards_are_pooled_published_and_proved(consortium: Any, tmp_path: Any) -> None:
    for site in SITES:
        store(consortium, site, cut(consortium, site))
    pool = pool_of(consortium)
    names = [(item.site, item.facts.name) for item in pool.items]
    assert len(pool.items) == 18 and names == sorted(names) and pool.left_out == {}
    done = publish(pool, consortium.plan, tmp_path, consortium.authority, {}, None)
    key = consortium.authority.public_key
    assert verify_dataset(done.folder, key).images == 18
    published = open_folder(done.folder)
    assert [(entry.site, entry.name) for entry in published.entries()] == names
    assert {entry.file.split("/")[3] for entry in published.entries()} == {"0001", "0011"}
    for image in published.images():
        assert verify_image(image.pixels, prove(done.folder, image.entry.name), key).images == 18


def test_equal_pixels_in_two_shards_are_kept_once(consortium: Any, tmp_path: Any) -> None:
    images = sorted(consortium.images(1), key=lambda image: image.facts.name)
    images[5] = replace(images[5], png=images[0].png)
    store(consortium, "north", cut(consortium, "north", images))
    pool = pool_of(consortium)
    wanted = Duplicate("north", images[5].facts.name, "north", images[0].facts.name)
    assert (len(pool.items), list(pool.duplicates)) == (5, [wanted])
    done = publish(pool, consortium.plan, tmp_path, consortium.authority, {}, None)
    assert verify_dataset(done.folder).images == 5


@pytest.mark.parametrize(
    ("faulty", "left_out"),
    [
        (lambda one, two: [one, None], "sent only 1 of 2 formal packages"),
        (lambda one, two: [None, two], "sent only 1 of 2 formal packages"),
        (lambda one, two: [one, one], "what it sent does not hold"),
        (lambda one, two: [two, one], "what it sent does not hold"),
    ],
)
def test_a_part_is_whole_or_left_out(consortium: Any, faulty: Any, left_out: str) -> None:
    store(consortium, "east", cut(consortium, "east"))
    store(consortium, "north", faulty(*cut(consortium, "north")))
    pool = pool_of(consortium)
    assert pool.sites == ["east"]
    assert dict(pool.left_out) == {"north": left_out, "south": "sent no package"}


def test_shards_of_two_seals_do_not_make_a_part(consortium: Any, caplog: Any) -> None:
    first, second = cut(consortium, "north"), cut(consortium, "north", consortium.images(99))
    store(consortium, "east", cut(consortium, "east"))
    for pair in ([first[0], second[1]], [second[0], first[1]]):
        store(consortium, "north", pair)
        # names are cut in order, so that shards of two seals overlap; or they pass as one, with no image twice
        pool = pool_of(consortium)
        names = [item.facts.name for item in pool.items if item.site == "north"]
        assert len(names) == len(set(names)) and (names or dict(pool.left_out)["north"] == "what it sent does not hold")


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": 3},
        {"shards": 1},
        {"shard": 1, "shards": 1},
    ],
)
def test_a_package_of_another_cut_is_refused(consortium: Any, changes: dict[str, Any]) -> None:
    record = consortium.registry.record_in_force("north")
    with pytest.raises(VerificationError):
        admit(cut(consortium, "north", **changes)[1], consortium.plan, record)


def test_a_shard_of_another_size_part_or_site_is_refused(consortium: Any) -> None:
    record = consortium.registry.record_in_force("north")
    images = consortium.images(5)
    for size in (2, 4, 6):
        with pytest.raises(VerificationError, match="no shard into which"):
            admit(consortium.package("north", images=images[:size], shard=1, shards=2), consortium.plan, record)
    declared = [replace(i, facts=i.facts.model_copy(update={"guarantee": "syntactic"})) for i in images[:3]]
    with pytest.raises(VerificationError):
        admit(consortium.package("north", images=declared, shard=1, shards=2), consortium.plan, record)
    with pytest.raises(VerificationError):
        admit(cut(consortium, "south")[0], consortium.plan, record)


def test_what_is_stored_is_known_shard_by_shard(consortium: Any, tmp_path: Any) -> None:
    record, packages = consortium.registry.record_in_force("north"), cut(consortium, "north")
    stored = Stored(consortium.home, consortium.plan)
    receipts = Receipts(tmp_path / "receipts.json", consortium.plan, lambda site: stored.digests(record))
    store(consortium, "north", [None, packages[1]])
    assert list(stored.digests(record)) == [("formal", 2)]
    # it has left the site, so that the site's ledger has to know it; but it is not all that is waited for
    assert receipts.told("north") == "formal:1" and "north" not in receipts.delivered()
    store(consortium, "north", packages)
    assert list(stored.digests(record)) == [("formal", 1), ("formal", 2)]
    assert "north" in receipts.delivered()
