"""A site's second name: random letters with keys of their own, and the statement that binds it to the first.

Under its second name a site is enrolled, asked, and signs: certificate, packages and whatever is published carry
nothing else. The statement is for the coordinator, which enrols a hospital that it knows, and for the site's own
auditors; both keys sign it, so that nobody holds a name that is another's.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

from sfumato_common.crypto import signatures
from sfumato_common.crypto.identity import SITE_NAME, SiteIdentity
from sfumato_common.errors import VerificationError
from sfumato_common.files import canonical_json

FORMAT = "sfumato-name/1"
_TEXTS = ("format", "site", "site_key", "name", "name_key")
# 80 bits of the operating system: whoever guesses at names learns nothing from one, as it is made from none
_BYTES = 10
_PSEUDONYM = re.compile(r"site-[a-z2-7]{16}")


@dataclass(frozen=True)
class Binding:
    """That the site whose own name is `site` and whose own key is `site_key` goes by `name`, and signs by `name_key`.

    Keys are public ones (PEM).
    """

    site: str
    site_key: str
    name: str
    name_key: str


def draw_name() -> str:
    """A name that nobody had and that follows from nothing: `site-` and 16 letters of base32."""
    return f"site-{base64.b32encode(secrets.token_bytes(_BYTES)).decode('ascii').lower()}"


def bind_names(own: SiteIdentity, second: SiteIdentity) -> bytes:
    """The statement that `own` goes by the name of `second`: canonical JSON, signed by both."""
    names = (own.site, own.signing_public.decode(), second.site, second.signing_public.decode())
    body = dict(zip(_TEXTS, (FORMAT, *names), strict=True))
    proofs = [signatures.sign(each.signing_key, "name", canonical_json(body)).hex() for each in (own, second)]
    return canonical_json({"body": body, "signatures": proofs})


def read_binding(data: str | bytes) -> Binding:
    """A statement of `bind_names` whose signatures hold. Raises VerificationError."""
    try:
        value: Any = json.loads(data)
        body, proofs = value["body"], [bytes.fromhex(proof) for proof in value["signatures"]]
        found = Binding(*(str(body[name]) for name in _TEXTS[1:]))
        known = body["format"] == FORMAT and set(body) == set(_TEXTS) and set(value) == {"body", "signatures"}
    except (ValueError, KeyError, TypeError, RecursionError):
        known, found, proofs = False, Binding("", "", "", ""), []
    if not (known and len(proofs) == 2 and SITE_NAME.fullmatch(found.site) and _PSEUDONYM.fullmatch(found.name)):
        raise VerificationError("the statement that binds a site's names is malformed; ask the site for a new one")
    for key, proof in zip((found.site_key, found.name_key), proofs, strict=True):
        signatures.verify(key.encode(), "name", canonical_json(body), proof)
    return found


def tells(text: str, name: str) -> bool:
    """Whether `text` holds `name` as a word, in whatever case: what may stand beside a pseudonym must not."""
    return re.search(rf"(?<![a-z0-9]){re.escape(name.lower())}(?![a-z0-9])", text.lower()) is not None
