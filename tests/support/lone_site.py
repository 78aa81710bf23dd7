"""A site by itself, of a study of one stage: its home with known keys, and names of patients by cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sfumato_client.dataset.splits import keyed_split
from sfumato_client.site.home import SiteHome
from sfumato_client.site.store_key import make_store_key
from sfumato_common.crypto.identity import create_identity
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from support.studies import PLAN, POLICY

KEY = bytes(range(32))
VALUES = {
    **PLAN, "stages": PLAN["stages"][:1], "release": [{"model": "spectral", "images": 4}], "utility": None,
    "sites": {"alder": {"nominal_patients": 40}}, "federation": {"quorum": 1},
}  # fmt: skip
STUDY = parse(VALUES, Plan, "plan")
NAMES = [f"P{number:02d}" for number in range(60)]
TRAIN = [name for name in NAMES if keyed_split(KEY, name) == "train"]
HELD = [name for name in NAMES if keyed_split(KEY, name) == "holdout"]


def make_home_at(root: Path, **rules: Any) -> SiteHome:
    """The home of 'alder' at `root`, under the policy of these tests and `rules`."""
    create_identity(root / "identity", "alder")
    root.chmod(0o700)
    (root / "identity" / "split.key").write_text(KEY.hex())
    (root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **POLICY, **rules}))
    make_store_key(root / "identity")
    return SiteHome(root)
