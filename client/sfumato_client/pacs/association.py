"""Associations with a PACS (PS3.8 7.1), and why there is none, in a sentence for who wrote `pacs.yaml`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from sfumato_client.pacs.query import InterruptedTransferError
from sfumato_client.pacs.settings import Dimse
from sfumato_client.pacs.spool import PDU_BYTES
from sfumato_common.errors import ConfigError, PacsError


def associate(
    pacs: Dimse,
    tls: ssl.SSLContext | None,
    contexts: list[PresentationContext],
    roles: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
) -> Association:
    """An established association.

    Raises ConfigError where titles or certificates are wrong, PacsError where nothing of DICOM is there, and
    InterruptedTransferError where it may be in a while.
    """
    entity = AE(pacs.ae_title)
    entity.connection_timeout, entity.acse_timeout = pacs.connect_s, pacs.connect_s
    entity.dimse_timeout, entity.network_timeout = pacs.idle_s, pacs.idle_s
    address = _resolve(pacs)
    name = (pacs.tls.name if pacs.tls else None) or pacs.host
    association = entity.associate(
        address,
        pacs.port,
        contexts,
        pacs.called,
        PDU_BYTES,
        list(roles),
        tls_args=None if tls is None else (tls, name),
        evt_handlers=list(handlers),
    )
    if not association.is_established:
        raise _not_established(association, pacs, address, tls, name)
    return association


def _resolve(pacs: Dimse) -> str:
    try:
        return str(socket.getaddrinfo(pacs.host, pacs.port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        raise ConfigError(f"no address is known for the host of {pacs.place}; check 'host'") from None


def _not_established(
    association: Association, pacs: Dimse, address: str, tls: ssl.SSLContext | None, name: str
) -> Exception:
    """Why there is no association; what pynetdicom does not tell is found out by one connection more."""
    place = pacs.place
    if association.rejected_contexts:
        return PacsError(f"{place} offers none of the services that are asked for; ask its people")
    if association.is_rejected:
        reason = association.acceptor.primitive
        source, diagnostic = getattr(reason, "result_source", 0), getattr(reason, "diagnostic", 0)
        if (source, diagnostic) == (1, 7):
            return ConfigError(f"{place} says that it is not called so; check 'called'")
        if (source, diagnostic) == (1, 3):
            return ConfigError(f"{place} does not know this site's AE title; its people have to enter 'ae_title' there")
        if source == 3:
            return InterruptedTransferError(f"{place} takes no further association now")
        return ConfigError(f"{place} rejects the association; check 'ae_title' and 'called', and ask its people")
    try:
        with socket.create_connection((address, pacs.port), pacs.connect_s) as plain:
            if tls is not None:
                with tls.wrap_socket(plain, server_hostname=name) as spoken:
                    spoken.settimeout(0.5)
                    spoken.recv(1)  # under TLS 1.3 the other side refuses our certificate only now
    except ssl.SSLCertVerificationError:
        return ConfigError(
            f"the certificate that {place} shows is not to be trusted: it is not signed by the CA of 'tls.ca', "
            "names another host (see 'tls.name'), or has ended"
        )
    except TimeoutError:
        pass
    except ssl.SSLError:
        return ConfigError(f"{place} speaks no TLS, or does not take our certificate; check 'tls' and 'port'")
    except ConnectionRefusedError:
        return PacsError(f"nothing listens at {place}; check 'host' and 'port'")
    except OSError:
        return InterruptedTransferError(f"{place} is not reached")
    return InterruptedTransferError(
        f"{place} takes the connection, but did not answer as a DICOM service in time; check 'port' and 'tls'"
    )
