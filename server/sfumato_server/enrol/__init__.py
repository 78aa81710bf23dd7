"""Who belongs to the federation: CA, signed site certificates, node registration, renewal and revocation."""

from sfumato_server.enrol.authority import (
    Authority,
    create_authority,
    load_authority,
    require_no_passphrase,
    unlock_authority,
)
from sfumato_server.enrol.registry import Registry, SiteRecord, enrol, renew, require_planned, revoke
from sfumato_server.enrol.rotation import address_notes, expiry_notes, rotate_authority, rotate_server

__all__ = [
    "Authority",
    "Registry",
    "SiteRecord",
    "address_notes",
    "create_authority",
    "enrol",
    "expiry_notes",
    "load_authority",
    "renew",
    "require_no_passphrase",
    "require_planned",
    "revoke",
    "rotate_authority",
    "rotate_server",
    "unlock_authority",
]
