"""Real disks that are full: a site charges nothing and says so, a coordinator stops; both go on once there is room."""

import os
import shutil
import subprocess

import pytest
from support.federations import make_federation
from support.studies import PLAN

from sfumato_client.egress.guard import refusal
from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.errors import NoRoomError
from sfumato_common.protocol.messages import PROTOCOL, Request
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.study import run_study
from sfumato_server.rounds.deadlines import GO_ON

SHORT = {**PLAN, "stages": PLAN["stages"][:1], "release": PLAN["release"][:1], "utility": None}
MEGABYTE = 1024**2

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a small disk (tmpfs), which only root may"
)


@pytest.fixture
def disk(tmp_path):
    """A disk of 24 MB; `fill` leaves so many bytes of it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk, left):
    (disk / "filler").write_bytes(b"\0" * (shutil.disk_usage(disk).free - left))


def make_room(disk):
    (disk / "filler").unlink()


@pytest.mark.parametrize("left", [0, 40_000, 2 * MEGABYTE])
def test_a_site_without_room_for_its_answer_charges_nothing_and_answers_once_there_is_room(tmp_path, disk, left):
    federation = make_federation(tmp_path, SHORT)
    home = SiteHome(shutil.copytree(federation.home("alder").root, disk / "alder"))
    site, request = Site(home, upload=None), Request(PROTOCOL, federation.plan.digest, "stage", "spectral", 1, {})
    fill(disk, left)
    for _ in range(4):
        reply = site.handle(request)
        assert (reply.status, reply.code) == ("refused", "no-room")
    make_room(disk)
    with home.open_ledger() as ledger:
        assert ledger.entries() == []
    first, second = site.handle(request), site.handle(request)
    assert first.status == "ok"
    assert all((first.arrays[name] == second.arrays[name]).all() for name in first.arrays)
    with home.open_ledger() as ledger:
        assert len(ledger.entries()) == 1 and ledger.unsettled_charges() == []


def test_a_coordinator_without_room_stops_and_goes_on(tmp_path, disk):
    federation = make_federation(tmp_path, SHORT)
    federation.coordinator = CoordinatorHome(shutil.copytree(federation.coordinator.root, disk / "coordinator"))
    answer = federation.answer

    def fill_after_the_round(site, request):
        reply = answer(site, request)
        if request.kind == "stage" and site == "cedar":
            fill(disk, 0)
        return reply

    federation.answer = fill_after_the_round
    # what the round's replies took is free again, and has room for the word
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "stopped"
    assert federation.result()["reason"].startswith("the disk is full")
    federation.answer = answer
    make_room(disk)
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "completed"
    for site in federation.sites:
        with federation.home(site).open_ledger() as ledger:
            assert len([entry for entry in ledger.entries() if entry.purpose == "spectral"]) == 1


def test_the_reason_says_what_to_do(tmp_path, monkeypatch):
    federation = make_federation(tmp_path, SHORT)

    def full(*_):
        raise NoRoomError("the disk is full")

    monkeypatch.setattr("sfumato_server.rounds.checkpoint.Checkpoints.save", full)
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "stopped"
    assert federation.result()["reason"] == f"the disk is full; {GO_ON}"


def test_a_site_whose_disk_is_full_at_the_first_question_takes_part_once_there_is_room(tmp_path):
    federation = make_federation(tmp_path, SHORT)
    answer = federation.answer

    def full_at_first(site, request):
        if site == "cedar" and request.kind == "hello":
            return refusal(NoRoomError("the disk is full"), federation.home(site).steward_folder)
        return answer(site, request)

    federation.answer = full_at_first
    assert run_study(federation.coordinator, federation, classifier_steps=5) == "completed"
    kinds = [request.kind for site, request, _ in federation.sent if site == "cedar"]
    assert kinds == ["stage", "make", "send"]
