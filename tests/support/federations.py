"""A whole federation in one process: real homes, keys, ledgers, gate, packages and pool; only Flower is left out."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from sfumato_client.site.handler import Site
from sfumato_client.site.home import SiteHome
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.crypto.signatures import fingerprint
from sfumato_common.protocol.flower import decode_reply, decode_request, encode
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.simulate.channel import LocalChannel
from sfumato_server.simulate.home import make_coordinator, take_package
from support.enrolment import enrol_site
from support.homes import make_home
from support.studies import PLAN, POLICY


@dataclass
class Federation(LocalChannel):
    """Homes of a coordinator and its sites, and a channel that reaches the sites in this process."""

    root: Path
    plan: Plan
    coordinator: CoordinatorHome
    sites: dict[str, Site]
    down: set[str] = field(default_factory=set)
    sent: list = field(default_factory=list)
    deadlines: list = field(default_factory=list)

    def online(self):
        return set(self.sites) - self.down

    def exchange(self, requests, deadline_s, on_reply, waited_for):
        self.deadlines.append(deadline_s)
        return super().exchange(requests, deadline_s, on_reply, waited_for)

    def answer(self, site, request):
        # through Flower's records and back, as on the wire
        reply = decode_reply(encode(self.sites[site].handle(decode_request(encode(request)))))
        self.sent.append((site, request, reply))
        return reply

    def home(self, site) -> SiteHome:
        return self.sites[site].home

    def result(self):
        return json.loads(self.coordinator.result_file.read_text())


def make_site(root: Path, name: str, coordinator: CoordinatorHome, plan: Plan, policy=None, patients=40) -> Site:
    home = make_home(root / "sites" / name, name, plan, policy or POLICY, patients)
    enrol_site(coordinator.root, load_identity(home.identity))
    return Site(home, lambda data, plan: take_package(coordinator, plan, name, data))


def with_keys(root: Path, values: dict, colluding: int = 1) -> dict:
    """Values of a plan that sums securely: its sites' keys are made, and pinned."""
    pinned = {}
    for name, terms in values["sites"].items():
        identity = create_identity(root / "sites" / name / "identity", name)
        pinned[name] = {**terms, "key": fingerprint(identity.signing_public)}
    return {**values, "sites": pinned, "secure_sum": {"colluding": colluding}}


def make_federation(root: Path, plan_values=None, policy=None) -> Federation:
    plan = parse(plan_values or PLAN, Plan, "plan")
    coordinator = make_coordinator(root / "coordinator", plan)
    sites = {name: make_site(root, name, coordinator, plan, policy) for name in plan.sites}
    return Federation(root, plan, coordinator, sites)
