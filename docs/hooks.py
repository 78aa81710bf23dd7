"""What MkDocs is told beside `mkdocs.yml`: pages that stand outside `docs`, and where links to them lead in the site.

The documents are written for whoever reads the repository, so that their links are those of its folders.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# a file of the repository: its name in the site
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "configs/README.md": "configs.md",
    "docker-compose.yml": "docker-compose.yml",
    "configs/policy.yaml": "policy.yaml",
    "client/systemd/sfumato-site@.service": "sfumato-site@.service",
    "server/systemd/sfumato-coordinator@.service": "sfumato-coordinator@.service",
}
_INSIDE = {name: own for own, name in OUTSIDE.items()}
_LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the files that stand outside the folder of documents."""
    for own, name in OUTSIDE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / own)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_more: Any) -> str:
    """The page with every link between files of the repository as a link between pages of the site."""
    name = page.file.src_uri
    folder = posixpath.dirname(_INSIDE.get(name, f"docs/{name}"))

    def led(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        inside = OUTSIDE.get(target) or posixpath.relpath(target, "docs")
        return f"]({posixpath.relpath(inside, posixpath.dirname(name) or '.')}{link[2] or ''})"

    return _LINK.sub(led, markdown)
