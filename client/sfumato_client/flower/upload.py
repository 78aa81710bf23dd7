"""How a sealed package reaches the coordinator's intake from this site's home: addresses, certificates, identity."""

from __future__ import annotations

from collections.abc import Callable

from sfumato_client.site.home import SiteHome
from sfumato_common.study.plan import Plan


def uploader(home: SiteHome) -> Callable[[bytes, Plan], None]:
    """A function that delivers a package over mutual TLS with the certificate of the site's enrolment."""

    def deliver(data: bytes, plan: Plan) -> None:
        from sfumato_client.egress.upload import upload_package
        from sfumato_common.crypto.enrolment import GRANT_FILES
        from sfumato_common.crypto.identity import load_identity

        identity = load_identity(home.identity)
        upload_package(
            home.addresses()["intake"],
            data,
            ca_pem=(home.identity / GRANT_FILES["authority"]).read_bytes(),
            certificate_pem=(home.identity / GRANT_FILES["certificate"]).read_bytes(),
            key_pem=identity.tls_key_pem,
            site=identity.site,
            plan_hash=plan.digest,
            timeout=120.0,
        )

    return deliver
