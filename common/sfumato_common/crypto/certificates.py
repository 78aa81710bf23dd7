"""The federation's own small PKI (X.509, RFC 5280): one CA, one server certificate, one client certificate a site.

The CA has path length 0; server certificates may only serve, site certificates may only connect, so that a site's
certificate can never impersonate the coordinator.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sfumato_common.errors import ConfigError, VerificationError

AUTHORITY_DAYS = 3650
LEAF_DAYS = 730
# both sides speak of a certificate from so long before it ends
RENEWAL = timedelta(days=30)
# a hospital's clock may run behind the coordinator's
CLOCK_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class CertificateAuthority:
    """The CA's private key and certificate."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate


def create_certificate_authority(now: datetime | None = None) -> CertificateAuthority:
    """A new self-signed CA (EC P-256), valid ten years from `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("sfumato federation CA")
    builder = _builder(name, name, key.public_key(), key.public_key(), AUTHORITY_DAYS, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    return CertificateAuthority(key, builder.sign(key, hashes.SHA256()))


def issue_server_certificate(
    authority: CertificateAuthority, names: Sequence[str] = (), now: datetime | None = None
) -> tuple[bytes, bytes]:
    """(private key PEM, certificate PEM) for the coordinator's ports: localhost, 127.0.0.1, ::1 and `names`."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [_alternative(name) for name in dict.fromkeys(["localhost", "127.0.0.1", "::1", *names])]
    subject = _name("sfumato coordinator")
    builder = _leaf(authority, subject, key.public_key(), ExtendedKeyUsageOID.SERVER_AUTH, now)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return private_key_pem(key), certificate_pem(builder.sign(authority.key, hashes.SHA256()))


def signing_request(key: ec.EllipticCurvePrivateKey, site: str) -> bytes:
    """PKCS #10 request (RFC 2986), PEM, whose common name is the site's name."""
    request = x509.CertificateSigningRequestBuilder().subject_name(_name(site)).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def issue_site_certificate(
    authority: CertificateAuthority, request: bytes, site: str, now: datetime | None = None
) -> bytes:
    """Client certificate PEM for `site`; of the request only the key is used. Raises VerificationError."""
    return certify_site(authority, request_key(request, site), site, now)


def certify_site(
    authority: CertificateAuthority, key: ec.EllipticCurvePublicKey, site: str, now: datetime | None = None
) -> bytes:
    """Client certificate PEM for `site` over a key that is known to be its own."""
    builder = _leaf(authority, _name(site), key, ExtendedKeyUsageOID.CLIENT_AUTH, now)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(site)]), critical=False)
    return certificate_pem(builder.sign(authority.key, hashes.SHA256()))


def request_key(request: bytes, site: str) -> ec.EllipticCurvePublicKey:
    """The public key of a request that is well signed and made out to `site`. Raises VerificationError."""
    try:
        loaded = x509.load_pem_x509_csr(request)
        valid, key = loaded.is_signature_valid, loaded.public_key()
        names = [item.value for item in loaded.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except Exception:
        raise VerificationError("the certificate request is malformed; make a new enrolment request") from None
    if not valid or names != [site]:
        raise VerificationError("the certificate request is not this site's own; make a new enrolment request")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise VerificationError("the certificate request holds no P-256 key; make a new enrolment request")
    return key


def check_site_certificate(certificate: bytes, authority: bytes, site: str, key: ec.EllipticCurvePublicKey) -> None:
    """Check that a certificate is `site`'s, over `key`, signed by `authority`, in date. Raises VerificationError."""
    loaded, issuer = load_certificate(certificate), load_certificate(authority)
    try:
        loaded.verify_directly_issued_by(issuer)
    except Exception:
        raise VerificationError("the site certificate was not signed by this federation's CA") from None
    if common_name(loaded) != site or loaded.public_key() != key:
        raise VerificationError("the certificate was issued to another site or another key; enrol again")
    if not loaded.not_valid_before_utc <= datetime.now(UTC) < loaded.not_valid_after_utc:
        raise VerificationError("the site certificate is out of date; check the clock, or have it renewed")


def has_ended(certificate: bytes, now: datetime | None = None) -> bool:
    """Whether a certificate (PEM) is no longer valid."""
    return load_certificate(certificate).not_valid_after_utc <= (now or datetime.now(UTC))


def expiry_note(certificate: bytes, whose: str, now: datetime | None = None) -> str | None:
    """What people are told of a certificate (PEM) that has ended or ends within 30 days; None for any other."""
    end = load_certificate(certificate).not_valid_after_utc
    left = end - (now or datetime.now(UTC))
    if left > RENEWAL:
        return None
    if left <= timedelta(0):
        return f"the certificate of {whose} ended on {end:%Y-%m-%d}"
    return f"the certificate of {whose} ends on {end:%Y-%m-%d}, in {left.days} days"


def validity(certificate: bytes) -> dict[str, str]:
    """Last day of a certificate (PEM), and one word of it: good, ends soon (within 30 days), or ended."""
    standing = "ended" if has_ended(certificate) else "ends soon" if expiry_note(certificate, "") else "good"
    return {"ends": f"{load_certificate(certificate).not_valid_after_utc:%Y-%m-%d}", "standing": standing}


def server_names(certificate: bytes) -> list[str]:
    """DNS names and addresses that a server certificate (PEM) was made out to."""
    extension = load_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in extension.value]


def load_certificate(pem: bytes) -> x509.Certificate:
    """The certificate in `pem`. Raises VerificationError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except Exception:
        raise VerificationError("not a certificate in PEM form; ask the sender again") from None


def common_name(certificate: x509.Certificate) -> str:
    """The subject's only common name. Raises VerificationError when there is none or more than one."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(names) != 1:
        raise VerificationError("a certificate must have exactly one common name")
    return str(names[0].value)


def certificate_fingerprint(pem: bytes) -> str:
    """Lower-case hexadecimal sha256 of the DER form. Raises VerificationError."""
    return load_certificate(pem).fingerprint(hashes.SHA256()).hex()


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM form."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Unencrypted PKCS #8 PEM, as gRPC and uvicorn read it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def locked_key_pem(key: ec.EllipticCurvePrivateKey, password: bytes) -> bytes:
    """Encrypted PKCS #8 PEM. Its own key derivation is short: `password` must have 256 bits of entropy."""
    encryption = serialization.BestAvailableEncryption(password)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def unlock_key(pem: bytes, password: bytes) -> ec.EllipticCurvePrivateKey:
    """The EC private key in an encrypted `pem`. Raises ConfigError, also for a key that was never encrypted."""
    try:
        key = serialization.load_pem_private_key(pem, password)
    except Exception:
        raise ConfigError("the CA's key does not open; check the passphrase, or restore the key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the CA's key is not an elliptic-curve key; restore it from the backup")
    return key


def load_elliptic_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The unencrypted EC private key in `pem`. Raises ConfigError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except Exception:
        raise ConfigError("a TLS key file is damaged; restore it from the backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError("a TLS key is not an elliptic-curve key; restore it from the backup")
    return key


def _leaf(
    authority: CertificateAuthority,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    usage: x509.ObjectIdentifier,
    now: datetime | None,
) -> x509.CertificateBuilder:
    builder = _builder(subject, authority.certificate.subject, key, authority.key.public_key(), LEAF_DAYS, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    return builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime | None,
) -> x509.CertificateBuilder:
    start = (now or datetime.now(UTC)) - CLOCK_SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
