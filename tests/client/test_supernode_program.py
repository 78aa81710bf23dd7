"""The SuperNode's program shows the site's certificate to the coordinator, over TLS and over nothing less."""

import ssl
from importlib import import_module
from types import SimpleNamespace

import pytest

from sfumato_client.egress.supernode_program import install_certificate
from sfumato_client.flower.node import _why
from sfumato_common.crypto import certificates
from sfumato_common.crypto.identity import create_identity
from sfumato_common.errors import VerificationError


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
    install_certificate(module, tmp_path / "site.crt", identity.folder / "tls.key")
    return module, certificates.certificate_pem(ca.certificate)


def test_the_client_verifies_the_coordinator_and_shows_its_certificate(certified):
    module, ca = certified
    client = module.FleetHttpClient.from_server_address("c:8000", False, ca, ["signs"], retry_invoker=None)
    assert (client.url, client.rest["interceptors"]) == ("https://c:8000", ["signs"])
    context = client.rest["verify"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(context.get_ca_certs()) == 1, "the federation's CA and no other"


@pytest.mark.parametrize(("insecure", "trusted"), [(True, None), (False, None), (False, "ca.pem")])
def test_less_than_tls_to_the_federations_ca_is_refused(certified, insecure, trusted):
    with pytest.raises(VerificationError, match="TLS alone"):
        certified[0].FleetHttpClient.from_server_address("c:8000", insecure, trusted, [])


def test_a_flower_without_the_hook_is_refused_and_the_pinned_one_has_it(tmp_path):
    with pytest.raises(VerificationError, match="lacks 'FleetHttpClient'"):
        install_certificate(SimpleNamespace(), tmp_path, tmp_path)
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
