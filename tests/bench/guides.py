"""How many minutes the machine takes for the first hour of each guide, carried out as it stands in clean folders.

    python tests/bench/guides.py [--out FOLDER]

The researcher's begins where the coordinator's ended, as the guide says. Reading, and looking at what the guides say to
look at, come on top. Writes bench-out/guides.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from support.walk import blocks, walk

FOLDERS = {"coordinator.md": "practice", "researcher.md": "practice", "hospital.md": "hospital"}


def main() -> None:
    """Walk all three, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the folders are left; otherwise they are removed")
    asked = parser.parse_args()
    minutes = dict[str, float]()
    with tempfile.TemporaryDirectory() as scratch:
        out = asked.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        print("| guide | blocks | minutes | load |\n|---|---|---|---|")
        for page, folder in FOLDERS.items():
            minutes[page] = walk(page, out / folder)
            print(f"| {page} | {len(blocks(page))} | {minutes[page]:.1f} | {os.getloadavg()[1]:.1f} |", flush=True)
    target = Path("bench-out") / "guides.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(minutes, indent=2))


if __name__ == "__main__":
    main()
