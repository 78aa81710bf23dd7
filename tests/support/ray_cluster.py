"""Workers on a Ray cluster of two machines, both of them this one, of which one goes: `ray_cluster.py FOLDER`.

Prints what became of homes there as a JSON object on its last line.
"""

import json
import os
import secrets
import sys
import time
from pathlib import Path

from sfumato_common.errors import ConfigError, DataError, FederationError
from sfumato_common.strict import parse
from sfumato_common.study.plan import Plan
from sfumato_common.study.simulated import PhantomCohort, SiteToMake, simulated_site
from sfumato_common.supervise import descendants
from sfumato_server.simulate.engines import RAY, Where, started
from support.plans import small_plan

SITE = simulated_site(1)


def make(workers, home):
    """A new home."""
    values = small_plan(released="spectral", sites={SITE: 10}, epsilon=60.0, noise=0.7)
    plan = parse({**values, "study": "simulated-small-1"}, Plan, "plan")
    cohort = PhantomCohort(seed=1, site=SITE, patients=12, devices=["aurora"], ill=None)
    told = SiteToMake(home=home, site=SITE, cohort=cohort)
    workers.ask({"do": "make", "plan": plan.model_dump(mode="json"), "site": told.model_dump(mode="json")}, {})


def refusal(workers, home, seconds):
    """What is said of a home whose machine went: its processes end a moment later than their machine."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            make(workers, home)
        except FederationError as error:
            return str(error)
        except DataError:
            time.sleep(0.5)
    return "it still answers"


def devices():
    """The accelerators that each worker process sees; there are none here, and Ray was told of one a machine."""
    found = []
    for pid in descendants(os.getpid()):
        if b"sfumato_client.site.simulation" in Path(f"/proc/{pid}/cmdline").read_bytes():
            environment = dict(
                line.split(b"=", 1) for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")[:-1]
            )
            found.append(environment[b"CUDA_VISIBLE_DEVICES"].decode())
    return found


def homes(actor):
    """Names of the homes that an actor has."""
    return sorted(path.name for path in (actor._folder / "run").iterdir())


def main(folder):
    """Make homes on both machines, take one away, go on."""
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"})
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    said = {}
    try:
        nodes = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
        try:
            with started(folder, Where(RAY, 3, cluster.address, 0.5)):
                pass
        except ConfigError as error:
            said["too many"] = str(error)
        with started(folder, Where(RAY, address=cluster.address, gpus=0.5)) as workers:
            make(workers, "run/one")
            make(workers, "run/two")
            one, two = (workers._homes[f"run/{name}"] for name in ("one", "two"))
            said |= {"workers": workers.number, "machines": len({one.node, two.node})}
            said["homes"] = [homes(one), homes(two)]
            said["devices"] = devices()
            cluster.remove_node(next(node for node in nodes if node.node_id == one.node), allow_graceful=False)
            said["first"] = refusal(workers, "run/one", 60)
            said["then"] = refusal(workers, "run/one", 60)
            make(workers, "run/three")
            said["went on"] = homes(two)
            left = two._folder
        said["left"] = sorted(map(str, left.glob("*"))) if left.exists() else []
    finally:
        cluster.shutdown()
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
