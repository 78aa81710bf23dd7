"""The networks of a compose file, built out of network namespaces: one a service, and a switch that only joins links.

Needs root, iproute2 and unshare. Nothing is made in the machine's own namespace, and no packet leaves it.
"""

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

REASON = "network namespaces need root, ip and unshare"
# what a connection meets: 'open', or the error's name
_PROBE = """
import errno, json, socket, sys
address, first, last, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
met = {}
for port in range(first, last + 1):
    with socket.socket() as one:
        one.settimeout(seconds)
        code = one.connect_ex((address, port))
        met[port] = "open" if code == 0 else errno.errorcode.get(code, str(code))
print(json.dumps(met))
"""


def possible() -> bool:
    """Whether this user and kernel let named namespaces be made, and bridges and pairs of links in them."""
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    own = f"sfp{os.getpid()}"
    tries = (
        ["unshare", "--net", "--mount", "true"],
        ["ip", "netns", "add", own],
        ["ip", "-n", own, "link", "add", "name", "one", "type", "bridge"],
        ["ip", "-n", own, "link", "add", "name", "two", "type", "veth", "peer", "name", "three"],
    )
    try:
        return all(subprocess.run(one, capture_output=True, check=False).returncode == 0 for one in tries)
    finally:
        subprocess.run(["ip", "netns", "delete", own], capture_output=True, check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=30)


@dataclass
class Networks:
    """Namespaces of the services of `compose`; use as a context, which removes them.

    `address[service][network]` is where each is; names are those that Docker would give them, in a hosts file each.
    Forwarding is what a Docker host hands down, on, unless the service's `sysctls` say otherwise.
    """

    compose: dict
    folder: Path
    address: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self):
        self._mark = f"sf{os.getpid()}"
        for number, name in enumerate(self.compose["networks"]):
            net = ipaddress.ip_network(f"10.77.{number}.0/24")
            members = [service for service, about in self.compose["services"].items() if name in about["networks"]]
            for place, service in enumerate(members, 2):
                self.address.setdefault(service, {})[name] = str(net[place])

    def namespace(self, service: str) -> str:
        return f"{self._mark}-{service}"

    def __enter__(self):
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for service in ("switch", *self.address):
            subprocess.run(["ip", "netns", "delete", self.namespace(service)], capture_output=True, check=False)

    def _make(self):
        switch = self.namespace("switch")
        ip("netns", "add", switch)
        self.inside("switch", "sysctl", "-q", "-w", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.disable_ipv6=1")
        for number, name in enumerate(self.compose["networks"]):
            assert self.compose["networks"][name]["internal"], "no network of the demo leads out"
            ip("-n", switch, "link", "add", f"net{number}", "up", "type", "bridge")
        for service, places in self.address.items():
            own, about = self.namespace(service), self.compose["services"][service]
            ip("netns", "add", own)
            ip("-n", own, "link", "set", "lo", "up")
            knobs = {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.disable_ipv6": "1", **about.get("sysctls", {})}
            self.inside(service, "sysctl", "-q", "-w", *(f"{name}={value}" for name, value in knobs.items()))
            for number, name in enumerate(self.compose["networks"]):
                if name in places:
                    end = f"{service[:8]}{number}"
                    ip("-n", own, "link", "add", f"eth{number}", "type", "veth", "peer", "name", end, "netns", switch)
                    ip("-n", switch, "link", "set", end, "master", f"net{number}", "up")
                    ip("-n", own, "address", "add", f"{places[name]}/24", "dev", f"eth{number}")
                    ip("-n", own, "link", "set", f"eth{number}", "up")
            self._write_hosts(service)

    def _write_hosts(self, service: str) -> None:
        lines = ["127.0.0.1 localhost"]
        for other, places in self.address.items():
            for name in set(places) & set(self.address[service]):
                known = self.compose["services"][other]["networks"]
                aliases = (known[name] or {}).get("aliases", []) if isinstance(known, dict) else []
                lines.append(" ".join([places[name], other, *aliases]))
        self.hosts(service).write_text("\n".join(lines) + "\n")

    def hosts(self, service: str) -> Path:
        return self.folder / f"{service}.hosts"

    def command(self, service: str, *words: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace(service), *words]

    def inside(self, service: str, *words: str) -> str:
        """Run a command in the service's network, and give what it prints."""
        done = subprocess.run(self.command(service, *words), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def met(self, service: str, address: str, first: int = 8443, last: int = 0, seconds: float = 2.0) -> dict[int, str]:
        """What the service meets at the address' ports, from `first` to `last` (or that one alone)."""
        words = (address, str(first), str(last or first), str(seconds))
        said = json.loads(self.inside(service, sys.executable, "-I", "-c", _PROBE, *words))
        return {int(port): word for port, word in said.items()}

    def open_at(self, service: str, address: str) -> set[int]:
        """The ports at which the service is let in there, of all that there are."""
        return {port for port, word in self.met(service, address, 1, 65535).items() if word == "open"}

    def as_container(self, service: str, program: list[str], mounts: dict[str, Path]) -> list[str]:
        """`program` as the service's container runs it: its network, its names, its folders, and no capability.

        `mounts` are what lies where below /home/sfumato; of the machine's other folders the container would see none.
        """
        lines = ["set -e", f"mount --bind {self.hosts(service)} /etc/hosts", "mount -t tmpfs tmpfs /home"]
        for target, source in mounts.items():
            lines += [f"mkdir -p {target}", f"mount --bind {source} {target}"]
        about = self.compose["services"][service]
        assert (about["cap_drop"], about["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
        lines += ["cd /home/sfumato", 'exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"']
        return self.command(service, "unshare", "--mount", "sh", "-c", "\n".join(lines), "sh", *program)


def load(path: Path) -> dict:
    """A compose file as plain data, each service's networks by name."""
    return yaml.safe_load(path.read_text())
