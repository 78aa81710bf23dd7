"""Which certificates a home has, when each ends, and what renews it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.certificates import load_certificate, validity
from sfumato_common.crypto.enrolment import load_grant
from sfumato_common.errors import ConfigError


def certificates_of(home: SiteHome) -> list[dict[str, Any]]:
    """A row for each certificate of every coordinator that this home joined; `days` may be negative."""
    rows = list[dict[str, Any]]()
    for link in home.links:
        try:
            grant = load_grant(link.grant)
        except ConfigError:
            continue  # a plan was accepted before the coordinator's grant came
        option = f" --study {link.study}" if link.study else ""
        site = home.policy().site
        ours = f"sfumato coordinator renew {site}, there; then sfumato-site renew{option}, here"
        theirs = f"sfumato coordinator rotate --authority, there; then sfumato-site renew --replace{option}, here"
        for of, pem, how in (("this site's", grant.certificate, ours), ("the CA's", grant.authority, theirs)):
            rows.append({"study": link.study or "(the first)", "of": of, **_validity(pem), "renewed_by": how})
    return rows


def _validity(pem: bytes) -> dict[str, Any]:
    return {"days": (load_certificate(pem).not_valid_after_utc - datetime.now(UTC)).days, **validity(pem)}
