"""How a sealed package reaches the coordinator's intake from this site's home: address, certificates, identity."""

from __future__ import annotations

from collections.abc import Callable

from sfumato_client.site.home import SiteHome
from sfumato_common.study.plan import Plan


def uploader(home: SiteHome) -> Callable[[bytes, Plan], None]:
    """A function that delivers a package over mutual TLS with the certificate of the site's enrolment."""

    def deliver(data: bytes, plan: Plan) -> None:
        from sfumato_client.egress.upload import upload_package
        from sfumato_common.crypto.enrolment import load_grant, require_current
        from sfumato_common.crypto.identity import load_identity

        require_current(home.grant)  # TLS would only say that nobody answers
        identity, grant = load_identity(home.keys), load_grant(home.grant)
        upload_package(
            home.coordinator_address(),
            data,
            ca_pem=grant.authority,
            certificate_pem=grant.certificate,
            key_pem=identity.tls_key_pem,
            site=identity.site,
            plan_hash=plan.digest,
            timeout=120.0,
        )

    return deliver
