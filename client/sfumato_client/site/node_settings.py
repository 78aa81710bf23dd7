"""How the node of a home reaches its coordinator: what `run` starts it with, and what `check` looks by."""

from __future__ import annotations

from sfumato_client.egress.supernode import SuperNodeSettings
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.enrolment import GRANT_FILES
from sfumato_common.crypto.identity import TLS_KEY, load_identity


def node_settings(home: SiteHome, port: int, devices: int = 0, launcher: str = "") -> SuperNodeSettings:
    """Settings of `home`'s node, whose worker talks with it by `port`. Raises ConfigError before `join`."""
    return SuperNodeSettings(
        coordinator=home.coordinator_address(),
        ca_file=home.grant / GRANT_FILES["authority"],
        certificate_file=home.grant / GRANT_FILES["certificate"],
        tls_key_file=home.keys / TLS_KEY,
        node_key_file=load_identity(home.keys).node_key_path,
        secret_file=home.worker_secret,
        home=home.root.resolve(),
        study=home.study,
        link=home.link.resolve(),
        devices=devices,
        launcher=launcher,
        logs=home.logs,
        port=port,
    )
