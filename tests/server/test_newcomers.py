"""A coordinator at work learns of sites that are admitted and enrolled meanwhile: nodes, intake, board, status."""

from types import SimpleNamespace

import pytest
from support.enrolment import enrol_site

from sfumato_common.crypto.identity import create_identity
from sfumato_common.files import write_json
from sfumato_server.coordinator.admitting import admit_site
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.coordinator.nodes import Nodes
from sfumato_server.enrol import Registry, create_authority, revoke
from sfumato_server.intake.guard import RefusedError
from sfumato_server.intake.service import IntakeService
from sfumato_server.status.board import StatusBoard, read_board
from sfumato_server.status.overview import overview

NEW = "west"


class Links:
    """SuperLinks by the number of connections; `down` ones raise what Flower's client may raise."""

    def __init__(self):
        self.registered, self.down = [], False

    def __call__(self):
        if self.down:
            raise RuntimeError("a SuperLink that ends says many things")
        return self

    def register(self, key, name):
        self.registered.append((name, key))
        return 1000 + len(self.registered)

    def close(self):
        pass


@pytest.fixture
def home(tmp_path, make_plan):
    made = CoordinatorHome(tmp_path / "coordinator")
    create_authority(made.root)
    write_json(made.plan_file, make_plan(joining="later").model_dump(mode="json"))
    return made


def enrolled(home, tmp_path, name):
    identity = create_identity(tmp_path / name, name)
    enrol_site(home.root, identity)
    return identity


def test_a_node_is_registered_once_when_its_site_is_admitted_and_enrolled(home, tmp_path):
    links = Links()
    nodes = Nodes(home, Registry(home.root), links)
    enrolled(home, tmp_path, "east")
    nodes.register(links)
    assert home.nodes() == {"east": 1001}
    enrolled(home, tmp_path, NEW)
    nodes.follow()
    assert home.nodes() == {"east": 1001}, "enrolled, and not in the plan"
    admit_site(home, NEW, 50)
    links.down = True
    nodes.follow()  # and the study goes on
    assert home.nodes() == {"east": 1001}
    links.down = False
    for _ in range(3):
        nodes.follow()
    assert home.nodes() == {"east": 1001, NEW: 1002}
    assert [name for name, _ in links.registered] == ["east", NEW]


def test_who_was_revoked_is_not_registered(home, tmp_path):
    links = Links()
    nodes = Nodes(home, Registry(home.root), links)
    enrolled(home, tmp_path, "east")
    revoke(home.root, "east")
    nodes.follow()
    assert home.nodes() == {}


def test_the_intake_knows_a_site_that_was_admitted_since(home, tmp_path):
    service = IntakeService(home.root, home.plan(), Registry(home.root), home.plan)
    enrolled(home, tmp_path, NEW)
    pem = Registry(home.root).sites()[NEW].certificate.encode()
    caller = SimpleNamespace(auth_context=lambda: {"x509_pem_cert": [pem]})
    with pytest.raises(RefusedError):
        service._caller(caller)
    own = admit_site(home, NEW, 50)
    record = service._caller(caller)
    assert record.site == NEW
    asked = SimpleNamespace(site=NEW, plan_hash=own.digest, size=1000, sha256="0" * 64)
    assert service._begin(record, asked).offset == 0
    for other in (home.plan().digest, home.plan().study_digest, home.plan().digest_at("east")):
        with pytest.raises(RefusedError):
            service._begin(record, SimpleNamespace(**{**vars(asked), "plan_hash": other}))


def test_board_and_status_show_it_and_what_the_others_paid_stays(home, tmp_path):
    board = StatusBoard(home.status_file, home.plan())
    board.begin("spectral", 1, 1)
    board.site("east", "working")
    paid = read_board(home.status_file)["epsilon_by_site"]["east"]
    admit_site(home, NEW, 50)
    # another process looks before the rounds have taken notice
    assert overview(home.root, home.plan())["sites"][NEW]["state"] == "not enrolled"
    enrolled(home, tmp_path, NEW)
    assert overview(home.root, home.plan())["sites"][NEW] | {"since": None} == {
        **dict.fromkeys(("since", "heard", "step", "steps", "step_since")),
        **{"state": "absent", "code": "", "epsilon": 0.0, "note": ""},
    }
    board.follow(home.plan())
    board.site(NEW, "working")
    said = read_board(home.status_file)
    assert said["sites"][NEW] == "working"
    assert said["epsilon_by_site"]["east"] == paid > 0
    assert said["epsilon_by_site"][NEW] == paid
    assert said["paid"] == {"east": {"spectral": [1]}, "north": {}, "south": {}, NEW: {"spectral": [1]}}
