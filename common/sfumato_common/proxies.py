"""A hospital's HTTP proxy: what goes out passes it, and what stays on this machine never does.

Who starts a program says so in its environment, as for any other: HTTPS_PROXY or ALL_PROXY, and NO_PROXY for who is
reached without it. TLS goes through by CONNECT (RFC 9110, section 9.3.6), so the proxy sees no more than an address.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

from sfumato_common.errors import ConfigError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_PROXIES, _DIRECT = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), ("no_proxy", "NO_PROXY")


def is_here(host: str) -> bool:
    """Whether a host is this machine by its address or name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def proxies_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables for a process that speaks to the outside: httpx and gRPC (small letters) read the same proxy in them.

    Empty where no proxy is named. Raises ConfigError for one that gRPC cannot use; its text does not quote the value,
    which may hold a password.
    """
    named = next((name for name in _PROXIES if environment.get(name)), None)
    if named is None:
        return {}
    try:
        parts = urlsplit(environment[named])
        usable = parts.scheme == "http" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(f"the variable {named} must be http://HOST:PORT: other proxies cannot carry the study")
    value = environment[named]
    return {"https_proxy": value, "HTTPS_PROXY": value, **_direct(environment)}


def keep_loopback_direct(environment: MutableMapping[str, str] = os.environ) -> None:
    """Reach this machine's own ports without a proxy, in this process and those it starts."""
    environment.update(_direct(environment))


def _direct(environment: Mapping[str, str]) -> dict[str, str]:
    said = next((environment[name] for name in _DIRECT if environment.get(name)), "")
    hosts = [host.strip() for host in said.split(",") if host.strip()]
    value = ",".join(dict.fromkeys([*hosts, *LOOPBACK_NAMES]))
    return dict.fromkeys(_DIRECT, value)
