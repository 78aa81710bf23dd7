import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from sfumato_common.crypto import certificates, enrolment, identity, signatures
from sfumato_common.errors import ConfigError, VerificationError
from sfumato_common.files import canonical_json


@pytest.fixture(scope="module")
def north(tmp_path_factory: pytest.TempPathFactory) -> identity.SiteIdentity:
    return identity.create_identity(tmp_path_factory.mktemp("north") / "identity", "north")


@pytest.fixture(scope="module")
def authority() -> certificates.CertificateAuthority:
    return certificates.create_certificate_authority()


COORDINATOR = Ed25519PrivateKey.generate()
TOLD = signatures.fingerprint(signatures.public_pem(COORDINATOR.public_key()))


def grant_for(
    authority: certificates.CertificateAuthority,
    who: identity.SiteIdentity,
    name: str,
    coordinator: Ed25519PrivateKey = COORDINATOR,
) -> bytes:
    request = certificates.signing_request(who.tls_key, name)
    grant = enrolment.EnrolmentGrant(
        certificates.issue_site_certificate(authority, request, name),
        certificates.certificate_pem(authority.certificate),
        signatures.public_pem(coordinator.public_key()),
    )
    return enrolment.encode_grant(grant, coordinator)


def test_identity_survives_reloading_and_private_keys_are_private(north: identity.SiteIdentity) -> None:
    again = identity.load_identity(north.folder)
    assert (again.site, again.signing_public, again.node_public) == ("north", north.signing_public, north.node_public)
    for name in (identity.SIGNING_KEY, identity.NODE_KEY, identity.TLS_KEY):
        assert stat.S_IMODE((north.folder / name).stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(again)
    assert "_key" not in repr(again)


def test_flower_can_read_the_node_key(north: identity.SiteIdentity) -> None:
    # exactly what flower-supernode and `flwr supernode register` call
    private = load_ssh_private_key(north.node_key_path.read_bytes(), None)
    public = load_ssh_public_key(north.node_public_path.read_bytes())
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public


@pytest.mark.parametrize("name", ["", "North", "-north", "north\n", "n" * 33, "../north", "1north"])
def test_bad_site_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        identity.create_identity(tmp_path / "identity", name)
    assert not (tmp_path / "identity").exists()


def test_an_identity_is_never_overwritten(north: identity.SiteIdentity) -> None:
    with pytest.raises(ConfigError, match="already"):
        identity.create_identity(north.folder, "north")


def test_readable_or_damaged_keys_are_refused(tmp_path: Path) -> None:
    made = identity.create_identity(tmp_path / "identity", "south")
    key = made.folder / identity.SIGNING_KEY
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod"):
        identity.load_identity(made.folder)
    key.chmod(0o600)
    key.write_bytes(b"nonsense")
    with pytest.raises(ConfigError, match="damaged"):
        identity.load_identity(made.folder)
    key.unlink()
    with pytest.raises(ConfigError, match="create one"):
        identity.load_identity(made.folder)


def test_a_signature_serves_one_domain_and_one_message(north: identity.SiteIdentity) -> None:
    signature = signatures.sign(north.signing_key, "package", b"text")
    signatures.verify(north.signing_public, "package", b"text", signature)
    for domain, message in (("enrolment", b"text"), ("published", b"text"), ("package", b"text ")):
        with pytest.raises(VerificationError):
            signatures.verify(north.signing_public, domain, message, signature)  # type: ignore[arg-type]
    with pytest.raises(VerificationError):
        signatures.verify(north.signing_public, "package", b"text", signature[:-1])


def test_other_key_types_do_not_pass_as_signing_keys(north: identity.SiteIdentity) -> None:
    elliptic = north.tls_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for pem in (elliptic, b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(VerificationError):
            signatures.load_public_key(pem)


def signed_request(who: identity.SiteIdentity, body: dict[str, str]) -> bytes:
    """Any body, signed by all keys that `who` holds."""
    signed = canonical_json(body)
    proofs = {
        "certificate_request": signatures.sign_elliptic(who.tls_key, "enrolment", signed),
        "signing_key": signatures.sign(who.signing_key, "enrolment", signed),
        "node_key": signatures.sign_elliptic(who.node_key, "enrolment", signed),
    }
    return canonical_json({"body": body, "signatures": {name: proof.hex() for name, proof in proofs.items()}})


def test_request_round_trip_and_no_private_key_in_it(north: identity.SiteIdentity) -> None:
    data = enrolment.enrolment_request(north)
    assert enrolment.read_request(data).site == "north"
    assert b"PRIVATE" not in data
    assert str(north.folder).encode() not in data


def test_every_altered_field_of_a_request_is_refused(north: identity.SiteIdentity, tmp_path: Path) -> None:
    other = identity.create_identity(tmp_path / "identity", "south")
    mine, theirs = (json.loads(enrolment.enrolment_request(item)) for item in (north, other))
    for field in ("format", "site", "certificate_request", "signing_key", "node_key"):
        altered = {"body": {**mine["body"], field: theirs["body"][field] + (" " if field == "format" else "")}}
        with pytest.raises(VerificationError):
            enrolment.read_request(canonical_json({**mine, **altered}))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b"[" * 60000, b'{"body":{},"signatures":{}}', b'{"body":1,"signatures":"zz"}']
)
def test_malformed_requests_are_refused(data: bytes) -> None:
    with pytest.raises(VerificationError):
        enrolment.read_request(data)


def test_a_request_for_a_name_that_its_csr_does_not_carry_is_refused(north: identity.SiteIdentity) -> None:
    body = json.loads(enrolment.enrolment_request(north))["body"] | {"site": "south"}
    with pytest.raises(VerificationError, match="own"):
        enrolment.read_request(signed_request(north, body))


def test_grant_is_stored_only_when_it_fits(
    north: identity.SiteIdentity, authority: certificates.CertificateAuthority, tmp_path: Path
) -> None:
    other = identity.create_identity(tmp_path / "identity", "south")
    with pytest.raises(ConfigError, match="not enrolled"):
        enrolment.load_grant(other.folder)
    for wrong in (grant_for(authority, north, "south"), grant_for(authority, other, "north"), b"{}"):
        with pytest.raises(VerificationError):
            enrolment.store_grant(other, wrong, TOLD)
    with pytest.raises(ConfigError):
        enrolment.load_grant(other.folder)
    stored = enrolment.store_grant(other, grant_for(authority, other, "south"), TOLD)
    assert enrolment.load_grant(other.folder) == stored


def test_grant_of_another_authority_is_refused(
    north: identity.SiteIdentity, authority: certificates.CertificateAuthority
) -> None:
    body = json.loads(grant_for(authority, north, "north"))["body"]
    foreign = certificates.create_certificate_authority()
    body["authority"] = certificates.certificate_pem(foreign.certificate).decode()
    signature = signatures.sign(COORDINATOR, "grant", canonical_json(body)).hex()
    with pytest.raises(VerificationError, match="CA"):
        enrolment.store_grant(north, canonical_json({"body": body, "signature": signature}), TOLD)


def test_certificates_can_do_one_thing_only(
    north: identity.SiteIdentity, authority: certificates.CertificateAuthority
) -> None:
    _, server = certificates.issue_server_certificate(authority, ["coordinator.example.org", "10.1.2.3"])
    site = certificates.issue_site_certificate(authority, certificates.signing_request(north.tls_key, "north"), "north")
    for pem, usage in ((server, ExtendedKeyUsageOID.SERVER_AUTH), (site, ExtendedKeyUsageOID.CLIENT_AUTH)):
        loaded = certificates.load_certificate(pem)
        extensions = loaded.extensions
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        loaded.verify_directly_issued_by(authority.certificate)
    names = certificates.load_certificate(server).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "coordinator.example.org"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "10.1.2.3"} <= {str(item) for item in names.get_values_for_type(x509.IPAddress)}
    limits = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)


def test_certificates_start_early_and_end(
    north: identity.SiteIdentity, authority: certificates.CertificateAuthority
) -> None:
    request = certificates.signing_request(north.tls_key, "north")
    now = datetime.now(UTC)
    loaded = certificates.load_certificate(certificates.issue_site_certificate(authority, request, "north"))
    assert loaded.not_valid_before_utc < now - timedelta(minutes=30)
    assert loaded.not_valid_after_utc < now + timedelta(days=certificates.LEAF_DAYS)
    old = certificates.issue_site_certificate(authority, request, "north", now - timedelta(days=800))
    ca = certificates.certificate_pem(authority.certificate)
    with pytest.raises(VerificationError, match="out of date"):
        certificates.check_site_certificate(old, ca, "north", north.tls_key.public_key())
