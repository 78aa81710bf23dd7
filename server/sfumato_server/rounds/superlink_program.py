"""The SuperLink's program: Flower's own, with a login for its Control API, which the open-source one lacks.

Flower asks a `ControlAuthnPlugin` about every Control call; the one that it ships lets everybody in. And a site's clock
may be off. This module is the only one that replaces a part of Flower on this side; it is tied to the one pinned
version and refuses others.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sfumato_common.errors import ConfigError
from sfumato_common.logs import take_over_flower

LOOPBACK = "127.0.0.1"
SUPPORTED_FLOWER = "1.41.0"
_HOOK = "load_control_authn_plugin"
# a site's clock may be off by an hour, as its certificate allows for (`crypto.certificates.CLOCK_SKEW`), and some
# minutes; Flower's own 5 s keep out a site whose clock runs ahead
CLOCK_SECONDS = 3900
_CLOCK_HOOK = "SYSTEM_TIME_TOLERANCE"


def require_flower() -> None:
    """Raise ConfigError unless the one Flower is installed that this side was tested with."""
    if version("flwr") != SUPPORTED_FLOWER:
        raise ConfigError(f"the coordinator was tested with another Flower; install flwr=={SUPPORTED_FLOWER}")


def control_token(secret: bytes) -> str:
    """The token that opens the Control API, derived from the SuperLink's secret (HMAC, RFC 2104)."""
    return hmac.new(secret, b"sfumato control", hashlib.sha256).hexdigest()


def token_login(token: str) -> Any:
    """Flower's plug-in for the Control API's login: whoever shows `token` is let in, nobody else."""
    from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
    from flwr.supercore.auth.typing import AccountInfo
    from flwr.superlink.auth_plugin import ControlAuthnPlugin

    class TokenLogin(ControlAuthnPlugin):
        """One account, one token, no way to get another."""

        def __init__(self) -> None:
            """Nothing to load: the token is in the closure."""

        def get_login_details(self) -> None:
            """There is no way to log in but to hold the token."""

        def validate_tokens_in_metadata(self, metadata: Sequence[tuple[str, str | bytes]]) -> tuple[bool, Any]:
            """Whether exactly one token was shown and it is the right one, compared in constant time."""
            shown = [value.encode() if isinstance(value, str) else value for _, value in metadata]
            valid = len(shown) == 1 and hmac.compare_digest(shown[0], token.encode())
            return valid, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME) if valid else None

        def get_auth_tokens(self, device_code: str) -> None:
            """No token is given out."""
            del device_code

        def refresh_tokens(self, metadata: Sequence[tuple[str, str | bytes]]) -> tuple[tuple[()], None]:
            """No token is given out."""
            del metadata
            return (), None

    return TokenLogin()


def install_login(superlink: Any, token: str) -> None:
    """Point Flower's SuperLink module at the login. Refuses when the hook's target is not there."""
    if not hasattr(superlink, _HOOK):
        raise ConfigError(f"this Flower lacks '{_HOOK}'; install flwr=={SUPPORTED_FLOWER}")
    setattr(superlink, _HOOK, lambda: token_login(token))


def allow_clocks(node_auth: Any) -> None:
    """Let Flower take a node's signed time within `CLOCK_SECONDS` of its own; refuses when the hook is not there.

    The time guards against a signature that is shown again. Nobody but the front reaches this program, and it lets
    each site speak for its own node alone, over mutual TLS.
    """
    if not hasattr(node_auth, _CLOCK_HOOK):
        raise ConfigError(f"this Flower lacks '{_CLOCK_HOOK}'; install flwr=={SUPPORTED_FLOWER}")
    setattr(node_auth, _CLOCK_HOOK, CLOCK_SECONDS)


def main() -> None:
    """Run the SuperLink; its options are Flower's. Refuses a host beyond this machine, and a start without a secret."""
    require_flower()
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--host", choices=[LOOPBACK], required=True)
    parser.add_argument("--isolation", choices=["process"], required=True)
    parser.add_argument("--superexec-auth-secret-file", type=Path, required=True)
    known, _ = parser.parse_known_args()
    # by name: the package has a function of the module's name
    superlink = import_module("flwr.superlink.cli.flower_superlink")
    take_over_flower(superlink.uvicorn)
    install_login(superlink, control_token(known.superexec_auth_secret_file.read_bytes()))
    allow_clocks(import_module("flwr.superlink.routers.fleet.node_auth"))
    superlink.flower_superlink()


if __name__ == "__main__":
    main()
