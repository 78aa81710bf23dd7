"""A turn of NVFLARE for `federation.py`: its own server, sites and jobs as it provisions them, each in processes.

It is installed into an environment of its own, below `bench-out`, since what it pins does not agree with ours.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import yaml
from cohorts import ROOT
from exchange_sides import SITES, Line, Meter, Turn, follow

from sfumato_common.errors import BusyError
from sfumato_common.supervise import Child, free_port, run_to_end

VERSION = "2.9.0"
_ENVIRONMENT = ROOT / "bench-out" / "nvflare"
_JOB = Path(__file__).with_name("nvflare_job")
_SERVER, _ADMIN = "localhost", "admin@bench.org"


def missing() -> str:
    """Why there is no NVFLARE to measure; empty where there is, after it was installed here if need be."""
    python = _ENVIRONMENT / "bin" / "python"
    if _version(python) == VERSION:
        return ""
    print(f"installing nvflare {VERSION} into an environment of its own", flush=True)
    steps = [
        [sys.executable, "-m", "venv", str(_ENVIRONMENT)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"nvflare=={VERSION}"],
    ]
    try:
        for step in steps:
            code, said = run_to_end(step, dict(os.environ), 400)
            if code:
                return f"not installed: {said.strip().splitlines()[-1] if said.strip() else 'pip failed'}"
    except BusyError as error:
        return f"not installed: {error}"
    return "" if _version(python) == VERSION else "not installed"


def _version(python: Path) -> str:
    if not python.exists():
        return ""
    asked = "import importlib.metadata as m; print(m.version('nvflare'))"
    return run_to_end([str(python), "-c", asked], dict(os.environ), 60)[1].strip()


def turn(root: Path, exchanges: int, floats: int) -> Turn:
    """One start, and its exchanges."""
    done, out, port, programs = Turn(), root / "seconds", free_port(), _ENVIRONMENT / "bin"
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(root), "LANG": "C.UTF-8", "TMPDIR": str(root)}
    with ExitStack() as stack:
        carried = {site: Line(port) for site in SITES}
        for line in carried.values():
            stack.callback(line.close)
        (root / "project.yml").write_text(yaml.safe_dump(_project(port, carried)))
        provision = [str(programs / "nvflare"), "provision", "-p", str(root / "project.yml"), "-w", str(root / "kits")]
        code, said = run_to_end(provision, environment, 120)
        assert code == 0, said
        kits = root / "kits" / "exchange" / "prod_00"
        began = time.monotonic()

        def start(name: str, command: list[str]) -> Child:
            child = Child(name, command, environment, root / f"{name}.log")
            stack.callback(child.stop)
            return child

        start("server", [str(kits / _SERVER / "startup" / "sub_start.sh"), "--once"])
        sites = [start(site, [str(kits / site / "startup" / "sub_start.sh"), "--once"]) for site in SITES]
        words = [str(kits / _ADMIN), str(root / "job"), str(out), *map(str, (exchanges + 1, floats, len(SITES)))]
        start("submit", ["/usr/bin/env", "-C", str(_JOB), str(programs / "python"), "submit.py", *words])
        follow(out, done, began, lambda: Meter([site.pid for site in sites], carried), exchanges, 400.0)
    return done


def _project(port: int, carried: dict[str, Line]) -> dict[str, object]:
    """What its provisioning reads: one server, the sites, which reach it by their lines, and an administrator."""
    at = {site: {"host": _SERVER, "port": line.port} for site, line in carried.items()}
    builders = {
        "workspace.WorkspaceBuilder": {"template_file": ["master_template.yml"]},
        "static_file.StaticFileBuilder": {"config_folder": "config"},
        "cert.CertBuilder": {},
        "signature.SignatureBuilder": {},
    }
    return {
        "api_version": 3,
        "name": "exchange",
        "description": "an exchange without work",
        "participants": [
            {"name": _SERVER, "type": "server", "org": "bench", "fed_learn_port": port},
            *({"name": site, "type": "client", "org": "bench", "connect_to": at[site]} for site in SITES),
            {"name": _ADMIN, "type": "admin", "org": "bench", "role": "project_admin"},
        ],
        "builders": [{"path": f"nvflare.lighter.impl.{name}", "args": args} for name, args in builders.items()],
    }
