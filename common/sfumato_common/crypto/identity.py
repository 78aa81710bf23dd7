"""A site's identity in its home folder: three private keys that never leave it, and what enrolment gave back.

Ed25519 signs packages and requests; EC P-384 (OpenSSH form) authenticates the Flower SuperNode; EC P-256 speaks TLS.
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sfumato_common.crypto import certificates, signatures
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic

SITE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
SIGNING_KEY, NODE_KEY, NODE_PUBLIC, TLS_KEY, NAME_FILE = "signing.pem", "node.key", "node.pub", "tls.key", "site.name"


@dataclass(frozen=True)
class SiteIdentity:
    """Who a site is. The private keys stay out of every printed form."""

    folder: Path
    site: str
    signing_key: Ed25519PrivateKey = field(repr=False)
    node_key: ec.EllipticCurvePrivateKey = field(repr=False)
    tls_key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def signing_public(self) -> bytes:
        """PEM of the public signing key."""
        return signatures.public_pem(self.signing_key.public_key())

    @property
    def node_public(self) -> bytes:
        """OpenSSH line of the node's public key, as `flwr supernode register` reads it."""
        return self.node_key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )

    @property
    def node_key_path(self) -> Path:
        """File for `flower-supernode --auth-supernode-private-key`."""
        return self.folder / NODE_KEY

    @property
    def node_public_path(self) -> Path:
        """File of the node's public key beside it."""
        return self.folder / NODE_PUBLIC

    @property
    def tls_key_pem(self) -> bytes:
        """The TLS private key, for gRPC's channel credentials."""
        return certificates.private_key_pem(self.tls_key)

    def sign_package(self, manifest: bytes) -> bytes:
        """Signature of a release package's manifest: what `build_package` takes as `sign`."""
        return signatures.sign(self.signing_key, "package", manifest)

    def sign_approval(self, statement: bytes) -> bytes:
        """Signature of leave for a package to go."""
        return signatures.sign(self.signing_key, "approval", statement)

    def sign_stewardship(self, statement: bytes) -> bytes:
        """Signature of who is a steward here, and of a steward's decision as it was taken."""
        return signatures.sign(self.signing_key, "stewardship", statement)

    def sign_sum(self, text: bytes) -> bytes:
        """Signature of what a site states in a secure sum."""
        return signatures.sign(self.signing_key, "secure-sum", text)

    def sign_table(self, certificate: bytes) -> bytes:
        """Signature of a released table's certificate."""
        return signatures.sign(self.signing_key, "table", certificate)


def create_identity(folder: Path, site: str) -> SiteIdentity:
    """Make and store a new identity for `site`. Raises ConfigError for a bad name or where one stands already."""
    if not SITE_NAME.fullmatch(site):
        raise ConfigError("a site name is 1 to 32 of a-z, 0-9 and '-', starting with a letter; choose another")
    if (folder / NAME_FILE).exists():
        raise ConfigError(f"{folder.name}: an identity stands here already; use it or choose an empty folder")
    identity = SiteIdentity(
        folder,
        site,
        Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    make_private_folder(folder)
    openssh = identity.node_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    write_atomic(folder / SIGNING_KEY, signatures.private_pem(identity.signing_key), 0o600)
    write_atomic(folder / NODE_KEY, openssh, 0o600)
    write_atomic(folder / NODE_PUBLIC, identity.node_public + b"\n")
    write_atomic(folder / TLS_KEY, identity.tls_key_pem, 0o600)
    # the name comes last: it is what says that the identity is complete
    write_atomic(folder / NAME_FILE, site + "\n")
    return identity


def load_identity(folder: Path) -> SiteIdentity:
    """The identity stored in `folder`. Raises ConfigError when it is absent, damaged or readable by others."""
    try:
        site = (folder / NAME_FILE).read_text(encoding="ascii").strip()
        signing, node, tls = (_read_private(folder / name) for name in (SIGNING_KEY, NODE_KEY, TLS_KEY))
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{folder.name}: no complete identity here; create one first") from None
    if not SITE_NAME.fullmatch(site):
        raise ConfigError(f"{folder.name}: the stored site name is damaged; restore the folder from the backup")
    try:
        node_key = serialization.load_ssh_private_key(node, password=None)
    except Exception:
        raise ConfigError(f"{NODE_KEY} is damaged; restore it from the backup") from None
    if not isinstance(node_key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{NODE_KEY} is not an elliptic-curve key; restore it from the backup")
    return SiteIdentity(
        folder, site, signatures.load_private_key(signing), node_key, certificates.load_elliptic_key(tls)
    )


def _read_private(path: Path) -> bytes:
    """A private key's bytes; as ssh does, a key that others can read is refused."""
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path.name} can be read by others; run chmod 600 on it and consider the key disclosed")
    return path.read_bytes()
