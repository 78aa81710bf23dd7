"""Which versions of its set a home has published, how each stands, and who withdrew: from its own signed file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfumato_common.errors import VerificationError
from sfumato_server.enrol.authority import FOLDER, SIGNING_PUBLIC
from sfumato_server.publish.versions import FILE, Version, read_status, standing_lines


def published_versions(root: Path) -> dict[str, Any]:
    """`versions` in the order of their publication, and `versions_fault`: what is wrong with the file, or ''."""
    try:
        found = read_status((root / FILE).read_bytes(), (root / FOLDER / SIGNING_PUBLIC).read_bytes())
    except OSError:  # nothing was published yet
        return {"versions": [], "versions_fault": ""}
    except VerificationError as error:
        return {"versions": [], "versions_fault": f"{FILE}: {error}"}
    return {"versions": [one.model_dump(mode="json") for one in found.versions], "versions_fault": ""}


def version_lines(view: Mapping[str, Any]) -> list[str]:
    """The versions of an overview in words: a line each, and one for each tombstone under it."""
    lines = [line for one in view["versions"] for line in standing_lines(Version.model_validate(one))]
    return [*lines, view["versions_fault"]] if view["versions_fault"] else lines
