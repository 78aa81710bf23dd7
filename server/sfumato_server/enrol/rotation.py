"""New certificates for old ones: of the coordinator's ports, of its CA, and what there is to say of those that end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from sfumato_common.crypto.certificates import create_certificate_authority, expiry_note, has_ended, server_names
from sfumato_common.crypto.enrolment import EnrolmentGrant
from sfumato_common.errors import ConfigError
from sfumato_common.proxies import is_here
from sfumato_server.enrol.authority import (
    Authority,
    load_authority,
    lock_authority,
    store_certificate_authority,
    store_server_certificate,
    unlock_authority,
)
from sfumato_server.enrol.registry import Registry, renew


def rotate_server(home: Path, names: Sequence[str] = (), passphrase: bytes | None = None) -> None:
    """A new key and certificate for the coordinator's ports, of the CA that the sites know: they notice nothing.

    `names` are as for `create_authority`; without any, the old certificate's. `passphrase` opens the CA's key.
    """
    authority = load_authority(home)
    store_server_certificate(authority.folder, unlock_authority(home, passphrase), names or _names(authority))


def rotate_authority(
    home: Path, names: Sequence[str] = (), passphrase: bytes | None = None
) -> dict[str, EnrolmentGrant]:
    """A new CA, its server certificate, and a grant for each site in good standing; nothing of the old CA is good.

    The signing key stays: by it the sites know that the new CA is the same coordinator's. `passphrase` locks the new
    CA's key; the old one is not needed.
    """
    old, fresh = load_authority(home), create_certificate_authority()
    store_certificate_authority(old.folder, fresh, names or _names(old), lock_authority(fresh, passphrase))
    members = sorted(Registry(home).in_force())
    return {site: renew(home, site, keep_earlier=False, passphrase=passphrase) for site in members}


def expiry_notes(home: Path, sites: Collection[str]) -> list[str]:
    """What people are told of certificates that have ended or end within 30 days: the CA's, the server's, the sites'.

    Raises ConfigError when the CA's or the server's has ended: no site could reach a port of this coordinator.
    """
    authority, records = load_authority(home), Registry(home).sites()
    own = {"the CA": authority.ca_pem, "the coordinator's ports": authority.server_certificate_path.read_bytes()}
    theirs = {
        f"site '{name}'": record.certificate.encode()
        for name, record in sorted(records.items())
        if name in sites and record.status == "enrolled"
    }
    if ended := [whose for whose, pem in own.items() if has_ended(pem)]:
        option = " --authority" if ended == ["the CA"] or len(ended) > 1 else ""
        raise ConfigError(f"the certificate of {ended[0]} has ended; run 'sfumato coordinator rotate{option}'")
    notes = [expiry_note(pem, whose) for whose, pem in {**own, **theirs}.items()]
    return [note for note in notes if note is not None]


def address_notes(home: Path, host: str) -> list[str]:
    """What people are told where hospitals that come by `host` would not find it in the ports' certificate.

    `host` is the address that the ports listen at; of a wildcard it is not known by which hospitals come. Raises
    ConfigError where the certificate names this machine alone and others are to come.
    """
    authority = load_authority(home)
    names = _names(authority)
    ours = [name for name in names if not is_here(name)]
    if is_here(host):
        return []
    if not ours:
        option = "--name HOST, as hospitals will write it" if _is_wildcard(host) else f"--name {host}"
        raise ConfigError(
            "the certificate of the coordinator's ports names this machine alone, and no hospital could join: run "
            f"'sfumato coordinator rotate {option}'"
        )
    if _is_wildcard(host) or host in names:
        return []
    return [
        f"the certificate of the coordinator's ports is for {', '.join(ours)}, and not for {host}: hospitals must join "
        f"by one of these names, or run 'sfumato coordinator rotate --name {host}'"
    ]


def _is_wildcard(host: str) -> bool:
    return host in ("", "0.0.0.0", "::")  # noqa: S104 - compared, and not listened at


def _names(authority: Authority) -> list[str]:
    return server_names(authority.server_certificate_path.read_bytes())
