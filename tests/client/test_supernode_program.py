"""The SuperNode's program shows the site's certificate to the coordinator, over TLS and over nothing less."""

import inspect
import re
import ssl
import subprocess
import sys
import threading
from importlib import import_module
from types import SimpleNamespace

import pytest
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_utils import ObjectUnavailableError

from sfumato_client.egress import flower_hooks
from sfumato_client.egress.flower_hooks import Contact, _NodeClock, install_certificate, require_flower, shorten_polls
from sfumato_client.flower.node import _why
from sfumato_common.crypto import certificates
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import VerificationError
from sfumato_common.protocol.flower import fetch_sooner


class Plain:
    """Where Flower's client of the Fleet API stands."""

    def __init__(self, url, **rest):
        self.url, self.rest = url, rest


@pytest.fixture
def certified(tmp_path):
    """(Flower's connection module with the hook in place, the CA's PEM)."""
    ca = certificates.create_certificate_authority()
    identity = create_identity(tmp_path / "identity", "alder")
    request = certificates.signing_request(identity.tls_key, "alder")
    (tmp_path / "site.crt").write_bytes(certificates.issue_site_certificate(ca, request, "alder"))
    module = SimpleNamespace(FleetHttpClient=Plain)
    install_certificate(module, tmp_path / "site.crt", identity.folder / "tls.key", Contact(tmp_path))
    return module, certificates.certificate_pem(ca.certificate)


def test_the_client_verifies_the_coordinator_and_shows_its_certificate(certified):
    module, ca = certified
    client = module.FleetHttpClient.from_server_address("c:8000", False, ca, ["signs"], retry_invoker=None)
    signs, contact = client.rest["interceptors"]
    assert (client.url, signs, type(contact)) == ("https://c:8000", "signs", Contact)
    context = client.rest["verify"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1, "the federation's CA and no other"


@pytest.mark.parametrize(("insecure", "trusted"), [(True, None), (False, None), (False, "ca.pem")])
def test_less_than_tls_to_the_federations_ca_is_refused(certified, insecure, trusted):
    with pytest.raises(VerificationError, match="TLS alone"):
        certified[0].FleetHttpClient.from_server_address("c:8000", insecure, trusted, [])


def test_a_flower_without_the_hook_is_refused_and_the_pinned_one_has_it(tmp_path):
    with pytest.raises(VerificationError, match="lacks 'FleetHttpClient'"):
        install_certificate(SimpleNamespace(), tmp_path, tmp_path, Contact(tmp_path))
    assert hasattr(import_module("flwr.supernode.fleet_http_connection"), "FleetHttpClient")


@pytest.mark.parametrize(
    ("log", "word"),
    [
        ("[code: 2004] x\nSuperNode terminated gracefully.", "does not know this site's key"),
        ("INFO SuperNode terminated gracefully.", "refuses this site's certificate"),
        ("SSL: CERTIFICATE_VERIFY_FAILED", "not the one of the enrolment"),
        ("anything", "its log"),
    ],
)
def test_a_node_that_ends_says_why(log, word):
    assert word in _why(log)


def test_what_the_nodes_requests_met_with_says_more_than_flowers_code():
    met = "coordinator c:1 was not reached: its certificate is not made out to that name"
    assert _why("Exit Code: 305", met) == met


def test_an_unknown_flower_is_refused(monkeypatch):
    require_flower()
    monkeypatch.setattr(flower_hooks, "version", lambda _: "1.42.0")
    with pytest.raises(VerificationError, match="install flwr=="):
        require_flower()


def test_the_node_asks_soon_in_a_study_and_seldom_between_studies():
    slept, clock = [], [0.0]
    node = _NodeClock(slept.append, lambda: clock[0])
    for moment, asked in [(0, 3), (20, 3), (300, 3), (300, 0.5), (301, 3)]:
        clock[0] = moment
        node.sleep(asked)
    assert slept == [0.2, 1.0, 3.0, 0.1, 0.2]


def test_the_pinned_nodes_loop_sleeps_by_the_clock_that_it_is_given():
    loop = import_module("flwr.supernode.start_client_internal")
    source = inspect.getsource(loop)
    # what the clock stands for: the sleeps of an idle node, and those of one that waits for its worker
    sleeps = re.findall(r"\btime\.\w+\([\d.]+\)", source)
    assert sorted(sleeps) == ["time.sleep(0.5)", "time.sleep(0.5)", "time.sleep(3)"]
    assert len(re.findall(r"\btime\.\w+", source)) == len(sleeps)
    fake = SimpleNamespace(time=None)
    shorten_polls(fake)
    assert isinstance(fake.time, _NodeClock)
    with pytest.raises(VerificationError, match="lacks 'time'"):
        shorten_polls(SimpleNamespace())


def test_an_object_that_comes_a_moment_later_is_not_waited_for_a_second(monkeypatch):
    """Flower hands a message out before its objects: the first pause was most of an exchange without work."""
    fetch = inflatable_utils.pull_objects
    monkeypatch.setattr(fetch, "__kwdefaults__", dict(fetch.__kwdefaults__))
    waited = []
    own = SimpleNamespace(Event=lambda: _Impatient(waited), Lock=threading.Lock)
    monkeypatch.setattr(inflatable_utils, "threading", own)
    asked = iter([ObjectUnavailableError, ObjectUnavailableError, None])

    def pull(_):
        if (missing := next(asked)) is not None:
            raise missing("not yet")
        return b"it"

    fetch_sooner()
    assert fetch(["one"], pull) == {"one": b"it"}
    # a fifth more or less, by chance, and twice as long after that
    assert 0.08 <= waited[0] <= 0.12
    assert 0.16 <= waited[1] <= 0.24
    monkeypatch.setattr(fetch, "__kwdefaults__", {"max_time": 1})
    with pytest.raises(VerificationError, match="fetches objects in another way"):
        fetch_sooner()


class _Impatient:
    """An event that nobody sets: its waits end at once and are written down."""

    def __init__(self, waited):
        self.waited = waited

    def is_set(self):
        return False

    def set(self):
        pass

    def wait(self, seconds):
        self.waited.append(seconds)


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("1 / 0", 1), ("None", 0)])
def test_a_supernode_that_has_ended_waits_for_no_thread_on_a_dead_line(ending, code):
    """Seen after a cut: it had given up, a thread of it had not, and the site never joined again."""
    program = (
        "import sys, threading; from sfumato_client.egress.supernode_program import run_and_end; "
        f"threading.Thread(target=threading.Event().wait).start(); run_and_end(lambda: {ending})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert ("ZeroDivisionError" in done.stderr) == (code == 1)
