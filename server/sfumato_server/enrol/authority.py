"""The coordinator's keys on disk: the CA, the server certificate for all its ports, the key that signs data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfumato_common.crypto import certificates, signatures
from sfumato_common.crypto.certificates import CertificateAuthority
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic

FOLDER = "authority"
CA_KEY, CA_CERTIFICATE, SERVER_KEY, SERVER_CERTIFICATE = "ca.key", "ca.crt", "server.key", "server.crt"
SIGNING_KEY, SIGNING_PUBLIC = "signing.pem", "coordinator.pem"


@dataclass(frozen=True)
class Authority:
    """The federation's root: `folder` holds the files that SuperLink and intake are started with."""

    folder: Path
    certificate_authority: CertificateAuthority = field(repr=False)
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
        return certificates.certificate_pem(self.certificate_authority.certificate)

    @property
    def public_key(self) -> bytes:
        """PEM of the key that verifies published data sets."""
        return signatures.public_pem(self.signing_key.public_key())


def create_authority(home: Path, server_names: Sequence[str] = ()) -> Authority:
    """Make the coordinator's keys under `home`; `server_names` are extra DNS names or addresses of its ports.

    Raises ConfigError where keys stand already: a second CA would lock every enrolled site out.
    """
    folder = home / FOLDER
    if (folder / CA_CERTIFICATE).exists():
        raise ConfigError(f"{home.name}: a certificate authority stands here already; use it or choose another home")
    make_private_folder(home)
    authority = certificates.create_certificate_authority()
    result = Authority(folder, authority, Ed25519PrivateKey.generate())
    make_private_folder(folder)
    write_atomic(folder / SIGNING_KEY, signatures.private_pem(result.signing_key), 0o600)
    write_atomic(folder / SIGNING_PUBLIC, result.public_key)
    store_certificate_authority(folder, authority, server_names)
    return result


def store_certificate_authority(folder: Path, authority: CertificateAuthority, server_names: Sequence[str]) -> None:
    """Write a CA's key and certificate, and a server certificate that it signs."""
    write_atomic(folder / CA_KEY, certificates.private_key_pem(authority.key), 0o600)
    store_server_certificate(folder, authority, server_names)
    # the CA certificate comes last: it is what says that the folder is complete
    write_atomic(folder / CA_CERTIFICATE, certificates.certificate_pem(authority.certificate))


def store_server_certificate(folder: Path, authority: CertificateAuthority, server_names: Sequence[str]) -> None:
    """Write a new key and certificate for the coordinator's ports."""
    key, certificate = certificates.issue_server_certificate(authority, server_names)
    write_atomic(folder / SERVER_KEY, key, 0o600)
    write_atomic(folder / SERVER_CERTIFICATE, certificate)


def load_authority(home: Path) -> Authority:
    """The coordinator's keys under `home`. Raises ConfigError when they are absent or damaged."""
    folder = home / FOLDER
    try:
        key, certificate = (folder / CA_KEY).read_bytes(), (folder / CA_CERTIFICATE).read_bytes()
        signing = (folder / SIGNING_KEY).read_bytes()
    except OSError:
        raise ConfigError(f"{home.name}: no certificate authority here; create one first") from None
    authority = CertificateAuthority(certificates.load_elliptic_key(key), certificates.load_certificate(certificate))
    return Authority(folder, authority, signatures.load_private_key(signing))
