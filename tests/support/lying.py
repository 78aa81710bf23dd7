"""A coordinator that lies: it alters a published set and signs it again."""

import hashlib
import json
from pathlib import Path
from typing import Any

from sfumato_common.crypto.signatures import sign
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json
from sfumato_server.publish.manifest import parse_published


def resign(consortium: Any, folder: Path, change: Any) -> None:
    """Alter the manifest by `change`, and sign it again, the root over its lines too."""
    value = json.loads((folder / "manifest.json").read_bytes())
    change(value)
    signed, key = canonical_json(value), consortium.authority.signing_key
    (folder / "manifest.json").write_bytes(signed)
    (folder / "manifest.sig").write_bytes(sign(key, "published", signed))
    try:
        root = parse_published(signed).root.encode()
    except VerificationError:
        return
    (folder / "root.json").write_bytes(root)
    (folder / "root.sig").write_bytes(sign(key, "root", root))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
