"""Why a coordinator is not reached, in sentences with what to do: of an answer that refuses, or a line that was cut."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime

import httpx

from sfumato_common.crypto.certificates import CLOCK_SKEW
from sfumato_common.proxies import LOOPBACK_NAMES, proxies_of

# certificates allow for so much, in seconds, and the coordinator takes no signature whose time is much further away
CLOCK_S = CLOCK_SKEW.total_seconds()
# how a coordinator looks from outside that runs no study yet, or whose port is another one
ABSENT = "nothing listens there; check the address, and ask whether 'sfumato coordinator run' runs"


def seconds_ahead(response: httpx.Response, asked: float, now: float) -> float | None:
    """Seconds that this clock is ahead of the coordinator's, by its answer's date (RFC 9110, section 6.6.1).

    `asked` and `now` are this clock's times before and after, in seconds since 1970. The date's seconds are whole.
    None where the answer has no date.
    """
    try:
        said = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return None
    # it was written between asking and now, at some moment of its second
    early, late = asked - (said + 1.0), now - said
    return early if early > 0.0 else min(late, 0.0)


def refusal_words(response: httpx.Response, ahead_s: float | None) -> str:
    """A sentence for a status with which the coordinator refused; `ahead_s` is as of `seconds_ahead`."""
    if response.status_code in (502, 503, 504):
        return "it is reached, but does not work at the moment; ask its people whether 'sfumato coordinator run' runs"
    if ahead_s is not None and abs(ahead_s) > CLOCK_S:
        return "it refuses what is signed by a clock so far from its own; set this machine's clock"
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return (
            "it refuses this site's certificate or node key: enrolled elsewhere, revoked, or another grant is newer; "
            "ask its people, and take a new grant by 'sfumato-site join'"
        )
    if response.status_code == httpx.codes.NOT_FOUND or "html" in response.headers.get("content-type", ""):
        return "what answers at that address is no coordinator of Sfumato; check the address"
    return (
        "it does not know this site's key (have the enrolment request signed), or still holds its last connection (try "
        "again in a minute)"
    )


def cut_words(error: BaseException, address: str) -> str:
    """A sentence for a line to `address` (host:port) that did not come about, by the first cause that was named."""
    said = " ".join(str(each) for each in _causes(error)).lower()
    proxied = _goes_by_proxy(address, os.environ)
    if isinstance(error, httpx.ProxyError):
        return (
            "the proxy of HTTPS_PROXY does not let it through; ask who runs the proxy to allow CONNECT to this address"
        )
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
        if "hostname mismatch" in said or "ip address mismatch" in said:
            return "its certificate is not made out to that name; join again with a name that the coordinator gave"
        if "expired" in said or "not yet valid" in said:
            return "its certificate is out of date by this machine's clock; check the clock, or tell the coordinator"
        return (
            "its certificate is not the federation's: the address is another's, or something on the way opens TLS (an "
            "inspecting proxy); have TLS to that address passed through untouched"
        )
    if "alert" in said:
        return "it takes no certificate of this site; ask its people whether the site is enrolled with this coordinator"
    if "name or service not known" in said or "nodename nor servname" in said or "name resolution" in said:
        whose = "the name in HTTPS_PROXY" if proxied else "its name"
        return f"{whose} is not known here; check it, and this machine's DNS"
    if "refused" in said:
        if proxied:
            return "nothing listens where HTTPS_PROXY points; check that variable"
        return ABSENT
    if isinstance(error, httpx.TimeoutException) or "timed out" in said or "unreachable" in said:
        whom = "the proxy" if proxied else "it"
        return f"nothing comes back from {whom}; have the firewall let this machine connect out to that one port"
    return (
        "the line was cut before it answered: it takes no certificate of this site (ask its people whether the site is "
        "enrolled with this coordinator), or something on the way does not let TLS through"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _goes_by_proxy(address: str, environment: Mapping[str, str]) -> bool:
    proxies = proxies_of(environment)
    host = address.rpartition(":")[0].strip("[]")
    direct = proxies.get("no_proxy", ",".join(LOOPBACK_NAMES)).split(",")
    return bool(proxies) and not any(
        host == name or (name and host.endswith("." + name.lstrip("."))) for name in direct
    )
