"""Workers of shards: the same bytes and the same refusals by one process, by several, and on Ray."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from sfumato_common.errors import ConfigError, SfumatoError, VerificationError
from sfumato_common.supervise import descendants
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish, verify_dataset
from sfumato_server.workers import ALONE, Where, run_tasks

without_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'sfumato[ray]'")
SEVERAL = [
    pytest.param(Where(2), id="processes"),
    pytest.param(Where(2, "ray"), id="ray", marks=[pytest.mark.slow, without_ray]),
]


def home_of(consortium: Any) -> Any:
    """All sites have sent; one image of the north is in the south, too."""
    (consortium.home / "intake").mkdir(exist_ok=True)
    for site in consortium.plan.sites:
        images = consortium.images(sum(site.encode()))
        if site == "south":
            images[0] = type(images[0])(images[0].facts, consortium.images(sum(b"north"))[2].png)
        package_path(consortium.home, site, "formal").write_bytes(consortium.package(site, images=images))
    return consortium


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(consortium: Any, out: Path, where: Where) -> Path:
    pool = pool_packages(consortium.home, consortium.plan, consortium.registry, where=where)
    return publish(pool, consortium.plan, out, consortium.authority, {}, None, where=where).folder


@pytest.mark.parametrize("where", SEVERAL)
def test_many_workers_publish_the_same_bytes_and_find_the_same(consortium: Any, tmp_path: Path, where: Where) -> None:
    home_of(consortium)
    folder, other = (made(consortium, tmp_path / name, by) for name, by in (("one", ALONE), ("many", where)))
    assert files_of(folder) == files_of(other) and len(list(folder.rglob("*.png"))) == 17
    key = consortium.authority.public_key
    assert verify_dataset(folder, key) == verify_dataset(other, key, where=where)
    image = next((other / "images" / "south").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(VerificationError, match=image.name):
        verify_dataset(other, where=where)
    assert not [pid for pid in descendants(os.getpid()) if b"sfumato" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_package_that_does_not_hold_leaves_its_site_out_whoever_finds_it(consortium: Any) -> None:
    path = package_path(home_of(consortium).home, "north", "formal")
    path.write_bytes(path.read_bytes()[:-1])
    alone, several = (
        pool_packages(consortium.home, consortium.plan, consortium.registry, where=where) for where in (ALONE, Where(3))
    )
    assert alone.left_out == several.left_out == {"north": "what it sent does not hold"}
    assert alone.sites == several.sites == ["east", "south"] and alone.counts == several.counts


def test_a_package_that_was_replaced_since_it_was_pooled_is_not_published(consortium: Any, tmp_path: Path) -> None:
    pool = pool_packages(home_of(consortium).home, consortium.plan, consortium.registry)
    package_path(consortium.home, "north", "formal").write_bytes(
        consortium.package("north", images=consortium.images(9))
    )
    with pytest.raises(VerificationError, match="replaced"):
        publish(pool, consortium.plan, tmp_path / "out", consortium.authority, {}, None, where=Where(2))
    assert not list((tmp_path / "out").iterdir())


def test_a_worker_that_dies_or_fails_is_one_clear_error() -> None:
    with pytest.raises(SfumatoError, match=r"a worker ended: it was killed; start again") as death:
        list(run_tasks("os:_exit", [3, 3, 3], Where(2)))  # type: ignore[list-item]
    assert "\n" not in str(death.value)
    with pytest.raises(SfumatoError, match=r"a worker ended: .*TypeError"):
        list(run_tasks("os:abort", [{}], Where(2)))


def test_answers_come_in_order_and_tasks_are_made_as_they_are_needed() -> None:
    asked: list[int] = []

    def tasks() -> Any:
        for number in range(40):
            asked.append(number)
            yield json.dumps(number)

    for place, (task, answer) in enumerate(run_tasks("json:loads", tasks(), Where(2))):
        assert task == json.dumps(place) and answer == place
        assert len(asked) <= place + 4


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (Where(0), "--workers takes a number from 1"),
        (Where(2, "slurm"), "no engine; choose one of: processes, ray"),
        (Where(2, "processes", "host:1"), "add --on ray"),
    ],
)
def test_workers_that_cannot_be_are_refused_before_anything_is_done(where: Where, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        next(run_tasks("json:loads", ["1"], where))  # type: ignore[list-item]
