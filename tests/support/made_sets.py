"""A study from homes to its published set, in one process: keys, ledgers, gate, packages, pool; without Flower."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sfumato_client.ingest import SiteImage
from sfumato_client.site.handler import Site
from sfumato_client.site.simulated import make_home
from sfumato_common.crypto.identity import load_identity
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.pool import pool_packages
from sfumato_server.publish import publish
from sfumato_server.simulate.home import make_coordinator, take_package
from support.enrolment import enrol_site
from support.federations import Federation

_PASSPHRASE = b"of a study that is over at once"


def published_set(root: Path, plan: Plan, policy: dict[str, Any], held: Mapping[str, Iterable[SiteImage]]) -> Path:
    """The folder of the published set of sites that hold the images of `held`, each under the policy."""
    coordinator, sites = make_coordinator(root / "coordinator", plan, _PASSPHRASE), dict[str, Site]()
    for name, images in held.items():
        home = make_home(root / "sites" / name, name, plan, policy, images)
        enrol_site(coordinator.root, load_identity(home.identity), _PASSPHRASE)
        sites[name] = Site(home, lambda data, plan, name=name: take_package(coordinator, plan, name, data))
    assert run_study(coordinator, Federation(root, plan, coordinator, sites), seed=1) == "completed"
    pool = pool_packages(coordinator.root, plan, Registry(coordinator.root))
    publish(pool, plan, root / "results", load_authority(coordinator.root), {"exchanges": []}, None)
    return root / "results" / "published"
