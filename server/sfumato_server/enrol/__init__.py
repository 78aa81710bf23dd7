"""Who belongs to the federation: CA, signed site certificates, node registration."""

from sfumato_server.enrol.authority import (
    Authority,
    create_authority,
    load_authority,
    require_no_passphrase,
    unlock_authority,
)
from sfumato_server.enrol.registry import Registry, SiteRecord, enrol, revoke

__all__ = [
    "Authority",
    "Registry",
    "SiteRecord",
    "create_authority",
    "enrol",
    "load_authority",
    "require_no_passphrase",
    "revoke",
    "unlock_authority",
]
