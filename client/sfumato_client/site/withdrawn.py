"""Who has withdrawn from this site, in a file of pseudonyms that every ingest heeds."""

from __future__ import annotations

import json
from pathlib import Path

from sfumato_client.site.home import SiteHome
from sfumato_common.errors import ConfigError


def withdrawn_file(home: SiteHome) -> Path:
    """Who has withdrawn, by pseudonym: no name and no identifier."""
    return home.identity / "withdrawn.json"


def read_withdrawn(home: SiteHome) -> dict[str, str]:
    """Who has withdrawn: pseudonyms, each with the token of identifiers that are alike. Raises ConfigError."""
    path = withdrawn_file(home)
    if not path.exists():
        return {}
    try:
        return {str(name): str(said["alike"]) for name, said in json.loads(path.read_text()).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"'{path.name}', which says who has withdrawn, cannot be read; restore it") from None
