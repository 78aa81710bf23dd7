from dataclasses import replace
from typing import Any

import pytest

from sfumato_common.errors import FederationError
from sfumato_server.enrol import revoke
from sfumato_server.pool import Duplicate, pool_packages


def store(consortium: Any, site: str, data: bytes | None = None) -> None:
    folder = consortium.home / "intake"
    folder.mkdir(exist_ok=True)
    (folder / f"{site}.formal.sfumato").write_bytes(data if data is not None else consortium.package(site))


def test_packages_are_pooled_by_site_and_name(consortium: Any) -> None:
    for site in ("south", "east", "north"):
        store(consortium, site)
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    assert [(item.site, item.facts.name) for item in pool.items] == sorted(
        (item.site, item.facts.name) for item in pool.items
    )
    assert len(pool.items) == 18
    assert set(pool.certificates) == set(pool.sites) == {"east", "north", "south"}
    assert pool.certificates["north"] == consortium.certificate()
    assert pool.site_keys["north"] == consortium.identities["north"].signing_public
    assert (list(pool.duplicates), pool.left_out) == ([], {})


def test_nothing_to_pool_is_refused(consortium: Any) -> None:
    with pytest.raises(FederationError, match="nothing can be pooled"):
        pool_packages(consortium.home, consortium.plan, consortium.registry)


def test_absent_revoked_and_uninvited_sites_are_left_out(consortium: Any) -> None:
    for site in ("north", "south"):
        store(consortium, site)
    store(consortium, "west", consortium.package("south", site="west"))
    revoke(consortium.home, "south")
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    assert {item.site for item in pool.items} == {"north"}
    assert pool.left_out == {"east": "sent no package", "south": "not enrolled, or revoked"}


def test_equal_pixels_are_kept_once_and_listed(consortium: Any) -> None:
    mine, theirs = consortium.images(1), consortium.images(2)
    # other name, other label: still the same picture
    theirs[0] = replace(theirs[0], png=mine[3].png)
    store(consortium, "north", consortium.package("north", images=mine))
    store(consortium, "south", consortium.package("south", images=theirs))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    assert len(pool.items) == 11
    assert list(pool.duplicates) == [Duplicate("south", theirs[0].facts.name, "north", mine[3].facts.name)]


def altered(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[-100] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    "faulty",
    [
        lambda c: altered(c.package("south")),
        lambda c: c.package("north"),  # another site's
        lambda c: c.package("south", plan_hash="0" * 64),
        lambda c: c.package("south", certificate=c.certificate(mechanisms={"train": [], "holdout": []})),
        lambda c: b"nonsense",
    ],
)
def test_a_site_whose_stored_package_does_not_hold_is_left_out_and_named(
    consortium: Any, faulty: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for site in ("east", "north"):
        store(consortium, site)
    store(consortium, "south", faulty(consortium))
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry)
    assert {item.site for item in pool.items} == {"east", "north"}
    assert pool.left_out == {"south": "what it sent does not hold"}
    assert "site south is left out" in caplog.text


def test_where_every_package_is_faulty_nothing_can_be_pooled(consortium: Any) -> None:
    store(consortium, "north", b"nonsense")
    with pytest.raises(FederationError, match="nothing can be pooled"):
        pool_packages(consortium.home, consortium.plan, consortium.registry)
