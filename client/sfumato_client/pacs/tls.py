"""TLS of DIMSE (PS3.15 B.9): at least 1.2, both sides show who they are."""

from __future__ import annotations

import ssl

from sfumato_client.pacs.settings import Certified
from sfumato_common.errors import ConfigError


def client_context(tls: Certified) -> ssl.SSLContext:
    """The side that connects; the other's certificate has to name its host. Raises ConfigError."""
    return _loaded(ssl.create_default_context() if tls.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), tls)


def server_context(tls: Certified) -> ssl.SSLContext:
    """The side that listens; peers need a certificate of the CA. Raises ConfigError."""
    context = _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _loaded(context: ssl.SSLContext, tls: Certified) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if tls.ca is not None:
            context.load_verify_locations(tls.ca)
        if tls.certificate is not None and tls.key is not None:
            # a key with a passphrase is refused, and not asked for: nobody sits there
            context.load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ssl.SSLError, ValueError):
        raise ConfigError("a file under 'tls' cannot be read, is no PEM, or the key is not the certificate's") from None
    return context
