"""A TLS client that would speak any version, however old."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path


def tls_context(identity: Path) -> ssl.SSLContext:
    """A client with the certificate of the site whose identity folder this is; it trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(identity / "site.crt", identity / "tls.key")
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def shake_hands(context: ssl.SSLContext, port: int, version: ssl.TLSVersion) -> None:
    """One handshake with a port of this machine under that version and no other. Raises what ssl raises."""
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    context.minimum_version = version
    with socket.create_connection(("127.0.0.1", port), 5) as plain, context.wrap_socket(plain) as spoken:
        assert spoken.version() == version.name.replace("_", ".")
