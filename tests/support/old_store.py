"""A store as format 3 wrote it, in frozen code of its own: identifiers as digits, wide numbers, one piece a megabyte.

The pixels' file has not changed since. What writes stores today is not used, so that it cannot change what is old.
"""

from __future__ import annotations

import hmac
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sfumato_client.dataset.arrays import hexes, read_arrays

_PIECE, _LAST = 2**20, 2**40
_NEW = ("others", "others_of")  # of registers since


def make_old(folder: Path, key: bytes) -> None:
    """Turn the store at `folder`, which was just written, into the same store of format 3."""
    value = json.loads((folder / "store.json").read_text())
    index = read_arrays(folder, "index", value["index"], key)
    register = read_arrays(folder, "register", value["register"], key)
    for path in folder.iterdir():
        if not path.name.startswith("pixels-"):
            path.unlink()
    patients = np.array(hexes(index["patients"]), "S32")
    others = np.array(hexes(index["aliases"]), "S32")
    value["index"] = _write(folder, "index", key, {
        "labels": index["labels"].astype(np.int64),
        "owner": index["owner"].astype(np.int64),
        "split": index["split"].astype(np.uint8),
        "view": index["view"].astype("S16"),
        "patients": patients,
        # every identifier, those by which patients are called among them
        "aliases": np.concatenate([patients, others]),
        "alias_owner": np.concatenate([np.arange(len(patients)), index["alias_owner"].astype(np.int64)]),
    })  # fmt: skip
    wide = {"labels": np.int64, "row_of": np.int64, "view": "S16", "modality": "S16"}
    old = {name: array.astype(wide.get(name, array.dtype)) for name, array in register.items() if name not in _NEW}
    value["register"] = _write(folder, "register", key, old)
    said = {name: value[name] for name in value if name not in ("mac", "format")} | {"format": 3}
    mac = hmac.digest(_derived(key, "facts", b""), _canonical(said), "sha256").hex()
    (folder / "store.json").write_text(json.dumps({**said, "mac": mac}))
    folder.with_name(f"{folder.name}.newest").unlink(missing_ok=True)  # nothing was kept of it then


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _derived(key: bytes, kind: str, file_id: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=file_id, info=f"sfumato store 3 {kind}".encode()).derive(key)


def _write(folder: Path, kind: str, key: bytes, arrays: dict[str, np.ndarray]) -> str:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    data, file_id = buffer.getvalue(), os.urandom(16)
    cipher, out = AESGCM(_derived(key, kind, file_id)), b""
    for place, at in enumerate(range(0, len(data), _PIECE)):
        bound = file_id + (place + (_LAST if at + _PIECE >= len(data) else 0)).to_bytes(8, "big")
        nonce = os.urandom(12)
        out += nonce + cipher.encrypt(nonce, data[at : at + _PIECE], bound)
    (folder / f"{kind}-{file_id.hex()[:16]}").write_bytes(out)
    return file_id.hex()
