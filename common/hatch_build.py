"""What the whole needs is what its three parts need: each range stands once, in the part's own pyproject.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

PARTS = ("common", "client", "server")


class Parts(MetadataHookInterface):
    """Gives the root's project the dependencies of the parts, their extras included, in their order."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill `dependencies`."""
        needed = []
        for part in PARTS:
            project = tomllib.loads((Path(self.root) / part / "pyproject.toml").read_text())["project"]
            for group in (project["dependencies"], *project.get("optional-dependencies", {}).values()):
                needed += [entry for entry in group if not entry.startswith("sfumato-")]
        metadata["dependencies"] = needed
