"""Who has withdrawn from this site, in a file of pseudonyms that every ingest heeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato_client.site.home import SiteHome
from sfumato_common.errors import ConfigError


def withdrawn_file(home: SiteHome) -> Path:
    """Who has withdrawn, by pseudonym: no name and no identifier."""
    return home.identity / "withdrawn.json"


def read_withdrawn(home: SiteHome) -> dict[str, str]:
    """Who has withdrawn: pseudonyms, each with the token of identifiers that are alike. Raises ConfigError."""
    return {name: str(said["alike"]) for name, said in read_said(home).items()}


def read_persons(home: SiteHome) -> dict[str, str]:
    """Tokens of name and birth date of who has withdrawn, each with a pseudonym of that patient. Raises ConfigError."""
    return {str(person): name for name, said in read_said(home).items() for person in said.get("persons", ())}


def read_said(home: SiteHome) -> dict[str, dict[str, Any]]:
    """What the file says of each pseudonym. Raises ConfigError."""
    path = withdrawn_file(home)
    if not path.exists():
        return {}
    try:
        found = {str(name): dict(said) for name, said in json.loads(path.read_text()).items()}
        if all(isinstance(said["alike"], str) and isinstance(said.get("persons", []), list) for said in found.values()):
            return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ConfigError(f"'{path.name}', which says who has withdrawn, cannot be read; restore it")
