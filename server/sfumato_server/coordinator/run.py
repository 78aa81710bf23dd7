"""The coordinator's composition root: intake, SuperLink, the study's run, then publishing; one at a time per home."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sfumato_common.errors import FederationError
from sfumato_common.files import write_json
from sfumato_common.supervise import Child, exclusive
from sfumato_server.coordinator.home import CoordinatorHome
from sfumato_server.enrol import Registry, load_authority
from sfumato_server.intake import IntakeCredentials, IntakeServer
from sfumato_server.intake.admission import package_path
from sfumato_server.pool import Pool, pool_packages
from sfumato_server.publish import publish
from sfumato_server.rounds.superlink import Control, SuperLinkSettings, code_free_bundle, start_superlink
from sfumato_server.status.board import read_board
from sfumato_server.status.sheets import training_pictures

_START_SECONDS = 60.0
_PACKAGES = ("flwr", "torch", "opacus", "dp-accounting", "numpy", "cryptography", "grpcio", "pydicom")


@dataclass(frozen=True)
class Listen:
    """Where the coordinator's SuperLink and intake listen."""

    host: str
    port: int
    intake_port: int


def run_coordinator(root: Path, out: Path, listen: Listen, watch: Callable[[], None] = lambda: None) -> Path:
    """Run the home's study from first connection to published set; returns the published folder.

    `watch` is called about twice a second. Raises BusyError (ports, second run) and FederationError (study stopped).
    """
    home = CoordinatorHome(root.resolve())
    plan = home.plan()
    authority = load_authority(home.root)
    registry = Registry(home.root)
    absent = sorted(
        set(plan.sites) - {name for name, record in registry.sites().items() if record.status == "enrolled"}
    )
    if len(plan.sites) - len(absent) < plan.federation.quorum:
        raise FederationError(f"site '{absent[0]}' of the plan is not enrolled and the quorum cannot be met; enrol it")
    credentials = IntakeCredentials(
        authority.server_key_path.read_bytes(), authority.server_certificate_path.read_bytes(), authority.ca_pem
    )
    with exclusive(home.root, f"the coordinator of study '{plan.study}'"):
        home.status_file.unlink(missing_ok=True)
        home.result_file.unlink(missing_ok=True)
        started = time.time()
        intake = IntakeServer(home.root, plan, registry, f"{listen.host}:{listen.intake_port}", credentials)
        intake.start()
        superlink: Child | None = None
        try:
            superlink = start_superlink(
                SuperLinkSettings(
                    listen.host,
                    listen.port,
                    authority.ca_path,
                    authority.server_certificate_path,
                    authority.server_key_path,
                    home.root,
                    home.logs / "superlink.log",
                )
            )
            _federate(home, registry, superlink, listen, authority.ca_pem, watch)
        finally:
            if superlink is not None:
                superlink.stop()
            intake.stop()
        return _publish(home, out, started)


def _federate(
    home: CoordinatorHome,
    registry: Registry,
    superlink: Child,
    listen: Listen,
    ca_pem: bytes,
    watch: Callable[[], None],
) -> None:
    """Register the enrolled sites' keys, start the run and wait for its outcome."""
    control = Control(f"{_reachable(listen.host)}:{listen.port}", ca_pem)
    try:
        control.wait_until_up(superlink, _START_SECONDS)
        records = {name: registry.sites()[name] for name in home.plan().sites if name in registry.sites()}
        enrolled = {name: record for name, record in records.items() if record.status == "enrolled"}
        home.write_nodes(
            {name: control.register(record.node_key.encode(), name) for name, record in sorted(enrolled.items())}
        )
        run = control.start_run(code_free_bundle())
        write_json(home.root / "ports.json", {"superlink": listen.port, "intake": listen.intake_port})
        while not home.result_file.exists():
            watch()
            if superlink.poll() is not None or control.run_status(run).startswith("finished"):
                break
            time.sleep(0.5)
    finally:
        control.close()
    if not home.result_file.exists():
        raise FederationError("the study's run ended without a result; the SuperLink's log in 'logs' says why")


def _publish(home: CoordinatorHome, out: Path, started: float) -> Path:
    result: dict[str, Any] = json.loads(home.result_file.read_text())
    if result["outcome"] != "completed":
        raise FederationError(result["reason"])
    plan = home.plan()
    before = time.time()
    pool = pool_packages(home.root, plan, Registry(home.root))
    pictures = training_pictures(home.root, plan.digest)
    run_info = {
        "study": plan.study,
        "plan_hash": plan.digest,
        "exchanges": result["exchanges"],
        "choice": result["choice"],
        "training": pictures,
        "package_bytes": _package_bytes(home, pool),
        "seconds": round(time.time() - started, 1),
        "versions": {name: version(name) for name in _PACKAGES if _is_installed(name)}
        | {"python": platform.python_version()},
    }
    published = publish(pool, plan, out, load_authority(home.root), run_info, result["utility"])
    # the report shows the pictures; this file is for figures
    run_info["training"] = [{key: value for key, value in item.items() if key != "uri"} for item in pictures]
    run_info["publish_seconds"] = round(time.time() - before, 2)
    run_info["plan"] = plan.model_dump(mode="json")
    write_json(out / "run.json", {**run_info, "utility": result["utility"], "status": read_board(home.status_file)})
    return published.folder


def _package_bytes(home: CoordinatorHome, pool: Pool) -> dict[str, int]:
    """Bytes of all packages by site."""
    sizes = dict.fromkeys(pool.sites, 0)
    for site, part in pool.provenance:
        sizes[site] += package_path(home.root, site, part).stat().st_size
    return sizes


def _reachable(host: str) -> str:
    """The address under which this machine reaches its own port."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
