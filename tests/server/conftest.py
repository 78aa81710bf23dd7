"""A small consortium for the server's tests: a coordinator's home, three enrolled sites, and packages they signed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.enrolment import enrol_site, keep_grant

from sfumato_common.accounting.events import GaussianRelease
from sfumato_common.crypto.enrolment import EnrolmentGrant
from sfumato_common.crypto.identity import SiteIdentity, create_identity
from sfumato_common.imaging import encode_png
from sfumato_common.package import PackageImage, build_package
from sfumato_common.package.manifest import ImageFacts
from sfumato_common.strict import parse
from sfumato_common.study.certificate import Certificate, StatedReach, stated_reach
from sfumato_common.study.costs import GATE_VERDICT
from sfumato_common.study.plan import Plan
from sfumato_server.enrol import Authority, Registry, create_authority, load_authority

LABELS = ("abnormal", "normal")


def small_plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "study": "chest",
        "image": {"size": 16, "channels": 1},
        "labels": list(LABELS),
        "sites": {name: {"nominal_patients": 100} for name in ("east", "north", "south")},
        "privacy": {"epsilon": 8.0, "delta": 1e-4},
        "stages": [{"kind": "spectral", "bandwidth": 8, "clip_radius": 1.0, "noise_multiplier": 2.0}],
        "release": [{"model": "spectral", "images": 6}],
        "federation": {"quorum": 2},
    }
    return parse({**values, **changes}, Plan, "plan")


@cache
def reach_of_plan() -> StatedReach:
    """What the plan's one mechanism lets an attack reach; seconds."""
    return stated_reach([GaussianRelease(2.0)], [], 1e-4)


@dataclass(frozen=True)
class Consortium:
    home: Path
    plan: Plan
    authority: Authority
    registry: Registry
    identities: dict[str, SiteIdentity]
    grants: dict[str, EnrolmentGrant]

    def copied(self, home: Path) -> Consortium:
        """The same consortium with a coordinator's home of its own."""
        shutil.copytree(self.home, home)
        identities, grants = dict(self.identities), dict(self.grants)
        return Consortium(home, self.plan, load_authority(home), Registry(home), identities, grants)

    def images(self, seed: int, count: int = 6, size: int = 16) -> list[PackageImage]:
        rng = np.random.default_rng(seed)
        return [
            PackageImage(
                ImageFacts(
                    name=rng.bytes(16).hex(),
                    label=LABELS[at % 2],
                    model="spectral",
                    method="dp-sampling",
                    guarantee="formal",
                ),
                encode_png(rng.integers(0, 256, (size, size), dtype=np.uint8)),
            )
            for at in range(count)
        ]

    def certificate(self, **changes: Any) -> Certificate:
        # the shape of the site ledger's own certificate
        paid = {"add_remove": 1.6981, "add_remove_rdp": 1.8801, "replace_one": 3.8045}
        value = {
            "unit": "patient",
            "adjacency": "add-remove",
            "delta": 1e-4,
            "epsilon": {"train": paid, "holdout": dict.fromkeys(paid, 0.0), "patient": paid},
            "mechanisms": {
                "train": [{"mechanism": "GaussianRelease", "noise_multiplier": 2.0, "times": 1}],
                "holdout": [],
            },
            "declared": [{"what": GATE_VERDICT.what, "bits": 1}],
            "noise": "secure",
            "covers": "Everything that left this site under this plan.",
            "reach": reach_of_plan().model_dump(),
        }
        return Certificate.model_validate({**value, **changes})

    def package(self, signer: str, **changes: Any) -> bytes:
        values: dict[str, Any] = {
            "site": signer,
            "study": self.plan.study,
            "plan_hash": self.plan.digest,
            "certificate": self.certificate(),
            "images": self.images(sum(signer.encode())),
            "sign": self.identities[signer].sign_package,
            "created": date(2026, 1, 2),
        }
        return build_package(**{**values, **changes})


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    """Made once: keys and durable writes cost more than the tests that use them."""
    folder = tmp_path_factory.mktemp("founded")
    home, plan = folder / "coordinator", small_plan()
    authority = create_authority(home)
    identities, grants = {}, {}
    for site in plan.sites:
        identities[site] = create_identity(folder / site / "identity", site)
        grants[site] = keep_grant(home, identities[site], enrol_site(home, identities[site]))
    return Consortium(home, plan, authority, Registry(home), identities, grants)


@pytest.fixture
def consortium(founded: Consortium, tmp_path: Path) -> Consortium:
    """A copy for one test; the sites' identities are shared, to be read only."""
    return founded.copied(tmp_path / "coordinator")


@pytest.fixture
def make_plan() -> Callable[..., Plan]:
    return small_plan
