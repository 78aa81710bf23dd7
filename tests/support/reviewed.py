"""A site's release that waits for its stewards: one real site, one one-shot stage, a formal and a declared part."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_client.site.stewards import add_steward
from sfumato_common.protocol.messages import PROTOCOL, Request
from support.federations import Federation, make_federation
from support.stopped import stop_before_release
from support.studies import PLAN, POLICY

PASSPHRASES = {"ada": b"a long one of ada", "grace": b"another of grace's"}
RELEASE = [
    {"model": "spectral", "images": 12},
    {"method": "k-same", "images": 6, "k": 3, "encoder_steps": 2, "refinement_steps": 1},
]


def policy(by: str = "steward", two: bool = False, queue: str = "withheld") -> dict:
    gate = {**POLICY["release"]["gate"], "identity_share_limit": 1.0}
    rules = {"allowed_methods": ["dp-sampling", "k-same"], "smallest_group": 2, "gate": gate}
    review = {"by": by, "two_persons": two, "queue": queue}
    return {
        **POLICY,
        "allowed_stages": ["spectral", "gan"],
        "release": {**POLICY["release"], **rules, "review": review},
        "utility_figure": "withheld",
    }


@dataclass
class Asked:
    """A federation whose study stopped before its release, and the request that would begin it at each site."""

    federation: Federation
    make: dict[str, Request]


def stopped_before_release(folder: Path, by: str = "steward") -> Asked:
    plan = copy.deepcopy(PLAN)
    plan |= {"stages": plan["stages"][:2], "release": RELEASE, "utility": None}
    plan["sites"] = {name: plan["sites"][name] for name in ("alder", "birch")}
    federation = make_federation(folder, plan, policy(by))
    return Asked(federation, stop_before_release(federation))


class ReviewedSite:
    """A copy of a site whose study is before its release; what it uploads is in `uploads`."""

    def __init__(self, asked: Asked, root: Path, of: Path | None = None) -> None:
        self.asked, self.plan, self.uploads = asked, asked.federation.plan, []
        self.home = SiteHome(Path(shutil.copytree(of or asked.federation.home("alder").root, root)))
        self.site = Site(self.home, lambda data, plan: self.uploads.append(data))

    def copy(self, root: Path) -> ReviewedSite:
        """Another one that stands as this one does."""
        return ReviewedSite(self.asked, root, self.home.root)

    def rule(self, rules: dict) -> None:
        """Put another policy in place."""
        (self.home.root / "policy.yaml").write_text(yaml.safe_dump({"site": "alder", **rules}))

    def ask(self, kind: str):
        """The coordinator's question, answered."""
        make = self.asked.make["alder"]
        request = make if kind == "make" else Request(PROTOCOL, make.plan_hash, "send", "", 0, {})
        return self.site.handle(request)

    def hire(self, *names: str) -> None:
        """Make stewards, the first by the site, the next by the one before."""
        for before, name in zip(("", *names), names, strict=False):
            add_steward(self.home, name, PASSPHRASES[name], before, PASSPHRASES.get(before, b""))
