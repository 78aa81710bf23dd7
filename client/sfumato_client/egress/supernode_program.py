"""The SuperNode's program: Flower's own, which shows the site's certificate to the coordinator (mutual TLS).

Flower's Fleet client has no option for a client certificate, so this module gives it one. It is tied to the one pinned
version of Flower, as `flower.task` is, and refuses where the hook's target is not there.
"""

from __future__ import annotations

import argparse
import ssl
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from sfumato_common.errors import VerificationError

_HOOK = "FleetHttpClient"


def install_certificate(connection: Any, certificate: Path, key: Path) -> None:
    """Make Flower's Fleet connection module show `certificate` (PEM). Refuses when the hook's target is not there."""
    if not hasattr(connection, _HOOK):
        raise VerificationError(f"this Flower lacks '{_HOOK}'; install the version that Sfumato pins")
    plain: Any = getattr(connection, _HOOK)

    class CertifiedClient(plain):  # type: ignore[misc]
        """Flower's client of the Fleet API over mutual TLS, and over nothing less."""

        @classmethod
        def from_server_address(
            cls, server_address: str, insecure: bool, root_certificates: bytes, interceptors: Any, **rest: Any
        ) -> Any:
            """As Flower's own, with a context that holds the site's certificate too."""
            if insecure or not isinstance(root_certificates, bytes):
                raise VerificationError("a site speaks to its coordinator over TLS alone; run it with 'sfumato-site'")
            context = ssl.create_default_context(cadata=root_certificates.decode("ascii"))
            context.load_cert_chain(certificate, key)
            return cls(f"https://{server_address}", interceptors=interceptors, verify=context, **rest)

    setattr(connection, _HOOK, CertifiedClient)


def main() -> None:
    """Run the SuperNode; all options but the two of the certificate are Flower's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--site-certificate", type=Path, required=True)
    parser.add_argument("--site-key", type=Path, required=True)
    known, sys.argv[1:] = parser.parse_known_args()
    install_certificate(import_module("flwr.supernode.fleet_http_connection"), known.site_certificate, known.site_key)
    import_module("flwr.supernode.cli").flower_supernode()


if __name__ == "__main__":
    main()
