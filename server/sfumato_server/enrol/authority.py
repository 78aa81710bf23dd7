"""The coordinator's keys on disk: the CA, the server certificate for all its ports, the key that signs data sets.

The CA's key makes new sites, so it is needed by the commands that enrol and by nothing else: it lies encrypted under a
passphrase that the running coordinator never has, and may be taken away between enrolments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sfumato_common.crypto import certificates, signatures
from sfumato_common.crypto.certificates import CertificateAuthority
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic
from sfumato_server.enrol.copies import require_only

FOLDER = "authority"
CA_KEY, CA_CERTIFICATE, SERVER_KEY, SERVER_CERTIFICATE = "ca.key", "ca.crt", "server.key", "server.crt"
SIGNING_KEY, SIGNING_PUBLIC = "signing.pem", "coordinator.pem"
PASSPHRASE_VARIABLE = "SFUMATO_CA_PASSPHRASE"  # noqa: S105 - its name
SHORTEST_PASSPHRASE = 12
# scrypt (RFC 7914) with r = 8: 64 MiB and a fraction of a second a guess
SCRYPT_COST = 2**16


@dataclass(frozen=True)
class Authority:
    """The federation's root without the CA's key: `folder` holds the files that front, SuperLink and intake need."""

    folder: Path
    ca_certificate: x509.Certificate
    signing_key: Ed25519PrivateKey = field(repr=False)

    @property
    def ca_path(self) -> Path:
        """CA certificate, PEM: SuperLink's --ssl-ca-certfile, a SuperNode's --root-certificates."""
        return self.folder / CA_CERTIFICATE

    @property
    def server_certificate_path(self) -> Path:
        """Server certificate, PEM, for SuperLink and intake alike."""
        return self.folder / SERVER_CERTIFICATE

    @property
    def server_key_path(self) -> Path:
        """Private key of the server certificate, PEM."""
        return self.folder / SERVER_KEY

    @property
    def ca_pem(self) -> bytes:
        """The CA certificate's bytes."""
        return certificates.certificate_pem(self.ca_certificate)

    @property
    def public_key(self) -> bytes:
        """PEM of the key that verifies published data sets."""
        return signatures.public_pem(self.signing_key.public_key())


def create_authority(home: Path, server_names: Sequence[str] = (), passphrase: bytes | None = None) -> Authority:
    """Make the coordinator's keys under `home`; `server_names` are extra DNS names or addresses of its ports.

    `passphrase` locks the CA's key; None takes that of the environment. Raises ConfigError where it is missing or
    short, and where keys stand already: a second CA would lock every enrolled site out.
    """
    folder = home / FOLDER
    if (folder / CA_CERTIFICATE).exists():
        raise ConfigError(f"{home.name}: a certificate authority stands here already; use it or choose another home")
    authority = certificates.create_certificate_authority()
    locked = lock_authority(authority, passphrase)
    for private in (home, folder):
        make_private_folder(private)
    result = Authority(folder, authority.certificate, Ed25519PrivateKey.generate())
    write_atomic(folder / SIGNING_KEY, signatures.private_pem(result.signing_key), 0o600)
    write_atomic(folder / SIGNING_PUBLIC, result.public_key)
    store_certificate_authority(folder, authority, server_names, locked)
    return result


def lock_authority(authority: CertificateAuthority, passphrase: bytes | None) -> bytes:
    """The CA's key under `passphrase`, None for that of the environment. Raises ConfigError where it is too short."""
    return certificates.locked_key_pem(authority.key, _stretched(passphrase, authority.certificate))


def store_certificate_authority(
    folder: Path, authority: CertificateAuthority, server_names: Sequence[str], locked: bytes
) -> None:
    """Write a CA's locked key, its certificate, and a server certificate that it signs."""
    write_atomic(folder / CA_KEY, locked, 0o600)
    store_server_certificate(folder, authority, server_names)
    # the CA certificate comes last: it is what says that the folder is complete
    write_atomic(folder / CA_CERTIFICATE, certificates.certificate_pem(authority.certificate))


def store_server_certificate(folder: Path, authority: CertificateAuthority, server_names: Sequence[str]) -> None:
    """Write a new key and certificate for the coordinator's ports."""
    key, certificate = certificates.issue_server_certificate(authority, server_names)
    write_atomic(folder / SERVER_KEY, key, 0o600)
    write_atomic(folder / SERVER_CERTIFICATE, certificate)


def load_authority(home: Path) -> Authority:
    """The coordinator's keys under `home`, all but the CA's. Raises ConfigError when they are absent or damaged."""
    folder = home / FOLDER
    try:
        certificate, signing = (folder / CA_CERTIFICATE).read_bytes(), (folder / SIGNING_KEY).read_bytes()
    except OSError:
        raise ConfigError(f"{home.name}: no certificate authority here; create one first") from None
    return Authority(folder, certificates.load_certificate(certificate), signatures.load_private_key(signing))


def unlock_authority(home: Path, passphrase: bytes | None = None) -> CertificateAuthority:
    """The CA with its key, for a command that signs; None takes the passphrase of the environment.

    Raises ConfigError when the key was taken away, when no passphrase was given or another one, and for a copy of a
    home.
    """
    require_only(home)
    certificate = load_authority(home).ca_certificate
    try:
        locked = (home / FOLDER / CA_KEY).read_bytes()
    except OSError:
        raise ConfigError(f"the CA's key is not here; bring '{FOLDER}/{CA_KEY}' back for this command") from None
    return CertificateAuthority(certificates.unlock_key(locked, _stretched(passphrase, certificate)), certificate)


def require_no_passphrase() -> None:
    """Raise ConfigError where the environment holds the CA's passphrase: this process must not be able to sign."""
    if PASSPHRASE_VARIABLE in os.environ:
        raise ConfigError(f"a running coordinator must not be able to enrol: start it without {PASSPHRASE_VARIABLE}")


def _stretched(passphrase: bytes | None, certificate: x509.Certificate) -> bytes:
    """256 bits from a passphrase, salted by the CA that it belongs to, as text that a PEM tool takes as password."""
    given = os.environ.get(PASSPHRASE_VARIABLE, "").encode() if passphrase is None else passphrase
    if len(given) < SHORTEST_PASSPHRASE:
        raise ConfigError(f"the CA's key needs a passphrase of at least {SHORTEST_PASSPHRASE} bytes")
    salt = certificate.fingerprint(hashes.SHA256())
    return Scrypt(salt, 32, SCRYPT_COST, 8, 1).derive(given).hex().encode()
