"""Who belongs to the federation: CA, signed site certificates, node registration, renewal and revocation."""

from sfumato_server.enrol.authority import Authority, create_authority, load_authority
from sfumato_server.enrol.registry import Registry, SiteRecord, enrol, renew, revoke
from sfumato_server.enrol.rotation import expiry_notes, rotate_authority, rotate_server

__all__ = [
    "Authority",
    "Registry",
    "SiteRecord",
    "create_authority",
    "enrol",
    "expiry_notes",
    "load_authority",
    "renew",
    "revoke",
    "rotate_authority",
    "rotate_server",
]
