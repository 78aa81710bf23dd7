"""Where a process tree connected to, from strace's record of its system calls (Linux)."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TRACED = "connect,bind,sendto,sendmsg,sendmmsg"
_CALL = re.compile(r"^\d+ +(connect|bind|sendto|sendmsg|sendmmsg)\(.*?sa_family=(AF_\w+)(.*)")
_PORT = re.compile(r"sin6?_port=htons\((\d+)\)")
_ADDRESS = re.compile(r'inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')
# names for the machine itself: sockets in the file system, the kernel's own, and "no peer any more"
_LOCAL = {"AF_UNIX", "AF_NETLINK", "AF_UNSPEC"}


@dataclass(frozen=True)
class Peer:
    """The far end of one call, by address family, address and port (0 where the family has none)."""

    family: str
    address: str
    port: int


@cache
def can_trace() -> bool:
    """Whether strace is installed and may be used here."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(traced(["/bin/true"], Path("/dev/null")), capture_output=True, check=False).returncode == 0


def traced(command: list[str], log: Path) -> list[str]:
    """`command` under strace: every connect, bind and datagram of it and of everything that it starts goes to `log`."""
    options = ["-f", "--seccomp-bpf", "-qq", "-s", "0", "-e", "signal=none", "-e", f"trace={_TRACED}"]
    return ["strace", *options, "-A", "-o", str(log), *command]


def outward(log: Path, allowed: set[int]) -> set[Peer]:
    """Peers in a log but for `allowed` loopback ports and loopback ports that the traced processes hold themselves."""
    reached: set[Peer] = set()
    own: set[int] = set()
    for line in log.read_text(errors="replace").splitlines():
        if not (match := _CALL.match(line)):
            continue
        call, family, rest = match.groups()
        if family in _LOCAL:
            continue
        port, address = _PORT.search(rest), _ADDRESS.search(rest)
        peer = Peer(family, address[1] if address else rest.strip(), int(port[1]) if port else 0)
        if call == "bind":
            own |= {peer.port} if _loopback(peer) else set()
        else:
            reached.add(peer)
    return {peer for peer in reached if not (_loopback(peer) and peer.port in allowed | own)}


def _loopback(peer: Peer) -> bool:
    return peer.address.startswith("127.") or peer.address in ("::1", "::ffff:127.0.0.1")
