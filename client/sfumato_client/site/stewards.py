"""Stewards' own keys in the home: Ed25519, each under the passphrase of the person whose it is.

A key opens for one signature and is forgotten. What stands in the ledger is the public half (`ledger/stewards.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sfumato_client.ledger.people import change_steward, stewards
from sfumato_client.ledger.stewards import STEWARD_NAME, Stewardship, require_steward_name, stewardship
from sfumato_client.ledger.storage import now
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto import signatures
from sfumato_common.crypto.identity import load_identity
from sfumato_common.errors import ConfigError
from sfumato_common.files import make_private_folder, write_atomic

SHORTEST_PASSPHRASE = 12
# scrypt (RFC 7914): N, with r = 8 and p = 1: 64 MiB and a fifth of a second a try
_COST = 2**16


def add_steward(home: SiteHome, name: str, passphrase: bytes, by: str = "", by_passphrase: bytes = b"") -> Stewardship:
    """Make `name` a steward with a new key under `passphrase`; `by` is the steward who lets the person in.

    Raises ConfigError for a name that cannot be or a short passphrase, PolicyRefusal where somebody has to let in.
    """
    require_steward_name(name)
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise ConfigError(f"a steward's key needs a passphrase of at least {SHORTEST_PASSPHRASE} bytes")
    key, identity = Ed25519PrivateKey.generate(), load_identity(home.identity)
    by_sign = _signer(home, by, by_passphrase, "stewardship") if by else None
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    sign = identity.sign_stewardship
    change = stewardship(home.own_policy().site, name, raw, "add", now(), sign, by, by_sign)
    with home.open_ledger() as ledger:
        known = stewards(ledger, identity.signing_public)
        if name not in known:  # a key that lies here from a kill before the row was written is nobody's
            _keep(home, name, key, passphrase)
        change_steward(ledger, change, identity.signing_public)
    return change


def remove_steward(home: SiteHome, name: str, by: str, by_passphrase: bytes) -> None:
    """Let `name` be a steward no longer, by the word of steward `by`, who may be the same; what was decided stays.

    Were the site's word enough, who may use the commands could let all go and begin anew as the first. Raises
    ConfigError where nobody is called so or the passphrase is another one, PolicyRefusal where `by` is no steward.
    """
    identity = load_identity(home.identity)
    with home.open_ledger() as ledger:
        known = stewards(ledger, identity.signing_public)
        if name not in known:
            raise ConfigError(f"'{name}' is no steward here")
        key, by_sign = bytes.fromhex(known[name].key), _signer(home, by, by_passphrase, "stewardship")
        sign = identity.sign_stewardship
        change = stewardship(home.own_policy().site, name, key, "remove", now(), sign, by, by_sign)
        change_steward(ledger, change, identity.signing_public)
    _file(home, name).unlink(missing_ok=True)


def decision_signer(home: SiteHome, name: str, passphrase: bytes) -> Callable[[bytes], bytes]:
    """What signs a decision as steward `name`. Raises ConfigError where the passphrase does not open the key."""
    return _signer(home, name, passphrase, "decision")


def _signer(home: SiteHome, name: str, passphrase: bytes, domain: signatures.Domain) -> Callable[[bytes], bytes]:
    key = _open(home, name, passphrase)
    return lambda statement: signatures.sign(key, domain, statement)


def _keep(home: SiteHome, name: str, key: Ed25519PrivateKey, passphrase: bytes) -> None:
    raw = key.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    salt, nonce = os.urandom(16), os.urandom(12)
    locked = AESGCM(_stretched(passphrase, salt)).encrypt(nonce, raw, name.encode())
    make_private_folder(_file(home, name).parent)
    told = {"salt": salt.hex(), "nonce": nonce.hex(), "key": locked.hex()}
    write_atomic(_file(home, name), json.dumps(told), mode=0o600)


def _open(home: SiteHome, name: str, passphrase: bytes) -> Ed25519PrivateKey:
    wrong = ConfigError(f"the key of steward '{name}' does not open: check the name and the passphrase")
    if not STEWARD_NAME.fullmatch(name):
        raise wrong
    try:
        told = {key: bytes.fromhex(value) for key, value in json.loads(_file(home, name).read_text()).items()}
        raw = AESGCM(_stretched(passphrase, told["salt"])).decrypt(told["nonce"], told["key"], name.encode())
        return Ed25519PrivateKey.from_private_bytes(raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, InvalidTag):
        raise wrong from None


def _stretched(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt, 32, _COST, 8, 1).derive(passphrase)


def _file(home: SiteHome, name: str) -> Path:
    return home.stewards / f"{name}.key"
