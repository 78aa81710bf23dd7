"""Bytes to and from a site, and the coordinator's peak memory, by the number of sites.

    python tests/bench/bytes.py [--sites 3,10,30,100] [--together | --apart]

The demo's plan without its choice, at 32 px: spectral, three GAN and three flow rounds, release. Each number of sites
is a process of its own, which is the coordinator: its rounds, checkpoints and live page. The sites are their door
alone: they keep and complete what they are sent, hold it against the plan, and answer with arrays of the plan's form: a
spectral release of one of three phantom cohorts, updates that change nothing. So the figures are those of a study, and
nobody trains. What Flower adds to a message (about 1 kB) is not in them; its SuperLink is another process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from support.plans import dp_sgd

from sfumato_client.dataset.cohort import Cohort
from sfumato_client.site.inbound import check_form, models_of
from sfumato_client.site.received import Received
from sfumato_client.training import StageJob, train
from sfumato_common.crypto.enrolment import enrolment_request
from sfumato_common.crypto.identity import create_identity, load_identity
from sfumato_common.exchanges import EXCHANGES
from sfumato_common.generators.components import schema_at
from sfumato_common.mechanisms.noise import TestNoise
from sfumato_common.mechanisms.recorder import NoiseRecorder
from sfumato_common.phantom import arrays as phantom
from sfumato_common.protocol.messages import PROTOCOL, Reply, Request
from sfumato_common.protocol.pack import pack
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_server.coordinator.study import run_study
from sfumato_server.enrol import authority
from sfumato_server.simulate.channel import LocalChannel
from sfumato_server.simulate.home import enrol_local, make_coordinator

PASSPHRASE = b"of a bench alone"
COHORTS = 3


def plan_of(sites: int, apart: bool) -> Plan:
    """The demo's plan of so many sites."""
    shipped = Path(__file__).parents[2] / "configs" / "demo.yaml"
    value = yaml.safe_load(shipped.read_text())
    spectral, gan, flow, _ = value["stages"]
    value["stages"] = [
        {**spectral, "noise_multiplier": 2.0, "by_site": apart},
        dp_sgd(**{**gan, "noise_multiplier": 1.0}),
        dp_sgd(**{**flow, "noise_multiplier": 1.0}),
    ]
    value["sites"] = {f"site-{number:03d}": {"nominal_patients": 800} for number in range(sites)}
    value["release"] = [{"model": "flow", "images": 10}]
    value |= {"privacy": {"epsilon": 1000.0, "delta": 1e-5}, "utility": None, "federation": {"quorum": sites}}
    return parse({name: item for name, item in value.items() if name != "budget"}, Plan, "plan")


def make_releases(folder: Path) -> None:
    """A spectral release of each of a few phantom cohorts: of any number of sites."""
    plan = plan_of(COHORTS, apart=False)
    for number in range(COHORTS):
        noise = TestNoise(number)
        cohort, recorder = Cohort(*phantom(number, 200, plan.image.size)), NoiseRecorder(noise, "entry")
        job = StageJob(plan, sorted(plan.sites)[number], plan.stage("spectral"), 1, {}, cohort, noise, recorder)
        np.savez(folder / f"{number}.npz", **train(job))


@dataclass
class Doors(LocalChannel):
    """Sites that answer and do no work; `down` and `up` count bytes of all sites by what was asked."""

    root: Path
    plan: Plan
    releases: Path
    down: Counter[str] = field(default_factory=Counter)
    up: Counter[str] = field(default_factory=Counter)

    def online(self) -> set[str]:
        return set(self.plan.sites)

    def answer(self, site: str, request: Request) -> Reply:
        what = request.stage or request.kind
        self.down[what] += len(pack(request.arrays)) + len(json.dumps(request.to_config()))
        received = Received(self.root / site, self.plan)
        whole = received.complete(request)
        assert whole is not None
        reply = Reply(PROTOCOL, "ok", "", "", self._arrays(site, whole))
        if request.kind in ("stage", "make"):
            received.keep(whole)
        self.up[what] += len(pack(reply.arrays)) + len(json.dumps(reply.to_config()))
        return reply

    def _arrays(self, site: str, request: Request) -> dict[str, np.ndarray]:
        if request.kind == "make":
            models_of(request.arrays, self.plan, self.plan.release_at(site, request.stage))
        if request.kind != "stage":
            return {}
        exchange = EXCHANGES[request.stage]
        check_form(request.arrays, schema_at(self.plan, exchange.sent(self.plan)))
        if request.stage == "spectral":
            with np.load(self.releases / f"{int(site[-3:]) % COHORTS}.npz") as found:
                return dict(found)
        return {name: np.zeros(spec.shape, np.uint16) for name, spec in exchange.returned(self.plan).items()}


def measure(sites: int, apart: bool, releases: Path) -> dict:
    """A study of so many sites in this process."""
    authority.SCRYPT_COST = 2
    plan = plan_of(sites, apart)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        home = make_coordinator(root / "coordinator", plan, PASSPHRASE)
        for name in plan.sites:
            create_identity(root / "keys" / name, name)
            request = enrolment_request(load_identity(root / "keys" / name))
            enrol_local(home.root, request, PASSPHRASE)
        doors = Doors(root / "sites", plan, releases)
        before = _peak()
        outcome = run_study(home, doors, seed=1)
        assert outcome == "completed", json.loads(home.result_file.read_text())["reason"]
    return {
        "sites": sites,
        "by_site": apart,
        "down": {what: count / sites for what, count in doors.down.items()},
        "up": {what: count / sites for what, count in doors.up.items()},
        "before_mb": before,
        "peak_mb": _peak(),
        "processor_s": time.process_time(),
    }


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """One process a number of sites, and the table."""
    parser = argparse.ArgumentParser(description="Bytes and the coordinator's memory by the number of sites")
    parser.add_argument("--sites", default="3,10,30,100")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--together", action="store_true", help="only without by_site")
    forms.add_argument("--apart", action="store_true", help="only with by_site")
    parser.add_argument("--one", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(int(given.sites), given.apart, given.one)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_releases(Path(folder))
        for form in ["--together"] * (not given.apart) + ["--apart"] * (not given.together):
            for sites in given.sites.split(","):
                command = [sys.executable, __file__, "--sites", sites, form, "--one", folder]
                rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
                tell(rows[-1], head=len(rows) == 1)
    out = Path("bench-out") / "bytes.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(rows, indent=1) + "\n")


def tell(row: dict, head: bool) -> None:
    """A row of the table, as soon as it is known."""
    if head:
        print("sites | by_site | kB down a site | gan, flow, make | kB up a site | MB before, peak | processor s")
    parts = ", ".join(f"{row['down'].get(what, 0) / 1e3:.0f}" for what in ("gan", "flow", "make"))
    down, up = (sum(row[way].values()) / 1e3 for way in ("down", "up"))
    memory = f"{row['before_mb']}, {row['peak_mb']}"
    print(
        f"{row['sites']} | {'yes' if row['by_site'] else 'no'} | {down:.0f} | {parts} | {up:.0f} | {memory} | "
        f"{row['processor_s']:.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
